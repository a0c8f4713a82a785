"""Engine of alerts: when a rule fires and when it resolves, by moments that a test decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langmeter import Snapshot, _core
from langmeter.alerts import Alert, Rule
from langmeter.alerts.engine import Engine
from langmeter.alerts.gauges import GaugeValue
from langmeter.alerts.window import Window
from tests.support.histories import difference

START = 1_790_000_000.0


class Played:
    """An engine that is evaluated every 5 s."""

    def __init__(self, *rules: Rule | str) -> None:
        made = [Rule(rule) if isinstance(rule, str) else rule for rule in rules]
        self.engine = Engine(made, link="https://example.com/board")
        self.now = START
        self.alerts: list[Alert] = []

    def run(
        self,
        seconds: float,
        durations: Sequence[float] = (),
        *,
        errors: int = 0,
        model: str = "gpt-4o",
        team: str = "",
        gauges: Iterable[GaugeValue] = (),
    ) -> list[str]:
        """Events of a time in which every 5 s such calls end."""
        begin, events = len(self.alerts), self.alerts
        counted = difference(
            START, START + 5, [0.001] * len(durations), errors=errors, model=model, team=team
        )
        if any(each != 0.001 for each in durations):
            counted = difference(
                START, START + 1000, durations, errors=errors, model=model, team=team
            )
        for _ in range(round(seconds / 5)):
            self.now += 5
            self.engine.observe(self.now - 5, self.now, counted if durations else Snapshot())
            events += self.engine.evaluate(self.now, gauges)
        return [alert.status for alert in events[begin:]]


def test_an_alert_fires_once_and_resolves_once() -> None:
    """While errors come it stays; it resolves when the window has only good calls."""
    played = Played(Rule("error_rate > 5%", window="1m"))
    assert played.run(300, [0.001] * 10) == []
    assert played.run(300, [0.001] * 10, errors=2) == ["firing"]
    assert played.run(300, [0.001] * 10) == ["resolved"]
    firing, resolved = played.alerts
    assert firing.started_at == resolved.started_at < resolved.at
    assert firing.event_id != resolved.event_id
    assert 0.05 < firing.value <= 0.2
    assert firing.look_at.startswith("snapshot.failures")
    assert firing.link == "https://example.com/board"


def test_a_pending_alert_waits_for_its_time() -> None:
    """A peak that is shorter than `for_` is not an alert."""
    played = Played(Rule("error_rate > 50%", window="10s", for_="1m"))
    assert played.run(30, [0.001] * 10, errors=10) == []
    assert played.run(60, [0.001] * 10) == []
    assert played.run(70, [0.001] * 10, errors=10) == ["firing"]


def test_below_min_count_is_no_data() -> None:
    """Two of three calls that fail are not a rate of errors of two thirds."""
    played = Played(Rule("error_rate > 5%", window="1m", min_count=20))
    assert played.run(5, [0.001] * 3, errors=2) == []
    played = Played(Rule("error_rate > 5%", window="1m", min_count=3))
    assert played.run(5, [0.001] * 3, errors=2) == ["firing"]


def test_no_data_freezes_an_alert() -> None:
    """It neither resolves nor fires while nothing is called."""
    played = Played(Rule("error_rate > 5%", window="1m"))
    played.run(60, [0.001] * 10, errors=5)
    assert played.run(3600) == []
    assert [name for name, _, _ in played.engine.open()] == ["error_rate > 5%"]
    assert played.run(60, [0.001] * 10) == ["resolved"]


def test_time_without_data_does_not_count_for_a_pending_alert() -> None:
    """The hour of silence is not an hour of errors."""
    played = Played(Rule("error_rate > 50%", window="30s", for_="5m"))
    assert played.run(60, [0.001] * 10, errors=10) == []
    assert played.run(3600) == []
    assert played.run(120, [0.001] * 10, errors=10) == []
    assert played.run(240, [0.001] * 10, errors=10) == ["firing"]


def test_a_figure_around_its_threshold_does_not_flap() -> None:
    """It resolves below its own threshold alone, as a figure goes up and down between the two."""
    played = Played(Rule("error_rate > 40%", window="10s", resolve="20%"))
    events = [played.run(20, [0.001] * 20, errors=errors) for errors in [10, 6] * 20]
    assert list(chain(*events)) == ["firing"]
    assert played.run(20, [0.001] * 20, errors=2) == ["resolved"]


def test_an_alert_is_kept_firing_and_cools_down() -> None:
    """`keep_firing` delays the end, `cool_down` the next begin."""
    rule = Rule("error_rate > 40%", window="10s", keep_firing="2m", cool_down="10m")
    played = Played(rule)
    assert played.run(30, [0.001] * 20, errors=20) == ["firing"]
    assert played.run(110, [0.001] * 20) == []
    assert played.run(60, [0.001] * 20) == ["resolved"]
    assert played.run(500, [0.001] * 20, errors=20) == []
    assert played.run(120, [0.001] * 20, errors=20) == ["firing"]


def test_a_sum_is_exact_and_needs_no_minimum() -> None:
    """Three dear calls are dear; an hour later they are not of the hour any more."""
    played = Played("cost > 0.01 per 1h")
    assert played.run(5, [0.001] * 3) == ["firing"]
    assert played.run(3000) == []
    assert played.run(700) == ["resolved"]


def test_too_little_is_only_known_of_a_whole_window() -> None:
    """A meter that has just begun has not too few calls."""
    played = Played(Rule("calls < 5 per 10m"))
    assert played.run(590) == []
    assert played.run(60) == ["firing"]
    assert played.run(10, [0.001] * 10) == ["resolved"]


def test_each_group_has_an_alert_of_its_own() -> None:
    """By model and by label; a place covers some of them."""
    played = Played(
        Rule("error_rate > 5%", by="model", window="1m"),
        Rule("errors[openai/gpt-4o] > 1 per 1m", by="model"),
        Rule("errors > 1 per 1m", by="team"),
    )
    played.run(10, [0.001] * 20, errors=10, model="gpt-4o", team="a")
    played.run(10, [0.001] * 20, errors=10, model="other", team="b")
    labels = [(alert.name.split()[0], dict(alert.labels)) for alert in played.alerts]
    assert labels == [
        ("error_rate", {"model": "gpt-4o"}),
        ("errors[openai/gpt-4o]", {"model": "gpt-4o"}),
        ("errors", {"team": "a"}),
        ("error_rate", {"model": "other"}),
        ("errors", {"team": "b"}),
    ]


def test_a_change_is_against_the_time_before() -> None:
    """A slowdown of half against the last hour, in per cent of it."""
    played = Played(Rule("latency.p50 > +50%", window="1m", baseline="1h"))
    assert played.run(600, [0.5] * 10) == []
    assert played.run(60, [0.6] * 10) == []
    assert played.run(60, [1.0] * 10) == ["firing"]
    (alert,) = played.alerts
    assert alert.before == pytest.approx(0.5, rel=0.25)
    assert "%" in alert.figure()


def test_two_windows_end_an_alert_soon_after_its_cause() -> None:
    """The long one alone would stay beyond its threshold for the rest of the hour."""
    both = Played(Rule("error_rate > 10%", window="1h", short="5m"))
    long = Played(Rule("error_rate > 10%", window="1h"))
    for played in (both, long):
        assert played.run(1200, [0.001] * 10) == []
        assert played.run(600, [0.001] * 10, errors=10) == ["firing"]
    assert both.run(400, [0.001] * 10) == ["resolved"]
    assert long.run(400, [0.001] * 10) == []


def test_a_budget_alerts_once_in_a_period() -> None:
    """Whatever its limit does; the next period begins anew."""
    played = Played("budget('team-*').used > 80%")

    def used(value: float, period: str = "day 1") -> list[GaugeValue]:
        return [GaugeValue("budget.used", "team-a", value, period)]

    assert played.run(10, gauges=used(0.5)) == []
    assert played.run(10, gauges=used(0.9)) == ["firing"]
    assert played.run(10, gauges=used(0.6)) == ["resolved"]  # another limit
    assert played.run(10, gauges=used(0.9)) == []
    assert played.run(10, gauges=used(0.1, "day 2")) == []
    assert played.run(10, gauges=used(0.9, "day 2")) == ["firing"]
    assert played.run(10, gauges=used(0.9, "day 3")) == ["resolved", "firing"]
    assert played.alerts[0].labels == {"budget": "team-a"}
    assert played.run(10, gauges=[GaugeValue("budget.used", "other", 1.0)]) == []


def test_changes_for_the_worse_are_alerts() -> None:
    """What the search for lasting changes has found in the window."""
    second = 10**9
    at = int(START) * second
    recorder = _core.Recorder(max_series=16, max_runs=16)
    slower = (at, at, "openai", "gpt-4o", "latency", 10**12, 2 * 10**12, 50, 50)
    faster = (at, at, "openai", "gpt-4o", "latency", 2 * 10**12, 10**12, 50, 50)
    played = Played(Rule("anomalies > 0", by="model", window="10m"))
    for change, expected in ((faster, []), (slower, ["firing"])):
        changed = Snapshot(recorder.snapshot([change]))
        played.engine.observe(played.now, played.now + 5, changed)
        assert played.run(5) == expected
    assert played.run(700) == ["resolved"]


def test_the_state_survives() -> None:
    """Another engine goes on: the alert is not sent again, and its end has the first begin."""
    rule = Rule("error_rate > 5%", window="1m")
    first = Played(rule)
    first.run(60, [0.001] * 10, errors=5)
    second = Played(rule)
    second.now = first.now
    second.engine.restore(first.engine.state(first.engine.titles))
    assert second.run(60, [0.001] * 10, errors=5) == []
    assert second.run(120, [0.001] * 10) == ["resolved"]
    assert second.alerts[0].started_at == first.alerts[0].started_at


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9), st.integers(0, 400)), max_size=60),
    st.integers(5, 600),
)
def test_a_window_has_what_is_not_older(pieces: list[tuple[int, int, int]], seconds: int) -> None:
    """The sum of all that ended within it, late ones too, and of nothing older by a piece."""
    window, size = Window(seconds, 5), max(5, seconds / 60)
    ended: list[tuple[int, int]] = []
    for now, (_, number, late) in zip(accumulate(gap for gap, *_ in pieces), pieces, strict=True):
        ended.append((now, number))
        window.add(now, {(): (float(number), 0, number)})
        if late and now > late:
            ended.append((now - late, number))
            window.add(now - late, {(): (float(number), 0, number)})
        window.evict(now)
        (total,) = window.total().values()
        assert total[2] >= sum(each for at, each in ended if at >= now - seconds)
        assert total[2] <= sum(each for at, each in ended if at >= now - seconds - size)
