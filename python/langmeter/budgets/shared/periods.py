"""Calendar periods of shared budgets, in a time zone, by the store's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from langmeter._base.check import refusal
from langmeter.budgets.shared.account import MOST

_LENGTHS: Final = {"minute": 60_000, "hour": 3_600_000}


def period(per: str, zone: str, now: int) -> tuple[int, int]:
    """Return begin (inclusive) and end (exclusive) of the period around a time.

    Times are Unix milliseconds. Days and months are those of the zone, with its clock changes.
    """
    if per == "total":
        return 0, MOST
    here = datetime.fromtimestamp(now / 1000, ZoneInfo(zone) if zone != "UTC" else UTC)
    if length := _LENGTHS.get(per):
        offset = round((here.utcoffset() or timedelta()).total_seconds() * 1000)
        begins = now - (now + offset) % length
        return begins, begins + length
    first = here.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "month":
        first = first.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    else:
        following = first + timedelta(days=1)
    return round(first.timestamp() * 1000), round(following.timestamp() * 1000)


def checked_zone(name: str, zone: object) -> str:
    """Return the name of a time zone; raises ConfigError."""
    try:
        if not isinstance(zone, str):
            raise TypeError
        ZoneInfo(zone)
    except (TypeError, ValueError, OSError, KeyError):
        remedy = "write e.g. 'Europe/Berlin'"
        raise refusal(name, "the name of a time zone", zone, remedy) from None
    return zone
