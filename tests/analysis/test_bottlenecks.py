"""Where the time of a pipeline goes: the table, and what a recorder says of trees of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, cast

import pytest

from langmeter import Snapshot, _core
from langmeter.analysis.bottlenecks import (
    bottlenecks,
    text,
    to_dict,
    to_json,
    unattributed,
)
from langmeter.snapshot import Distribution


def distribution(*seconds: float) -> Distribution:
    """These durations, as a recorder holds them."""
    recorder = _core.Recorder()
    for one in seconds:
        recorder.count(_core.KINDS.index("tool"), "any", 0, round(one * 1e9))
    return Snapshot(recorder.snapshot()).components["tool", "any"].latency


@dataclass
class Stats:
    """What the table reads of a component or a model."""

    critical_seconds: float = 0.0
    saved_if_twice_seconds: float = 0.0
    self_seconds: float = 0.0
    calls: int = 1
    abandoned: int = 0
    latency: Distribution = field(default_factory=Distribution)
    self_time: Distribution = field(default_factory=Distribution)

    @property
    def outcomes(self) -> Mapping[str, int]:
        return {"ok": self.calls - self.abandoned, "abandoned": self.abandoned}


@dataclass
class Figures:
    """What the table reads of a snapshot."""

    components: Mapping[tuple[str, str], Stats] = field(default_factory=dict)
    models: Mapping[tuple[str, str], Stats] = field(default_factory=dict)
    pipeline_seconds: float = 0.0
    pipeline_runs: int = 0


def snapshot(**figures: Any) -> Snapshot:
    """Figures of one's own in place of a snapshot's."""
    return cast(Snapshot, Figures(**figures))


PIPELINE = snapshot(
    components={
        ("chain", "pipeline"): Stats(1.0, 0.5, 1.0, 4, latency=distribution(1.0, 1.0, 1.0, 7.0)),
        ("llm", "ChatOpenAI"): Stats(6.0, 3.0, 6.0, 8),
        ("tool", "search"): Stats(3.0, 0.5, 9.0, 4, abandoned=1, self_time=distribution(2.25)),
        ("fix", "json"): Stats(0.0, 0.0, 0.0, 2),
    },
    models={("openai", "gpt-4o"): Stats(6.0, 3.0, 6.0, 8), ("", ""): Stats(calls=3)},
    pipeline_seconds=10.0,
    pipeline_runs=4,
)


def test_models_stand_for_llm_components_and_the_greatest_part_of_the_path_comes_first() -> None:
    """Nothing is counted twice; a fix, which is not a run, has no row."""
    found = [(one.kind, one.name) for one in bottlenecks(PIPELINE)]
    assert found == [
        ("model", "openai/gpt-4o"),
        ("tool", "search"),
        ("chain", "pipeline"),
        ("model", "unknown"),
    ]


def test_shares_are_of_the_time_of_all_root_runs() -> None:
    """6 of 10 seconds critical, 3 saved: 0.75 for each of 4 roots."""
    model, tool, *_ = bottlenecks(PIPELINE)
    assert (model.critical_seconds, model.critical_share) == (6.0, 0.6)
    assert (model.saved_seconds, model.saved_per_run, model.saved_share) == (3.0, 0.75, 0.3)
    assert (tool.calls, tool.abandoned, tool.self_seconds) == (4, 1, 9.0)
    with pytest.raises(FrozenInstanceError):
        model.calls = 0  # type: ignore[misc]


def test_of_what_ended_under_no_root_there_is_no_share() -> None:
    """While the root still runs, own times are known and shares are not."""
    (one,) = bottlenecks(snapshot(components={("tool", "a"): Stats(self_seconds=2.0)}))
    assert str((one.critical_share, one.saved_per_run, one.saved_share)) == "(nan, nan, nan)"
    (shown,) = to_dict(snapshot(components={("tool", "a"): Stats()}))["bottlenecks"]
    assert (shown["critical_share"], shown["saved_per_run"], shown["saved_share"]) == (None,) * 3


def test_a_component_without_calls_is_no_bottleneck() -> None:
    """The series of what does not fit, `other`, is always there."""
    assert bottlenecks(snapshot(components={("tool", "other"): Stats(calls=0)})) == ()


def test_the_table_on_a_terminal() -> None:
    """Read as it stands; times in their units, shares in percent."""
    shown = text(PIPELINE).split("\n\n")
    assert shown[0] == "where the time went: 4 pipelines, 10.0 s in all, 2.50 s each"
    header, _, model, tool, *_ = (" ".join(line.split()) for line in shown[1].splitlines())
    assert header == "component calls p50 p95 self self p50 self p95 critical 2x saves a run"
    assert model == "model openai/gpt-4o 8 - - 6.00 s - - 60.0% 30.0% 750 ms"
    assert tool == "tool search 4 - - 9.00 s 2.25 s 2.25 s 30.0% 5.0% 125 ms"
    assert max(map(len, text(PIPELINE).splitlines())) <= 110
    assert shown[3] == "abandoned, their time not known: tool search 1 of 4"


def test_one_pipeline_has_no_mean() -> None:
    """One run is told as one run."""
    one = snapshot(pipeline_runs=1, pipeline_seconds=2.0)
    assert text(one).startswith("where the time went: 1 pipeline, 2.00 s\n")


def test_time_that_no_tree_accounts_for_is_said() -> None:
    """Pipelines too large to follow are not silently left out of the shares."""
    part = snapshot(
        components={("chain", "a"): Stats(3.0), ("llm", "b"): Stats(4.0)},
        models={("", "b"): Stats(4.0)},
        pipeline_seconds=10.0,
        pipeline_runs=2,
    )
    assert unattributed(part) == 3.0
    assert "unattributed: 3.00 s (30.0%) of pipelines too large to follow" in text(part)
    assert "not told" not in text(PIPELINE)


def test_a_name_moves_no_cursor_and_more_than_forty_rows_are_counted() -> None:
    """A component may be named by a model; the table stays a table."""
    many = {("tool", f"\x1b[2J{number}"): Stats(1.0) for number in range(43)}
    shown = text(snapshot(components=many, pipeline_seconds=43.0, pipeline_runs=1))
    assert "\x1b" not in shown
    assert shown.count("tool \\x1b[2J") == 40
    assert shown.endswith("and 3 more, each with less of the critical path")


def test_without_a_root_run_there_is_no_table() -> None:
    """The empty snapshot says so in one line."""
    assert text(snapshot()) == "no pipeline has ended: there is no time to account for"


def test_json_holds_the_same_figures() -> None:
    """Every figure of the table by name; none where there is none."""
    shown = json.loads(to_json(PIPELINE))
    assert shown == to_dict(PIPELINE)
    assert (shown["pipeline_runs"], shown["pipeline_seconds"]) == (4, 10.0)
    assert shown["unattributed_seconds"] == 0.0
    tool = shown["bottlenecks"][1]
    assert (tool["name"], tool["saved_per_run"], tool["abandoned"]) == ("search", 0.125, 1)
    assert tool["self_time_p95"] == pytest.approx(2.25, rel=1e-3)
    assert tool["latency_p50"] is None
