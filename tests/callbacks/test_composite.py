"""Several handlers as one."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    dispatch_custom_event,
)
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
    _core,
)
from langmeter.callbacks.composite import HOOKS
from langmeter.prices import PriceBook
from tests.support.models import chat_model

KEY = ("genericfakechatmodel", "fake-1")


class Log(BaseCallbackHandler):
    """Writes down the hooks that were called; has no on_chat_model_start of its own."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_llm_start(self, serialized: Any, prompts: list[str], **kwargs: Any) -> None:
        """The fallback of LangChain for chat models."""
        self.seen.append(f"llm_start {prompts}")

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append(f"token {token}")

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.seen.append("llm_end")

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.seen.append("tool_start")

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.seen.append(name)


def test_hooks_are_all_of_langchains() -> None:
    """A hook that LangChain adds is missed here first."""
    theirs = {name for name in dir(BaseCallbackHandler) if name.startswith("on_")}
    assert set(HOOKS) == theirs
    switches = {name for name in dir(BaseCallbackHandler) if name.startswith("ignore_")}
    assert {switch for switch in HOOKS.values() if switch} == switches


def test_parts_are_views_of_one_recorder(prices: PriceBook) -> None:
    """A call is recorded once, and each part answers from the same snapshot."""
    parts = (TokenCountingCallback(), CostTrackingCallback(prices), PerformanceCallback())
    composite = CompositeCallback(parts)
    assert composite.handlers == parts
    (chat_model() | (lambda m: m.content)).invoke("hi", config={"callbacks": [composite]})
    snapshot = composite.snapshot()
    assert snapshot.totals.calls == 1
    assert parts[0].total_tokens == snapshot.totals.tokens.total == 140
    assert parts[1].total_cost == snapshot.totals.cost > 0  # type: ignore[operator]
    assert ("chain", "RunnableSequence") in parts[2].snapshot().components
    assert len({id(part._services) for part in (*parts, composite)}) == 1


def test_parts_in_the_place_of_their_composite_price_too(prices: PriceBook) -> None:
    """Whichever of them LangChain tells first that a call has ended."""
    meter = Meter(prices=prices)
    chat_model().invoke("hi", config={"callbacks": [meter.tokens, meter.cost]})
    stats = meter.snapshot().models[KEY]
    assert (stats.calls, stats.priced_calls, stats.unpriced_calls) == (1, 1, 0)


def test_handlers_are_a_list() -> None:
    """One handler alone is refused with the remedy; an iterator is read once."""
    with pytest.raises(TypeError, match=r"TokenCountingCallback and must be a list"):
        CompositeCallback(TokenCountingCallback())  # type: ignore[arg-type]
    log = Log()
    parts = [TokenCountingCallback(), log]
    composite = CompositeCallback(iter(parts))  # type: ignore[arg-type]
    assert composite.handlers == tuple(parts)
    chat_model().invoke("hi", config={"callbacks": [composite]})
    assert log.seen[-1] == "llm_end"


def test_only_what_a_part_counts_is_dispatched() -> None:
    """The switches of a composite are those that all its parts have in common."""
    tokens = CompositeCallback([TokenCountingCallback()])
    assert (tokens.ignore_llm, tokens.ignore_agent, tokens.ignore_custom_event) == (
        False,
        True,
        True,
    )
    both = CompositeCallback([TokenCountingCallback(), PerformanceCallback()])
    assert (both.ignore_chain, both.ignore_agent, both.ignore_retriever) == (False,) * 3
    fixes = CompositeCallback([DefectAnalysisCallback()])
    assert (fixes.ignore_llm, fixes.ignore_custom_event) == (False, False)
    fixes.on_custom_event("langmeter.fix", {"success": True}, run_id=uuid.uuid4())
    assert fixes.snapshot().components["fix", "fix"].calls == 1


def test_tokens_stay_native() -> None:
    """Without foreign handlers no Python frame lies over the native hooks."""
    composite = CompositeCallback([TokenCountingCallback(), StreamingCallback()])
    for hook, native in _core.HOOKS.items():
        assert type(vars(composite)[hook]) is native


def test_all_token_callbacks_hear_every_token() -> None:
    """One that fails keeps nothing from the others."""
    first: list[str] = []
    last: list[str] = []

    def broken(text: str) -> None:
        raise RuntimeError(text)

    composite = CompositeCallback(
        [StreamingCallback(first.append), StreamingCallback(broken), StreamingCallback(last.append)]
    )
    list(chat_model().stream("hi", config={"callbacks": [composite]}))
    assert "".join(first) == "".join(last) == "alpha beta gamma"
    assert composite.snapshot().dropped == {"callback_errors": 5}
    one: list[str] = []
    single = CompositeCallback([StreamingCallback(one.append), StreamingCallback()])
    list(chat_model().stream("hi", config={"callbacks": [single]}))
    assert "".join(one) == "alpha beta gamma"


