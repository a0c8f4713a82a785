"""The price book: (provider, model, tier, time) → rates, resolved once, then from a dict."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import inf
from pathlib import Path
from time import time
from typing import Any, Final, NamedTuple, TypeAlias

from langmeter import _core
from langmeter._base.money import PICO, usd
from langmeter._base.provider_names import catalogue_id, provider_name
from langmeter._base.text import plural

from . import catalogue, listed, own
from .card import RateCard
from .explain import Explanation
from .table import Found

#: A moment: a datetime (naive means UTC) or Unix seconds.
Moment: TypeAlias = datetime | float


class Priced(NamedTuple):
    """The key of a price.

    Attributes:
        provider: our name of the provider.
        model: the model that answered; "" where the response names none.
        requested: the model that was requested.
        deployment: the deployment that was called; "" where the call names none.
        vendor: LangChain's name of the provider, where `provider` is another that the user gave.
        tier: what changes the price, as `Usage.tier` has it.
    """

    provider: str
    model: str
    requested: str = ""
    deployment: str = ""
    vendor: str = ""
    tier: str = ""


#: (valid from, valid until, card or None when unpriced), and the same with those for other times.
_Window: TypeAlias = tuple[float, float, RateCard | None]
_Answer: TypeAlias = tuple[float, float, RateCard | None, tuple[_Window, ...]]

#: Models whose answers are kept; past it all are forgotten and asked again (30 to 100 µs each).
_MAX_ANSWERS: Final = 4096
_MAX_WINDOWS: Final = 8

#: Unix seconds; the last microseconds before it round up to it.
_YEAR_10000: Final = 253_402_300_800

_NIM: Final = Fraction(PICO, 5_000_000)  # 0.0002 USD per 1,000 tokens

#: Prices of whole providers, used when nothing else is known.
_DEFAULTS: Final = {
    "nvidia_nim": own.CustomPrice(
        {"": {"input": ((-1, _NIM),), "output": ((-1, _NIM),)}}, source="default", date=""
    )
}


class PriceBook:
    """Prices of models. Safe to share between threads; nothing here takes a lock.

    Own prices win over the catalogue (genai-prices), whichever of its names a call is known by; a
    model without a price is `None`, never 0. Making one loads no catalogue: the first question that
    own prices leave open does, or `warm` before it.
    """

    __slots__ = ("_answers", "_own", "_snapshot", "cards")

    def __init__(self, prices: Mapping[str, Any] | str | Path | None = None) -> None:
        """`prices`: own prices, see `langmeter.prices.own`; a bad one raises ValueError."""
        self._own: own.CustomPrices = {} if prices is None else own.load(prices)
        self._answers: dict[Priced, _Answer] = {}
        self._snapshot: object = None
        #: The last price by each of the keys, for the native end of a call.
        self.cards = _core.Cards()

    def __repr__(self) -> str:
        return f"<PriceBook: {plural(len(self._own), 'own price')} beside the catalogue>"

    @property
    def version(self) -> int:
        """Grows when a price may have changed: what was unpriced is worth asking again."""
        return self.cards.version

    def _setting(self) -> object:
        """Return the own prices, as `install()` compares them."""
        return self._own

    @property
    def ready(self) -> bool:
        """True when no question waits for the catalogue to load."""
        return catalogue.ready()

    @property
    def loaded(self) -> bool:
        """True when the catalogue is loaded; False before, and where it cannot be."""
        return catalogue.loaded()

    def warm(self, *, wait: bool | float = False) -> PriceBook:
        """Load the catalogue in a daemon thread, once per process.

        It takes 10 ms, and 300 in the first process on a machine. With `wait` the call returns when
        the catalogue is loaded, or after as many seconds.
        """
        catalogue.warm(wait=wait)
        return self

    def card(
        self,
        provider: str,
        model: str,
        *,
        requested: str = "",
        deployment: str = "",
        vendor: str = "",
        tier: str = "",
        at: Moment | None = None,
    ) -> RateCard | None:
        """Return the rates of a model at a time (default: now); None when it has no price.

        Args:
            provider: our name or the catalogue's; "" lets the catalogue tell it from the model's
                name, if it does.
            model: the name that answered, or the only one.
            requested: the name that was asked for, charged where the one that answered is unknown.
            deployment: the name of a deployment, which an own price may have.
            vendor: another name of the provider, whose price counts where `provider` has none.
            tier: "batch", "flex", "priority", "fast" …, several joined by ";". One without a price
                of its own costs the standard price, and `RateCard.tier` is "".
            at: a datetime or Unix seconds.
        """
        key = _key(provider, model, requested, deployment, vendor, tier)
        answer = self._answers.get(key)
        if answer is not None:
            now = time() if at is None else at if type(at) is float else _seconds(at)
            if answer[0] <= now < answer[1]:
                return answer[2]
        return self._resolve(key, time() if at is None else _seconds(at), wait=True)

    def card_now(
        self,
        provider: str,
        model: str,
        *,
        requested: str = "",
        deployment: str = "",
        vendor: str = "",
        tier: str = "",
        at: Moment | None = None,
    ) -> RateCard | None:
        """Return the same without waiting: before the catalogue is loaded by own prices alone."""
        if self.ready:
            names = {"requested": requested, "deployment": deployment}
            return self.card(provider, model, **names, vendor=vendor, tier=tier, at=at)
        key = _key(provider, model, requested, deployment, vendor, tier)
        try:
            return self._resolve(key, time() if at is None else _seconds(at), wait=False)
        except _NotLoadedError:
            return None

    def worst_now(self, names: Priced, answered: Sequence[str] = ()) -> list[RateCard]:
        """Return every price that the rule may choose for a call that begins now, without waiting.

        Those of the requested model, of the dated versions of it that have an own price, and of the
        models known to have answered such calls; each also without the tier, which the provider may
        not grant. Empty while the price of the first and the last of them is not known.
        """
        cards = self._cards(names, (names.model, *answered))
        if cards or self.loaded:
            ours, plain = _providers(names), own.undated(names.model.strip().lower())
            own_names = [model for who, model in tuple(self._own) if who in ours]
            dated = [model for model in own_names if own.undated(model) == plain != model]
            cards |= self._cards(names, dated)
        return list(cards)

    def _cards(self, names: Priced, models: Iterable[str]) -> dict[RateCard, None]:
        """Return the prices of models that may answer a call, with its tier and without."""
        cards: dict[RateCard, None] = {}
        for model in dict.fromkeys(models):
            for tier in dict.fromkeys((names.tier, "")):
                question = names._replace(model=model, requested=names.model, tier=tier)
                card = self.card_now(**question._asdict())
                if card is not None:
                    cards[card] = None
        return cards

    def cost(
        self,
        provider: str,
        model: str,
        *,
        input: int = 0,
        output: int = 0,
        total: int = 0,
        cache_read: int = 0,
        cache_write: int = 0,
        cache_write_1h: int = 0,
        reasoning: int = 0,
        audio_input: int = 0,
        audio_output: int = 0,
        image_input: int = 0,
        image_output: int = 0,
        video_input: int = 0,
        video_output: int = 0,
        cached_audio: int = 0,
        cached_image: int = 0,
        citation: int = 0,
        web_searches: int = 0,
        file_searches: int = 0,
        tier: str = "",
        at: Moment | None = None,
    ) -> Decimal | None:
        """USD for one call; None when the model has no price.

        Counts are inclusive. `input` holds cache_read, cache_write, audio_input, image_input and
        video_input; cache_read, and audio_input or image_input, hold cached_audio and cached_image;
        cache_write holds cache_write_1h; output holds reasoning, citation, audio_output,
        image_output and video_output. `total` is ignored, so that a usage can be passed whole.
        Raises ValueError for counts that are negative, not whole, or greater than what they are
        part of.
        """
        usage = _checked(
            input=input,
            output=output,
            total=total,
            cache_read=cache_read,
            cache_write=cache_write,
            cache_write_1h=cache_write_1h,
            reasoning=reasoning,
            audio_input=audio_input,
            audio_output=audio_output,
            image_input=image_input,
            image_output=image_output,
            video_input=video_input,
            video_output=video_output,
            cached_audio=cached_audio,
            cached_image=cached_image,
            citation=citation,
            web_searches=web_searches,
            file_searches=file_searches,
        )
        card = self.card(provider, model, tier=tier, at=at)
        return None if card is None else usd(card.cost(usage))

    def set(
        self,
        provider: str,
        model: str,
        *,
        input: float | str | Decimal,
        output: float | str | Decimal,
        bands: Iterable[Mapping[str, Any]] = (),
        tiers: Mapping[str, Mapping[str, Any]] | None = None,
        source: str = "own",
        date: str = "",
        **kinds: float | str | Decimal,
    ) -> None:
        """Set an own price, from the next question on; model "*" is every model of the provider.

        USD per million tokens; `kinds`: cache_read, cache_write, cache_write_1h, reasoning,
        audio_input, audio_output, image_input, image_output, video_input, video_output,
        cached_audio, cached_image, citation, and web_search, file_search and request in USD each.
        Raises ValueError.
        """
        key = own.split(f"{provider}/{model}")
        spec: dict[str, Any] = {"input": input, "output": output, "bands": list(bands), **kinds}
        spec |= {"tiers": tiers or {}, "source": source, "date": date}
        self._own[key] = own.entry(f"{provider}/{model}", spec)
        self.refresh()

    def refresh(self) -> None:
        """Ask everything again, e.g. after genai-prices' `UpdatePrices` has fetched new data."""
        # Replaced, not cleared: an answer on its way goes into the old dict, with it.
        self._answers = {}
        self.cards.refresh()

    def explain(
        self,
        provider: str,
        model: str,
        *,
        deployment: str = "",
        tier: str = "",
        at: Moment | None = None,
    ) -> Explanation:
        """Return a model's price and its source; `langmeter prices` prints its `str()`."""
        card = self.card(provider, model, deployment=deployment, tier=tier, at=at)
        variants: tuple[str, ...] = ()
        comment = ""
        if card is not None and card.source.startswith("genai-prices"):
            listing = self._find(provider_name(provider), model)
            if listing is not None:
                variants = listed.variants(listing)
                comment = listing.model.comment
        elif card is not None:
            mine = self._own.get((provider_name(provider), card.model))
            variants = tuple(sorted(mine.tiers.keys() - {""})) if mine else ()
        return Explanation(provider, model, tier, card, variants, comment)

    def _resolve(self, key: Priced, now: float, *, wait: bool) -> RateCard | None:
        version, answers = self.version, self._answers
        known = answers.get(key)
        # A price by the hour of the day comes round again: earlier windows are kept beside the last
        # one.
        windows: tuple[_Window, ...] = () if known is None else (known[:3], *known[3])
        current = next((window for window in windows if window[0] <= now < window[1]), None)
        if current is None:
            current = self._ask(key, now, wait=wait)
            if answers is not self._answers:  # a price was set, or the catalogue loaded, meanwhile
                return self._resolve(key, now, wait=wait)
        others = tuple(window for window in windows if window[0] != current[0])
        if len(answers) >= _MAX_ANSWERS and key not in answers:
            answers.clear()
        answers[key] = (*current, others[:_MAX_WINDOWS])
        card = current[2]
        # One without a price of its own for the whole tier goes the careful way, which says so.
        if not key.tier or (card is not None and card.tier == key.tier):
            self.cards.set(key, None if card is None else card.native, version)
        return card

    def _ask(self, key: Priced, now: float, *, wait: bool) -> _Window:
        """Return the price that counts; the page on prices has the rule."""
        providers = _providers(key)
        names = [key.deployment, key.model, key.requested]
        names = [name for name in dict.fromkeys(name.strip().lower() for name in names) if name]
        forms = [form for name in names for form in (name, own.undated(name))]
        for ours in providers:
            for form in (*forms, "*"):
                if (mine := self._own.get((ours, form))) is not None:
                    return -inf, inf, mine.card(ours, form, key.tier)
        for ours in providers:
            if ours in _DEFAULTS:
                return -inf, inf, _DEFAULTS[ours].card(ours, "*", key.tier)
        if not (wait or self.ready):
            raise _NotLoadedError
        # A deployment is called as its owner likes: to the catalogue its name means nothing.
        models = [name for name in dict.fromkeys((key.model, key.requested)) if name]
        # To the catalogue "backup-google" is Google; a vendor is surer than such a likeness.
        exact = [bool(key.vendor), False]
        listings = [
            (ours, self._find(ours, name, exact=only))
            for ours, only in zip(providers, exact, strict=False)
            for name in models
        ]
        known = [(ours, listing) for ours, listing in listings if listing is not None]
        for ours, listing in known:
            # An own price of `gpt-3.5-turbo` is meant for what Azure calls `gpt-35-turbo` too.
            name = listing.model.id.lower()
            if (price := self._own.get((ours, name))) is not None:
                return -inf, inf, price.card(ours, name, key.tier)
        if not known:
            return -inf, inf, None
        card = listed.card(known[0][1], key.tier, datetime.fromtimestamp(now, UTC))
        return card.valid_from, card.valid_until, card

    def _find(self, ours: str, model: str, *, exact: bool = False) -> Found | None:
        data = catalogue.current()
        if data is not self._snapshot:
            self._snapshot = data
            self.refresh()
        if data is None or (exact and not catalogue.lists(data, catalogue_id(ours))):
            return None
        return catalogue.find(data, catalogue_id(ours), model)


