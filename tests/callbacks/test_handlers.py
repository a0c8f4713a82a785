"""The six handlers alone: what each of them answers."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import uuid
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, dispatch_custom_event
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from langmeter import (
    CompositeCallback,
    CostTrackingCallback,
    DefectAnalysisCallback,
    Meter,
    PerformanceCallback,
    StreamingCallback,
    TokenCountingCallback,
)
from langmeter.errors import ConfigError
from langmeter.prices import PriceBook
from langmeter.testing import ManualClock
from tests.support.models import chat_model
from tests.support.versions import needs_stream_events

SIX: list[type[Any]] = [
    TokenCountingCallback,
    CostTrackingCallback,
    PerformanceCallback,
    StreamingCallback,
    DefectAnalysisCallback,
    CompositeCallback,
]


KEY = ("genericfakechatmodel", "fake-1")


class Text(LLM):
    """A text completion model."""

    @property
    def _llm_type(self) -> str:
        return "text"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        return prompt.upper()


class Retriever(BaseRetriever):
    """A retriever that finds nothing, or fails."""

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Any]:
        return [] if query else [1 / 0]


@pytest.mark.parametrize("cls", [*SIX, Meter])
def test_every_class_is_an_inline_handler_that_raises_nothing(cls: type[Any]) -> None:
    """Sync, inline, hashable by identity, true, and no `__getattr__`."""
    handler = cls()
    assert isinstance(handler, BaseCallbackHandler)
    assert handler.run_inline
    assert not handler.raise_error
    assert handler
    assert len({handler, handler, cls()}) == 2
    assert not hasattr(cls, "__getattr__")
    assert not hasattr(handler, "tap_output_iter")
    assert chat_model(callbacks=[handler]).callbacks == [handler]


@pytest.mark.parametrize("cls", [*SIX, Meter])
def test_a_handler_is_not_copied_and_not_pickled(cls: type[Any]) -> None:
    """A copied model reports to the same books; pickling says what to send instead."""
    handler = cls()
    assert copy.copy(handler) is handler
    assert copy.deepcopy({"callbacks": [handler]})["callbacks"][0] is handler
    with pytest.raises(TypeError, match=r"cannot be pickled.*snapshot\(\)"):
        pickle.dumps(handler)


def test_token_counting_answers_what_the_provider_reported() -> None:
    """Input, output, total, and by provider; cached and reasoning tokens as parts of them."""
    tokens = TokenCountingCallback()
    for _ in range(3):
        chat_model().invoke("hi", config={"callbacks": [tokens]})
    assert (tokens.input_tokens, tokens.output_tokens, tokens.total_tokens) == (300, 120, 420)
    usage = tokens.provider_usage[KEY[0]]
    assert (usage.cache_read, usage.cache_write, usage.reasoning) == (90, 15, 36)
    assert list(tokens.provider_usage) == [KEY[0]]
    assert tokens.snapshot().components.keys() == {("llm", "GenericFakeChatModel")}


def test_cost_is_exact(prices: PriceBook) -> None:
    """(65 uncached + 5 written) × 2 + 30 read × 1 + 40 × 10, USD per million, ten times."""
    cost = CostTrackingCallback(prices)
    for _ in range(10):
        chat_model().invoke("hi", config={"callbacks": [cost]})
    assert cost.total_cost == Decimal("0.00570")
    assert cost.provider_costs == {KEY[0]: Decimal("0.00570")}
    assert cost.prices is prices
    stats = cost.snapshot().models[KEY]
    assert (stats.cost, stats.priced_calls, stats.unpriced_calls) == (Decimal("0.00570"), 10, 0)


def test_without_a_price_there_is_no_cost(prices: PriceBook) -> None:
    """An unknown model costs None, not 0, and its calls are counted as unpriced."""
    cost = CostTrackingCallback(prices)
    model = chat_model(metadata={"model_name": "unlisted-model"})
    model.invoke("hi", config={"callbacks": [cost]})
    stats = cost.snapshot().models[KEY[0], "unlisted-model"]
    assert stats.cost is None
    assert stats.unpriced_calls == 1
    assert cost.total_cost is None
    assert cost.provider_costs == {}


def test_no_call_waits_for_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that ends before the prices are there is unpriced instead of late."""
    cost = CostTrackingCallback()
    monkeypatch.setattr(PriceBook, "ready", property(lambda self: False))
    monkeypatch.setattr(PriceBook, "card", lambda *args, **kwargs: 1 / 0)
    chat_model().invoke("hi", config={"callbacks": [cost]})
    assert cost.snapshot().models[KEY].unpriced_calls == 1
    assert not cost.snapshot().dropped


