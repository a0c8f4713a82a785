"""Stores that hang, refuse, are locked, read-only, deleted or not what their address says."""

from __future__ import annotations

import os
import pickle
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from langmeter import Budget, BudgetExceeded, ConfigError, Meter, StoreError
from langmeter.budgets.shared import open_store, renewals
from langmeter.prices import PriceBook
from tests.budgets.shared.stored import stored
from tests.budgets.shared.test_stores import REQUEST
from tests.budgets.shared.workers import Model
from tests.support.waiting import eventually


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """A server that gives the same answer to each command; None for one that never answers."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                if answer is not None:
                    # A command is an array of bulk strings; redis-py sends several at once.
                    for _ in range(max(1, data.count(b"\r\nCLIENT\r\n"))):
                        connection.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection = listener.accept()[0]
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"valkey://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def refused(url: str, **words: Any) -> tuple[BudgetExceeded, Budget, Meter]:
    """Make a call that is refused."""
    budget = Budget(calls=5, action="block", store=url, name="b", **words)
    meter = Meter(prices=None, budgets=[budget])
    with pytest.raises(BudgetExceeded) as caught:
        Model().invoke("?", config={"callbacks": [meter]})
    return caught.value, budget, meter


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-LOADING the server is loading the dataset in memory\r\n",
        b"-MOVED 3999 127.0.0.1:6381\r\n",
        b"-NOSCRIPT No matching script.\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"+OK\r\n",
        b":7\r\n",
        b"*2\r\n+a\r\n+b\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=lambda answer: "hangs" if answer is None else answer.split()[0].decode(),
)
def test_a_server_that_gives_no_lease_refuses_calls_as_store(
    answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it answers, or if it never does: the reason is "store", and the log has the rest."""
    with server(answer) as url:
        refusal, budget, meter = refused(url)
        assert (refusal.reason, budget.spent, budget.remaining) == ("store", 0, 5)
        with pytest.raises(StoreError):
            budget.reset()
        with pytest.raises(StoreError):
            budget.set_limit(9)
        assert budget.limit == 5
        assert meter.snapshot().dropped["store_unavailable"] >= 1
        assert sum("has lost its store" in text for text in caplog.messages) == 1
        renewals.shared.tick()


def test_a_file_that_another_program_holds_refuses_calls_until_it_is_released(
    tmp_path: Path,
) -> None:
    """What is leased is spent meanwhile."""
    url = f"sqlite:///{tmp_path}/budgets.db"
    budget = Budget(calls=100, action="block", store=url, name="b")
    meter = Meter(prices=None, budgets=[budget])
    config: Any = {"callbacks": [meter]}
    Model().invoke("?", config=config)
    with closing(sqlite3.connect(tmp_path / "budgets.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        made, refusal = 1, None
        while refusal is None:
            try:
                Model().invoke("?", config=config)
                made += 1
            except BudgetExceeded as error:
                refusal = error
        assert (refusal.reason, 1 < made < 100) == ("store", True)
        other.execute("ROLLBACK")
    renewals.shared.tick()
    while made < 100:
        with suppress(BudgetExceeded):
            Model().invoke("?", config=config)
            made += 1
    assert eventually(lambda: budget.spent == 100)


def test_a_file_that_is_deleted_is_begun_anew_by_all(tmp_path: Path) -> None:
    """Processes that had it open do not go on with one that no other sees."""
    url = f"sqlite:///{tmp_path}/budgets.db"
    budgets = [Budget(calls=10, action="block", store=url, name="b") for _ in range(2)]
    meters = [Meter(prices=None, budgets=[budget]) for budget in budgets]
    for meter in meters:
        Model().invoke("?", config={"callbacks": [meter]})
    for path in tmp_path.iterdir():
        path.unlink()
    made = 0
    with suppress(BudgetExceeded):
        while made < 20:
            Model().invoke("?", config={"callbacks": [meters[made % 2]]})
            made += 1
    renewals.shared.tick()
    # The two calls before count there too, where they had not been reported yet.
    assert made <= stored(url).figures["spent"] <= 10


def test_a_directory_that_is_deleted_stays_deleted(tmp_path: Path) -> None:
    """As that of `langmeter run` is at its end."""
    folder = tmp_path / "run"
    store = open_store(f"sqlite:///{folder}/budgets.db")
    store.renew("b", REQUEST, 5.0)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(StoreError):
        store.renew("b", REQUEST, 0.05)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_refuses_calls_as_store(tmp_path: Path) -> None:
    """A file cannot be made below a file, nor in a folder that is read-only."""
    (tmp_path / "file").touch()
    folders = [tmp_path / "file"]
    if hasattr(os, "getuid") and os.getuid() != 0:  # root may write anywhere
        folders.append(tmp_path / "folder")
        folders[1].mkdir(mode=0o555)
    for folder in folders:
        refusal, budget, _ = refused(f"sqlite:///{folder}/budgets.db")
        assert (refusal.reason, budget.spent) == ("store", 0)


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"now":1}', '{"now":1,"passed":1,"holdings":{"a":1}}']
)
def test_a_row_that_is_not_an_account_is_named(tmp_path: Path, text: str) -> None:
    """As a StoreError."""
    store = open_store(f"sqlite:///{tmp_path}/budgets.db")
    store.renew("b", REQUEST, 5.0)
    with closing(sqlite3.connect(tmp_path / "budgets.db", isolation_level=None)) as other:
        other.execute("UPDATE budgets SET account = ?", (text,))
    with pytest.raises(StoreError, match=r"budgets\.db: "):
        store.renew("b", REQUEST, 5.0)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@host:port",
        "redis://user:secret@host:70000",
        "redis://:secret@host:0",
        "redis://:secret@host/first",
        "redis://:secret@",
        "redis:/:secret@host",
        "redi://:secret@host",
        "user:secret@host",
        "redis://:secret@[::1",
        "sqlite://user:secret@host/b.db",
        "sqlite:///b.db?mode=secret",
        "sqlite:///:memory:",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///folder/",
    ],
)
def test_an_address_that_is_wrong_is_refused_without_its_password(url: str) -> None:
    """The error names the value, what is allowed and a remedy."""
    with pytest.raises(ConfigError, match="store must be the address of a store") as caught:
        Budget(calls=1, store=url)
    assert "got '" in str(caught.value)
    assert "write 'sqlite:///budgets.db'" in str(caught.value)
    assert "secret" not in f"{caught.value}{caught.value.problems}"


