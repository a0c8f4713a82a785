"""The compact table of the installed catalogue."""

from __future__ import annotations

from genai_prices.data_snapshot import get_snapshot

from langmeter.prices import table

SNAPSHOT = get_snapshot()
TABLE = table.from_objects("genai-prices", SNAPSHOT.providers)
