"""Wasted calls: failed, retried, or cut at their limit."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from langmeter._base.money import EXACT
from langmeter.analysis.advice.finding import Figure, Finding, finding
from langmeter.analysis.advice.traffic import Traffic


def unfinished(found: Traffic) -> Iterator[Finding]:
    """Calls without an answer, and what is known to have been spent on them."""
    stats = found.stats
    counts = {name: stats.outcomes[name] for name in ("error", "cancelled", "abandoned")}
    total = sum(counts.values())
    if not total:
        return
    spent: dict[str, Figure] = {}
    for name in ("error", "cancelled"):
        cost = stats.cost_of(name)
        if cost:
            spent[f"{name}_cost_usd"] = cost
    yield finding(
        found,
        "unfinished",
        f"{total:,} of {stats.calls:,} calls gave no answer",
        {
            **{f"{name}_calls": n for name, n in counts.items()},
            "unfinished_share": total / stats.calls,
            **spent,
        },
        saving=_pico(sum(map(Decimal, spent.values()), Decimal(0))),
        bound="at most",
        assumption="none of them had been made" if spent else "",
    )


def retried(found: Traffic) -> Iterator[Finding]:
    """Retried calls."""
    stats = found.stats
    if not stats.retried_calls:
        return
    cost = stats.retried_cost
    yield finding(
        found,
        "retried",
        f"{stats.retried_calls:,} of {stats.calls:,} calls were second attempts or later ones",
        {
            "retried_calls": stats.retried_calls,
            "retried_share": stats.retried_calls / stats.calls,
            **({"retried_cost_usd": cost} if cost else {}),
        },
        saving=_pico(cost),
        bound="at most",
        assumption="the first answers had served, as where only a parser refused them"
        if cost
        else "",
    )


def truncated(found: Traffic) -> Iterator[Finding]:
    """Answers that were cut: paid for and, mostly, asked for once more."""
    stats = found.stats
    answered = stats.outcomes["ok"]
    if not (stats.truncated and answered):
        return
    yield finding(
        found,
        "truncated",
        f"{stats.truncated:,} of {answered:,} answers ended at their limit of tokens: raise it, "
        "or ask for less",
        {
            "truncated_answers": stats.truncated,
            "truncated_share": min(1.0, stats.truncated / answered),
            "mean_output_tokens": stats.tokens.output // max(1, found.calls),
        },
    )


def _pico(usd: Decimal | None) -> int | None:
    return int(EXACT.scaleb(usd, 12)) if usd else None
