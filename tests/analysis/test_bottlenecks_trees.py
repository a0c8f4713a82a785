"""Own time, critical path and what a faster part saves: a recorder's sums beside their definitions.

The definitions stand here as slow recursions over whole milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot, _core
from langmeter.testing import ManualClock

#: Kinds of the runs, and the names each may have.
NAMES = {"chain": ("outer", "inner"), "tool": ("search", "sql"), "llm": ("chat",)}
MODELS = ("large", "small")
FOREVER = 1 << 40
#: In the order of their making: of runs that began and ended together, the smaller id comes first.
IDS = count(1 << 10)


@dataclass
class Run:
    """A run with its interval, milliseconds."""

    parent: Run | None
    kind: str
    name: str
    model: str
    piped: bool
    start: int
    end: int = FOREVER
    key: UUID = field(default_factory=lambda: UUID(int=next(IDS)))
    children: list[Run] = field(default_factory=list)

    @property
    def series(self) -> tuple[tuple[str, str], ...]:
        """Whom its time counts for."""
        component = (self.kind, self.name)
        return (component, ("", self.model)) if self.kind == "llm" else (component,)


@dataclass
class Part:
    """A run is clipped to its parent, without the time it waited for its upstream step."""

    run: Run
    start: int
    end: int
    parts: list[Part]


def part(run: Run, begin: int, end: int, *, waits: bool) -> Part:
    """The tree with every interval inside that of its parent; empty ones are not there."""

    def inside(moment: int) -> int:
        return min(max(moment, begin), end)

    parts: list[Part] = []
    before: list[int] = []
    for child in sorted(run.children, key=lambda c: (inside(c.start), inside(c.end), c.key)):
        first, last = inside(child.start), inside(child.end)
        if waits and child.piped:
            first = max([first, *(moment for moment in before if moment <= last)])
        before.append(last)
        if first < last:
            parts.append(part(child, first, last, waits=waits))
    return Part(run, begin, end, parts)


def own_time(run: Run) -> int:
    """Milliseconds in which it runs and no child of its does."""
    children = part(run, run.start, run.end, waits=False).parts
    moments = range(run.start, run.end)
    return sum(not any(c.start <= at < c.end for c in children) for at in moments)


def critical_path(here: Part, moment: int) -> Iterator[tuple[Run, int]]:
    """From `moment` backwards: into the child that ended last, then on from its start."""
    own = 0
    while ended := [c for c in here.parts if c.end <= moment]:
        last = max(ended, key=lambda c: (c.end, -c.start))
        own += moment - last.end
        yield from critical_path(last, last.end)
        moment = last.start
        here = Part(here.run, here.start, here.end, [c for c in ended if c is not last])
    yield here.run, own + moment - here.start


def replayed(here: Part, series: tuple[str, str]) -> int:
    """How long it would take, in half milliseconds, with the own time of a series halved."""
    weight = 1 if series in here.run.series else 2
    done: list[
        tuple[int, int]
    ] = []  # (when a child ended, when it would have), both since the start

    def goes_on(moment: int) -> int:
        before = [(was, now) for was, now in done if was <= moment]
        was = max((was for was, _ in before), default=0)
        return max((now for _, now in before), default=0) + weight * (moment - was)

    for child in sorted(here.parts, key=lambda c: c.start):
        starts = goes_on(child.start - here.start)
        done.append((child.end - here.start, starts + replayed(child, series)))
    return goes_on(here.end - here.start)


class Stage:
    """A recorder with a clock by hand, and a log of what it was told."""

    def __init__(self) -> None:
        self.clock, self.now = ManualClock(), 0
        self.recorder = _core.Recorder(clock=self.clock)
        self.roots: list[Run] = []
        #: Those that no run above them had left behind: of the others no own time is told.
        self.ended: list[Run] = []

    def wait(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds / 1000)
        self.now += milliseconds

    def start(self, parent: Run | None, kind: str, name: str, model: str, piped: bool) -> Run:
        run = Run(parent, kind, name, model if kind == "llm" else "", piped, self.now)
        (parent.children if parent else self.roots).append(run)
        self.recorder.run_started(
            run.key,
            parent and parent.key,  # type: ignore[arg-type]
            _core.KINDS.index(kind),
            name,
            model=run.model,
            piped=piped,
        )
        return run

    def end(self, run: Run) -> None:
        run.end = self.now
        self.recorder.run_ended(run.key, _core.KINDS.index(run.kind), 0)
        if not left_behind(run):
            self.ended.append(run)


def left_behind(run: Run) -> bool:
    """Whether a run above it has ended."""
    above = run.parent
    return above is not None and (above.end < FOREVER or left_behind(above))


KINDS = st.sampled_from(sorted(NAMES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.sampled_from(NAMES[kind]))
)
STEPS = st.tuples(
    st.sampled_from(["start", "start", "end", "wait"]),
    st.integers(0, 20),
    KINDS,
    st.sampled_from(MODELS),
    st.booleans(),
    st.integers(0, 5),
)


def play(stage: Stage, steps: list[tuple[str, int, tuple[str, str], str, bool, int]]) -> None:
    """One root and what happens under it; what still runs when it ends gets no end event."""
    root = stage.start(None, "chain", "root", "", False)
    running = [root]
    for step, which, (kind, name), model, piped, milliseconds in steps:
        if step == "wait":
            stage.wait(milliseconds)
        elif step == "start":
            # Under anything but a call of a model, which has no runs of its own.
            parents = [run for run in running if run.kind != "llm" and not left_behind(run)]
            parent = parents[which % len(parents)]
            running.append(stage.start(parent, kind, name, model, piped))
        elif len(running) > 1:
            # Not the root, but maybe a run whose children still run.
            stage.end(running.pop(1 + which % (len(running) - 1)))
    stage.end(root)


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


@given(st.lists(st.lists(STEPS, max_size=30), min_size=1, max_size=3))
def test_a_recorder_tells_what_the_definitions_say(
    scripts: list[list[tuple[str, int, tuple[str, str], str, bool, int]]],
) -> None:
    """Sequential, parallel, nested, abandoned, out of order: exact to the nanosecond."""
    stage = Stage()
    for script in scripts:
        play(stage, script)
    snapshot = Snapshot(stage.recorder.snapshot())
    stats = {**snapshot.components, **snapshot.models}

    critical: Counter[tuple[str, str]] = Counter()
    saved: Counter[tuple[str, str]] = Counter()
    for root in stage.roots:
        whole = part(root, root.start, root.end, waits=True)
        for run, own in critical_path(whole, whole.end):
            critical.update(dict.fromkeys(run.series, own * 1_000_000))
        for series in stats:
            halves = 2 * (root.end - root.start) - replayed(whole, series)
            saved[series] += halves * 500_000
    own_times: Counter[tuple[str, str]] = Counter()
    for run in stage.ended:
        own_times.update(dict.fromkeys(run.series, own_time(run) * 1_000_000))
    lasted = sum(root.end - root.start for root in stage.roots)

    assert snapshot.pipeline_runs == len(stage.roots)
    assert nanoseconds(snapshot.pipeline_seconds) == lasted * 1_000_000
    for series, told in stats.items():
        assert nanoseconds(told.critical_seconds) == critical[series], series
        assert nanoseconds(told.saved_if_twice_seconds) == saved[series], series
        assert nanoseconds(told.self_seconds) == own_times[series], series
