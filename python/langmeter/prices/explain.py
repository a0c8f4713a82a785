"""The price of a model and its source, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Any, NamedTuple

from langmeter._base.money import plain
from langmeter._base.text import printable

from .card import PER_UNIT, RateCard


class Explanation(NamedTuple):
    """The answer to `PriceBook.explain`: `card` is None when the model is unpriced."""

    provider: str
    model: str
    tier: str
    card: RateCard | None
    variants: tuple[str, ...]
    """Tiers with a price of their own."""
    comment: str
    """The source's own remark."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; prices are decimal strings, in the units of `RateCard.usd_rate`."""
        card = self.card
        fields: dict[str, Any] = {"provider": self.provider, "model": self.model, "tier": self.tier}
        if card is None:
            return {**fields, "bands": []}
        return {
            **fields,
            "source": card.source,
            "date": card.date,
            "listed_as": f"{card.provider}/{card.model}",
            "tier_applied": card.tier,
            "valid_from": _iso(card.valid_from),
            "valid_until": _iso(card.valid_until),
            "bands": [
                {
                    "above": max(band.above, 0),
                    **{kind: str(plain(card.usd_rate(kind, number))) for kind in card.priced},
                }
                for number, band in enumerate(card.bands)
            ],
            "uncounted": dict(card.uncounted),
            "tiers": list(self.variants),
            "comment": self.comment,
        }

    def __str__(self) -> str:
        name = printable("/".join(part for part in (self.provider, self.model) if part))
        card = self.card
        if card is None:
            return (
                f"{name}: no price known, so its cost is unknown.\n"
                "Set one, in USD per million tokens: "
                f'prices.set("{printable(self.provider) or "PROVIDER"}", '
                f'"{printable(self.model)}", input=…, output=…)'
            )
        noted = f", of {card.date}" if card.date else ""
        lines = [f"{name}: {card.source}{noted}, listed as {card.provider}/{card.model}"]
        if self.tier:
            lines.append(
                f"tier {printable(self.tier)}"
                + ("" if card.tier else ": no price of its own, standard prices apply")
            )
        if isfinite(card.valid_until):
            lines.append(f"until {_iso(card.valid_until)}")
        for number, band in enumerate(card.bands):
            if number:
                lines.append(f"all tokens of a call with more than {band.above:,} input tokens:")
            for kind in card.priced:
                unit = "each" if kind in PER_UNIT else "per million tokens"
                lines.append(f"  {kind:<15}{plain(card.usd_rate(kind, number)):>12} USD {unit}")
        if not card.priced:
            lines.append("  no charge per token")
        for key, price in card.uncounted:
            lines.append(f"  {key:<15}{price:>12} USD, charged on top, not counted here")
        if self.variants:
            lines.append(f"tiers with prices of their own: {', '.join(self.variants)}")
        if self.comment:
            lines.append(self.comment)
        return "\n".join(lines)


def _iso(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if isfinite(seconds) else None
