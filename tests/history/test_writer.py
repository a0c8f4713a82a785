"""The writer of a history: when it writes, its options, and what it refuses."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import langmeter
from langmeter import ConfigError, Meter, MeterConfig
from langmeter.cli import main as cli
from langmeter.history import History, HistoryOptions
from langmeter.history.store import Store
from tests.support.models import call
from tests.support.waiting import eventually
from tests.support.written import NOW, count


def test_a_meter_writes_at_its_interval_and_at_the_end(url: str) -> None:
    """Differences are appended while it runs; close() adds the last one."""
    meter = Meter(history=HistoryOptions(url=url, interval=1))
    call(meter, 3)
    assert eventually(lambda: Path(url).exists() or "postgresql" in url)
    assert eventually(lambda: _count(url) == 3)
    call(meter, 2)
    assert meter.close() is None
    assert count(url) == 5
    assert History(url).snapshot().totals.tokens == meter.snapshot().totals.tokens
    rows = list(Store(url).read(None, None, 1))
    assert {row.host for row in rows} == {socket.gethostname()}
    assert {row.process.split("-")[0] for row in rows} == {str(os.getpid())}
    call(meter)  # counted, and written no more
    assert meter.close() is None
    assert count(url) == 5


def _count(url: str) -> int:
    try:
        return count(url)
    except langmeter.SourceError:
        return 0


def test_intervals_begin_at_whole_minutes(tmp_path: Path, monkeypatch: Any) -> None:
    """Of UTC, so that the rows of several processes have the same spans."""
    meter = Meter(history=tmp_path / "metrics.db")
    (observer,) = meter._services.subscriptions
    monkeypatch.setattr("langmeter.monitors.differences.time", lambda: NOW + 13.0)
    assert observer._first() == 47.0
    meter.close()


def test_flush_writes_what_was_counted_up_to_now(url: str) -> None:
    """Without waiting for the interval; twice is once."""
    meter = Meter(history=url)
    assert meter.flush() is None  # before the first call
    call(meter, 2)
    assert meter.flush() is None
    assert count(url) == 2
    assert meter.flush() is None
    assert count(url) == 2
    assert all(row.snapshot.totals.calls for row in Store(url).read(None, None, 1))
    meter.close()


def test_a_meter_without_a_history_has_nothing_to_write() -> None:
    """And loads none of it."""
    meter = Meter()
    assert meter.flush() is None
    assert meter.close() is None


def test_a_restart_is_a_new_process(url: str) -> None:
    """The rows of two meters add up; no figure is negative."""
    for times in (3, 2):
        meter = Meter(history=url)
        call(meter, times)
        assert meter.close() is None
    assert count(url) == 5
    calls: dict[str, int] = {}
    for row in Store(url).read(None, None, 60):
        calls[row.process] = calls.get(row.process, 0) + row.snapshot.totals.calls
    assert sorted(calls.values()) == [2, 3]


def test_a_meter_that_goes_ends_its_thread(tmp_path: Path) -> None:
    """Its last interval is lost without close(), and nothing else stays behind."""
    meter = Meter(history=tmp_path / "metrics.db")
    call(meter)
    assert meter._history is not None
    thread = meter._history._thread
    assert thread is not None
    assert thread.is_alive()
    del meter
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": ""}, "url must be a path or a URL of a database"),
        ({"url": 3}, "url must be a path or a URL of a database"),
        ({"interval": 0}, "interval must be a whole number from 1 to 3,600"),
        ({"interval": 7}, "interval must be a part of 3,600"),
        ({"keep_intervals": "soon"}, "keep_intervals must be a length of time"),
        ({"max_pending": 1}, "max_pending must be a whole number from 2"),
        ({"exit_timeout": -1}, "exit_timeout must be seconds from 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    """When they are made, not when they are used."""
    with pytest.raises(ConfigError, match=message):
        HistoryOptions(**{"url": "metrics.db", **options})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "url must be a file"),
        ("sqlite:///:memory:", "url must be a file"),
        ("nosuch://user:secret@host/db", "url must be of a known database"),
        ("post gres://user:secret@host:port/db", "url must be"),
    ],
)
def test_a_wrong_url_is_refused_by_the_meter(url: str, message: str) -> None:
    """A setting is checked at once; no password is in the message."""
    with pytest.raises(ConfigError, match=message) as caught:
        Meter(history=url)
    assert "secret" not in str(caught.value)


def test_a_file_says_where_the_history_is(tmp_path: Path) -> None:
    """As a path beside it, or a table; False switches it off."""
    file = tmp_path / "langmeter.toml"
    file.write_text('history = "metrics.db"\n')
    beside = tmp_path / "metrics.db"
    load = MeterConfig.load
    assert load(file, environ={}).history == HistoryOptions(url=str(beside))
    assert load(file, environ={}, history=False).history is None
    file.write_text('[history]\nurl = "metrics.db"\nkeep_hours = "forever"\ninterval = 30\n')
    options = HistoryOptions(url=str(beside), keep_hours=None, interval=30)
    assert load(file, environ={}).history == options
    shorter = load(file, environ={"LANGMETER_HISTORY_INTERVAL": "10"}).history
    assert shorter == HistoryOptions(url=str(beside), keep_hours=None, interval=10)
    url = "postgresql://host/database"
    assert load(environ={"LANGMETER_HISTORY": url}).history == HistoryOptions(url=url)
    with pytest.raises(ConfigError, match=r"_INTERVAL must be a part of 3,600, got 7"):
        load(file, environ={"LANGMETER_HISTORY_INTERVAL": "7"})
    with pytest.raises(ConfigError, match="url must be a path or a URL of a database"):
        load(environ={"LANGMETER_HISTORY_INTERVAL": "10"})


def test_no_password_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """Neither by `langmeter config` nor by a repr."""
    url = "postgresql://user:secret@host/database"
    monkeypatch.setenv("LANGMETER_HISTORY", url)
    assert cli.main(["config"]) == 0
    assert "postgresql://user:***@host/database" in capsys.readouterr().out
    config = MeterConfig.load()
    assert "user:***@host" in repr(config)
    assert config.history is not None
    assert config.history.url == url


def test_a_newer_schema_is_not_written(url: str, execute: Callable[[str], list[Any]]) -> None:
    """What was counted is returned; reading names the remedy."""
    Store(url).append([])
    execute("UPDATE langmeter_version SET version_num = '9999'")
    meter = Meter(history=url)
    call(meter)
    rest = meter.close(0.5)
    assert rest is not None
    assert rest.totals.calls == 1
    with pytest.raises(langmeter.SourceError, match=r"schema 9999.*upgrade langmeter"):
        History(url).snapshot()