def test_calculate_cost(prices: PriceBook) -> None:
    """By model where given, else by what holds for the whole provider, else None."""
    cost = CostTrackingCallback(prices)
    assert cost.calculate_cost(KEY[0], 1_000_000, 100_000, model="fake-1") == 3
    assert cost.calculate_cost("nvidia_nim", 1000, 1000) == Decimal("0.0004")
    assert cost.calculate_cost("unlisted", 1, 1) is None


def test_calculate_cost_by_the_mix_of_traffic(prices: PriceBook) -> None:
    """A provider that prices by the model answers by what was metered: 3 calls to 1."""
    book = PriceBook({f"{KEY[0]}/a": {"input": 2, "output": 10}})
    book.set(KEY[0], "b", input=4, output=20)
    cost = CostTrackingCallback(book.warm(wait=True))
    assert cost.calculate_cost(KEY[0], 1_000_000, 100_000) is None
    for name in ("a", "a", "a", "b", "unpriced"):
        chat_model(metadata={"model_name": name}).invoke("hi", config={"callbacks": [cost]})
    # 3 and 6 USD, weighted 3 to 1.
    assert cost.calculate_cost(KEY[0], 1_000_000, 100_000) == Decimal("3.75")
    assert cost.calculate_cost(KEY[0].upper(), 1_000_000, 100_000) == Decimal("3.75")
    assert cost.calculate_cost("openai", 1, 1) is None
    with pytest.raises(ValueError, match="whole number"):
        cost.calculate_cost(KEY[0], -1, 1)


def test_performance_measures_components() -> None:
    """Chains, tools, retrievers and models, by name, with errors told apart."""
    performance = PerformanceCallback()
    config: Any = {"callbacks": [performance]}

    @tool
    def half(n: int) -> float:
        """Half of n, which must not be 0."""
        return n / 2 if n else 1 / 0

    half.invoke({"n": 4}, config=config)
    Retriever().invoke("query", config=config)
    with pytest.raises(ZeroDivisionError):
        half.invoke({"n": 0}, config=config)
    with pytest.raises(ZeroDivisionError):
        Retriever().invoke("", config=config)
    with pytest.raises(ZeroDivisionError):
        RunnableLambda(lambda x: x / 0).with_config(run_name="sum").invoke(1, config=config)  # type: ignore[arg-type]
    (chat_model() | (lambda m: m.content)).invoke("hi", config=config)
    components = performance.snapshot().components
    assert {key: (s.calls, s.errors, s.latency.count) for key, s in components.items()} == {
        ("tool", "half"): (2, 1, 2),
        ("retriever", "Retriever"): (2, 1, 2),
        ("chain", "sum"): (1, 1, 1),
        ("chain", "RunnableSequence"): (1, 0, 1),
        ("chain", "RunnableLambda"): (1, 0, 1),
        ("llm", "GenericFakeChatModel"): (1, 0, 1),
    }
    assert components["tool", "half"].success_rate == 0.5
    assert "tool half: 2 calls, 1 error>" in repr(components["tool", "half"])
    assert performance.in_flight == 0


def test_performance_answers_time() -> None:
    """Percentiles in seconds and calls per second of the last minute, by a clock that is held."""
    clock = ManualClock()
    performance = PerformanceCallback(clock=clock)
    assert math.isnan(performance.percentile(50))
    for seconds in range(1, 11):
        run = uuid.uuid4()
        performance.on_chat_model_start({}, [[]], run_id=run)
        assert performance.in_flight == 1
        clock.advance(seconds)
        performance.on_llm_error(ValueError(), run_id=run)
    assert performance.percentile(50) == pytest.approx(5.0, rel=0.001)
    assert performance.percentile(100) == pytest.approx(10.0, rel=0.001)
    assert performance.throughput == pytest.approx(10 / 55, rel=0.1)
    for bad in (-1, 100.1, math.nan, "95"):
        with pytest.raises(ValueError, match="0 to 100"):
            performance.percentile(bad)  # type: ignore[arg-type]


