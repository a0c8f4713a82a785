"""What no sum has: the state, the anomalies and the labels of all processes of a directory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

import langmeter
from langmeter import Budget, Meter
from langmeter.directory import Directory, DirectoryOptions, fold
from langmeter.directory.files import arenas
from langmeter.directory.keeper import Keeper
from langmeter.directory.leases import DirectoryLeases
from langmeter.directory.notes import notes_of
from tests.support.arenas import forked, killed
from tests.support.models import chat_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files of recorders are Linux's")


def noted(meter: Meter) -> None:
    """Let the meter write its notes now, not within a second."""
    keeper = next(each for each in meter._services.observers if isinstance(each, Keeper))
    recorder = meter._services.recorder
    keeper._observe(recorder)


def child_of(directory: Path, work: Callable[[], object]) -> int:
    """A process that does some work, says so by a file, keeps the result, and waits for its end."""

    def run() -> None:
        kept = work()
        (directory / "ready").touch()
        time.sleep(60)
        del kept

    child = forked(run)
    while not (directory / "ready").exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child has failed"
        time.sleep(0.01)
    (directory / "ready").unlink()
    return child


def test_a_reader_sees_the_budgets_of_all_processes_until_they_end(tmp_path: Path) -> None:
    """A state belongs to a living process; the counts stay."""
    budgets = [Budget(calls=100, name="team", store=False)]

    def work() -> Meter:
        meter = Meter(directory=tmp_path, budgets=budgets, labels=("tenant",))
        chat_model().invoke("hi", config={"callbacks": [meter], "metadata": {"tenant": "a"}})
        noted(meter)
        return meter

    children = [child_of(tmp_path, work) for _ in range(2)]
    snapshot = langmeter.read(tmp_path)
    assert [(each.name, each.used) for each in snapshot.state.budgets] == [("team", 1)] * 2
    assert len({each.origin for each in snapshot.state.origins}) == 2
    for child in children:
        killed(child)
    for _ in range(2):
        assert not (after := langmeter.read(tmp_path)).state
        assert after.totals.calls == 2
        assert {name: row.calls for name, row in after.by("tenant").items()} == {"a": 2}
        fold(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix == ".state"] == []


def test_labels_are_known_before_their_first_call(tmp_path: Path) -> None:
    """So a reader can ask for what was declared, and gets nothing, not an error."""
    meter = Meter(directory=tmp_path, labels=(("tenant", "feature"),))
    chat_model().invoke("hi", config={"callbacks": [meter]})
    noted(meter)
    rows = langmeter.read(tmp_path).by("tenant", "feature")
    assert {name: row.calls for name, row in rows.items()} == {("", ""): 1}
    with pytest.raises(ValueError, match="the keys of a declared label"):
        langmeter.read(tmp_path).by("team")


def test_notes_are_written_when_they_change(tmp_path: Path) -> None:
    """An idle process touches its file, and writes nothing."""
    meter = Meter(directory=tmp_path, budgets=[Budget(calls=100)])
    chat_model().invoke("hi", config={"callbacks": [meter]})
    noted(meter)
    (arena,) = arenas(tmp_path)
    before = notes_of(arena).stat()
    os.utime(arena, (1, 1))
    noted(meter)
    assert notes_of(arena).stat().st_ino == before.st_ino
    assert arena.stat().st_mtime > time.time() - 60
    chat_model().invoke("hi", config={"callbacks": [meter]})
    noted(meter)
    assert notes_of(arena).stat().st_ino != before.st_ino
    assert [each.used for each in langmeter.read(tmp_path).state.budgets] == [2]


def test_damaged_notes_cost_no_count(tmp_path: Path) -> None:
    """A reader goes on without them."""
    meter = Meter(directory=tmp_path)
    chat_model().invoke("hi", config={"callbacks": [meter]})
    (arena,) = arenas(tmp_path)
    for data in (b"", b"LMTR", b"{}"):
        notes_of(arena).write_bytes(data)
        assert Directory(tmp_path).snapshot().totals.calls == 1


# --- alerts --------------------------------------------------------------------------------------


def test_one_process_holds_a_rule_until_it_ends(tmp_path: Path) -> None:
    """Another takes it, with the state of its alerts, the moment after."""
    options = DirectoryOptions(path=tmp_path)
    state = {"key": [], "status": "firing", "since": 5.0}

    def work() -> DirectoryLeases:
        leases = DirectoryLeases(options)
        assert leases.hold(["a", "b"], 0) == {"a": [], "b": []}
        leases.save({"a": [state]})
        return leases

    child = child_of(tmp_path, work)
    other = DirectoryLeases(options)
    assert other.hold(["a", "b", "c"], 0) == {"c": []}
    killed(child)
    assert other.hold(["a", "b", "c"], 0) == {"a": [state], "b": [], "c": []}
    third = DirectoryLeases(options)
    assert third.hold(["a"], 0) == {}
    other.release()
    assert third.hold(["a"], 0) == {"a": [state]}
    third.release()


def test_a_forked_child_holds_no_rule_of_its_parent(tmp_path: Path) -> None:
    """Nor does it keep one that its parent gives back."""
    options = DirectoryOptions(path=tmp_path)
    parent = DirectoryLeases(options)
    assert parent.hold(["a"], 0) == {"a": []}
    child = child_of(tmp_path, lambda: None)
    parent.release()
    other = DirectoryLeases(options)
    assert other.hold(["a"], 0) == {"a": []}
    killed(child)
    other.release()


def test_alerts_are_judged_once_over_all_processes(tmp_path: Path) -> None:
    """Four workers with 15 failures each fire one alert, at 60; none of them sees so many."""
    alerts: list[langmeter.alerts.Alert] = []
    failing = GenericFakeChatModel(messages=iter(()))
    rules = ["errors > 50 per 1h", "budget('team').used > 50%"]
    meter = Meter(
        directory=tmp_path,
        alerts=rules,
        sinks=[alerts.append],
        budgets=[Budget(calls=100, name="team", store=False)],
    )
    chat_model().invoke("hi", config={"callbacks": [meter]})
    meter.flush()

    def work() -> Meter:
        own = Budget(calls=20, name="team", store=False)
        worker = Meter(directory=tmp_path, alerts=rules, budgets=[own])
        for _ in range(15):
            chat_model().invoke("hi", config={"callbacks": [worker]})
            with pytest.raises(StopIteration):
                failing.invoke("hi", config={"callbacks": [worker]})
        noted(worker)
        worker.flush()
        assert worker.alerts.open == []
        return worker

    children = [child_of(tmp_path, work) for _ in range(4)]
    assert alerts == []
    meter.flush()
    fired = {alert.name: alert for alert in alerts}
    assert [alert.status for alert in alerts] == ["firing", "firing"]
    assert fired["errors > 50 per 1h"].value == 60
    assert fired["budget('team').used > 50%"].value == 0.75
    assert {each.name for each in meter.snapshot().state.alerts} == set(fired)
    for child in children:
        killed(child)
    meter.close()


def test_a_leader_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    """What fired goes on, and is not sent again."""
    alerts: list[langmeter.alerts.Alert] = []

    def work() -> Meter:
        meter = Meter(directory=tmp_path, alerts=["calls > 1 per 1h"], sinks=[lambda alert: None])
        for _ in range(3):
            chat_model().invoke("hi", config={"callbacks": [meter]})
        meter.flush()
        assert meter.alerts.open
        return meter

    child = child_of(tmp_path, work)
    meter = Meter(directory=tmp_path, alerts=["calls > 1 per 1h"], sinks=[alerts.append])
    chat_model().invoke("hi", config={"callbacks": [meter]})
    meter.flush()
    assert meter.alerts.open == []
    killed(child)
    meter.flush()
    assert [name for name, _, _ in meter.alerts.open] == ["calls > 1 per 1h"]
    assert alerts == []
    meter.close()


def test_alerts_of_a_directory_that_is_emptied_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No failure of the directory reaches a call, and the meter goes on."""
    meter = Meter(directory=tmp_path / "d", alerts=["calls > 1 per 1h"])
    chat_model().invoke("hi", config={"callbacks": [meter]})
    meter.flush()
    for path in (tmp_path / "d").iterdir():
        path.unlink()
    for _ in range(3):
        chat_model().invoke("hi", config={"callbacks": [meter]})
        meter.flush()
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "alerts are not judged" in text]) == 1
    assert meter.snapshot().totals.calls == 4
    meter.close()


def test_a_reading_that_fails_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next difference has what was counted meanwhile, and that alone."""
    meter = Meter(directory=tmp_path, alerts=["calls > 100 per 1h"])
    observer = meter._alert_observer
    chat_model().invoke("hi", config={"callbacks": [meter]})
    assert observer.take().totals.calls == 1  # type: ignore[union-attr]
    chat_model().invoke("hi", config={"callbacks": [meter]})
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "snapshot", lambda _: (_ for _ in ()).throw(OSError("gone")))
        assert observer.take().totals.calls == 0  # type: ignore[union-attr]
    chat_model().invoke("hi", config={"callbacks": [meter]})
    assert observer.take().totals.calls == 2  # type: ignore[union-attr]
    meter.close()
