"""Traffic: sizes, delays and faults of replies, drawn from one seed."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Literal

from .reply import FAULTS, Choice, Fault, Reply, Text

#: Requested name → the dated name in the reply, as the providers do it. Others are not changed.
MODELS: Final[Mapping[str, str]] = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "o4-mini": "o4-mini-2025-04-16",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "gemini-2.5-flash": "gemini-2.5-flash",
    "gemini-2.5-pro": "gemini-2.5-pro",
}
#: Models whose names begin so reason before they answer: their output has reasoning tokens.
REASONING: Final = ("o1", "o3", "o4", "gpt-5", "gemini-2.5")

CONTEXT: Final = 128_000  # tokens: no prompt is drawn longer
LONGEST: Final = 16_384  # tokens: no answer is drawn longer
CACHE_STEP: Final = 128  # OpenAI caches prefixes in steps of 128 tokens, from 1,024 up
CACHE_FLOOR: Final = 1_024
REASONING_STEP: Final = 64  # OpenAI reports reasoning in steps of 64 tokens

_SENTENCE: Final = (
    "the service holds every stream open until its last token has left and then it says how "
    "many there were so that a meter on the other side can be checked against these counts"
)
#: The answers repeat these words; each is billed as one token.
_WORDS: Final = tuple(f" {word}" for word in _SENTENCE.split())
_ANSWER: Final = (_WORDS[0].strip().capitalize(), *(_WORDS * (LONGEST // len(_WORDS) + 1))[1:])


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the simulator reads it, whichever provider's format it has.

    Args:
        model: the requested name.
        prompt: tokens of the prompt as billed here.
        body: the request as it was sent.
        n: number of answers; 0 for embeddings, which have no tokens but those of the request.
        limit: largest number of output tokens of one answer, within 1 and `LONGEST`.
        streamed: whether the reply is a stream.
        usage: whether the client wants usage in a stream.
    """

    model: str
    prompt: int
    body: Mapping[str, Any]
    n: int = 1
    limit: int = LONGEST
    streamed: bool = False
    usage: bool = True

    def __post_init__(self) -> None:
        """Refuse what a provider would refuse.

        Raises:
            ValueError: a value is outside its range.
        """
        if not isinstance(self.model, str) or not self.model:
            raise ValueError("model must be a name, as in 'gpt-4o'")
        if not isinstance(self.n, int) or not 0 <= self.n <= 128:
            raise ValueError(f"n must be within 1 and 128, got {self.n!r}")
        if not isinstance(self.limit, int) or not 1 <= self.limit <= LONGEST:
            raise ValueError(f"the token limit must be positive, got {self.limit!r}")

    @property
    def dated(self) -> str:
        """The name of the model in the reply."""
        return MODELS.get(self.model, self.model)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The shape of the traffic. Pairs are (median, sigma of the logarithm) of a lognormal.

    The token defaults are the fit to an hour of production chat (Azure LLM inference trace 2023,
    conversation; Splitwise, ISCA 2024): medians 1,020 in and 129 out, sigmas 0.985 and 0.86.

    Args:
        seed: the same seed and requests give the same replies, in whatever order they come.
        speed: how many times faster than real providers; above 0, `math.inf` for no delay at all.
        input_tokens: of the system prompt that the service puts before the words of the request.
        output_tokens: of one answer, reasoning excluded.
        reasoning_tokens: of one answer of a model that reasons.
        first_token: seconds until the first token, reasoning excluded.
        gap: seconds between two tokens.
        spikes: share of the gaps that are Pareto distributed (shape 1.5, from 10 median gaps up).
        cached: share of the prompts of 1,024 tokens and more whose prefix was cached.
        rate_limited: share of the requests answered with 429 and retry-after.
        server_error: share of the requests answered with 500.
        broken: share of the replies whose connection breaks before the end.

    Raises:
        ValueError: a share is outside [0, 1], their sum above 1, or `speed` is not positive.
    """

    seed: int = 0
    speed: float = 1.0
    input_tokens: tuple[float, float] = (1020.0, 0.985)
    output_tokens: tuple[float, float] = (129.0, 0.86)
    reasoning_tokens: tuple[float, float] = (160.0, 0.8)
    first_token: tuple[float, float] = (0.3, 0.5)
    gap: tuple[float, float] = (0.008, 0.6)
    spikes: float = 0.004
    cached: float = 0.4
    rate_limited: float = 0.02
    server_error: float = 0.01
    broken: float = 0.01

    def __post_init__(self) -> None:
        """Refuse shares and speeds that cannot be drawn from."""
        shares = (self.spikes, self.cached, self.rate_limited, self.server_error, self.broken)
        if not all(0 <= share <= 1 for share in shares) or sum(shares[2:]) > 1:
            raise ValueError(f"shares must be within [0, 1], faults at most 1 together: {shares}")
        if not self.speed > 0:
            raise ValueError(f"speed must be positive, got {self.speed}")


class Sampler:
    """Draws the replies of one service.

    A draw depends on the request and on how often that one came before, never on the order of
    different requests: concurrency changes nothing in the sums.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._seen: Counter[bytes] = Counter()

    def reply(self, request: Request, force: Fault | Literal["ok"] | None = None) -> Reply:
        """Return the reply to a request.

        Args:
            request: what the client sent.
            force: the fault of this reply, or "ok" for none; None to draw one.
        """
        t = self._traffic
        rng = self._rng(request.body)
        fault = _fault(rng.random(), t)
        system = _lognormal(rng, t.input_tokens) if request.n else 0
        prompt = min(CONTEXT, request.prompt + system)
        cache_read = 0
        if request.n and rng.random() < t.cached and prompt >= CACHE_FLOOR:
            cache_read = rng.randint(CACHE_FLOOR // CACHE_STEP, prompt // CACHE_STEP) * CACHE_STEP
        thinks = request.model.startswith(REASONING)
        reasoning = visible = 0
        choices = []
        for _ in range(request.n):
            thought = -(-_lognormal(rng, t.reasoning_tokens) // REASONING_STEP) * REASONING_STEP
            thought = min(request.limit, thought if thinks else 0)
            length = max(1, _lognormal(rng, t.output_tokens))
            words = min(length, request.limit - thought)
            reasoning += thought
            visible += words
            finish: Literal["stop", "length"] = "stop" if words == length else "length"
            choices.append(Choice((Text(_ANSWER[:words]),), finish))
        delays = [_lognormal_s(rng, t.first_token) + reasoning / max(1, request.n) * t.gap[0]]
        delays += (_gap(rng, t) for _ in range(visible - 1))
        return Reply(
            id=f"reply-{rng.getrandbits(96):024x}",
            fault=None if force == "ok" else force or fault,
            choices=tuple(choices),
            input=prompt,
            output=reasoning + visible,
            cache_read=cache_read,
            reasoning=reasoning,
            delays=tuple(delay / t.speed for delay in delays),
            cut=rng.randint(min(1, visible), visible),
            # OpenAI's client takes 0 for no answer and waits as long as it sees fit.
            retry_after=max(0.001, rng.uniform(0.2, 1.0) / t.speed),
        )

    def _rng(self, body: Mapping[str, Any]) -> random.Random:
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        key = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._seen[key] += 1
        return random.Random(f"{self._traffic.seed}/{key.hex()}/{self._seen[key]}")


def _fault(u: float, t: Traffic) -> Fault | None:
    shares = accumulate((t.rate_limited, t.server_error, t.broken))
    return next((name for name, edge in zip(FAULTS, shares, strict=False) if u < edge), None)


def _lognormal_s(rng: random.Random, shape: tuple[float, float]) -> float:
    median, sigma = shape
    return rng.lognormvariate(math.log(median), sigma) if median > 0 else 0.0


def _lognormal(rng: random.Random, shape: tuple[float, float]) -> int:
    return round(min(_lognormal_s(rng, shape), CONTEXT))


def _gap(rng: random.Random, t: Traffic) -> float:
    if rng.random() < t.spikes:
        # Unbounded, shape 1.5 has no variance: one gap in a million would hold a test for a day.
        return min(10 * t.gap[0] * rng.paretovariate(1.5), 1000 * t.gap[0])
    return _lognormal_s(rng, t.gap)
