"""Calls handed to the chosen provider, with the attempts that follow a failure. Opens no run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from langmeter.runnables.providers.request import read_request, without_marks
from langmeter.runnables.providers.route import Route
from langmeter.runnables.providers.router import Router
from langmeter.runnables.resume.replay import ReplayMerger

_END: Final = object()
#: Times `stall_after` that a stream may take for its first content: models think before it.
_FIRST: Final = 5


class Delegate:
    """Runnable whose calls are those of the provider that is chosen for each of them.

    Attributes:
        _router: chooses.
        _targets: what is called of each provider: its model, or that with tools or a schema.
        _missing: the providers that have no target, and why.
        _stall_after: seconds without a chunk after which a stream is given up; None for never.
    """

    _router: Router
    _targets: Mapping[str, Runnable[Any, Any]]
    _missing: Mapping[str, str]
    _stall_after: float | None

    def _own_config(self, config: Any) -> Any:
        """Return the config of a call with what the runnable itself adds to it."""
        return config

    def _route(self, prompt: Any, config: Any, *, streamed: bool = False) -> Route:
        router = self._router
        request = read_request(
            prompt,
            config,
            streamed=streamed,
            threads=router.live.has_caches,
            type_key=router.type_key if router.looks_at_defects else "",
        )
        return Route(router, request, self._missing)

    def _arguments(self, route: Route, prompt: Any, config: Any) -> Any:
        """Return target, input and config of the attempt at hand."""
        provider = route.provider
        if route.request.marks and not route.request.marks.isdisjoint(provider.foreign):
            prompt = without_marks(prompt, provider.foreign)
        if route.attempts > 1 and config and "run_id" in config:  # the id of the first attempt
            config = {key: value for key, value in config.items() if key != "run_id"}
        return self._targets[provider.name], prompt, config

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Return the answer of the chosen provider, or of the next one where it fails."""
        config = self._own_config(config)
        route = self._route(input, config)
        while True:
            while seconds := route.next():
                time.sleep(seconds)
            with route:
                target, prompt, own = self._arguments(route, input, config)
                return target.invoke(prompt, own, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        """Return the answer of the chosen provider, or of the next one where it fails."""
        config = self._own_config(config)
        route = self._route(input, config)
        while True:
            while seconds := route.next():
                await asyncio.sleep(seconds)
            with route:
                target, prompt, own = self._arguments(route, input, config)
                return await target.ainvoke(prompt, own, **kwargs)

    def stream(self, input: Any, config: Any = None, **kwargs: Any) -> Iterator[Any]:
        """Yield the chunks of the chosen provider; where they break off, those of the next one.

        A chunk that comes `stall_after` seconds after the one before counts as a broken stream.
        """
        config = self._own_config(config)
        route = self._route(input, config, streamed=True)
        joined = _Joined()
        while True:
            while seconds := route.next():
                time.sleep(seconds)
            joined.begin()
            target, prompt, own = self._arguments(route, input, config)
            stream: Any = None
            try:
                while True:
                    # Not around the yield: what the consumer throws in breaks no stream.
                    try:
                        if stream is None:
                            stream = iter(target.stream(prompt, own, **kwargs))
                            chunk = next(stream, _END)
                        else:
                            chunk = self._punctual(stream)
                    except BaseException as error:
                        if not route.failed(error, may_go_on=joined.can_go_on):
                            raise
                        break
                    if chunk is _END:
                        route.succeeded()
                        yield from joined.end()
                        return
                    yield from joined.take(chunk)
            finally:
                route.released()
                if hasattr(stream, "close"):
                    stream.close()

    def _punctual(self, stream: Iterator[Any]) -> Any:
        """Return the next chunk of a stream. Raises TimeoutError when it comes too late."""
        if self._stall_after is None:
            return next(stream, _END)
        began = time.monotonic()
        chunk = next(stream, _END)
        if time.monotonic() - began > self._stall_after and chunk is not _END:
            raise TimeoutError(_stalled(self._stall_after))
        return chunk

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Yield the chunks of the chosen provider; where they stop, those of the next one."""
        config = self._own_config(config)
        route = self._route(input, config, streamed=True)
        joined = _Joined()
        while True:
            while seconds := route.next():
                await asyncio.sleep(seconds)
            joined.begin()
            target, prompt, own = self._arguments(route, input, config)
            stream: Any = None
            patience = None if self._stall_after is None else _FIRST * self._stall_after
            try:
                while True:
                    try:
                        if stream is None:
                            stream = aiter(target.astream(prompt, own, **kwargs))
                        chunk = await _in_time(stream, patience)
                    except BaseException as error:
                        if not route.failed(error, may_go_on=joined.can_go_on):
                            raise
                        break
                    if chunk is _END:
                        route.succeeded()
                        for each in joined.end():
                            yield each
                        return
                    if getattr(chunk, "content", True):
                        patience = self._stall_after
                    for each in joined.take(chunk):
                        yield each
            finally:
                route.released()
                if hasattr(stream, "aclose"):
                    await stream.aclose()


async def _in_time(stream: AsyncIterator[Any], seconds: float | None) -> Any:
    """Return the next chunk of a stream. Raises TimeoutError when it does not come in time."""
    # Not `wait_for`: on Python 3.11 each step would be a task of its own.
    stalled = asyncio.timeout(seconds)
    try:
        async with stalled:
            return await anext(stream)
    except StopAsyncIteration:
        return _END
    except TimeoutError as error:
        if stalled.expired() and seconds is not None:
            raise TimeoutError(_stalled(seconds)) from error
        raise


class _Joined:
    """The text that a caller was given over all attempts at one answer, none of it twice.

    Chunks of the first attempt are kept as they came. Only when they break off they are read, to be
    compared with those of the next route.
    """

    __slots__ = ("_given", "_merger")

    def __init__(self) -> None:
        self._given: list[Any] = []
        self._merger: ReplayMerger | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether another attempt can go on with what was given: with nothing, or with text."""
        return self._merger is not None or all(isinstance(c, str | AIMessage) for c in self._given)

    def begin(self) -> None:
        """Begin an route."""
        if self._merger is None and self._given:
            self._merger = ReplayMerger(signal=True, require_finish=False)
            self._merger.begin()
            for chunk in self._given:
                self._merger.take(chunk)
        if self._merger is not None:
            self._merger.begin()

    def take(self, chunk: Any) -> Any:
        """Return what is new to the caller, now that an attempt has given a chunk."""
        if self._merger is not None:
            return self._merger.take(chunk)
        self._given.append(chunk)
        return (chunk,)

    def end(self) -> Any:
        """Return what is new to the caller, now that an attempt has ended without an error."""
        return () if self._merger is None else self._merger.end()


def _stalled(seconds: float) -> str:
    return f"the stream sent nothing for {seconds:g} s"
