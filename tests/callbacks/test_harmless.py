"""Failures inside the hooks: none of them harms the call."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import PerformanceCallback, TokenCountingCallback
from langmeter.callbacks.services import Services
from tests.support.models import chat_model


def test_a_failure_in_a_hook_stays_inside(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten broken hooks: ten answers, ten counts, one log record of ours and none of LangChain's."""

    def broken(*args: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(Services, "requested", broken)
    monkeypatch.setattr("langmeter.callbacks.model_end.read", broken)
    tokens = TokenCountingCallback()
    tokens.snapshot()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            silent = GenericFakeChatModel(messages=iter([AIMessage("alpha beta gamma")]))
            answer = silent.invoke("hi", config={"callbacks": [tokens]})
    assert answer.content == "alpha beta gamma"
    assert tokens.snapshot().dropped["hook_errors"] == 10
    (record,) = caplog.records
    assert record.name == "langmeter"
    assert record.exc_info


@pytest.mark.parametrize("hook", ["chain", "tool", "retriever"])
def test_component_hooks_fail_inside_too(hook: str) -> None:
    """A run id that is none is counted in each of start, end and error."""
    performance = PerformanceCallback()
    performance.snapshot()
    bad: Any = []  # not even hashable
    getattr(performance, f"on_{hook}_start")({}, "", run_id=bad)
    getattr(performance, f"on_{hook}_end")("", run_id=bad)
    getattr(performance, f"on_{hook}_error")(ValueError(), run_id=bad)
    performance.on_llm_error(ValueError(), run_id=bad)
    assert performance.snapshot().dropped == {"hook_errors": 4}
    tokens = TokenCountingCallback()
    tokens.on_chain_end("", run_id=bad)  # type: ignore[arg-type]
    tokens.on_chain_error(ValueError(), run_id=bad)
    assert tokens.snapshot().dropped == {"hook_errors": 2}


def test_without_memory_for_a_recorder_the_call_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot even be counted is logged, with both causes, once."""

    def broken(**settings: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("langmeter._core.Recorder", broken)
    tokens = TokenCountingCallback()
    chat_model().invoke("hi", config={"callbacks": [tokens]})
    (record,) = caplog.records
    assert record.exc_info
    assert isinstance(record.exc_info[1], MemoryError)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_the_hosts_own_signals_pass(signal: type[BaseException]) -> None:
    """Ctrl-C that arrives while a hook runs is not ours to keep."""
    tokens = TokenCountingCallback()
    with pytest.raises(signal):
        tokens._failed("on_llm_end", signal())


def test_a_rust_panic_does_not_pass() -> None:
    """PyO3's PanicException is a BaseException, and is counted like any other failure."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    tokens = TokenCountingCallback()
    tokens.snapshot()
    tokens._failed("on_llm_end", panic())
    assert tokens.snapshot().dropped == {"hook_errors": 1}
