"""Rows of a history: appended once, rolled up once, read once."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langmeter import Snapshot, SourceError
from langmeter.history.schema import DAY, HOUR, INTERVAL
from langmeter.history.store import Span, Store, interval_of, total
from tests.support.histories import difference, row
from tests.support.laws import examples

FOREVER = (None, None, None)
#: A midnight, so that days begin where tests say.
T = 20_000 * 86_400
HOURS, DAYS = 3600, 86_400


def minute(at: int, calls: int = 1, **more: Any) -> Snapshot:
    """Return a minute's difference, `at` minutes after T."""
    start = T + 60 * at
    return difference(start, start + 60, [0.2 + 0.01 * n for n in range(calls)], **more)


def everything(store: Store, step: int | None = None, **span: Any) -> Snapshot:
    rows = store.read(span.get("since"), span.get("until"), step)
    return total(each.snapshot for each in rows)


def of_level(store: Store, level: int) -> list[Span]:
    """Return the rows of one level as the database has them."""
    from sqlalchemy import select

    from langmeter.history.schema import spans
    from langmeter.history.store import _span

    with store.database.reading() as connection:
        query = select(spans).where(spans.c.level == level).order_by(spans.c.ended)
        return [_span(each) for each in connection.execute(query).all()]


def roll_up(store: Store, now: float, keep: Any = FOREVER) -> int:
    hours = 0
    while store.roll_up(now, keep):
        hours += 1
    return hours


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (T + 0.05, T + 60.05, (0, 60)),  # a timer that is late
        (T - 0.001, T + 59.9, (0, 60)),
        (T + 20, T + 60.05, (0, 60)),  # a process that began in between
        (T + 60.05, T + 63, (60, 120)),  # and one that ended
        (T + 60.05, T + 60.06, (60, 120)),
        (T + 30, T + 3700, (0, 3720)),  # one that was suspended
        (T + 0.05, T + 180.05, (0, 180)),  # merged neighbours
    ],
)
def test_intervals_are_whole_minutes(start: float, end: float, span: tuple[int, int]) -> None:
    """Begin and end are rounded outward, but for the delay of a timer."""
    assert interval_of(difference(start, end, [0.001]), 60) == (T + span[0], T + span[1])


def test_a_row_is_appended_once(url: str) -> None:
    """A writing whose answer was lost is tried again, and changes nothing."""
    store, other = Store(url), Store(url)
    rows = [row(minute(0), number=1), row(minute(1), number=2), row(minute(0), process="2-b")]
    assert store.append(rows[:1]) == 1
    assert store.append(rows[:2]) == 1
    assert other.append(rows) == 1
    assert everything(store).totals.calls == 3


def test_what_is_read_is_what_was_written(url: str) -> None:
    """Figures, histograms and names come back to the last digit."""
    store = Store(url)
    snapshots = [minute(n, 5, model=f"m{n}", errors=n, team="search") for n in range(3)]
    store.append(row(snapshot, number=n) for n, snapshot in enumerate(snapshots))
    expected = total(Snapshot(snapshot._native.counted()) for snapshot in snapshots)
    read = everything(store)
    assert read == expected
    assert read.totals.cost == expected.totals.cost
    assert read.labels["team", "search"].latency == expected.labels["team", "search"].latency
    assert read.rates == {}
    assert read.in_flight == 0


def test_an_hour_and_a_day_are_the_sums_of_their_minutes(url: str) -> None:
    """Processes of one host are summed, hosts are not; the running hour stays as it is."""
    store = Store(url)
    rows = [
        row(minute(at, 1 + at % 3), process=process, number=at, host=host)
        for process, host in (("1-a", "a"), ("2-b", "a"), ("3-c", "b"))
        for at in (0, 59, 60, 125)
    ]
    store.append(rows)
    before = everything(store)
    assert roll_up(store, T + 2 * HOURS + 1) == 2
    assert [(r.host, r.started, r.ended) for r in of_level(store, HOUR)] == [
        (host, T + n * HOURS, T + (n + 1) * HOURS) for n in (0, 1) for host in ("a", "b")
    ]
    assert [(r.host, r.started, r.ended) for r in of_level(store, DAY)] == [
        (host, T, T + DAYS) for host in ("a", "b")
    ]
    for hour in of_level(store, HOUR):
        parts = [
            r.snapshot
            for r in rows
            if r.host == hour.host and hour.ended - HOURS < r.ended <= hour.ended
        ]
        assert hour.snapshot == total(parts)
    for step in (None, 60, HOURS, DAYS):
        assert everything(store, step) == before


