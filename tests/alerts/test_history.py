"""Alerts over a history: one process judges, its state survives, and a history is played back."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from langmeter import Meter, Snapshot
from langmeter.alerts import Alert, Rule
from langmeter.alerts.engine import Engine
from langmeter.alerts.monitor import AlertMonitor
from langmeter.alerts.replay import replayed
from langmeter.cli.main import main
from langmeter.history.leases import LEASE, Leases
from langmeter.history.store import Store
from langmeter.snapshot.state import State
from tests.alerts.alerting import alerting
from tests.support.histories import difference, row
from tests.support.models import chat_model

HOUR = 1_728_000_000


def leases(file: Path, name: str) -> Leases:
    return Leases(file, lambda: name)


def test_one_of_two_holds_a_rule(tmp_path: Path) -> None:
    """Until it says nothing for half a minute, or gives it back; its state goes over."""
    file = tmp_path / "metrics.db"
    first, second = leases(file, "a"), leases(file, "b")
    assert first.hold(["x", "y"], 1000) == {"x": [], "y": []}
    assert second.hold(["x", "z"], 1005) == {"z": []}
    first.save({"x": [{"key": []}]})
    second.save({"x": [{"key": ["wrong"]}]})  # which it does not hold
    assert second.hold(["x"], 1000 + LEASE) == {}
    assert second.hold(["x"], 1001 + LEASE) == {"x": [{"key": []}]}
    assert first.hold(["x", "y"], 1002 + LEASE) == {"y": []}
    second.release()
    assert first.hold(["x"], 1003 + LEASE) == {"x": [{"key": []}]}


def test_rows_of_others_come_once(tmp_path: Path) -> None:
    """Those of the own process are known, and those before the window are too old."""
    file = tmp_path / "metrics.db"
    lease = leases(file, "1-a")
    lease.hold(["x"], HOUR)
    store = Store(file)
    for number, (process, start) in enumerate([("1-a", 0), ("2-b", 0), ("2-b", 60), ("3-c", -600)]):
        span = difference(HOUR + start, HOUR + start + 60)
        store.append([row(span, process=process, number=number)])
    news = list(lease.news(HOUR, HOUR + 120))
    assert [(started, ended) for started, ended, _ in news] == [
        (HOUR, HOUR + 60),
        (HOUR + 60, HOUR + 120),
    ]
    assert list(lease.news(HOUR, HOUR + 120)) == []
    store.append([row(difference(HOUR, HOUR + 60), process="4-d")])
    assert len(list(lease.news(HOUR, HOUR + 125))) == 1


class _Process:
    """The monitor of a process, with figures that a test decides."""

    def __init__(self, file: Path, name: str, rule: Rule) -> None:
        self.got: list[Alert] = []
        self.counted = Snapshot()
        self.monitor = AlertMonitor(
            [rule],
            [self.got.append],
            count=lambda *_: None,
        )
        self.monitor.observe(self, leases(file, name))

    def take(self) -> Snapshot:
        return self.counted

    @property
    def state(self) -> State:
        return State()

    def evaluate(self, counted: Snapshot) -> list[str]:
        begin = len(self.got)
        self.counted = counted
        assert self.monitor.flush(60)
        return [alert.status for alert in self.got[begin:]]


def recent(**options: Any) -> Snapshot:
    now = time.time()
    return difference(now - 5, now, [0.001] * 10, **options)


def test_one_of_two_processes_alerts(tmp_path: Path) -> None:
    """The other one takes over what fires, and resolves it with the begin of the first."""
    file = tmp_path / "metrics.db"
    rule = Rule("errors > 5 per 1h", resolve="2")
    first, second = _Process(file, "1-a", rule), _Process(file, "2-b", rule)
    assert first.evaluate(recent(errors=3)) == []
    assert second.evaluate(recent(errors=9)) == []
    assert first.evaluate(recent(errors=3)) == ["firing"]
    first.monitor.close(60)
    # What the second counted itself, beyond the threshold, and the state of the first.
    assert second.evaluate(recent()) == []
    assert [name for name, _, _ in second.monitor.open] == [rule.text]
    second.monitor.close(60)


def test_the_figures_of_all_processes_are_judged(tmp_path: Path) -> None:
    """Those of the others as the history has them."""
    file = tmp_path / "metrics.db"
    process = _Process(file, "1-a", Rule("errors > 5 per 1h"))
    assert process.evaluate(recent(errors=3)) == []
    Store(file).append([row(recent(errors=3), process="2-b")])
    assert process.evaluate(Snapshot()) == ["firing"]
    assert process.got[0].value == 6
    process.monitor.close(60)


def test_an_alert_survives_a_restart(tmp_path: Path) -> None:
    """A new process does not send it again, and knows the figures of the one before."""
    file = tmp_path / "metrics.db"
    got: list[Alert] = []
    for _ in range(2):
        meter = Meter(history=file, alerts=["calls > 2 per 1h"], sinks=[got.append])
        for _ in range(3):
            chat_model().invoke("hello", config={"callbacks": [meter]})
        meter.flush(60)
        assert len(meter.alerts.open) == 1
        meter.close(60)
    assert [alert.value for alert in got] == [3]


def test_a_database_that_is_away_costs_the_alerts_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What this process judged it judges on; that is logged once."""
    file = tmp_path / "folder" / "metrics.db"
    file.parent.mkdir()
    process = _Process(file, "1-a", Rule("errors > 5 per 1h"))
    assert process.evaluate(recent(errors=3)) == []
    for each in file.parent.iterdir():
        each.unlink()
    file.parent.rmdir()
    assert process.evaluate(recent(errors=3)) == ["firing"]
    assert process.evaluate(recent()) == []
    process.monitor.close(60)
    assert len([r for r in caplog.records if "the state of alerts cannot" in r.message]) == 1


