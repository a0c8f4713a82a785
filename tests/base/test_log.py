"""What the logger `langmeter` writes: nothing from outside forges a line or draws on a terminal."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.outputs import ChatResult

from langmeter import Budget, Meter, install
from langmeter._base.delivery import notices
from langmeter._base.log import log, logger
from langmeter.prices import PriceBook
from tests.support.models import chat_model

EVIL = "evil\n2026-01-01 ERROR root: forged \x1b[31m\u202e\r"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a plain handler writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    loggers = (logging.getLogger("langmeter"), logging.getLogger("langmeter.prices"))
    for each in loggers:
        each.addHandler(handler)
    yield stream
    for each in loggers:
        each.removeHandler(handler)


def lines(stream: io.StringIO) -> list[str]:
    """The lines; each has only what prints."""
    text = stream.getvalue()
    for character in ("\x1b", "\r", "\u202e"):
        assert character not in text
    found = text.splitlines()
    assert not any(line.startswith("2026-01-01") for line in found), text
    return found


def test_names_of_models_and_providers_are_escaped(written: io.StringIO) -> None:
    """Of models without a price, and of those that send no usage."""
    model = chat_model(metadata={"model_name": EVIL, "model_provider": EVIL}, usage=None)
    model.invoke("hi", config={"callbacks": [meter := Meter()]})
    chat_model(metadata={"model_name": EVIL}).invoke("hi", config={"callbacks": [meter]})
    meter.snapshot()
    found = lines(written)
    assert any("evil\\n2026" in line for line in found)
    assert all(line.startswith("WARNING ") for line in found)


def test_names_of_budgets_are_escaped(written: io.StringIO) -> None:
    """The name of a budget, which may be that of a request's label, is escaped in its warning."""
    meter = Meter(budgets=[Budget(calls=1, name=f"of {EVIL}")], prices=PriceBook({}))
    chat_model().invoke("hi", config={"callbacks": [meter]})
    assert notices.flush(5.0)
    assert any("budget of evil\\n" in line for line in lines(written))


class _FailingError(Exception):
    """An exception whose text a server chose."""


def test_exceptions_are_escaped_and_tracebacks_stay_readable(written: io.StringIO) -> None:
    """Of a callback that raises, with its cause; each exception's text is one line."""

    def fail(event: Any) -> None:
        try:
            raise KeyError(EVIL)
        except KeyError as error:
            raise _FailingError(EVIL) from error

    meter = Meter(on_event=fail)
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    found = lines(written)
    assert any(line.startswith("WARNING on_event=") for line in found)
    assert "Traceback (most recent call last):" in found
    assert any(line.startswith("KeyError: ") for line in found)
    assert "The above exception was the direct cause of the following exception:" in found
    assert any("_FailingError: evil\\n2026-01-01 ERROR" in line for line in found)


def test_an_exception_in_a_hook_is_escaped(written: io.StringIO) -> None:
    """A response whose attributes raise what a server said."""

    class Response(ChatResult):
        def __getattribute__(self, name: str) -> Any:
            if name == "generations":
                raise ValueError(EVIL)
            return super().__getattribute__(name)

    meter = Meter()
    meter.on_llm_end(Response(generations=[]), run_id=__import__("uuid").uuid4())  # type: ignore[arg-type]
    lines(written)


def test_values_that_cannot_be_shown_do_not_lose_the_line(written: io.StringIO) -> None:
    """Whose repr raises, or whose text cannot be had."""

    class HostileError(Exception):
        def __repr__(self) -> str:
            raise RuntimeError(EVIL)

        __str__ = __repr__

    log.warning("%r failed", HostileError())
    log.warning("a failure", exc_info=HostileError())
    found = lines(written)
    assert found[0] == "WARNING %r failed (its values cannot be shown)"
    assert found[1] == "WARNING a failure"
    assert found[2].endswith("HostileError: <HostileError>")


def test_what_prints_is_written_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A message keeps its parts, by which tools group; a chain of exceptions is shortened."""
    error: Exception = ValueError("0")
    for number in range(1, 12):
        before, error = error, ValueError(str(number))
        error.__context__ = before
    logger("langmeter.prices").warning("%s and %d", "one", 2, exc_info=error)
    (record,) = caplog.records
    assert (record.msg, record.args) == ("%s and %d", ("one", 2))
    assert record.exc_text is not None
    assert record.exc_text.endswith("ValueError: 11")
    assert "another exception occurred" in record.exc_text
    assert "ValueError: 3\n" in record.exc_text
    assert "ValueError: 2\n" not in record.exc_text


def test_a_label_cannot_forge_a_line() -> None:
    """Nor in the table and the representation of its row; no value is `(none)`."""
    meter = install(labels="team")
    chat_model().invoke("hi", config={"metadata": {"team": EVIL}})
    chat_model().invoke("hi")
    snapshot = meter.snapshot()
    for text in (str(snapshot), *map(repr, snapshot.labels.values())):
        assert all(line.isprintable() for line in text.split("\n"))
    assert "team=evil\\n2026" in str(snapshot)
    if ("team", "") in snapshot.labels:
        assert "team=(none)" in str(snapshot)
