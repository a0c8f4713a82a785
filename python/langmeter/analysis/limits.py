"""Time to the limits of budgets: how fast each is used, and when that reaches its limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from langmeter._base.scope import covers_all
from langmeter._base.text import NOTHING, format_duration
from langmeter.prices.own import undated
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import BudgetState, OriginState

#: Seconds of a hundred years: a limit beyond them is never reached.
_NEVER: Final = 100 * 365.25 * 86_400
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Forecast:
    """Budget, and when it reaches its limit, if it is used on at the present rate.

    Attributes:
        origin: recorder of the budget; each process has its own.
        budget: where it stands.
        rate: units of the budget a second; None where it is not known.
        seconds: from the snapshot to the limit: 0 where it is reached, infinite at a rate of 0,
            None where the rate is not known.
        resets_in: seconds to the next period; None for a total, and before the first call.
    """

    origin: str
    budget: BudgetState
    rate: float | None
    seconds: float | None
    resets_in: float | None

    @property
    def share(self) -> float:
        """Part of the limit that is used; above 1 where more was spent than allowed."""
        return self.budget.share

    @property
    def resets_first(self) -> bool:
        """Whether the next period begins before the limit is reached."""
        if not self.seconds or self.resets_in is None:
            return False
        return self.resets_in <= self.seconds

    @property
    def reached_in(self) -> float | None:
        """Seconds to the limit; None where it is not reached in this period, or not known."""
        if self.seconds is None or self.seconds > _NEVER or self.resets_first:
            return None
        return self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: US dollars as text, None for what is not known."""
        return {
            "origin": self.origin,
            **self.budget.to_dict(),
            "share": self.share,
            "per_second": self.rate,
            "seconds_to_limit": self.reached_in,
            "resets_first": self.resets_first,
        }

    def text(self) -> str:
        """Return when the limit is reached: `2 h 05 m`, `reached`, `resets first`."""
        if self.seconds is None:
            return NOTHING
        if self.seconds == 0:
            return "reached"
        if self.resets_first:
            return "resets first"
        return "never" if self.seconds > _NEVER else format_duration(self.seconds)


def forecasts(snapshot: Snapshot, before: Snapshot | None = None) -> list[Forecast]:
    """Return a forecast for each budget, that of the one closest to its limit in time first.

    Args:
        snapshot: its `state` has the budgets.
        before: an earlier snapshot of the same source: the rate is that since then. Without it, or
            where a period began meanwhile, the rate is the mean of the period so far.
    """
    earlier = {} if before is None else {each.origin: each for each in before.state.origins}
    rows = [
        row
        for origin in snapshot.state.origins
        for row in _of_origin(origin, earlier.get(origin.origin), snapshot.started_at)
    ]
    return sorted(rows, key=_urgency)


def tightest(rows: Iterable[Forecast], names: Mapping[str, str]) -> Forecast | None:
    """Return the first budget that covers all calls of a row of figures; None where none does.

    Args:
        rows: as `forecasts` returns them, the first to reach its limit first.
        names: provider, model and keys of labels that the row is of; {} for all calls. A scope
            names models as requested, so the date of a model that answered is left out, too.
    """
    forms = [names]
    if "model" in names and (model := undated(names["model"])) != names["model"]:
        forms.append({**names, "model": model})
    for row in rows:
        scope = row.budget.scope
        if scope is not None and any(covers_all(dict(scope), form) for form in forms):
            return row
    return None


def _of_origin(
    origin: OriginState, earlier: OriginState | None, started: datetime | None
) -> Iterator[Forecast]:
    now = _moment(origin.taken_at_unix_nano)
    before = {} if earlier is None else {each.name: each for each in earlier.budgets}
    for budget in origin.budgets:
        resets_in = None if budget.resets is None else (budget.resets - now).total_seconds()
        rate = None
        last = before.get(budget.name)
        if earlier is not None and last is not None and last.resets == budget.resets:
            passed = (origin.taken_at_unix_nano - earlier.taken_at_unix_nano) / 1e9
            rate = _rate(float(budget.used) - float(last.used), passed)
        if rate is None:
            begins = [each for each in (_begin(budget), started) if each is not None]
            passed = (now - max(begins)).total_seconds() if begins else 0.0
            rate = _rate(float(budget.used), passed)
        yield Forecast(origin.origin, budget, rate, _seconds(budget, rate), resets_in)


def _rate(used: float, seconds: float) -> float | None:
    return used / seconds if used >= 0 and seconds > 0 else None


def _seconds(budget: BudgetState, rate: float | None) -> float | None:
    left = float(budget.limit - budget.used)
    if left <= 0:
        return 0.0
    if rate is None:
        return None
    return left / rate if rate else math.inf


def _begin(budget: BudgetState) -> datetime | None:
    """Return when the period of a budget began; None for a total, and before the first call."""
    if budget.resets is None:
        return None
    if budget.per in _SECONDS:
        return budget.resets - timedelta(seconds=_SECONDS[budget.per])
    if budget.per == "month":
        return (budget.resets - timedelta(days=1)).replace(day=1)
    return None


def _urgency(row: Forecast) -> tuple[float, float, str]:
    reached = row.reached_in
    return (math.inf if reached is None else reached, -row.share, row.budget.name)


def _moment(unix_nano: int) -> datetime:
    return datetime.fromtimestamp(unix_nano / 1e9, UTC)