def test_streaming_measures_tokens_and_hands_them_on() -> None:
    """First token once a stream, gaps between the others, and the text of each, in order."""
    heard: list[str] = []
    streaming = StreamingCallback(heard.append)
    config: Any = {"callbacks": [streaming]}
    list(chat_model().stream("hi", config=config))
    assert "".join(heard) == "alpha beta gamma"
    assert streaming.time_to_first_token.count == 1
    events = streaming.snapshot().totals.token_events
    assert events == len(heard) == 5  # fake words and the spaces between
    assert streaming.snapshot().totals.streamed == 1
    chat_model().invoke("hi", config=config)
    assert streaming.time_to_first_token.count == 1


def test_streaming_measures_gaps() -> None:
    """Between five tokens at steady pace lie four gaps of that length."""
    clock = ManualClock()
    streaming = StreamingCallback(clock=clock)
    run = uuid.uuid4()
    streaming.on_chat_model_start({}, [[]], run_id=run, metadata={"ls_provider": "p"})
    for _ in range(5):
        clock.advance(0.25)
        chunk = ChatGenerationChunk(message=AIMessageChunk(content="x"))
        streaming.on_llm_new_token("x", chunk=chunk, run_id=run)
    streaming.on_llm_end(None, run_id=run)  # type: ignore[arg-type]
    gaps = streaming.inter_token_latency
    assert gaps.count == 4
    assert gaps.mean == pytest.approx(0.25, rel=0.001)
    assert streaming.time_to_first_token.mean == pytest.approx(0.25, rel=0.001)


def test_streaming_wants_a_function() -> None:
    """A callback that cannot be called is refused at once."""
    with pytest.raises(ConfigError, match="must be a function"):
        StreamingCallback("print")  # type: ignore[arg-type]


@needs_stream_events
def test_v3_events_count_each_token_once() -> None:
    """`stream_events(version="v3")` measures the first token too."""
    heard: list[str] = []
    streaming = StreamingCallback(heard.append)
    model = FakeListChatModel(responses=["abc"])
    for _ in model.stream_events("hi", config={"callbacks": [streaming]}, version="v3"):
        pass
    assert "".join(heard) == "abc"
    assert streaming.time_to_first_token.count == 1


def test_a_failing_token_callback_does_not_end_the_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stream arrives whole; the first failure is logged with its cause, all are counted."""

    def broken(text: str) -> None:
        raise RuntimeError(f"cannot show {text!r}")

    streaming = StreamingCallback(broken)
    with caplog.at_level(logging.WARNING):
        chunks = list(chat_model().stream("hi", config={"callbacks": [streaming]}))
    assert "".join(str(chunk.content) for chunk in chunks) == "alpha beta gamma"
    assert streaming.snapshot().dropped == {"callback_errors": 5}
    (record,) = caplog.records
    assert record.name == "langmeter"
    assert "cannot show 'alpha'" in str(record.exc_info and record.exc_info[1])


def test_defects_count_fixes_by_kind() -> None:
    """Told directly or by custom event; the rate is of those that worked."""
    defects = DefectAnalysisCallback()
    assert math.isnan(defects.success_rate)
    defects.record_fix(True, kind="syntax", duration=1.5)
    defects.record_fix(False, kind="syntax")

    def fix(x: Any) -> Any:
        dispatch_custom_event("langmeter.fix", {"success": True, "kind": "import"})
        dispatch_custom_event("another.app", {"success": False})
        return x

    RunnableLambda(fix).invoke(1, config={"callbacks": [defects]})
    assert defects.success_rate == pytest.approx(2 / 3)
    assert {kind: stats.calls for kind, stats in defects.fixes.items()} == {
        "syntax": 2,
        "import": 1,
    }
    assert defects.fixes["syntax"].latency.count == 1
    assert defects.snapshot().models == {}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("yes",), TypeError),
        ((True, 3), TypeError),
        ((True, "x", -1.0), ValueError),
        ((True, "x", math.nan), ValueError),
    ],
)
def test_a_bad_fix_is_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    """Directly as an exception; by event, where a chain would suffer, as a count."""
    defects = DefectAnalysisCallback()
    names = ("success", "kind", "duration")
    data = dict(zip(names, arguments, strict=False))
    with pytest.raises(error):
        defects.record_fix(**data)
    defects.on_custom_event("langmeter.fix", data, run_id=uuid.uuid4())
    assert defects.snapshot().dropped == {"hook_errors": 1}
    assert defects.fixes == {}


def test_text_models_count_too() -> None:
    """A completion model reports through on_llm_start and on_llm_end."""
    tokens = TokenCountingCallback()
    Text().invoke("hi", config={"callbacks": [tokens]})
    assert tokens.snapshot().totals.calls == 1
    assert tokens.snapshot().components["llm", "Text"].calls == 1
