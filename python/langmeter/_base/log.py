"""The logger `langmeter`: nothing that it writes can forge a line or draw on a terminal.

Names of models, labels, texts of exceptions come from outside. What does not print in a message, or
in the text of an exception, is escaped, as in tables; the lines of a traceback stay lines.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

from langmeter._base.text import printable


class _Printable(logging.Filter):
    """Escapes the message of a record and the text of its exception; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape in place, and return True."""
        try:
            message = record.getMessage()
        except Exception:  # a value that cannot be shown
            message = f"{record.msg} (its values cannot be shown)"
            record.msg, record.args = printable(message), None
        if not message.isprintable():  # else kept in parts, for tools that group messages by them
            record.msg, record.args = printable(message), None
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is not None and not record.exc_text:
            record.exc_text = _traceback(error)
        return True


def _traceback(error: BaseException, depth: int = 8) -> str:
    """Format an exception and its causes as Python does, each one's text on one line."""
    before = error.__cause__
    how = "The above exception was the direct cause of the following exception:"
    if before is None and not error.__suppress_context__:
        before = error.__context__
        how = "During handling of the above exception, another exception occurred:"
    lines = [] if before is None or not depth else [_traceback(before, depth - 1), "", how, ""]
    if error.__traceback__ is not None:
        lines.append("Traceback (most recent call last):")
        frames = "".join(traceback.format_tb(error.__traceback__))
        lines += [printable(line) for line in frames.splitlines()]
    kind, text = type(error), printable(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return "\n".join([*lines, f"{printable(name)}: {text}" if text else printable(name)])


def logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose records are escaped."""
    result = logging.getLogger(name)
    result.addFilter(_PRINTABLE)
    return result


_PRINTABLE: Final = _Printable()
log: Final = logger("langmeter")
