"""Every exception that langmeter raises on purpose. Imports nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal


class LangmeterError(Exception):
    """Base of langmeter's own exceptions."""


class Problem(NamedTuple):
    """Why one setting is refused.

    Attributes:
        key: the setting: "max_runs", "budgets[0].per"; "" for a whole file.
        message: what it must be, what it is and what helps, on one line.
        value: the value as it is shown; "" where there is none.
        allowed: what it must be.
        remedy: what to do instead; "" if `allowed` says it.
        source: path of the file or name of the environment variable; "" for a keyword.
        line: line of the file, from 1; None where there is none.
    """

    key: str
    message: str
    value: str = ""
    allowed: str = ""
    remedy: str = ""
    source: str = ""
    line: int | None = None

    def __str__(self) -> str:
        """Return the message, with the file and line before it."""
        line = "" if self.line is None else f":{self.line}"
        # A variable is named in the message, in the place of the setting.
        is_file = self.source and not self.source.startswith("LANGMETER_")
        return f"{self.source}{line}: {self.message}" if is_file else self.message


class ConfigError(LangmeterError, ValueError):
    """Settings are unknown or out of range; the message names each value, its range and a remedy.

    Attributes:
        problems: everything that is wrong, one `Problem` for each setting.
    """

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (Problem("", message),)

    @classmethod
    def of(cls, problems: list[Problem]) -> ConfigError:
        """Return one error for several problems, each on a line of its own."""
        lines = list(map(str, problems))
        if len(lines) > 1:
            lines = [f"{len(lines)} settings are refused:", *(f"  {line}" for line in lines)]
        return cls("\n".join(lines), tuple(problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the problems too."""
        return type(self), (str(self), self.problems)


class SourceError(LangmeterError):
    """A source of snapshots does not answer, or not with a snapshot; the message names it."""


class StoreError(LangmeterError):
    """The store of a shared budget does not answer, or not in time; the message names it."""


#: Why a budget refuses a call.
Reason: TypeAlias = Literal["limit", "unpriced", "prices", "store"]
#: The first of them, by the recorder's code.
REASONS: Final[tuple[Reason, ...]] = ("limit", "unpriced", "prices")


class BudgetExceeded(LangmeterError):  # noqa: N818 (the field's name for it)
    """A budget refused a call, which was not made.

    Attributes:
        budget: name of the budget.
        scope: what it covers; empty for everything.
        unit: "usd", "tokens" or "calls".
        limit, spent, reserved: Decimal for "usd", else int; reserved is for calls in flight.
        resets_at: when the next period begins (UTC); None when it never does.
        reason: "limit": the worst case of the call does not fit what is left. "unpriced": the model
            has no price, and the budget has `unpriced="block"`. "prices": the price catalogue could
            not be loaded. "store": what this process had leased is used up, or its lease has ended,
            and the store of the budget does not answer.
    """

    def __init__(
        self,
        budget: str,
        scope: Mapping[str, tuple[str, ...]],
        unit: str,
        limit: Decimal | int,
        spent: Decimal | int,
        reserved: Decimal | int,
        resets_at: datetime | None,
        reason: Reason = "limit",
    ) -> None:
        super().__init__(budget, scope, unit, limit, spent, reserved, resets_at, reason)
        self.budget = budget
        self.scope = scope
        self.unit = unit
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.resets_at = resets_at
        self.reason = reason

    def __str__(self) -> str:
        """The message: what happened, and the remedy."""
        if self.reason == "unpriced":
            return (
                f"the budget {self.budget!r} refuses calls of a model without a price; give it one "
                "with PriceBook.set, or set unpriced to 'allow' or to an amount a call"
            )
        if self.reason == "prices":
            return (
                f"the budget {self.budget!r} cannot judge the call: prices could not be loaded; "
                "wait for them with PriceBook.warm(wait=True) at start-up, or set a price with "
                "PriceBook.set"
            )
        if self.reason == "store":
            return (
                f"the budget {self.budget!r} cannot judge the call: its store does not answer, and "
                "what this process had leased is used up; see the log for the store's error"
            )
        spent, reserved, limit = (
            f"{amount.normalize():f}" if not isinstance(amount, int) else str(amount)
            for amount in (self.spent, self.reserved, self.limit)
        )
        unit = "USD" if self.unit == "usd" else self.unit
        held = f" and {reserved} reserved for calls in flight" if self.reserved else ""
        return (
            f"the call does not fit the budget {self.budget!r}: {spent} spent{held} "
            f"of {limit} {unit}; {self._remedies()}"
        )

    def _remedies(self) -> str:
        remedies = [f"wait until {self.resets_at:%Y-%m-%d %H:%M} UTC"] if self.resets_at else []
        if self.reserved:
            remedies.append("let calls in flight end")
        if self.unit != "calls" and self.spent < self.limit:
            remedies.append("set max_tokens on the call")
        remedies.append("raise the limit")
        *first, last = remedies
        return f"{', '.join(first)}, or {last}" if first else last


class StreamDiverged(LangmeterError):  # noqa: N818 (what happened, as BudgetExceeded)
    """A stream broke, and its replay is another answer than the one it was to continue.

    Attributes:
        attempt: number of the attempt that gave the other answer; the first attempt was 1.
        discarded_characters: length of the visible text that had been handed on.
    """

    def __init__(self, attempt: int, discarded_characters: int) -> None:
        super().__init__(attempt, discarded_characters)
        self.attempt = attempt
        self.discarded_characters = discarded_characters

    def __str__(self) -> str:
        """The message: what happened, and the remedy."""
        return (
            f"attempt {self.attempt} gives another answer than the {self.discarded_characters} "
            "characters already handed on; set temperature=0 and a seed on the model, or take "
            "new answers with on_restart='signal'"
        )


class StreamTruncated(LangmeterError):  # noqa: N818
    """A stream ended without an error, and without the model's word that it was done.

    Attributes:
        attempt: number of the attempt, from 1.
    """

    def __init__(self, attempt: int) -> None:
        super().__init__(attempt)
        self.attempt = attempt

    def __str__(self) -> str:
        """The message: what happened, and the remedy."""
        return (
            f"attempt {self.attempt} ended without a finish reason; "
            "leave out require_finish if this model never sends one"
        )


class NoProviderError(LangmeterError):
    """No provider of a `ProviderManager` could take a call, which was not made.

    Attributes:
        obstacles: of each provider, why it could not: "open", "throttled", "context" and so on.
        returns_in: seconds until the first of them may be called again; None if none will be.
    """

    def __init__(self, obstacles: Mapping[str, str], returns_in: float | None = None) -> None:
        super().__init__(obstacles, returns_in)
        self.obstacles = dict(obstacles)
        self.returns_in = None if returns_in is None or returns_in == float("inf") else returns_in

    def __str__(self) -> str:
        """The message: what happened, and the remedy."""
        reasons = ", ".join(f"{name}: {why}" for name, why in self.obstacles.items())
        if self.returns_in is not None:
            remedy = f"the first returns in {self.returns_in:.0f} s: wait longer with wait=…"
        else:
            remedy = "add a provider that can, or enable(name) one whose key is new"
        return f"no provider can take the call ({reasons}); {remedy}"


class SnapshotError(LangmeterError, ValueError):
    """A text or dict is not a snapshot, or has a newer format."""
