"""What a token costs when a stream has listeners: `python -m benches streams`.

One stream of 1,000 tokens a sample, from LangChain's manager on, the handlers in turn and in a new
order each round. What counts is the fastest sample, less that of an empty handler; a queue is
emptied between samples, by its own thread within them too, which shares the interpreter.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langmeter import StreamingCallback
from langmeter.callbacks.streaming import Queued

_TOKENS = 1000
_METADATA = {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"}


class Empty(BaseCallbackHandler):
    """The least that LangChain can call."""

    run_inline = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None: ...
    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None: ...


def _nothing(what: Any) -> None: ...


def handlers() -> dict[str, BaseCallbackHandler]:
    """One for each row, by what it does."""
    queued = Queued(queue_size=100_000)
    return {
        "empty handler": Empty(),
        "nothing asked for": StreamingCallback(),
        "collect=True": StreamingCallback(collect=True),
        "on_token_callback, inline": StreamingCallback(_nothing),
        "on_event, inline": StreamingCallback(on_event=_nothing),
        "on_token_callback, queued": StreamingCallback(_nothing, delivery=queued),
        "on_event, queued": StreamingCallback(on_event=_nothing, delivery=queued),
    }


def sample(handler: BaseCallbackHandler) -> float:
    """Seconds a token of one stream."""
    chunk = ChatGenerationChunk(message=AIMessageChunk("word "))
    manager = CallbackManager.configure([handler], inheritable_metadata=_METADATA)
    (run,) = manager.on_chat_model_start({}, [[]], batch_size=1)
    began = time.perf_counter()
    for _ in range(_TOKENS):
        run.on_llm_new_token("word ", chunk=chunk)
    took = time.perf_counter() - began
    run.on_llm_error(RuntimeError())
    if isinstance(handler, StreamingCallback):
        handler.flush(60)
    return took / _TOKENS


def measure(rounds: int) -> dict[str, float]:
    """The fastest sample of each, seconds a token. Raises AssertionError: tokens miss."""
    rows, best = handlers(), dict.fromkeys(handlers(), float("inf"))
    order = list(rows)
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            random.shuffle(order)
            for name in order:
                best[name] = min(best[name], sample(rows[name]))
            gc.collect()
    finally:
        gc.enable()
    for name, handler in rows.items():
        if isinstance(handler, StreamingCallback):
            counted = handler.snapshot().totals.token_events
            assert counted == rounds * _TOKENS, f"{name} counted {counted} tokens"
    return best


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benches streams")
    parser.add_argument("--smoke", action="store_true", help="2 rounds; the times mean nothing")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args(arguments)
    best = measure(2 if options.smoke else options.rounds)
    empty, nothing = best["empty handler"], best["nothing asked for"]
    print(f"{'ns a token':28}{'in all':>8}{'over empty':>12}{'over nothing':>14}")
    for name, seconds in best.items():
        over = "" if name == "empty handler" else f"{(seconds - nothing) * 1e9:+.0f}"
        print(f"{name:28}{seconds * 1e9:8.0f}{(seconds - empty) * 1e9:+12.0f}{over:>14}")


if __name__ == "__main__":
    main()
