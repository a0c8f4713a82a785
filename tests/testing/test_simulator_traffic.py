"""What the simulator draws: sizes, delays and faults of replies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter.testing.simulator import MODELS, Traffic
from langmeter.testing.simulator.formats import openai_chat
from langmeter.testing.simulator.formats.common import prompt_tokens
from langmeter.testing.simulator.traffic import Request, Sampler
from tests.support.laws import examples


def request(text: str = "hello", model: str = "gpt-4o-mini", **more: Any) -> Request:
    """A request for a chat completion."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return openai_chat.parse(body, "")


def test_same_requests_same_replies() -> None:
    """What is drawn depends on the seed, the request and its repetition, not on the order."""
    requests = [request(f"question {n % 5}") for n in range(20)]
    one, two, other = Sampler(Traffic(1)), Sampler(Traffic(1)), Sampler(Traffic(2))
    forward = sorted(one.reply(r).id for r in requests)
    assert forward == sorted(two.reply(r).id for r in reversed(requests))
    assert len(set(forward)) == 20
    assert forward != sorted(other.reply(r).id for r in requests)


@pytest.mark.slow
def test_shape() -> None:
    """Sizes and gaps have the medians and sigmas of the traffic, faults their shares."""
    traffic = Traffic(3, speed=2, rate_limited=0.3, server_error=0.2, broken=0.1, spikes=0.05)
    sampler = Sampler(traffic)
    replies = [sampler.reply(request()) for _ in range(3000)]
    for sizes, (median, sigma) in (
        ([r.input for r in replies], traffic.input_tokens),
        ([r.output for r in replies], traffic.output_tokens),
        ([r.delays[0] * 2 for r in replies], traffic.first_token),
    ):
        assert np.median(sizes) == pytest.approx(median, rel=0.08)
        assert np.std(np.log(sizes)) == pytest.approx(sigma, rel=0.08)
    gaps = np.concatenate([r.delays[1:] for r in replies]) * 2
    assert np.median(gaps) == pytest.approx(traffic.gap[0], rel=0.1)
    # A lognormal of sigma 0.6 is above 30 medians once in 10 million; a Pareto spike 1 in 5.
    assert np.mean(gaps > 30 * traffic.gap[0]) == pytest.approx(0.05 * 3**-1.5, rel=0.1)
    faults = [r.fault for r in replies]
    for name in ("rate_limited", "server_error", "broken"):
        assert faults.count(name) / 3000 == pytest.approx(getattr(traffic, name), abs=0.03)


@examples(50)
@given(
    model=st.sampled_from([*MODELS, "mystery"]),
    n=st.integers(1, 4),
    limit=st.none() | st.integers(1, 400),
    seed=st.integers(0, 2**31),
)
def test_laws_of_usage(model: str, n: int, limit: int | None, seed: int) -> None:
    """Parts are within totals, steps are OpenAI's, limits hold, each token has a delay."""
    limits: Any = {"max_completion_tokens": limit} if limit else {}
    asked = request(model=model, n=n, **limits)
    reply = Sampler(Traffic(seed)).reply(asked)
    visible = sum(len(part.pieces) for choice in reply.choices for part in choice.parts)
    reasons = model.startswith(("o4", "gemini"))
    assert len(reply.choices) == n
    assert asked.dated == MODELS.get(model, model)
    assert reply.output == reply.reasoning + visible
    assert reply.input > asked.prompt == 8
    assert reply.cache_read <= reply.input
    assert reply.cache_read % 128 == 0
    assert reply.cache_read == 0 or reply.cache_read >= 1024
    assert reasons or reply.reasoning == 0
    assert reply.output <= n * (limit or 16_384)
    assert all(c.finish == "stop" for c in reply.choices) or limit or reasons
    assert len(reply.delays) == max(1, visible)
    assert min(1, visible) <= reply.cut <= visible


def test_prompt_of_parts() -> None:
    """Words count in strings and in text parts, in no other part; 4 a message, 3 in all."""
    parts = [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {}}]
    messages = [{"content": parts}, {"content": None}, {"content": "three"}]
    assert prompt_tokens(messages) == 3 + 3 * 4 + 3
    assert prompt_tokens(None, "one two") == prompt_tokens("", [{"parts": ["one", "two"]}]) == 9


@pytest.mark.parametrize(
    "wrong",
    [{"broken": 1.1}, {"broken": 0.6, "server_error": 0.6}, {"speed": 0}, {"cached": -1}],
)
def test_impossible_traffic_is_refused(wrong: dict[str, float]) -> None:
    """A share outside 0 to 1, faults above 1 together and a standstill are ValueErrors."""
    with pytest.raises(ValueError, match="must be"):
        Traffic(**wrong)  # type: ignore[arg-type]