def test_a_handler_with_books_of_its_own_is_refused() -> None:
    """It would keep figures that the composite knows nothing of."""
    used = TokenCountingCallback()
    used.snapshot()
    with pytest.raises(ValueError, match="make a new one"):
        CompositeCallback([used])
    part = TokenCountingCallback()
    CompositeCallback([part])
    with pytest.raises(ValueError, match="part of another composite"):
        CompositeCallback([part])


def test_what_cannot_be_joined_is_refused() -> None:
    """Composites, own subclasses with hooks, and other objects are refused."""

    class Mine(TokenCountingCallback):
        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            raise AssertionError

    with pytest.raises(TypeError, match="hand in its handlers"):
        CompositeCallback([Meter()])
    with pytest.raises(TypeError, match=r"Mine\.on_llm_end would not be called"):
        CompositeCallback([Mine()])
    with pytest.raises(TypeError, match="must be a BaseCallbackHandler"):
        CompositeCallback([print])  # type: ignore[list-item]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_foreign_handlers_get_every_event(asynchronous: bool) -> None:
    """In order, after the recording, with LangChain's fallback for chat models."""
    log = Log()
    composite = CompositeCallback([TokenCountingCallback(), log])
    config: Any = {"callbacks": [composite]}
    if asynchronous:
        async for _ in chat_model().astream("hi", config=config):
            pass
    else:
        list(chat_model().stream("hi", config=config))
    tokens = [f"token {text}" for text in ("alpha", " ", "beta", " ", "gamma")]
    assert log.seen[0] == "llm_start ['Human: hi']"
    assert [entry for entry in log.seen[1:-1] if entry != "token "] == tokens
    assert log.seen[-1] == "llm_end"
    assert composite.snapshot().totals.token_events == 5


def test_foreign_handlers_get_what_no_part_counts() -> None:
    """Their events are dispatched although the parts ignore them, and are not recorded."""
    log = Log()
    composite = CompositeCallback([TokenCountingCallback(), log])

    @tool
    def plus(x: int) -> int:
        """One more."""
        dispatch_custom_event("mine", x)
        return x + 1

    plus.invoke({"x": 1}, config={"callbacks": [composite]})
    assert log.seen == ["tool_start", "mine"]
    assert composite.snapshot().components == {}


def test_langchains_own_handler_counts_the_same() -> None:
    """UsageMetadataCallbackHandler, as a foreign part, agrees about the tokens."""
    usage = UsageMetadataCallbackHandler()
    composite = CompositeCallback([TokenCountingCallback(), usage])
    for _ in range(3):
        chat_model().invoke("hi", config={"callbacks": [composite]})
    ours = composite.snapshot().models[KEY].tokens
    assert usage.usage_metadata["fake-1"]["total_tokens"] == ours.total == 420
    assert usage.usage_metadata["fake-1"]["input_token_details"]["cache_read"] == ours.cache_read


def test_switches_and_errors_of_foreign_handlers_are_theirs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`ignore_llm` holds; an error is LangChain's to log, or, with raise_error, to raise."""

    class Failing(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("foreign")

    class Deaf(Log):
        ignore_llm = True

    deaf = Deaf()
    composite = CompositeCallback([TokenCountingCallback(), Failing(), deaf])
    with caplog.at_level(logging.WARNING):
        chat_model().invoke("hi", config={"callbacks": [composite]})
    assert "Failing.on_chat_model_start" in caplog.text
    assert "llm_end" not in deaf.seen
    strict = Failing()
    strict.raise_error = True
    with pytest.raises(RuntimeError, match="foreign"):
        chat_model().invoke(
            "hi", config={"callbacks": [CompositeCallback([TokenCountingCallback(), strict])]}
        )
    assert composite.snapshot().totals.calls == 1
    assert not composite.snapshot().dropped


def test_a_composite_of_foreign_handlers_alone_records_nothing() -> None:
    """No part, no figures; the events go through."""
    log = Log()
    composite = CompositeCallback([log])
    RunnableLambda(lambda x: x).invoke(1, config={"callbacks": [composite]})
    chat_model().invoke("hi", config={"callbacks": [composite]})
    assert log.seen[-1] == "llm_end"
    assert composite.snapshot().totals.calls == 0
