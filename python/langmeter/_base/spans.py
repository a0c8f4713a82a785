"""Lengths of time and moments, as people write them: `7d`, `90m`, `2026-10-14T09:30`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from langmeter._base.check import refusal

#: A moment: a datetime (UTC where it has no zone), its text, or how long before now: "7d", a
#: timedelta. None stands for no bound.
Moment: TypeAlias = datetime | timedelta | str | None
#: A length of time: "48h", a timedelta, or seconds.
Length: TypeAlias = timedelta | str | float

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_MOST: Final = 3_153_600_000.0


def seconds_of(name: str, length: object, *, or_zero: bool = False) -> float:
    """Return a length of time in seconds; raises ConfigError unless it is above 0.

    Args:
        name: the argument as the user wrote it.
        length: "90s", "15m", "48h", "7d", "2w", a timedelta, or seconds.
        or_zero: whether it may be 0.
    """
    seconds = None
    if isinstance(length, timedelta):
        seconds = length.total_seconds()
    elif isinstance(length, str) and (match := _LENGTH.fullmatch(length.strip())):
        seconds = float(match[1]) * _UNITS[match[2]]
    elif isinstance(length, int | float) and not isinstance(length, bool):
        seconds = float(length)
    if seconds is None or not 0 <= seconds <= _MOST or not (seconds or or_zero):
        allowed = "a length of time" if or_zero else "a length of time above 0"
        raise refusal(name, allowed, length, "write 90s, 15m, 48h, 7d or 2w")
    return seconds


def moment_of(name: str, moment: object, now: datetime) -> datetime | None:
    """Return a moment in UTC, None for None; raises ConfigError for what is not one.

    Args:
        name: the argument as the user wrote it.
        moment: as `Moment` has it.
        now: what a length of time is counted back from.
    """
    if moment is None:
        return None
    try:
        if isinstance(moment, str) and not _LENGTH.fullmatch(moment.strip()):
            moment = datetime.fromisoformat(moment.strip())
        if isinstance(moment, datetime):
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(moment, str | timedelta):
            return now - timedelta(seconds=seconds_of(name, moment))
    except (ValueError, OverflowError):
        pass
    raise refusal(name, "a moment", moment, "write 2026-10-14, 2026-10-14T09:30 or 7d (ago)")
