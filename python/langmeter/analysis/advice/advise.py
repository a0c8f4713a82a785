"""Advice about spending less, from a snapshot.

A snapshot holds sums of calls. What it cannot know is not guessed: a saving is exact for the same
tokens, or a bound that says so and names what it assumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from math import ceil
from typing import Final

from langmeter.analysis.advice.alternatives import compared, named, relatives
from langmeter.analysis.advice.finding import Finding, costs, finding
from langmeter.analysis.advice.traffic import Cost, Traffic, traffic
from langmeter.analysis.advice.waste import retried, truncated, unfinished
from langmeter.prices import Band, PriceBook, RateCard
from langmeter.prices.book import Moment
from langmeter.snapshot import Snapshot

#: Service tiers that cost less for callers who can wait, with what each requires of a call.
_TIERS: Final = {
    "batch": "every call can wait for a batch, up to a day",
    "flex": "every call can be slower and now and then refused",
}


def advise(
    snapshot: Snapshot,
    *,
    prices: PriceBook | None = None,
    alternatives: Iterable[str | tuple[str, str]] = (),
) -> list[Finding]:
    """Findings about the traffic of a snapshot: the greatest saving first, those without one last.

    `alternatives`: models to compare all with, as `provider/model` or pairs, beside the relatives
    on the provider's own price list. Prices are those at the end of the snapshot. The first call in
    a process loads the catalogue. Raises ValueError for an alternative without a price.
    """
    book = PriceBook() if prices is None else prices
    at = snapshot.taken_at
    others = [named(book, name, at) for name in alternatives]
    findings: list[Finding] = []
    for (provider, model), stats in snapshot.models.items():
        usage = traffic(provider, model, stats, book.card(provider, model, at=at))
        findings += unfinished(usage)
        findings += retried(usage)
        findings += truncated(usage)
        if usage.calls:
            findings += _reasoning(usage)
            findings += _prompt_caching(usage)
            findings += _unread_cache(usage)
            findings += _service_tiers(usage, book, at)
            siblings = list(relatives(usage, book, at))
            titles = {sibling.title for sibling in siblings}
            findings += siblings
            findings += (new for new in compared(usage, others) if new.title not in titles)
    return sorted(findings, key=_order)


def _order(found: Finding) -> tuple[bool, Decimal, str]:
    return found.saving is None, -(found.saving or Decimal(0)), found.title


def _prompt_caching(found: Traffic) -> Iterator[Finding]:
    """Return what caching can have saved at most: what repeats is nowhere in a snapshot."""
    card, cost, tokens = found.card, found.cost, found.stats.tokens
    if card is None or cost is None or "cache_read" not in card.priced:
        return
    plain = found.plain_input
    # The longest call does not repeat another one, and it is at least as long as the mean.
    written = ceil(plain / found.calls)
    read = plain - written
    saving = max(
        read * _read_gain(band, found) - written * max(0, band.cache_write - band.input)
        for band in found.bands(card)
    )
    saving = min(saving // card.scale, cost.high)
    if saving > 0:
        yield finding(
            found,
            "prompt_caching",
            f"{plain:,} of {tokens.input:,} input tokens neither came from a prompt cache "
            "nor went to one",
            {
                "input_tokens": tokens.input,
                "cache_read_tokens": tokens.cache_read,
                "cache_write_tokens": tokens.cache_write,
                "cache_read_share": tokens.cache_read / tokens.input,
                "mean_input_tokens": tokens.input // found.calls,
                "assumed_repeated_share": read / plain,
                **costs("cost", cost),
            },
            saving=saving,
            bound="at most",
            assumption="all of them but one prompt repeat what was cached just before (most "
            "providers cache prompts from 1,024 tokens on)" + _rates(found, card, cost),
        )


def _read_gain(band: Band, found: Traffic) -> int:
    """Return the most that a token read from the cache costs less."""
    tokens = found.stats.tokens
    gains = [band.input - band.cache_read]
    if tokens.audio_input:
        gains.append(band.audio_input - band.cached_audio)
    if tokens.image_input:
        gains.append(band.image_input - band.cached_image)
    return max(gains)


def _unread_cache(found: Traffic) -> Iterator[Finding]:
    """Cache writes that cost more than the reads have saved."""
    card, cost, tokens = found.card, found.cost, found.stats.tokens
    if card is None or cost is None or not tokens.cache_write:
        return
    losses = []
    for band in found.bands(card):
        short = max(0, tokens.cache_write - tokens.cache_write_1h)
        extra = short * (band.cache_write - band.input)
        extra += tokens.cache_write_1h * (band.cache_write_1h - band.input)
        losses.append((extra - tokens.cache_read * (band.input - band.cache_read)) // card.scale)
    if min(losses) > 0:
        yield finding(
            found,
            "unread_cache",
            "writing to the prompt cache cost more than reading from it saved",
            {
                "cache_write_tokens": tokens.cache_write,
                "cache_read_tokens": tokens.cache_read,
                "reads_per_write": round(tokens.cache_read / tokens.cache_write, 2),
            },
            saving=min(losses),
            bound="exactly" if min(losses) == max(losses) else "at least",
            assumption="nothing had been cached" + _rates(found, card, cost),
        )


def _service_tiers(found: Traffic, book: PriceBook, at: Moment | None) -> Iterator[Finding]:
    cost, streamed = found.cost, found.stats.streamed
    if cost is None:
        return
    for tier in book.explain(found.provider, found.model, at=at).variants:
        card = book.card(found.provider, found.model, tier=tier, at=at)
        # A batch cannot be streamed.
        if tier not in _TIERS or card is None or (tier == "batch" and streamed >= found.calls):
            continue
        instead = found.at(card)
        if cost.high > instead.low:
            yield finding(
                found,
                "service_tier",
                f"the same traffic at the {tier} price",
                {
                    "streamed_calls": streamed,
                    **costs("cost", cost),
                    **costs(f"{tier}_cost", instead),
                },
                saving=cost.high - instead.low,
                bound="at most",
                assumption=_TIERS[tier],
            )


def _reasoning(found: Traffic) -> Iterator[Finding]:
    card, cost, tokens = found.card, found.cost, found.stats.tokens
    if not tokens.reasoning:
        return
    saving, assumption = None, ""
    if card is not None and cost is not None:
        dearest = max(band.reasoning for band in found.bands(card))
        saving = min(tokens.reasoning * dearest // card.scale, cost.high)
        assumption = "none of it was needed" + _rates(found, card, cost)
    yield finding(
        found,
        "reasoning",
        f"{tokens.reasoning:,} of {tokens.output:,} output tokens were reasoning",
        {
            "output_tokens": tokens.output,
            "reasoning_tokens": tokens.reasoning,
            "reasoning_share": tokens.reasoning / max(tokens.output, tokens.reasoning),
            **(costs("cost", cost) if cost is not None else {}),
        },
        saving=saving,
        bound="at most",
        assumption=assumption,
    )


def _rates(found: Traffic, card: RateCard, cost: Cost) -> str:
    """Return the assumption for traffic that was not charged at standard rates."""
    standard = found.at(card)
    if standard.low <= cost.low and cost.high <= standard.high:
        return ""
    return ", at standard rates, which are not what was charged"