def test_budgets_that_would_be_one_in_their_store_are_refused(tmp_path: Path) -> None:
    """They would count each call twice; a name tells them apart."""
    store = f"sqlite:///{tmp_path}/budgets.db"
    first = Budget(calls=3, per="day", store=store)
    with pytest.raises(ConfigError, match="budgets in one store must have different names"):
        Meter(prices=None, budgets=[first, Budget(calls=5, per="day", action="block", store=store)])
    again = Budget(calls=3, per="day", store=store)
    named = Budget(calls=5, per="day", action="block", store=store, name="hard")
    meter = Meter(prices=None, budgets=[again, named])
    Model().invoke("?", config={"callbacks": [meter]})
    renewals.shared.tick()
    assert (again.spent, named.spent) == (1, 1)


def test_a_budget_is_read_and_changed_without_a_call(tmp_path: Path) -> None:
    """A program that only looks, or only resets, speaks for all."""
    store = f"sqlite:///{tmp_path}/budgets.db"
    words: Any = {"usd": Decimal("0.5"), "action": "block", "store": store, "name": "b"}
    prices = PriceBook({"acme/*": {"input": 1000, "output": 1000}})
    budget, reader = Budget(**words), Budget(**words)
    meter = Meter(prices=prices, budgets=[budget])
    Model().invoke("?", config={"callbacks": [meter]})
    renewals.shared.tick()
    assert "0 of 0.5 USD spent" in repr(reader)  # of no meter yet
    other = Meter(prices=prices, budgets=[reader])
    assert (reader.spent, reader.limit) == (Decimal("0.003"), Decimal("0.5"))
    assert reader.remaining == Decimal("0.497")
    changer = Budget(**words)
    third = Meter(prices=prices, budgets=[changer])
    changer.reset()
    changer.set_limit(2)
    assert (changer.spent, changer.limit) == (0, 2)
    del other, third


def has_spent(budget: Budget, amount: int) -> bool:
    """Whether so much is spent."""
    return budget.spent == amount


def test_copies_of_a_budget_have_its_terms(tmp_path: Path) -> None:
    """A copy belongs to no meter; with a store it is the same budget, without one another."""
    store = f"sqlite:///{tmp_path}/budgets.db"
    words: dict[str, Any] = {
        "calls": 9,
        "per": "day",
        "action": "block",
        "scope": {"model": ("big",)},
    }
    shared: dict[str, Any] = {"store": store, "name": "b", "time_zone": "Europe/Berlin"}
    for more in ({}, shared):
        budget = Budget(**words, **more)
        meter = Meter(prices=None, budgets=[budget])
        Model().invoke("?", config={"callbacks": [meter]})
        budget.set_limit(8)
        copies = deepcopy(budget), pickle.loads(pickle.dumps(budget))
        for number, copy in enumerate(copies, 2):
            for name in ("unit", "per", "scope", "action", "store", "time_zone"):
                assert getattr(copy, name) == getattr(budget, name)
            second = Meter(prices=None, budgets=[copy])
            Model().invoke("?", config={"callbacks": [second]})
            renewals.shared.tick()
            assert copy.limit == 8
            assert eventually(partial(has_spent, copy, number if more else 1))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_children_forked_with_a_budget_in_use_spend_from_it(tmp_path: Path) -> None:
    """Each reports what it spent, and nothing of its parent's."""
    store = f"sqlite:///{tmp_path}/budgets.db"
    budget = Budget(calls=100, action="block", store=store, name="b")
    meter = Meter(prices=None, budgets=[budget])
    config: Any = {"callbacks": [meter]}
    for _ in range(3):
        Model().invoke("?", config=config)
    for _ in range(3):
        child = os.fork()
        if not child:
            for _ in range(5):
                Model().invoke("?", config=config)
            renewals.shared.leave()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    Model().invoke("?", config=config)
    renewals.shared.tick()
    assert eventually(lambda: budget.spent == 3 + 3 * 5 + 1)
