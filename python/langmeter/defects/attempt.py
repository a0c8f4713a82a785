"""Attempts to fix a defect, as blocks of code."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Protocol

from langmeter import _core
from langmeter._base.check import real_number, refusal, whole_number
from langmeter._base.failures import INTERRUPTED, outcome_of
from langmeter.defects import receipt
from langmeter.defects.outcome import Fix, checked_outcome

#: Block of a thread or task: attempt << INDEX_BITS, plus index of the candidate + 1; 0 for none.
Block = ContextVar[int]
#: Blocks around the innermost one.
_around: ContextVar[tuple[int, ...]] = ContextVar("langmeter_blocks", default=())
#: Type of the defect of each block around, the innermost last.
_types: ContextVar[tuple[str, ...]] = ContextVar("langmeter_defect_types", default=())
_MAX_TEXT: Final = _core.MAX_DEFECT_TEXT
_MAX_INDEX: Final = (1 << _core.INDEX_BITS) - 2


class Books(Protocol):
    """The services of a handler that attempts need."""

    @property
    def attempts(self) -> _core.Attempts:
        """The native attempts."""

    @property
    def block(self) -> Block:
        """Where the innermost block of a thread or task is kept."""

    def block_entered(self) -> None:
        """Begin to look for blocks at each run."""

    def reason_given(self, outcome: str, reason: str) -> None:
        """Count why an attempt failed."""


def outcome_of_error(error: BaseException) -> str:
    """Return the outcome of an attempt whose block an exception left, without a verdict."""
    if any(cls.__name__ == "OutputParserException" for cls in type(error).__mro__):
        return "unparsable"
    return "unverified" if outcome_of(error) == INTERRUPTED else "infrastructure"


def current_type() -> str:
    """Return the type of the defect of the innermost block of this thread or task; "" outside."""
    types = _types.get()
    return types[-1] if types else ""


class _InBlock:
    """A block: what runs in it belongs to an attempt, and to a candidate of it."""

    _books: Books

    def _place(self) -> int:
        raise NotImplementedError

    def _type(self) -> str:
        raise NotImplementedError

    def _left(self, error: BaseException | None) -> None:
        """Called when the block is left."""

    def __enter__(self) -> Any:
        place = self._place()
        self._books.block_entered()
        _around.set((*_around.get(), self._books.block.get()))
        self._books.block.set(place)
        _types.set((*_types.get(), self._type()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # By value, not by token: a generator may leave in another context than it entered.
        *others, last = _around.get() or (0,)
        _around.set(tuple(others))
        self._books.block.set(last)
        _types.set(_types.get()[:-1])
        self._left(error)

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


class Candidate(_InBlock):
    """One change that an attempt proposes; as a block, its calls are those that made it.

    A verdict on the recommended candidate is one on its attempt too.

    Attributes:
        index: its number in the attempt.
    """

    def __init__(self, attempt: Attempt, index: int) -> None:
        self._attempt, self.index, self._books = attempt, index, attempt._books

    def __enter__(self) -> Candidate:
        super().__enter__()
        return self

    def _place(self) -> int:
        return self._attempt._place() + self.index + 1

    def _type(self) -> str:
        return self._attempt._type()

    def succeeded(self, *, score: float | None = None, source: str = "caller") -> None:
        """Record that the change is right; `score` is its quality, 0 to 1."""
        self.judge(Fix("fixed", score, source=source))

    def failed(
        self,
        *,
        reason: str = "",
        outcome: str = "failed",
        score: float | None = None,
        source: str = "caller",
    ) -> None:
        """Record that the change is wrong; arguments as of `Attempt.failed`."""
        if outcome == "fixed":
            raise refusal("outcome", "another one than 'fixed'", outcome, "call succeeded()")
        self.judge(Fix(outcome, score, source=source, reason=reason))

    def judge(self, fix: Fix) -> None:
        """Record what `score_fix` returned for the change.

        `fixed` is right; `infrastructure`, `unscored`, `unverified` and None leave it open; every
        other outcome is wrong. On the recommended candidate it is the verdict on its attempt too.
        """
        books, number, source = self._books, self._attempt._number, _source(fix.source)
        outcome = fix.outcome or "unverified"
        if books.attempts.judge_candidate(number, self.index, outcome, source, fix.score):
            _count_reason(books, fix)


class Attempt(_InBlock):
    """One attempt to fix a defect.

    The model, tool and retriever calls in its block count to it, also in tasks and threads that
    LangChain starts. In a thread of your own enter it again, `with attempt:`, or run the function
    in `contextvars.copy_context()`. It ends when its last block is left; verdicts may come before
    and after.

    A block that an exception leaves is `infrastructure`, or `unparsable` for an
    OutputParserException, until a verdict says otherwise.
    """

    def __init__(
        self,
        books: Books,
        defect_id: str,
        *,
        type: str = "",  # as the metadata calls it
        severity: str = "",
        language: str = "",
        number: int | None = None,
        strategy: str = "",
    ) -> None:
        self._books = books
        self.defect_id = _text("defect_id", defect_id)
        if not defect_id:
            raise refusal("defect_id", "a text that is not empty", defect_id)
        # Paths and fingerprints are longer; the native module keeps a hash.
        self._defect = defect_id
        self._about = (
            _text("type", type),
            _text("severity", severity),
            _text("language", language),
            _text("strategy", strategy),
        )
        if number is not None:
            whole_number("number", number, 1, 2**32 - 1)
        self._wanted, self._opened, self._entries = number, 0, 0
        self._ended: str | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Attempt:
        with self._lock:
            if not self._opened:
                attempts, wanted = self._books.attempts, self._wanted
                self._opened = attempts.open(self._defect, *self._about, wanted)
            self._entries += 1
        super().__enter__()
        return self

    async def __aenter__(self) -> Attempt:
        return self.__enter__()

    def _place(self) -> int:
        return self._number << _core.INDEX_BITS

    def _type(self) -> str:
        return self._about[0]

    def _left(self, error: BaseException | None) -> None:
        with self._lock:
            self._entries -= 1
            if error is not None:
                self._ended = outcome_of_error(error)
            if self._entries == 0:
                self._books.attempts.close(self._number, self._ended or "unverified")

    @property
    def _number(self) -> int:
        if not self._opened:
            raise RuntimeError(
                f"the attempt at {self.defect_id!r} has not begun; enter it first: with attempt: …"
            )
        return self._opened

    @property
    def id(self) -> str:
        """Id within this process, for `record`. Raises RuntimeError before the block."""
        return self._books.attempts.id(self._number)

    @property
    def receipt(self) -> str:
        """Text by which `record` takes a verdict in another process or on another host.

        Names type, severity, provider, model, times and cost; the id of the defect is in it as a
        hash only. Raises RuntimeError before the block has ended, and once 65,536 attempts have
        begun since.
        """
        parts = self._books.attempts.receipt(self._number)
        if parts is None:
            raise RuntimeError(
                f"the attempt at {self.defect_id!r} has not ended or is no longer remembered; take "
                "its receipt right after the block"
            )
        return receipt.write(parts)

    def candidate(
        self, index: int, *, recommended: bool = False, confidence: float | None = None
    ) -> Candidate:
        """Return one of the changes that the attempt proposes; at most 16 are counted.

        Args:
            index: its number, 0 to 1,048,574.
            recommended: whether it is the one to apply. Then the attempt belongs to the model that
                made it.
            confidence: what the model states of it, 0 to 1; kept for the recommended one.

        Raises:
            ConfigError: an argument outside of its range.
        """
        whole_number("index", index, 0, _MAX_INDEX)
        self._books.attempts.candidate(self._number, index, recommended=recommended)
        if confidence is not None:
            real_number("confidence", confidence, 0, 1)
            if recommended:
                self.state_confidence(confidence)
        return Candidate(self, index)

    def state_confidence(self, confidence: float) -> None:
        """Note the confidence that the model states, 0 to 1; it is never a verdict."""
        real_number("confidence", confidence, 0, 1)
        self._books.attempts.state_confidence(self._number, confidence)

    def succeeded(self, *, score: float | None = None, source: str = "caller") -> None:
        """Record that the defect is fixed.

        Args:
            score: quality from 0 to 1; None if unknown.
            source: whose verdict it is: reviewer, re-scan, tests, caller, compile, form, or a text
                of your own, which ranks as caller.
        """
        self._judge("fixed", score, source)

    def failed(
        self,
        *,
        reason: str = "",
        outcome: str = "failed",
        score: float | None = None,
        source: str = "caller",
    ) -> None:
        """Record that the defect is not fixed.

        Args:
            reason: why, at most 64 characters; counted in `failure_reasons`, never exported.
            outcome: one of `langmeter.defects.OUTCOMES` but `fixed`.
            score: quality from 0 to 1; None if unknown.
            source: as of `succeeded`.
        """
        if outcome == "fixed":
            raise refusal("outcome", "another one than 'fixed'", outcome, "call succeeded()")
        self._judge(outcome, score, source)
        if reason:
            self._books.reason_given(outcome, _text("reason", reason))

    def judge(self, fix: Fix) -> None:
        """Record the verdict that `score_fix`, or a function like `read_fix`, returned."""
        apply(self._books, self._number, fix)

    def _judge(self, outcome: str, score: float | None, source: str) -> None:
        judge(self._books, self._number, outcome, score, source)

    def __repr__(self) -> str:
        return f"<Attempt at {self.defect_id!r}>"


def number_around(books: Books, run_id: object) -> int | None:
    """Return the number of the attempt of a run in flight or of the block, whichever began later.

    None outside of both.
    """
    of_run = None if run_id is None else books.attempts.of_run(run_id)
    return max(of_run or 0, books.block.get() >> _core.INDEX_BITS) or None


def judge(books: Books, number: int, outcome: str, score: float | None, source: str) -> bool:
    """Record a verdict on an attempt; returns whether it now counts."""
    checked_outcome(outcome)
    if score is not None:
        real_number("score", score, 0, 1)
    return books.attempts.judge(number, outcome, _source(source), score) in ("counts", "same")


def apply(books: Books, number: int, fix: Fix) -> None:
    """Record what an answer says about the fix of an attempt."""
    for index in range(min(fix.candidates, _core.MAX_CANDIDATES)):
        books.attempts.candidate(number, index)
    if fix.recommended is not None and fix.recommended < fix.candidates:
        books.attempts.candidate(number, fix.recommended, recommended=True)
    if fix.confidence is not None:
        books.attempts.state_confidence(number, fix.confidence)
    if fix.outcome is not None or fix.score is not None:
        judge(books, number, fix.outcome or "unverified", fix.score, fix.source)
        _count_reason(books, fix)


def _count_reason(books: Books, fix: Fix) -> None:
    if fix.outcome is not None and fix.reason and fix.outcome != "fixed":
        books.reason_given(fix.outcome, _text("reason", fix.reason))


def _source(source: object) -> str:
    if source == "":
        raise refusal("source", "a text that is not empty", source)
    return _text("source", source)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise refusal(name, "a text", value)
    return value[:_MAX_TEXT]
