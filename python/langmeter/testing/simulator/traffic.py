"""What the simulated service answers: sizes, delays and faults, drawn from one seed. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

#: Requested name → the dated name in the response, as OpenAI does it. Others come back as they are.
MODELS: Final[Mapping[str, str]] = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "o4-mini": "o4-mini-2025-04-16",
}
#: Names that begin so think before they answer: their output has reasoning tokens.
REASONING: Final = ("o1", "o3", "o4", "gpt-5")
#: What can go wrong with a reply; "stall" happens on request only (see the package).
FAULTS: Final = ("rate_limited", "server_error", "broken", "stall")

CONTEXT: Final = 128_000  # tokens: no prompt is drawn longer
LONGEST: Final = 16_384  # tokens: no answer is drawn longer
CACHE_STEP: Final = 128  # OpenAI caches prefixes in steps of 128 tokens, from 1,024 up
CACHE_FLOOR: Final = 1_024
REASONING_STEP: Final = 64  # OpenAI reports reasoning in steps of 64 tokens


@dataclass(frozen=True, slots=True)
class Traffic:
    """The shape of the traffic. Pairs are (median, sigma of the logarithm) of a lognormal.

    The token defaults are the fit to an hour of production chat (Azure LLM inference trace 2023,
    conversation; Splitwise, ISCA 2024): medians 1,020 in and 129 out, sigmas 0.985 and 0.86.

    Args:
        seed: the same seed and requests give the same replies, in whatever order they come.
        speed: how many times faster than life; 0 < speed, `math.inf` for no delay at all.
        input_tokens: of the system prompt that the service puts before the words of the request.
        output_tokens: of one answer, reasoning apart.
        reasoning_tokens: of one answer of a model that reasons.
        first_token: seconds until the first token, reasoning apart.
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
        """Refuse what cannot be drawn from."""
        shares = (self.spikes, self.cached, self.rate_limited, self.server_error, self.broken)
        if not all(0 <= share <= 1 for share in shares) or sum(shares[2:]) > 1:
            raise ValueError(f"shares must be within [0, 1], faults at most 1 together: {shares}")
        if not self.speed > 0:
            raise ValueError(f"speed must be positive, not {self.speed}")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the `n` answers: its visible tokens and why it ended ("stop" or "length")."""

    tokens: int
    finish: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Everything about one reply, decided before its first byte."""

    id: str
    model: str
    fault: str | None
    choices: tuple[Choice, ...]
    input: int
    output: int
    cache_read: int
    reasoning: int
    #: Seconds before each visible token, choices interleaved; the first is the time to first token.
    delays: tuple[float, ...]
    #: How many tokens a broken or stalled stream gets out: at least 1, never more than there are.
    cut: int
    retry_after: float


class Dice:
    """Draws the replies of one service.

    A draw depends on the request and on how often that one came before, never on the order of
    different requests: concurrency changes nothing in the sums.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._seen: Counter[bytes] = Counter()

    def reply(self, body: Mapping[str, Any], force: str | None = None) -> Reply:
        """The reply to a request body; `force`, one of `FAULTS` or "ok", replaces the drawn fate.

        Raises:
            ValueError: the body is not a chat completion request.
        """
        t = self._traffic
        requested, n, limit = _checked(body)
        words = prompt_tokens(body["messages"])
        rng = self._rng(body)
        fault = _fault(rng.random(), t)
        prompt = min(CONTEXT, words + _lognormal(rng, t.input_tokens))
        cache_read = 0
        if rng.random() < t.cached and prompt >= CACHE_FLOOR:
            cache_read = rng.randint(CACHE_FLOOR // CACHE_STEP, prompt // CACHE_STEP) * CACHE_STEP
        thinks = requested.startswith(REASONING)
        reasoning, choices = 0, []
        for _ in range(n):
            thought = -(-_lognormal(rng, t.reasoning_tokens) // REASONING_STEP) * REASONING_STEP
            thought = min(limit, thought if thinks else 0)
            wanted = max(1, _lognormal(rng, t.output_tokens))
            visible = min(wanted, limit - thought)
            reasoning += thought
            choices.append(Choice(visible, "stop" if visible == wanted else "length"))
        visible = sum(choice.tokens for choice in choices)
        delays = [_lognormal_s(rng, t.first_token) + reasoning / n * t.gap[0]]
        delays += (_gap(rng, t) for _ in range(visible - 1))
        return Reply(
            id=f"chatcmpl-{rng.getrandbits(96):024x}",
            model=MODELS.get(requested, requested),
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


def prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """Tokens of a prompt as billed here: its words, 4 for each message and 3 for the whole."""
    words = 0
    for message in messages:
        content = message.get("content") or ""
        parts = [{"text": content}] if isinstance(content, str) else content
        words += sum(len(str(part.get("text", "")).split()) for part in parts)
    return words + 4 * len(messages) + 3


def _checked(body: Mapping[str, Any]) -> tuple[str, int, int]:
    model, messages = body.get("model"), body.get("messages")
    if not isinstance(model, str) or not model:
        raise ValueError("you must provide a model parameter")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError("messages must be a list of objects")
    n = body.get("n") or 1
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or LONGEST
    if not isinstance(n, int) or not isinstance(limit, int) or not 1 <= n <= 128 or limit < 1:
        raise ValueError("n must be within 1 and 128, the token limit positive")
    return model, n, min(limit, LONGEST)


def _fault(u: float, t: Traffic) -> str | None:
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
