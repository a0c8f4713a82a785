"""The plain data that reading a response gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from langmeter import _core

#: Figures from here on are refused: no call uses a million million tokens, and sums have 64 bits.
LIMIT: Final = _core.USAGE_LIMIT


class Usage(NamedTuple):
    """Usage of one call, in tokens unless said otherwise. Counts are 0 to 8 * LIMIT.

    `input` includes cache reads and writes, `output` includes reasoning. The parts are the
    provider's own figures: a provider that contradicts itself (more cached tokens than input) is
    passed on as it is, so do not subtract them without a floor at 0.
    """

    input: int = 0
    output: int = 0
    #: The provider's total, else input + output.
    total: int = 0
    cache_read: int = 0
    #: Cache writes of every lifetime together.
    cache_write: int = 0
    #: Those of `cache_write` that live for one hour.
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    video_input: int = 0
    video_output: int = 0
    #: Audio, and images, among what was read from the cache.
    cached_audio: int = 0
    cached_image: int = 0
    #: Output that quotes what a search found, where it is billed apart.
    citation: int = 0
    #: Searches, not tokens: in the web, and in stored files.
    web_searches: int = 0
    file_searches: int = 0
    #: Tokens of `total` that did not come from the provider; always 0 as read.
    estimated: int = 0
    #: What changes the price, as `PriceBook.card` takes it: "" is the standard price, else a
    #: service tier or speed ("flex", "priority", "batch", "fast"…), or where the response names
    #: another thing or several, "key=value" pairs joined by ";": "inference_geo=us",
    #: "service_tier=priority;speed=fast", "latency=optimized", "search_context_size=high".
    tier: str = ""

    @property
    def input_missing(self) -> bool:
        """Whether output tokens were reported without input tokens.

        Streams of Anthropic name their input at their beginning, which langchain-anthropic drops
        where they break or do not repeat it at their end.
        """
        return self.input == 0 < self.output


class Reading(NamedTuple):
    """Everything a response says about its call."""

    #: None when the response holds no usage.
    usage: Usage | None = None
    #: Who the response says answered, in OpenTelemetry's words; "" if it does not say. It is only
    #: the dialect ("openai" for Azure and every compatible server); the requested name is better.
    provider: str = ""
    #: The model named by the response; "" if it names none.
    model: str = ""
    #: Served by LangChain's own response cache: `usage` was saved, not spent.
    cache_hit: bool = False
    #: Values where a number belongs that are not numbers; each was read as 0.
    refused: int = 0
    #: What the provider says it billed, in USD.
    billed: Decimal | None = None
    #: No usage here because it may be whole on another run: LangChain reports that of a batch of
    #: text prompts on the first one. Do not estimate such a run if its batch had several prompts.
    usage_on_first_of_batch: bool = False
    #: The answer ended at the limit of its length.
    truncated: bool = False
    #: Nanoseconds that the call waited at the provider's; None where it does not say.
    queue: int | None = None
    #: Searches and modifiers of the price, as in `usage`; here also where there is no usage.
    web_searches: int = 0
    file_searches: int = 0
    tier: str = ""
    #: Usages that were billed and are in no sum of the provider: Claude's compactions. They are in
    #: the cost and not in the tokens, each priced by itself, because a band goes by its own input.
    beside: tuple[Usage, ...] = ()

    def parts(self, usage: Usage) -> list[Usage]:
        """Return the usages that are priced by themselves: the answer's, and those beside it."""
        return [usage, *self.beside]

    def complete(self, usage: Usage) -> Usage:
        """Return an estimated usage with the searches and the modifiers that the response names."""
        web, files = self.web_searches, self.file_searches
        return usage._replace(web_searches=web, file_searches=files, tier=self.tier)


#: The reading of a response that says nothing.
NOTHING: Final = Reading()
