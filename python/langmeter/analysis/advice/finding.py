"""One thing that a snapshot says, with the figures it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from langmeter._base.text import format_usd, printable
from langmeter.analysis.advice.traffic import Cost, Traffic
from langmeter.prices import usd

#: How a saving is meant.
Bound: TypeAlias = Literal["exactly", "at least", "at most"]
Figure: TypeAlias = int | float | Decimal

_REVERSED: Final[dict[Bound, Bound]] = {
    "exactly": "exactly",
    "at least": "at most",
    "at most": "at least",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the traffic of a model says.

    Attributes:
        kind: alternative_model, prompt_caching, unread_cache, service_tier, reasoning, unfinished,
            retried, truncated.
        title: one line for people.
        provider: whose traffic it is about,
        model: and of which model.
        figures: what it rests on, by name: `…_usd` in US dollars, `…_share` a part of 1, others
            calls or tokens as their names say.
        saving: US dollars that this very traffic would have cost less; negative when it would have
            cost more, None when the snapshot does not tell.
        bound: whether `saving` is exact, or the least or the most it can have been.
        assumption: what `saving` takes for granted; "" when nothing.
    """

    kind: str
    title: str
    provider: str
    model: str
    figures: Mapping[str, Figure] = field(hash=False)
    saving: Decimal | None = None
    bound: Bound = "exactly"
    assumption: str = ""

    def __str__(self) -> str:
        lines = [printable(self.title)]
        if self.saving is not None:
            lines.append(f"  {self.saving_text}")
        if self.assumption:
            lines.append(f"  assuming that {self.assumption}")
        lines += [f"    {name:<28}{text:>14}" for name, text in self.figure_texts().items()]
        return "\n".join(lines)

    @property
    def saving_text(self) -> str:
        """The saving and its bound: `saves at most $1.20`; "" where the snapshot has none."""
        if self.saving is None:
            return ""
        verb, bound = "saves", self.bound
        if self.saving < 0:  # to save at least -1 is to cost at most 1
            verb, bound = "costs", _REVERSED[bound]
        return f"{verb} {bound} {format_usd(abs(self.saving))}"

    def figure_texts(self) -> dict[str, str]:
        """Return the figures as text, by name."""
        return {name: _shown(name, figure) for name, figure in self.figures.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: US dollars as text, None for a saving that is not known."""
        return {
            "kind": self.kind,
            "title": self.title,
            "provider": self.provider,
            "model": self.model,
            "figures": {name: _plain(figure) for name, figure in self.figures.items()},
            "saving_usd": None if self.saving is None else _plain(self.saving),
            "bound": self.bound,
            "assumption": self.assumption,
        }


def text(findings: Iterable[Finding]) -> str:
    """Findings as plain text, numbered."""
    lines = [f"{number}. {finding}" for number, finding in enumerate(findings, 1)]
    return "\n\n".join(lines) if lines else "nothing to save was found"


def _plain(figure: Figure) -> int | float | str:
    return f"{figure:f}" if isinstance(figure, Decimal) else figure


def _shown(name: str, figure: Figure) -> str:
    if isinstance(figure, Decimal):
        return format_usd(figure)
    if name.endswith("_share"):
        return f"{figure:.1%}"
    return f"{figure:,}"


def finding(
    found: Traffic,
    kind: str,
    title: str,
    figures: Mapping[str, Figure],
    *,
    saving: int | None = None,
    bound: Bound = "exactly",
    assumption: str = "",
) -> Finding:
    """A finding about some traffic; `saving` in pico-dollars."""
    # What weakens the others is said wherever there is some.
    weak = {
        "unpriced_calls": found.stats.unpriced_calls,
        "estimated_tokens": found.stats.tokens.estimated,
    }
    figures_shown = {
        "calls": found.stats.calls,
        **figures,
        **{name: n for name, n in weak.items() if n},
    }
    return Finding(
        kind,
        f"{found.name}: {title}",
        found.provider,
        found.model,
        MappingProxyType(figures_shown),
        None if saving is None else usd(saving),
        bound,
        assumption,
    )


def costs(name: str, cost: Cost) -> dict[str, Figure]:
    """A cost as one figure, or as two where it is a range."""
    if cost.low == cost.high:
        return {f"{name}_usd": usd(cost.low)}
    return {f"{name}_lowest_usd": usd(cost.low), f"{name}_highest_usd": usd(cost.high)}
