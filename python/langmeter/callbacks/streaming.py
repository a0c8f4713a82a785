"""Streams: when the first token came, and how long the next ones took."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from langmeter.callbacks.base import Callback
from langmeter.config import Config
from langmeter.snapshot import Distribution


class StreamingCallback(Callback):
    """Measures streamed calls token by token, those of `stream_events(version="v3")` too.

    `on_token_callback` is called with the text of each token, in the thread that streams; what it
    raises is logged once, counted in `dropped["hook_errors"]`, and does not end the stream.
    """

    def __init__(
        self,
        on_token_callback: Callable[[str], Any] | None = None,
        *,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(config=config, **settings)
        if on_token_callback is not None and not callable(on_token_callback):
            raise TypeError(
                f"on_token_callback = {on_token_callback!r}: must be a function of one string"
            )
        called = type(on_token_callback).__call__
        if any(map(inspect.iscoroutinefunction, (on_token_callback, called))):
            raise TypeError(
                f"on_token_callback = {on_token_callback!r} is async and would never be awaited; "
                "pass a plain function, e.g. one that puts the text into a queue for your task"
            )
        self._token_callback = on_token_callback
        self._on_token(on_token_callback)

    @property
    def time_to_first_token(self) -> Distribution:
        """From the start of a streamed call to its first output, seconds, over all models."""
        return self.snapshot().totals.time_to_first_token

    @property
    def inter_token_latency(self) -> Distribution:
        """From one piece of output to the next, seconds, over all models."""
        return self.snapshot().totals.inter_token_latency
