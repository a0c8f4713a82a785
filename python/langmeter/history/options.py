"""Settings of a history."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from langmeter._base.check import refusal, whole_number
from langmeter._base.options import Rule, check_options, real, ruled, whole
from langmeter._base.spans import Length, seconds_of
from langmeter._base.text import without_password

_HOUR: Final = 3600
#: How a file says None.
_FOREVER: Final = "forever"


def _url(name: str, url: object) -> object:
    if isinstance(url, str | os.PathLike) and os.fspath(url):
        return url
    raise refusal(name, "a path or a URL of a database", url, "write metrics.db")


def _interval(name: str, seconds: object) -> int:
    interval = whole_number(name, seconds, 1, _HOUR)
    if _HOUR % interval:
        raise refusal(name, "a part of 3,600", seconds, "write 10, 30, 60 or 300")
    return interval


def _length(name: str, length: Any) -> Any:
    if length is None or length == _FOREVER:
        return None
    seconds_of(name, length)
    return length


_URL: Final = ruled(Rule(_url, {"type": "string", "minLength": 1}))
_INTERVAL: Final = ruled(Rule(_interval, {"type": "integer", "minimum": 1, "maximum": _HOUR}))
_LENGTH: Final = ruled(
    Rule(_length, {"anyOf": [{"type": "string"}, {"type": "number", "exclusiveMinimum": 0}]})
)


@dataclass(frozen=True, kw_only=True, repr=False)
class HistoryOptions:
    """Where a meter writes its history, how often, and how long it is kept.

    Attributes:
        url: path of an SQLite file, or a URL of SQLAlchemy: `postgresql://user@host/database`.
        interval: seconds between two writings, 1 to 3,600; an hour has a whole number of them.
        keep_intervals: how long the rows of intervals are kept, e.g. "48h"; None for ever, in a
            file "forever".
        keep_hours: how long the rows of hours are kept.
        keep_days: how long the rows of days are kept.
        max_pending: intervals that wait in memory while the database does not answer, 2 to 10,000;
            beyond them neighbours are merged: times are coarser, and no figure is lost.
        exit_timeout: seconds that the end of the process waits for the last writing, 0 to 3,600.

    Raises:
        ConfigError: values are of the wrong type or out of range.
    """

    url: str | os.PathLike[str] = field(default="", metadata=_URL)
    interval: int = field(default=60, metadata=_INTERVAL)
    keep_intervals: Length | None = field(default="48h", metadata=_LENGTH)
    keep_hours: Length | None = field(default="90d", metadata=_LENGTH)
    keep_days: Length | None = field(default=None, metadata=_LENGTH)
    max_pending: int = field(default=60, metadata=whole(2, 10_000))
    exit_timeout: float = field(default=5.0, metadata=real(0, 3600, unit="seconds"))

    def __post_init__(self) -> None:
        check_options(self)
        _url("url", self.url)  # a file may leave it out

    def __repr__(self) -> str:
        values = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))
        return without_password(f"HistoryOptions({values})")

    @property
    def is_server(self) -> bool:
        """Whether it is a database that several hosts write to, and not a file of this one."""
        scheme, separator, _ = os.fspath(self.url).partition("://")
        return bool(separator) and not scheme.startswith("sqlite")

    @property
    def keep(self) -> tuple[float | None, float | None, float | None]:
        """Seconds that rows are kept, by level; None for ever."""
        lengths = (self.keep_intervals, self.keep_hours, self.keep_days)
        return tuple(  # type: ignore[return-value]
            None if length is None else seconds_of("keep", length) for length in lengths
        )


def _history(name: str, history: object) -> HistoryOptions | None:
    if history is None or history is False:
        return None
    if isinstance(history, HistoryOptions):
        return history
    if isinstance(history, str | os.PathLike) and os.fspath(history):
        return HistoryOptions(url=history)
    allowed = "a path or a URL of a database, a HistoryOptions (a table in a file), or False"
    raise refusal(name, allowed, history, "write metrics.db")


def _of_file(name: str, history: object, folder: Path) -> HistoryOptions | None:
    options = _history(name, history)
    if options is None or "://" in os.fspath(options.url):
        return options
    return replace(options, url=str(folder / options.url))


#: Rule of the option `history`.
HISTORY: Final = ruled(
    Rule(
        _history,
        {"anyOf": [{"type": "string", "minLength": 1}, {"const": False}]},
        _of_file,
        table=HistoryOptions,
    )
)
