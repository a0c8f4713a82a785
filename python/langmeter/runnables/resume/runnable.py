"""`resume`: a stream that breaks in the middle starts again, and goes on where it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Literal, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config

from langmeter.errors import ConfigError, StreamDiverged
from langmeter.runnables.resume.policy import Attempts, FirstTokenProbe, Policy, RestartOn, Wait
from langmeter.runnables.resume.replay import ReplayMerger

Input = TypeVar("Input")
Output = TypeVar("Output")

_END: Final = object()
_RESTART: Final = "langmeter_restart"
_DIVERGED: Final = "langmeter_diverged"


def resume(
    runnable: Runnable[Input, Output],
    *,
    max_restarts: int = 2,
    on_restart: Literal["signal", "raise"] = "signal",
    restart_on: RestartOn | None = None,
    retry_start: bool = False,
    require_finish: bool = False,
    wait: Wait = 0.0,
) -> Resumed[Input, Output]:
    """Wrap a model so that a stream which breaks in the middle starts again and goes on.

    The answer is asked for anew and compared with what was handed on: text, reasoning and tool
    calls, wherever their chunks begin and end. As long as it says the same, only what is new is
    handed on, as more chunks of the one message, whose usage is that of the attempt that succeeded.
    When it says something else, the caller gets an empty marker chunk (see `restart_of`) and then
    the whole new answer. Both are also told as the custom events `langmeter_restart` and
    `langmeter_diverged`.

    `invoke` and `batch` compare nothing, having handed on nothing: an answer that broke while the
    model streamed it inside is asked for again.

    Each attempt is a run of its own under one of the name "resume"; those after the first carry the
    tag `retry:attempt:N`, as those of `with_retry` do. The text handed on is kept until the end.

    Args:
        runnable: what streams str or AIMessageChunk: a model, or a chain of one and
            `StrOutputParser`.
        max_restarts: attempts beyond the first, for the whole stream.
        on_restart: what to do with another answer: "signal" it, or "raise" StreamDiverged.
        restart_on: what to start again after, instead of the default: exception classes, or a
            function of the exception. The default: broken connections, timeouts, errors that a
            service sends in the middle of a stream, and of its refusals 408, 409, 429 and those
            from 500 up. Never BudgetExceeded, nor what ends a run without being an error (a
            cancelled task, an interrupted graph).
        retry_start: start again also after errors before the first chunk, which is otherwise left
            to the client's `max_retries` and to `with_retry`.
        require_finish: take a chat model's stream that ends without a finish reason for broken.
        wait: seconds before a restart, or a function of the coming attempt's number (2, 3, ...).

    Raises:
        TypeError: `runnable` is none.
        ConfigError: a value is out of range.
        When run, the last attempt's exception, with the earlier ones in its notes; StreamDiverged;
        StreamTruncated; TypeError for a stream of anything but str and AIMessageChunk.
    """
    if not isinstance(runnable, Runnable):
        raise TypeError(
            f"runnable must be a langchain_core.runnables.Runnable, got {runnable!r}; "
            "a function becomes one by RunnableLambda or RunnableGenerator"
        )
    if on_restart not in ("signal", "raise"):
        raise ConfigError(f'on_restart = {on_restart!r}: must be "signal" or "raise"')
    policy = Policy.of(max_restarts, restart_on, retry_start, wait)
    return Resumed(runnable, policy, on_restart == "signal", require_finish)


class Resumed(Runnable[Input, Output]):
    """A runnable with restarts, as `resume` returns it."""

    def __init__(
        self,
        bound: Runnable[Input, Output],
        policy: Policy,
        signal: bool,
        require_finish: bool,
    ) -> None:
        self.name = "resume"
        self.bound = bound
        self._policy = policy
        self._signal, self._require_finish = signal, require_finish

    def __repr__(self) -> str:
        """The wrapped runnable in the call that wrapped it."""
        return f"resume({self.bound!r})"

    @property
    def InputType(self) -> Any:  # noqa: N802 (LangChain's name)
        """Type of the wrapped runnable."""
        return self.bound.InputType

    @property
    def OutputType(self) -> Any:  # noqa: N802 (LangChain's name)
        """Type of the wrapped runnable."""
        return self.bound.OutputType

    @property
    def config_specs(self) -> list[Any]:
        """Those of the wrapped runnable."""
        return self.bound.config_specs

    def bind_tools(self, tools: Any, **kwargs: Any) -> Resumed[Input, Any]:
        """The wrapped model with tools, resumed in the same way."""
        model: Any = self.bound
        model = model.bind_tools(tools, **kwargs)
        return Resumed(model, self._policy, self._signal, self._require_finish)

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """One answer, asked for again if it broke while it was streamed inside."""
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Output:
        """One answer, asked for again if it broke while it was streamed inside."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def stream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Output]:
        """The answer's chunks, gone on with where it broke."""
        yield from self._transform_stream_with_config(iter([input]), self._stream, config, **kwargs)

    async def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Output]:
        """The answer's chunks, gone on with where it broke."""

        async def inputs() -> AsyncIterator[Input]:
            yield input

        stream: Any = self._atransform_stream_with_config(inputs(), self._astream, config, **kwargs)
        try:
            async for chunk in stream:
                yield chunk
        finally:
            await stream.aclose()

    def _invoke(
        self,
        input_: Input,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Output:
        attempts, probe = Attempts(self._policy), FirstTokenProbe()
        while True:
            child = patch_config(config, callbacks=probe.join(run_manager.get_child(attempts.tag)))
            try:
                return self.bound.invoke(input_, child, **kwargs)
            except Exception as error:
                if not attempts.should_restart(error, begun=probe.token):
                    raise
            dispatch_custom_event(_RESTART, attempts.event_data, config=config)
            if pause := attempts.pause():
                time.sleep(pause)

    async def _ainvoke(
        self,
        input_: Input,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Output:
        attempts, probe = Attempts(self._policy), FirstTokenProbe()
        while True:
            child = patch_config(config, callbacks=probe.join(run_manager.get_child(attempts.tag)))
            try:
                return await self.bound.ainvoke(input_, child, **kwargs)
            except Exception as error:
                if not attempts.should_restart(error, begun=probe.token):
                    raise
            await adispatch_custom_event(_RESTART, attempts.event_data, config=config)
            if pause := attempts.pause():
                await asyncio.sleep(pause)

    def _stream(
        self,
        inputs: Iterator[Input],
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Output]:
        (input_,) = inputs
        attempts, merger = Attempts(self._policy), self._merger()
        while True:
            merger.begin()
            child = patch_config(config, callbacks=run_manager.get_child(attempts.tag))
            stream: Any = None
            try:
                while True:
                    # Not around the yield: what the consumer throws in does not break the stream.
                    try:
                        if stream is None:
                            stream = iter(self.bound.stream(input_, child, **kwargs))
                        chunk = next(stream, _END)
                        if chunk is _END:
                            merger.check()
                    except Exception as error:
                        if not attempts.should_restart(error, begun=merger.begun):
                            raise
                        break
                    try:
                        out = merger.end() if chunk is _END else merger.take(chunk)
                    except StreamDiverged as error:
                        # Never restarts; the call adds notes on the earlier breaks.
                        attempts.should_restart(error, begun=True)
                        raise
                    if data := merger.pop_restart():
                        dispatch_custom_event(_DIVERGED, data, config=config)
                    yield from out
                    if chunk is _END:
                        return
            finally:
                if hasattr(stream, "close"):
                    stream.close()
            dispatch_custom_event(_RESTART, attempts.event_data, config=config)
            if pause := attempts.pause():
                time.sleep(pause)

    async def _astream(
        self,
        inputs: AsyncIterator[Input],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Output]:
        input_ = await anext(inputs)
        attempts, merger = Attempts(self._policy), self._merger()
        while True:
            merger.begin()
            child = patch_config(config, callbacks=run_manager.get_child(attempts.tag))
            stream: Any = None
            try:
                while True:
                    try:
                        if stream is None:
                            stream = aiter(self.bound.astream(input_, child, **kwargs))
                        chunk = await _next(stream)
                        if chunk is _END:
                            merger.check()
                    except Exception as error:
                        if not attempts.should_restart(error, begun=merger.begun):
                            raise
                        break
                    try:
                        out = merger.end() if chunk is _END else merger.take(chunk)
                    except StreamDiverged as error:
                        # Never restarts; the call adds notes on the earlier breaks.
                        attempts.should_restart(error, begun=True)
                        raise
                    if data := merger.pop_restart():
                        await adispatch_custom_event(_DIVERGED, data, config=config)
                    for each in out:
                        yield each
                    if chunk is _END:
                        return
            finally:
                if hasattr(stream, "aclose"):
                    await stream.aclose()
            await adispatch_custom_event(_RESTART, attempts.event_data, config=config)
            if pause := attempts.pause():
                await asyncio.sleep(pause)

    def _merger(self) -> ReplayMerger:
        return ReplayMerger(signal=self._signal, require_finish=self._require_finish)


async def _next(stream: AsyncIterator[Any]) -> Any:
    """Return the next chunk, or `_END`."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return _END
