"""Operations of the native module, many times: `python -m benches.native_loop OPERATION TIMES`.

`benches.instructions` runs it under valgrind. LangChain is not imported, and what it would pass
are stand-ins of the same shape: its start-up would be nearly all that is counted.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID

from langmeter import _core

OPERATIONS = ("call", "call in an attempt", "token", "collected token")
#: Metadata keys of a run's attempt, as a Meter's.
_KEYS = ("defect_id", "defect_type", "severity", "language", "strategy", "attempt")
MODEL, ANSWERED_BY = "gpt-4o-mini", "gpt-4o-mini-2024-07-18"
_RATES = (150_000, 600_000, *([0] * 16))
_COUNTS = {"input_tokens": 28, "output_tokens": 100, "total_tokens": 128}


class _Services(_core.ServicesBase):
    """Prices every call; nothing but the common case may be asked of it."""

    streams: _core.Streams

    def __new__(cls, attempts: Any = None) -> _Services:
        cards = _core.Cards()
        card = _core.RateCard([(0, _RATES)], 1, 0.0, float("inf"))
        cards.set(("openai", ANSWERED_BY, MODEL, "", "", ""), card, cards.version)
        streams = _core.Streams(1 << 30, 1 << 30)
        self = super().__new__(cls, _core.Recorder, streams=streams, cards=cards, attempts=attempts)
        self.streams = streams
        return self

    def first_call(self) -> None: ...

    def requested(self, *client: Any) -> tuple[str, str, bool, str, str]:
        return "openai", MODEL, False, "", ""

    def model_end(self, *call: Any) -> NoReturn:
        raise SystemExit("a common response was not read natively")

    def hook_failed(self, place: str, exc: BaseException) -> NoReturn:
        raise SystemExit(f"{place} failed: {exc!r}")


class Loop:
    """One handler's hooks, and what LangChain passes to them.

    It looks for attempts at defects unless `attempts` is False.
    """

    def __init__(self, *, attempts: bool = True) -> None:
        self._block: ContextVar[int] = ContextVar("block", default=0)
        services = _Services((_KEYS, self._block.get, None) if attempts else None)
        self._block_entered = services.block_entered
        self.streams = services.streams
        self.recorder = services.recorder

        def hook(name: str) -> Any:
            return _core.HOOKS[name](services, "Meter", True)

        self.start = hook("on_chat_model_start")
        self.token = hook("on_llm_new_token")
        self.end = hook("on_llm_end")
        self.serialized = {"name": "ChatOpenAI", "id": ["langchain", "ChatOpenAI"]}
        self.prompts = [[SimpleNamespace(content="Explain what a histogram is.")]]
        self.metadata = {"ls_provider": "openai", "ls_model_name": MODEL, "ls_model_type": "chat"}
        self.params = {"model": MODEL}
        message = SimpleNamespace(
            content="A histogram counts.",
            usage_metadata={
                **_COUNTS,
                "input_token_details": {"audio": 0, "cache_read": 0},
                "output_token_details": {"audio": 0, "reasoning": 0},
            },
            response_metadata={
                "model_provider": "openai",
                "model_name": ANSWERED_BY,
                "finish_reason": "stop",
                "service_tier": "default",
            },
            tool_calls=[],
            additional_kwargs={},
        )
        generation = SimpleNamespace(message=message, generation_info={"finish_reason": "stop"})
        self.response = SimpleNamespace(generations=[[generation]], llm_output=None)
        self.chunk = SimpleNamespace(
            message=SimpleNamespace(content="word ", tool_call_chunks=[], additional_kwargs={})
        )

    def open_attempt(self) -> _core.Attempts:
        """Open attempt 1; calls from now on are in its block."""
        attempts = _core.Attempts(self.recorder)
        self._block_entered()
        self._block.set(attempts.open("CID-1", "leak", "high") << _core.INDEX_BITS)
        return attempts

    def begin(self, number: int) -> UUID:
        """Start the run of this number."""
        run_id = UUID(int=(number + 1) << 64 | 12345)
        self.start(
            self.serialized,
            self.prompts,
            run_id=run_id,
            parent_run_id=None,
            tags=[],
            metadata=self.metadata,
            invocation_params=self.params,
            options={"stop": None},
            name=None,
            batch_size=1,
        )
        return run_id

    def finish(self, run_id: UUID) -> None:
        """End it."""
        self.end(self.response, run_id=run_id, parent_run_id=None, tags=[])

    def stream(self, run_id: UUID, tokens: int) -> None:
        """Tokens of one run."""
        for _ in range(tokens):
            self.token("word ", chunk=self.chunk, run_id=run_id, parent_run_id=None, tags=[])


def main(operation: str, times: int) -> None:
    """Raises SystemExit where a count is wrong."""
    loop = Loop()
    if operation == "collected token":
        loop.streams._want(1)
    if operation in ("token", "collected token"):
        run_id = loop.begin(0)
        loop.stream(run_id, times)
        loop.streams._want(0)
        loop.finish(run_id)
        calls, tokens = 1, times
    elif operation in ("call", "call in an attempt"):
        if operation != "call":
            loop.open_attempt()
        for number in range(times):
            loop.finish(loop.begin(number))
        calls, tokens = times, 0
    else:
        raise SystemExit(f"operation must be one of {OPERATIONS}, got {operation!r}")
    (series,) = (s for s in loop.recorder.snapshot().series() if s.kind == "model")
    counters = dict(zip(_core.COUNTERS, series.counters, strict=True))
    counted = counters["ok"], counters["priced_calls"], counters["token_events"]
    if counted != (calls, calls, tokens):
        raise SystemExit(
            f"counted (calls, priced, tokens) {counted}, made {(calls, calls, tokens)}"
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