def test_rolling_up_again_changes_nothing(url: str, execute: Callable[[str], list[Any]]) -> None:
    """Neither in the same process nor in another one."""
    store = Store(url)
    store.append(row(minute(at), number=at) for at in range(0, 200, 7))
    query = "SELECT level, ended, started, rolled, data FROM langmeter_span ORDER BY 1, 2"
    roll_up(store, T + 3 * HOURS)
    once = execute(query)
    assert roll_up(store, T + 3 * HOURS) == 0
    assert roll_up(Store(url), T + 3 * HOURS) == 0
    assert execute(query) == once


def test_a_late_row_reopens_its_hour(url: str) -> None:
    """What waited while the database was away goes into its own hour and day, once."""
    store = Store(url)
    store.append([row(minute(0), number=1)])
    roll_up(store, T + 3 * DAYS, (48 * HOURS, None, None))
    assert of_level(store, INTERVAL) == []  # two days are over
    store.append([row(minute(1, 4), number=2)])
    assert everything(store, HOURS).totals.calls == 5  # before it is rolled up, too
    roll_up(store, T + 3 * DAYS, (48 * HOURS, None, None))
    assert of_level(store, INTERVAL) == []
    for level in (HOUR, DAY):
        (sum_,) = of_level(store, level)
        assert sum_.snapshot.totals.calls == 5


def test_rows_from_before_the_first_are_kept_as_any_other(url: str) -> None:
    """Older snapshots that are added later have their minutes and hours, too."""
    store = Store(url)
    for number, hour in enumerate((50, 26, 2)):
        store.append([row(minute(60 * hour), number=number)])
        roll_up(store, T + 72 * HOURS)
    for level in (INTERVAL, HOUR, DAY):
        assert len(of_level(store, level)) == 3
    for step in (None, 60, HOURS, DAYS):
        assert everything(store, step).totals.calls == 3


@pytest.mark.slow
def test_old_rows_are_deleted_and_no_figure_is(url: str) -> None:
    """Minutes go after their time, then hours; days stay, and the sum with them."""
    store = Store(url)
    store.append(row(minute(60 * hour), number=hour) for hour in range(100))
    keep = (48 * HOURS, 72 * HOURS, None)
    roll_up(store, T + 100 * HOURS, keep)
    assert next(r.ended for r in of_level(store, INTERVAL)) == T + 52 * HOURS + 60
    assert next(r.ended for r in of_level(store, HOUR)) == T + DAYS + HOURS
    assert len(of_level(store, DAY)) == 5
    for step in (None, 60, HOURS, DAYS):
        assert everything(store, step).totals.calls == 100
    roll_up(store, T + 100 * HOURS, (1.0, 1.0, 2.0 * DAYS))
    assert everything(store).totals.calls == 52  # the days up to 48 hours after T


def test_unrolled_rows_are_never_deleted(url: str) -> None:
    """A row that is in no hour yet stays, however old it is."""
    store = Store(url)
    store.append([row(minute(0), number=1), row(minute(24 * 60), number=2)])
    assert store.roll_up(T + 30 * DAYS, (1.0, 1.0, None))  # one hour of the two
    assert everything(store).totals.calls == 2
    assert len(of_level(store, INTERVAL)) == 1


@pytest.mark.slow
def test_processes_that_roll_up_at_once_count_once(url: str) -> None:
    """Four of them append and roll up against each other, and the sum is exact."""
    failures: list[BaseException] = []

    def work(name: int) -> None:
        store = Store(url, timeout=30)
        try:
            for at in range(25):
                store.append([row(minute(30 * at), process=str(name), number=at)])
                store.roll_up(T + 2 * DAYS, (48 * HOURS, None, None))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = Store(url)
    roll_up(store, T + 2 * DAYS)
    for step in (None, 60, HOURS, DAYS):
        assert everything(store, step).totals.calls == 100
    assert sum(r.snapshot.totals.calls for r in of_level(store, DAY)) == 100


#: Minutes with calls, 0 to 5 days after T, and after how many of them to roll up, and until when.
events = st.lists(
    st.tuples(st.integers(0, 5 * 24 * 60 - 1), st.integers(1, 3), st.sampled_from("ab")),
    min_size=1,
    max_size=25,
)
rolls = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 6 * 24)), max_size=4)
keeps = st.sampled_from([FOREVER, (48 * HOURS, 90 * DAYS, None), (3600.0, 36 * HOURS, None)])


