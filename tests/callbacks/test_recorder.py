"""The recorder behind a handler: its settings, many threads, forked children."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langmeter import MeterConfig, TokenCountingCallback
from tests.support.models import chat_model


def test_settings_reach_the_recorder() -> None:
    """By keyword or as a config, not both."""
    tokens = TokenCountingCallback(config=MeterConfig(max_series=9))
    assert tokens.config.max_series == 9
    with pytest.raises(TypeError, match="not both"):
        TokenCountingCallback(config=MeterConfig(), max_series=9)
    with pytest.raises(ValueError, match="max_series"):
        TokenCountingCallback(max_series=0)


def test_a_capped_label_set_goes_to_other() -> None:
    """What is over `max_series` is counted under `other`, nothing is lost."""
    tokens = TokenCountingCallback(max_series=8)
    for number in range(40):
        model = chat_model(metadata={"model_name": f"model-{number}"})
        model.invoke("hi", config={"callbacks": [tokens]})
    snapshot = tokens.snapshot()
    assert len(snapshot.models) <= 9
    assert snapshot.totals.calls == 40
    assert tokens.input_tokens == 4000
    assert any("other" in key for key in snapshot.models)
    assert snapshot.dropped["series_capped"] > 0


def test_threads_count_exactly() -> None:
    """16 threads × 50 calls through one handler: no call is lost or counted twice."""
    tokens = TokenCountingCallback()
    model = chat_model()
    barrier = threading.Barrier(16)

    def work(_: int) -> None:
        barrier.wait()
        for _ in range(50):
            # The fake model's generator is not thread-safe; a lock-free one has no usage.
            run = uuid.uuid4()
            tokens.on_chat_model_start({}, [[]], run_id=run, metadata={"ls_provider": "p"})
            tokens.on_llm_end(response, run_id=run)

    response = model.generate([[HumanMessage("hi")]])
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    stats = tokens.snapshot().models["p", "fake-1"]
    assert stats.calls == stats.outcomes["ok"] == 800
    assert tokens.total_tokens == 800 * 140
    assert not tokens.snapshot().dropped


def test_the_first_events_of_many_threads_meet_in_one_recorder() -> None:
    """Whoever binds second records where the first does."""
    for _ in range(20):
        tokens = TokenCountingCallback()
        barrier = threading.Barrier(4)
        found: list[Any] = []

        def bind(
            barrier: threading.Barrier = barrier,
            tokens: TokenCountingCallback = tokens,
            found: list[Any] = found,
        ) -> None:
            barrier.wait()
            found.append(tokens._recorder)

        threads = [threading.Thread(target=bind) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1


def test_joining_a_second_recorder_keeps_the_first() -> None:
    """A handler that was asked for figures stays where it is."""
    tokens = TokenCountingCallback()
    first = tokens._recorder
    with pytest.raises(RuntimeError):
        tokens._share(TokenCountingCallback()._services)
    assert tokens._recorder is first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_counts_from_zero() -> None:
    """The child records at once and does not repeat its parent's numbers."""
    tokens = TokenCountingCallback()
    chat_model().invoke("hi", config={"callbacks": [tokens]})
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        before = tokens.snapshot().totals.calls
        chat_model().invoke("hi", config={"callbacks": [tokens]})
        os.write(write, f"{before} {tokens.snapshot().totals.calls}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"0 1"
    os.close(read)
    os.close(write)
    assert tokens.snapshot().totals.calls == 1
