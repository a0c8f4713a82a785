"""The feed of the live page: one reading for all viewers, slow ones, sources that do not answer."""

from __future__ import annotations

import asyncio
import threading

from langmeter import Snapshot
from langmeter.report.live import view
from langmeter.report.live.feed import MAX_WAITING, Feed, Reading, moving
from langmeter.report.live.past import Past
from langmeter.snapshot import BudgetState
from tests.support.live import NOW, event, read, with_state
from tests.support.traffic import Traffic


class Source:
    """Counts its readings, and fails when told to."""

    def __init__(self) -> None:
        self.readings, self.error = 0, ""
        self.traffic = Traffic().everything(3)

    def snapshot(self) -> Snapshot:
        self.readings += 1
        if self.error:
            raise OSError(self.error)
        return self.traffic.snapshot()


async def test_one_reading_serves_all_viewers() -> None:
    """Readings do not grow with viewers, begin with the first and end with the last of them."""
    source = Source()
    feed = moving(source)
    feed._every = 0.02
    viewers = [feed.join() for _ in range(20)]
    streams = [viewer.events() for viewer in viewers]
    first = [event(await anext(stream)) for stream in streams]
    assert {name for name, _ in first} == {"whole"}
    assert source.readings <= 3
    second = [event(await anext(stream)) for stream in streams]
    assert {name for name, _ in second} == {"frame"}
    late = feed.join()
    assert event(await anext(late.events()))[0] == "whole"
    for viewer in (*viewers, late):
        feed.leave(viewer)
    assert feed.viewers == 0
    await asyncio.sleep(0.1)  # a reading that had begun may end
    readings = source.readings
    await asyncio.sleep(0.1)
    assert source.readings == readings
    again = feed.join()
    assert event(await anext(again.events()))[0] == "whole"
    feed.leave(again)


async def test_a_slow_viewer_gets_the_newest_page() -> None:
    """What waits for it is bounded; the others get every frame."""
    source = Source()
    feed = moving(source)
    feed._every = 0.0
    slow, quick = feed.join(), feed.join()
    stream = quick.events()
    for _ in range(4 * MAX_WAITING):
        await anext(stream)
    assert slow._events.qsize() <= MAX_WAITING
    latest = event(await anext(slow.events()))
    assert latest[0] == "whole"
    for viewer in (slow, quick):
        feed.leave(viewer)


async def test_viewers_hear_of_a_source_that_does_not_answer() -> None:
    """They get the reason, and the figures again once it answers."""
    source = Source()
    feed = moving(source)
    feed._every = 0.02
    viewer = feed.join()
    stream = viewer.events()
    await anext(stream)
    source.error = "no route\nto host"
    name, data = event(await anext(stream))
    while name == "frame":
        name, data = event(await anext(stream))
    assert (name, data) == ("problem", {"text": "no route\\nto host"})
    source.error = ""
    while name == "problem":
        name, data = event(await anext(stream))
    assert data["tables"]["models"]
    feed.close()
    assert [each async for each in stream] == []
    feed.leave(viewer)


async def test_a_change_of_lines_or_tables_sends_the_page_again() -> None:
    """A frame fits the page that it follows."""
    traffic = Traffic()
    traffic.call(team="search")
    past, source = Past(), traffic
    views = []
    for second in range(3):
        past.add(float(second), source.snapshot())
        views.append(view.live(source.snapshot(), past, NOW))
        traffic.call(team="checkout", priced=second > 0)
    assert views[0].shape == views[1].shape
    feed = Feed(iter([*views[:2], read(with_state(traffic.snapshot(), _budget()))]).__next__, 0.01)
    viewer = feed.join()
    stream = viewer.events()
    assert [event(await anext(stream))[0] for _ in range(3)] == ["whole", "frame", "whole"]
    feed.leave(viewer)


def _budget() -> BudgetState:
    return BudgetState("all", "calls", "day", 1, 0, 9, None)


def test_a_source_is_read_once_a_second() -> None:
    """Whoever asks within a second gets the same snapshot: pages, scrapes, threads."""
    source, now = Source(), [0.0]
    reading = Reading(source, lambda: now[0])
    threads = [threading.Thread(target=reading.snapshot) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reading.snapshot() is reading.snapshot()
    assert source.readings == 1
    now[0] = 1.0
    reading.snapshot()
    assert source.readings == 2