@pytest.mark.slow
@examples(40)
@given(events, rolls, keeps)
# A late row from the day before the first one that was rolled up.
@example([(1440, 1, "a"), (0, 1, "a")], [(0, 25)], FOREVER)
def test_every_order_gives_the_same_sums(
    minutes: list[tuple[int, int, str]], rolls: list[tuple[int, int]], keep: Any
) -> None:
    """Whenever hours are rolled up, late rows included, each level adds up to what was counted."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "metrics.db"))
        for number, (at, calls, host) in enumerate(minutes):
            store.append([row(minute(at, calls), number=number, host=host)])
            for _, hours in (roll for roll in rolls if roll[0] == number):
                roll_up(store, T + hours * HOURS, keep)
        expected = sum(calls for _, calls, _ in minutes)
        for step in (None, 60, HOURS, DAYS):
            assert everything(store, step).totals.calls == expected
        roll_up(store, T + 6 * DAYS)
        for step in (None, 60, HOURS, DAYS):
            assert everything(store, step).totals.calls == expected
        assert sum(r.snapshot.totals.calls for r in of_level(store, DAY)) == expected
        assert _by(of_level(store, DAY), DAYS) == _exact(minutes, DAYS)
        if keep == FOREVER or not rolls:
            assert _by(of_level(store, HOUR), HOURS) == _exact(minutes, HOURS)
            assert _by(of_level(store, INTERVAL), 60) == _exact(minutes, 60)


def _by(rows: Iterable[Span], size: int) -> dict[tuple[int, str], int]:
    sums: dict[tuple[int, str], int] = {}
    for each in rows:
        key = ((each.ended - size - T) // size, each.host)
        sums[key] = sums.get(key, 0) + each.snapshot.totals.calls
    return sums


def _exact(minutes: list[tuple[int, int, str]], size: int) -> dict[tuple[int, str], int]:
    sums: dict[tuple[int, str], int] = {}
    for at, calls, host in minutes:
        key = (60 * at // size, host)
        sums[key] = sums.get(key, 0) + calls
    return sums


@pytest.mark.slow
@examples(40)
@given(
    events,
    st.integers(0, 6 * 24),
    keeps,
    st.integers(-100, 6 * 24 * 60),
    st.integers(1, 3 * 24 * 60),
    st.sampled_from([None, 60, 900, HOURS, 5400, DAYS]),
)
def test_a_span_holds_exactly_what_it_says(
    minutes: list[tuple[int, int, str]],
    now: int,
    keep: Any,
    since: int,
    length: int,
    step: int | None,
) -> None:
    """Whatever is read from days, hours and minutes, it is the sum of the minutes in the span.

    The span is the one that was asked for, widened to whole rows of what is kept there.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "metrics.db"))
        store.append(
            row(minute(at, calls), number=number, host=host)
            for number, (at, calls, host) in enumerate(minutes)
        )
        roll_up(store, T + now * HOURS, keep)
        begin, end = T + 60 * since, T + 60 * (since + length)
        rows = list(store.read(begin, end, step))
        kept = min((r.ended - 60 for r in of_level(store, INTERVAL)), default=T + 7 * DAYS)
        low = min([begin, *(r.started for r in rows)])
        high = max([end, *(r.ended for r in rows)])
        assert begin - low < DAYS
        assert high - end < DAYS
        if begin >= kept and step in (None, 60):
            assert low > begin - 60
        exact = sum(calls for at, calls, _ in minutes if low <= T + 60 * at < high)
        assert sum(r.snapshot.totals.calls for r in rows) == exact


def test_what_is_not_a_history_is_refused(url: str, tmp_path: Path) -> None:
    """Neither a file that is not there, which stays so, nor a database of something else."""
    missing = tmp_path / "none.db"
    with pytest.raises(SourceError, match=r"there is no history at sqlite:.*none\.db"):
        Store(missing).read(None, None, None)
    assert not missing.exists()
    if "postgresql" in url:
        with pytest.raises(SourceError, match="is not a history"):
            Store(url).read(None, None, None)
    other = tmp_path / "text.db"
    other.write_text("something else, and long enough to be a header of SQLite " * 100)
    with pytest.raises(SourceError, match="cannot be read: file is not a database"):
        Store(other).read(None, None, None)


def test_a_damaged_row_is_named(url: str, execute: Callable[[str], list[Any]]) -> None:
    """The figures of a row have a checksum."""
    store = Store(url)
    store.append([row(minute(0))])
    value = "x'00'" if "postgresql" not in url else "'\\x00'::bytea"
    execute(f"UPDATE langmeter_span SET data = {value}")
    with pytest.raises(SourceError, match="a row of the history cannot be read"):
        list(store.read(None, None, None))