def _key(
    provider: str, model: str, requested: str, deployment: str, vendor: str, tier: str
) -> Priced:
    """Return the key of a price: `requested` only where another model answered."""
    if requested and (not model or model == requested):
        return Priced(provider, requested, "", deployment, vendor, tier)
    return Priced(provider, model, requested, deployment, vendor, tier)


def _providers(names: Priced) -> list[str]:
    """Return our names of the provider, and then of its vendor."""
    of = (names.provider, names.vendor) if names.vendor else (names.provider,)
    return list(dict.fromkeys(map(provider_name, of)))


class _NotLoadedError(Exception):
    """The catalogue is needed, and not loaded yet."""


def _seconds(at: Moment) -> float:
    seconds: object = at
    if isinstance(at, datetime):
        try:
            seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (OverflowError, ValueError):  # the last hours of 9999, west of Greenwich
            seconds = None
    # Beyond it no calendar goes; also false for nan.
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 <= seconds < _YEAR_10000
    ):
        raise ValueError(
            f"at = {at!r} must be a datetime or Unix seconds between the years 1970 and 9999; "
            "pass e.g. datetime.now(UTC) or time.time()"
        )
    return float(seconds)


#: A part and the whole it cannot exceed.
_PARTS: Final = (
    (("cache_read", "cache_write"), "input"),
    (("audio_input", "image_input", "video_input"), "input"),
    (("cached_audio", "cached_image"), "cache_read"),
    (("cached_audio",), "audio_input"),
    (("cached_image",), "image_input"),
    (("cache_write_1h",), "cache_write"),
    (("reasoning",), "output"),
    (("citation",), "output"),
    (("audio_output", "image_output", "video_output"), "output"),
)


def _checked(**counts: int) -> tuple[int, ...]:
    for name, count in counts.items():
        try:
            if isinstance(count, bool) or not 0 <= operator.index(count) < 2**63:
                raise TypeError
        except TypeError:
            raise ValueError(
                f"{name} = {count!r} must be a whole number >= 0, below 2**63; "
                "pass 0 for what is not known"
            ) from None
    for parts, whole in _PARTS:
        least = sum(counts[part] for part in parts)
        if counts[whole] < least:
            raise ValueError(
                f"{whole} = {counts[whole]} must be at least {' + '.join(parts)} = {least}: "
                f"counts are inclusive, add {' and '.join(parts)} to {whole}"
            )
    return tuple(counts.values())
