"""Readings of a source, one after another."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import Meter, Snapshot
from langmeter.report.recent import HISTORY_WINDOW, Reader, Recent
from langmeter.sources import SnapshotSource
from tests.support.days import Day, write_history
from tests.support.traffic import Traffic


class Ticking(SnapshotSource):
    """Snapshots of traffic, each after some seconds and some calls."""

    def __init__(self) -> None:
        self.traffic = Traffic()

    def snapshot(self) -> Snapshot:
        """Return the figures after ten more seconds and two more calls."""
        for _ in range(2):
            self.traffic.call(seconds=5.0)
        return self.traffic.snapshot()


def test_the_first_reading_is_of_everything() -> None:
    """Nothing earlier is known of a source that is read for the first time."""
    reading = Reader(Ticking()).read()
    assert reading.before is None
    assert reading.recent == reading.snapshot
    assert (reading.recent.totals.calls, reading.seconds) == (2, 10.0)


@pytest.mark.parametrize(("window", "seconds"), [(60.0, 60.0), (20.0, 20.0), (5.0, 10.0)])
def test_a_reading_is_of_the_window(window: float, seconds: float) -> None:
    """Differences go back by the window, or by one reading where that is more."""
    reader = Reader(Ticking(), window)
    readings = [reader.read() for _ in range(12)]
    last = readings[-1]
    assert last.seconds == pytest.approx(seconds)
    assert last.recent.totals.calls == 2 * seconds / 10
    assert last.before is not None
    assert last.before.totals.calls + last.recent.totals.calls == last.snapshot.totals.calls
    assert [each.seconds for each in readings[1:4]] == pytest.approx(
        [min(10.0 * n, seconds) for n in (1, 2, 3)]
    )


def test_a_process_that_was_started_again_begins_anew() -> None:
    """The first snapshot of another recorder stands for itself; the next has a difference."""
    recent = Recent()
    old, new = Ticking(), Ticking()
    recent.add(old.snapshot())
    recent.add(old.snapshot())
    first, second = recent.add(new.snapshot()), recent.add(new.snapshot())
    assert first.before is None
    assert first.recent == first.snapshot
    assert second.before is first.snapshot
    assert second.recent.totals.calls == 2


def test_of_a_history_the_last_minutes_are_read(tmp_path: Path) -> None:
    """A history gives its last rows: what was written before them is in no reading."""
    path = tmp_path / "metrics.db"
    write_history(path, Day(1), range(3))
    assert Reader(path).read().at is None
    meter = Meter(history=str(path))
    answer = AIMessage("4", response_metadata={"model_name": "gpt-4o"})
    model = GenericFakeChatModel(messages=iter([answer] * 4))
    model.batch(["2 + 2?"] * 4, config={"callbacks": [meter]})
    assert meter.flush() is None
    reading = Reader(path).read()
    assert reading.recent.totals.calls == 4
    assert 0 < reading.seconds <= HISTORY_WINDOW
    meter.close()


def test_a_file_stays_what_it_is(tmp_path: Path) -> None:
    """A snapshot that was taken once has no differences."""
    path = tmp_path / "snapshot.json"
    snapshot = Traffic().everything(3).snapshot()
    path.write_text(snapshot.to_json(), encoding="utf-8")
    reader = Reader(path)
    for reading in (reader.read(), reader.read()):
        assert reading.before is None
        assert reading.recent == snapshot


def test_an_empty_snapshot_is_a_reading() -> None:
    """A source in which nothing was counted has no moment."""
    assert Reader(Snapshot()).read().at is None
