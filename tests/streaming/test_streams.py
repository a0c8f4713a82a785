"""Streams and their listeners: composites, text completions, settings, forked children."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.prompts import PromptTemplate

from langmeter import CompositeCallback, Meter, StreamingCallback, TokenCountingCallback
from langmeter.errors import ConfigError
from langmeter.streaming import Collect
from tests.support.models import chat_model
from tests.support.streamed import Heard, Run, lost
from tests.support.versions import needs_stream_events


def test_parts_of_a_composite_share_their_listeners() -> None:
    """Each part's listeners hear every stream, and a part answers for the whole."""
    first, second = Heard(collect=Collect(max_stream_bytes=100)), Heard(collect=True)
    plain = StreamingCallback()
    feed = second.handler.events()
    composite = CompositeCallback([first.handler, TokenCountingCallback(), second.handler, plain])
    run = Run(composite)
    run.token("hi")
    assert [part.partial(run.run_id) for part in (first.handler, second.handler, plain)] == [
        "hi"
    ] * 3
    run.end("hi")
    for heard in (first, second):
        assert heard.texts == ["hi"]
        assert [event.text for event in heard.events] == ["hi"]
        assert [result.text for result in heard.results] == ["hi"]
    assert composite._services.streams is not None
    assert composite._services.streams.max_stream_bytes == 1 << 20
    second.handler.close()
    assert [event.text for event in feed] == ["hi"]
    # A part in the place of its composite has the same streams.
    alone = Run(second.handler)
    alone.token("a")
    alone.end("a")
    assert first.texts == second.texts == ["hi", "a"]


def test_a_meter_hands_its_listeners_on() -> None:
    """Every keyword of streams reaches `meter.streaming`."""
    heard: list[Any] = []
    meter = Meter(
        on_token_callback=heard.append,
        on_event=heard.append,
        on_complete=heard.append,
        on_error=heard.append,
        collect=True,
        delivery="queued",
    )
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    Run(meter).fail(ValueError())
    assert meter.streaming.flush()
    kinds = [type(what).__name__ for what in heard]
    assert kinds == ["StreamEvent", "str"] * 5 + ["StreamResult", "StreamFailure"]


@pytest.mark.parametrize("version", ["v1", pytest.param("v3", marks=needs_stream_events)])
def test_langchains_own_fakes(version: str) -> None:
    """A model that reports no tokens by itself, in both ways to stream."""
    heard = Heard()
    model = FakeListChatModel(responses=["abc"])
    config: Any = {"callbacks": [heard.handler]}
    if version == "v1":
        list(model.stream("hi", config=config))
    else:
        list(model.stream_events("hi", config=config, version="v3"))
    (result,) = heard.results
    assert (result.text, result.events, result.mismatches) == ("abc", 3, ())
    assert result.estimated
    assert heard.texts == ["a", "b", "c"]


class Words(LLM):
    """A text completion model that streams."""

    @property
    def _llm_type(self) -> str:
        return "words"

    def _call(self, prompt: str, *args: Any, **kwargs: Any) -> str:
        return prompt

    def _stream(
        self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[GenerationChunk]:
        for word in prompt.split():
            run_manager.on_llm_new_token(word, chunk=GenerationChunk(text=word))
            yield GenerationChunk(text=word)


def test_a_text_completion_is_a_stream_like_any_other() -> None:
    """It has no message; its text is held to the pieces all the same."""
    heard = Heard()
    chain = PromptTemplate.from_template("{x}") | Words()
    list(chain.stream({"x": "a b c"}, config={"callbacks": [heard.handler]}))
    (result,) = heard.results
    assert (result.text, result.mismatches, result.events) == ("abc", (), 3)


def test_wrong_values_are_refused_at_once() -> None:
    """With the value, the range and the remedy."""
    later: Any = 5
    for wrong, match in (
        (
            {"on_event": "print"},
            "on_event must be a function of one argument, or None, got",
        ),
        ({"collect": "yes"}, "collect must be True, False or a Collect .*, got 'yes'"),
        ({"delivery": "soon"}, "delivery must be 'inline', 'queued' or a Queued .*, got 'soon'"),
        ({"max_failures": 0}, "max_failures must be a whole number from 1 up, got 0"),
        ({"max_serie": 5}, "unknown setting max_serie = 5; did you mean 'max_series'"),
    ):
        with pytest.raises(ConfigError, match=match):
            StreamingCallback(**wrong)
    bounds: dict[str, Any]
    for bounds in ({"max_bytes": 0}, {"max_stream_bytes": 1.5}):
        with pytest.raises(ConfigError, match="must be a whole number from 1 to"):
            Collect(**bounds)
    with pytest.raises(ConfigError, match="queue_size must be"):
        StreamingCallback().events(queue_size=0)
    assert later


def test_a_message_that_raises_when_looked_at_ends_its_run() -> None:
    """Whatever its answer is, a call that ended is counted, and its stream forgotten."""

    class Odd:
        generations = [[object()]]  # noqa: RUF012

        @property
        def message(self) -> Any:
            raise ValueError("look away")

    handler = StreamingCallback(collect=True)
    for answer in (Odd(), Odd.generations[0][0], None):
        run = Run(handler)
        run.token("a")
        response: Any = LLMResult(generations=[]) if answer is None else Odd()
        if isinstance(answer, Odd):
            response.generations = [[answer]]
        handler.on_llm_end(response, run_id=run.run_id)
    assert handler.snapshot().totals.outcomes["ok"] == 3
    assert handler._streams._open == (0, 0)


def test_an_end_that_never_began_here_is_tolerated() -> None:
    """LangChain may drop a start: no stream, nothing kept, the recorder counts it."""
    heard = Heard()
    run = Run(TokenCountingCallback())
    run.handler = heard.handler
    run.token("stray")
    run.end("stray")
    run.fail(ValueError())
    assert (heard.said, heard.results) == ([], [])
    assert heard.handler._streams._open == (0, 0)


def test_surrogates_neither_fail_nor_mismatch() -> None:
    """A lone half of a character, which is not UTF-8, is shown as the replacement character."""
    handler = StreamingCallback(collect=True)
    run = Run(handler)
    run.token("a\ud83d")
    assert handler.partial(run.run_id).startswith("a\ufffd")
    run.end("a\ud83d")
    assert not lost(handler)


def test_a_handler_is_collected_with_its_listeners() -> None:
    """A listener that refers to its handler does not leak."""

    class Page:
        def __init__(self) -> None:
            self.handler = StreamingCallback(self.show, on_event=self.show)

        def show(self, what: Any) -> None: ...

    page = Page()
    run = Run(page.handler)
    run.token("a")
    gone = weakref.ref(page), weakref.ref(page.handler._streams)
    del page, run
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_no_streams_of_its_parent() -> None:
    """It forgets them, and its queue has a worker of its own."""
    texts: list[str] = []
    handler = StreamingCallback(texts.append, collect=True, delivery="queued")
    run = Run(handler)
    run.token("parent")
    assert handler.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        before = handler._streams._open[0], handler.partial(run.run_id)
        child = Run(handler)
        child.token("child")
        told = handler.flush()
        os.write(write, repr((before, told, texts, handler.partial(child.run_id))).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000).decode() == "((0, ''), True, ['parent', 'child'], 'child')"
    os.close(read)
    os.close(write)
    assert handler.partial(run.run_id) == "parent"