@pytest.mark.process
def test_of_four_processes_one_alerts(tmp_path: Path) -> None:
    """Each has enough calls, and all write one history."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    arguments = (str(tmp_path / "metrics.db"), barrier, results)
    processes = [context.Process(target=alerting, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    sent = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert sorted(map(len, sent)) == [0, 0, 0, 1]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """An hour with errors from its 20th to its 30th minute."""
    file = tmp_path / "metrics.db"
    rows = []
    for minute in range(60):
        start = HOUR + 60 * minute
        errors = 8 if 20 <= minute < 30 else 0
        span = difference(start, start + 60, [0.001] * 20, errors=errors)
        rows.append(row(span, number=minute + 1))
    Store(file).append(rows)
    return file


def test_a_history_is_played_back(history: Path) -> None:
    """The alert would have fired when the errors were enough, and resolved after them."""
    alerts = replayed(history, [Rule("error_rate > 10%", window="5m", by="model")])
    assert [(alert.status, (alert.at.timestamp() - HOUR) / 60) for alert in alerts] == [
        ("firing", pytest.approx(22, abs=1)),
        ("resolved", pytest.approx(35, abs=2)),
    ]
    assert alerts[0].labels == {"model": "gpt-4o"}


def test_played_back_is_as_it_was(history: Path) -> None:
    """An engine that is fed each minute fires at the same minutes."""
    rule = Rule("error_rate > 10%", window="5m")
    engine, live = Engine([rule], interval=60), []
    for span in Store(history).read(None, None, None):
        engine.observe(span.started, span.ended, span.snapshot)
        live += engine.evaluate(span.ended)
    assert [alert.to_dict() for alert in live] == [
        alert.to_dict() for alert in replayed(history, [rule])
    ]


def test_the_command_plays_a_history_back(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table and as JSON; what a history does not have is named."""
    command = ["alerts", "check", "--history", str(history), "--rule", "error_rate > 10%"]
    assert main([*command, "--rule", "budget('a').used > 80%"]) == 0
    answer = capsys.readouterr()
    assert [line.split()[2] for line in answer.out.splitlines()[2:]] == ["firing", "resolved"]
    assert "not judged: budget('a').used > 80%" in answer.err
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [each["status"] for each in rows] == ["firing", "resolved"]
    assert main([*command, "--until", "2024-10-04T00:10"]) == 0
    assert capsys.readouterr().out == "no alert would have fired\n"
    with pytest.raises(SystemExit):
        main(["alerts", "check", "--rule", "cost > 1"])
    with pytest.raises(SystemExit):
        main(["alerts", "check", "--rule", "cost > 1", "--history", "nowhere.db"])
    assert "there is no history at" in capsys.readouterr().err
