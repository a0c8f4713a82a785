"""Limits of what is kept of streams, and many streams at once."""

from __future__ import annotations

import random
import threading
import uuid

import pytest

from langmeter import StreamingCallback
from langmeter.streaming import Collect, StreamEvent, StreamFailure, StreamResult
from langmeter.testing import ManualClock
from tests.support.streamed import Heard, Run, call, lost


def test_abandoned_streams_are_told_and_do_not_leak() -> None:
    """When the recorder gives them up: at a snapshot, or as the streams in flight have doubled."""
    clock = ManualClock()
    heard = Heard(clock=clock, max_run_age=10)
    for _ in range(20):
        Run(heard.handler).token("x" * 100)
    assert heard.handler._streams._open == (20, 2000)
    clock.advance(11)
    assert heard.handler.snapshot().totals.outcomes["abandoned"] == 20
    assert heard.handler._streams._open == (0, 0)
    assert [(f.outcome, f.error, len(f.text)) for f in heard.failures] == [
        ("abandoned", "", 100)
    ] * 20
    # They get no end event: `max_runs` bounds the recorder, and that bounds the streams.
    handler = StreamingCallback(collect=True, max_runs=100)
    for _ in range(20_000):
        Run(handler).token("y")
    assert handler._streams._open[0] <= 1100


def test_text_is_bounded_in_a_stream_and_in_all() -> None:
    """Cut at a whole character and counted in bytes; the stalest streams are let go of first."""
    handler = StreamingCallback(collect=Collect(max_stream_bytes=10, max_bytes=100))
    run = Run(handler)
    for text in ("12345678", "éé", "9"):
        run.token(text)
    assert handler.partial(run.run_id) == "12345678é"
    assert lost(handler) == {"stream_text_cut": 3}
    run.end("12345678éé9")
    assert lost(handler) == {"stream_text_cut": 3}  # what was cut is compared with nothing

    handler = StreamingCallback(collect=Collect(max_stream_bytes=50, max_bytes=100))
    runs = [Run(handler) for _ in range(10)]
    for run in runs[::-1]:
        run.token("0123456789")
    assert sum(lost(handler).values()) == 0
    runs[9].token("!")  # 101 bytes; the stalest but one, as it has just spoken
    kept = [bool(handler.partial(run.run_id)) for run in runs]
    assert kept == [True] * 6 + [False] * 3 + [True]
    assert lost(handler) == {"stream_text_cut": 30}
    runs[8].token("more")
    assert handler.partial(runs[8].run_id) == ""  # with its beginning gone it would mislead
    calls = [call(n, "{}", "f", str(n)) for n in range(3000)]
    runs[0].token("", tool_call_chunks=calls)
    assert handler._streams._open[1] <= 100


def test_a_failure_that_is_kept_is_bounded_too() -> None:
    """At most 64 failures and 8 million characters."""
    handler = StreamingCallback(collect=Collect(max_stream_bytes=1 << 20))
    for n in range(100):
        run = Run(handler)
        run.token(f"{n}")
        run.fail(ValueError())
    assert [failure.text for failure in handler.failures] == [str(n) for n in range(36, 100)]
    for _ in range(20):
        run = Run(handler)
        run.token("x" * (1 << 20))
        run.fail(ValueError())
    assert sum(len(failure.text) for failure in handler.failures) <= 1 << 23


def test_nothing_is_kept_unless_asked_for() -> None:
    """Without `collect` no text stays, whoever listens to events."""
    events: list[StreamEvent] = []
    failures: list[StreamFailure] = []
    handler = StreamingCallback(on_event=events.append, on_error=failures.append, collect=False)
    run = Run(handler)
    run.token("secret")
    run.token("", tool_call_chunks=[call(0, "{}", "f", "1")])
    assert handler._streams._open[1] == 0
    assert handler.partial(run.run_id) == ""
    run.fail(ValueError())
    assert (failures[0].text, failures[0].tool_calls, failures[0].cut) == ("", (), False)
    assert (failures[0].events, handler.failures) == (2, ())
    silent = StreamingCallback()
    Run(silent).token("secret")
    assert silent._streams._open == (0, 0)
    assert not lost(handler)


def test_streams_that_were_only_listened_to_leave_nothing() -> None:
    """An `on_event` alone waits for no end, and its streams are forgotten at it all the same."""
    handler = StreamingCallback(on_event=lambda event: None)
    run = Run(handler)
    run.token("a")
    assert handler._streams._open[0] == 1
    run.end("a")
    assert handler._streams._open == (0, 0)


def test_2000_interleaved_streams_do_not_mix() -> None:
    """Eight threads, each with 250 streams in random order: every text is its own."""
    results: list[StreamResult] = []
    handler = StreamingCallback(collect=True, on_complete=results.append)
    said: dict[uuid.UUID, str] = {}

    def work(seed: int) -> None:
        shuffle = random.Random(seed)
        runs = [Run(handler) for _ in range(250)]
        todo = [(run, n) for run in runs for n in range(20)]
        left = {run.run_id: 20 for run in runs}
        shuffle.shuffle(todo)
        for run, n in todo:
            text = f"{run.run_id.hex[:6]}-{n} "
            said[run.run_id] = said.get(run.run_id, "") + text
            run.token(text)
            left[run.run_id] -= 1
            if not left[run.run_id]:
                run.end(said[run.run_id])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {result.run_id: result.text for result in results} == said
    assert len(results) == 2000
    assert {result.mismatches for result in results} == {()}
    assert handler._streams._open == (0, 0)
    assert not lost(handler)


@pytest.mark.slow
def test_10000_streams_of_100_tokens_are_exact() -> None:
    """All in flight at once; counts, texts and memory come out even."""
    handler = StreamingCallback(collect=True)
    runs = [Run(handler) for _ in range(10_000)]
    for n in range(100):
        text = f"{n:03d}"
        for run in runs:
            handler.on_llm_new_token(text, run_id=run.run_id)
    assert handler._streams._open == (10_000, 3_000_000)
    whole = "".join(f"{n:03d}" for n in range(100))
    assert handler.partial(runs[7].run_id) == whole
    for run in runs:
        run.end(whole)
    totals = handler.snapshot().totals
    assert (totals.token_events, totals.streamed, totals.outcomes["ok"]) == (
        1_000_000,
        10_000,
        10_000,
    )
    assert handler._streams._open == (0, 0)
    assert not lost(handler)
