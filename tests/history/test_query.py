"""Figures by time: what a history answers, in Python and at the command line."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy
import pytest

import langmeter
from langmeter import ConfigError, Meter, Snapshot, SourceError, sources
from langmeter.cli import main as cli
from langmeter.history import History, Row, Rows
from langmeter.history.store import Store
from tests.support.histories import difference, row
from tests.support.models import chat_model

#: A midnight.
T = 20_000 * 86_400
START = datetime.fromtimestamp(T, UTC)
HOUR = 3600
LARGE, SMALL = [1.0, 2.0, 3.0], [0.1, 0.2]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Three hours: a large model in each, a small one in the last; two hosts, two teams."""
    file = tmp_path_factory.mktemp("history") / "metrics.db"
    store = Store(file)
    rows = []
    for hour in range(3):
        at = T + HOUR * hour
        rows.append(row(difference(at, at + 60, LARGE, team="search"), number=hour))
    at = T + 2 * HOUR + 600
    small = difference(at, at + 60, SMALL, model="gpt-4o-mini", errors=1, team="chat")
    rows.append(row(small, process="2-b", host="b"))
    store.append(rows)
    return History(file)


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


def plain(rows: Rows) -> list[tuple[tuple[str, ...], float, int]]:
    return [(tuple(row.labels.values()), row.value, row.count) for row in rows]


def test_without_a_step_there_is_one_row(history: History) -> None:
    """From the first interval to the last, of all models."""
    (total,) = history.query("cost")
    assert total == Row(START, hour(2) + timedelta(minutes=11), {}, pytest.approx(0.04), 10)  # type: ignore[arg-type]
    assert plain(history.query("calls")) == [((), 11, 11)]
    assert plain(history.query("error_rate")) == [((), 1 / 11, 11)]


def test_rows_have_their_span_and_labels(history: History) -> None:
    """A step is counted from midnight UTC; a name in `by` is a label of the row."""
    rows = history.query("calls", by="model", step="1h")
    assert [(row.start, row.end) for row in rows] == [(hour(n), hour(n + 1)) for n in (0, 1, 2, 2)]
    assert plain(rows) == [
        (("gpt-4o",), 3, 3),
        (("gpt-4o",), 3, 3),
        (("gpt-4o",), 3, 3),
        (("gpt-4o-mini",), 2, 2),
    ]
    days = history.query("calls", step=timedelta(days=1))
    assert [(row.start, row.end) for row in days] == [(START, hour(24))]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("provider", [(("openai",), 11)]),
        (("provider", "model"), [(("openai", "gpt-4o"), 9), (("openai", "gpt-4o-mini"), 2)]),
        ("team", [(("chat",), 2), (("search",), 9)]),
        (("model", "team"), [(("gpt-4o", "search"), 9), (("gpt-4o-mini", "chat"), 2)]),
        (("host", "team"), [(("a", "search"), 9), (("b", "chat"), 2)]),
        ("component", [(("llm chat",), 11)]),
        ("host", [(("a",), 9), (("b",), 2)]),
        (("host", "model"), [(("a", "gpt-4o"), 9), (("b", "gpt-4o-mini"), 2)]),
        ("version", [((langmeter.__version__,), 11)]),
    ],
)
def test_rows_are_by_whatever_is_asked(
    history: History, by: Any, expected: list[tuple[tuple[str, ...], int]]
) -> None:
    """One name or several, in the order in which they are asked."""
    assert [
        (labels, value) for labels, value, _ in plain(history.query("calls", by=by))
    ] == expected


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("calls[openai/*]", 11),
        ("calls[openai/gpt-4o]", 9),
        ("calls[*mini]", 2),
        ("calls[llm chat]", 11),
    ],
)
def test_a_metric_may_name_a_place(history: History, metric: str, value: float) -> None:
    """As in a rule; what does not match has no row."""
    assert plain(history.query(metric))[0][1] == value
    assert history.query("calls[azure/*]") == ()


def test_quantiles_are_of_all_durations_together(history: History) -> None:
    """Histograms are merged, over rows and over models: no percentile is averaged."""
    every = LARGE * 3 + SMALL
    for percent in (50, 90, 99):
        (row,) = history.query(f"latency.p{percent}")
        exact = numpy.percentile(every, percent, method="inverted_cdf")
        assert row.value == pytest.approx(exact, rel=0.002)
        assert row.count == len(every)


def test_an_excerpt_has_the_figures_of_queries(history: History) -> None:
    """Its rows are read once; several figures of one step have the rows of as many queries."""
    excerpt = history.excerpt(START, hour(3))
    assert excerpt.snapshot() == history.between(START, hour(3))
    metrics = ["calls", "errors", "latency.p95", "cost", "success_rate"]
    for by in ((), ("provider", "model"), ("host",), ("team",)):
        chosen = metrics if by in ((), ("provider", "model")) else metrics[:-1]
        for step in (60, 7200):
            assert excerpt.query(chosen, by=by, step=step) == [
                history.query(metric, by=by, since=START, until=hour(3), step=step)
                for metric in chosen
            ]


def test_an_excerpt_reads_finer_rows_where_a_step_needs_them(tmp_path: Path) -> None:
    """Rows of an hour suffice for the sum; a step of a minute is made of those of minutes."""
    store = Store(tmp_path / "metrics.db")
    store.append([row(difference(T + 60 * n, T + 60 * n + 60, LARGE), number=n) for n in range(60)])
    assert store.roll_up(T + 2 * HOUR, (None, None, None))
    history = History(tmp_path / "metrics.db")
    excerpt = history.excerpt(None, None)
    assert len(excerpt._spans) == 1
    [hours] = excerpt.query(["calls"], step=HOUR)
    assert [each.value for each in hours] == [180.0]
    [minutes] = excerpt.query(["calls"], step=60)
    assert minutes == history.query("calls", step=60)
    assert len(minutes) == 60
    with pytest.raises(ConfigError, match="step must be whole seconds"):
        excerpt.query(["calls"], step=0.5)


def test_spans_are_cut_to_whole_rows(history: History) -> None:
    """The rows that overlap with the span, and the row's own span says which."""
    (row,) = history.query("calls", since=START + timedelta(seconds=90), until=hour(2))
    assert (row.start, row.value) == (hour(1), 3)


@pytest.mark.parametrize(
    ("since", "until", "calls"),
    [
        ("2024-10-04", None, 11),
        ("2024-10-04T01:00", None, 8),
        ("2024-10-04T01:00", "2024-10-04T02:00+00:00", 3),
        (None, "2024-10-04T03:00+02:00", 3),
        (hour(2), None, 5),
        (hour(2).replace(tzinfo=None), None, 5),
        ("1h", None, None),
        (timedelta(days=1), None, None),
        (None, timedelta(seconds=1), 11),
    ],
)
def test_moments_are_read_in_utc(history: History, since: Any, until: Any, calls: Any) -> None:
    """Dates and datetimes, texts with a zone, and how long ago."""
    assert datetime(2024, 10, 4, tzinfo=UTC) == START
    rows = history.query("calls", since=since, until=until)
    assert [row.value for row in rows] == ([] if calls is None else [calls])
    assert history.between(since, until).totals.calls == (calls or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "speed"}, "no metric 'speed'; there are latency.p50"),
        ({"by": "squad"}, r"by must be .* or the keys of a label \(team\), got 'squad'"),
        ({"by": ("team", "component")}, "by must be component alone, or without it provider"),
        ({"metric": "success_rate", "by": "team"}, "by must be defect_type, severity"),
        ({"since": "soon"}, "since must be a moment"),
        ({"since": "2026-10-14", "until": "2026-10-13"}, "since must be before until"),
        ({"since": 3}, "since must be a moment"),
        ({"step": "0s"}, "step must be a length of time above 0"),
        ({"step": 0.5}, "step must be whole seconds"),
    ],
)
def test_a_wrong_question_is_refused(
    history: History, arguments: dict[str, Any], message: str
) -> None:
    """The error names the argument, what it must be, and a remedy."""
    with pytest.raises(ConfigError, match=message):
        history.query(**{"metric": "calls", **arguments})


def test_labels_that_cross_keys_are_asked_by_all_of_them(tmp_path: Path) -> None:
    """In any order, with the model, and in a metric that names a place; not by one of them."""
    file = tmp_path / "metrics.db"
    meter = Meter(history=file, labels=[("tenant", "feature")])
    for feature in ("chat", "search", "search"):
        metadata = {"tenant": "acme", "feature": feature}
        chat_model().invoke("hi", config={"callbacks": [meter], "metadata": metadata})
    assert meter.close() is None
    history = History(file)
    rows = history.query("calls", by=("feature", "tenant", "model"))
    assert [row.labels for row in rows] == [
        {"feature": feature, "tenant": "acme", "model": "fake-1"} for feature in ("chat", "search")
    ]
    assert [row.value for row in rows] == [1, 2]
    assert plain(history.query("calls[acme chat]", by=("tenant", "feature"))) == [
        (("acme", "chat"), 1, 1)
    ]
    with pytest.raises(ConfigError, match=r"the keys of a label \(feature, tenant\), got 'tenant'"):
        history.query("calls", by="tenant")


def test_attempts_at_defects_are_by_type_and_model(tmp_path: Path) -> None:
    """Their metrics are those of comparisons; a late verdict lands where it arrives."""
    file = tmp_path / "metrics.db"
    meter = Meter(history=file)
    receipts = []
    for number in range(4):
        with meter.defects.attempt(f"CID-{number}", type="LEAK", severity="high") as attempt:
            chat_model().invoke("fix", config={"callbacks": [meter]})
        receipts.append(attempt.receipt)
    assert meter.flush() is None
    assert History(file).query("success_rate") == ()
    for number, receipt in enumerate(receipts):
        meter.defects.record(receipt, "fixed" if number else "failed", source="tests")
    assert meter.close() is None
    rows = History(file).query("defects.success_rate", by=("defect_type", "severity", "model"))
    assert plain(rows) == [(("LEAK", "high", "fake-1"), 0.75, 4)]
    assert plain(History(file).query("fixed[LEAK*]")) == [((), 3, 4)]


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", None])
def test_rows_are_a_frame(history: History, library: str | None) -> None:
    """With a column for each label, and times that know their zone."""
    pytest.importorskip(library or "pandas")
    rows = history.query("cost", by=("provider", "model"), step="1h")
    frame = rows.to_frame(library)
    assert type(frame).__module__.split(".")[0] == (library or "pandas")
    columns = frame.column_names if library == "pyarrow" else list(frame.columns)
    assert columns == ["start", "end", "provider", "model", "value", "count"]
    assert sum(list(frame["count"]) if library != "pyarrow" else frame["count"].to_pylist()) == 10
    first = frame["start"][0]
    first = first.as_py() if library == "pyarrow" else first
    assert first == START
    assert len(Rows().to_frame(library)) == 0


def test_another_library_is_refused(history: History) -> None:
    """The three that are known are named."""
    with pytest.raises(ConfigError, match="library must be one of 'pandas', 'polars', 'pyarrow'"):
        history.query("cost").to_frame("numpy")


def test_rows_cannot_be_changed(history: History) -> None:
    """Neither a row nor its labels."""
    (row,) = history.query("cost", by="provider")
    with pytest.raises(AttributeError):
        row.value = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        row.labels["provider"] = "x"  # type: ignore[index]


# --- as a source ---------------------------------------------------------------------------------


def test_a_history_is_a_source(history: History, url: str) -> None:
    """By its path, its URL, or itself; a span of it is a snapshot."""
    path = str(history._store.database.url.database)
    for source in (path, Path(path), f"sqlite:///{path}", history):
        assert langmeter.read(source).totals.calls == 11
        assert langmeter.read(source, since=hour(2)).totals.calls == 5
    assert isinstance(sources.open(history).snapshot(), Snapshot)
    Store(url).append([row(difference(T, T + 60))])
    assert langmeter.read(url, until=hour(1)).totals.calls == 1


def test_what_is_not_a_history_is_a_clear_error(tmp_path: Path) -> None:
    """A server that is not there, and a file that is not there."""
    with pytest.raises(SourceError, match="cannot be read: connection failed"):
        langmeter.read("postgresql://127.0.0.1:1/none")
    with pytest.raises(SourceError, match="there is no history at"):
        langmeter.read(f"sqlite:///{tmp_path}/none.db")


# --- the command ---------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["history", *arguments]) == 0
    return capsys.readouterr().out


def test_the_command_prints_a_table(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    """Times in UTC, figures in the unit of the metric."""
    path = str(history._store.database.url.database)
    arguments = (
        "--by",
        "model",
        "--metric",
        "latency.p95",
        "--step",
        "1h",
        "--since",
        "2024-10-04T01:00",
    )
    assert shown(capsys, path, *arguments).splitlines() == [
        "start (UTC)          to        model  latency.p95  count",
        "----------------  -----  -----------  -----------  -----",
        "2024-10-04 01:00  02:00       gpt-4o       3.00 s      3",
        "2024-10-04 02:00  03:00       gpt-4o       3.00 s      3",
        "2024-10-04 02:00  03:00  gpt-4o-mini       200 ms      2",
    ]
    assert "$0.0400" in shown(capsys, path)
    assert "9.09 %" in shown(capsys, path, "--metric", "error_rate")
    assert "12,100" not in shown(capsys, path, "--metric", "tokens")
    assert shown(capsys, path, "--since", "1s") == "no data\n"


def test_json_and_csv_are_the_rows(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are read by the standard library, and are what Python gets."""
    path = str(history._store.database.url.database)
    arguments = ("--by", "team", "--metric", "calls", "--step", "1h")
    rows = history.query("calls", by="team", step="1h")
    data = json.loads(shown(capsys, path, *arguments, "--json"))
    assert [(each["labels"], each["value"], each["count"]) for each in data] == [
        (dict(row.labels), row.value, row.count) for row in rows
    ]
    assert [datetime.fromisoformat(each["start"]) for each in data] == [row.start for row in rows]
    lines = list(csv.DictReader(io.StringIO(shown(capsys, path, *arguments, "--csv"))))
    assert [(line["team"], float(line["value"])) for line in lines] == [
        (row.labels["team"], row.value) for row in rows
    ]


def test_files_of_snapshots_are_imported_once(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the time that they cover; the same file again adds nothing."""
    files = []
    for number in range(2):
        snapshot = difference(T + 3600 * number, T + 3600 * number + 1800, LARGE)
        file = tmp_path / f"{number}.json"
        file.write_text(snapshot.to_json(), encoding="utf-8")
        files.append(str(file))
    (tmp_path / "empty.json").write_text(Snapshot().to_json(), encoding="utf-8")
    assert shown(capsys, "import", url, *files) == "2 snapshots added\n"
    output = shown(capsys, "import", url, *files, str(tmp_path / "empty.json"))
    assert output == "0 snapshots added; 3 had nothing new\n"
    (first, second) = History(url).query("calls", by="host", step="1h")
    assert (first.start, first.value, dict(first.labels)) == (START, 3, {"host": "import"})
    assert second.start == hour(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.db"], "there is no history at sqlite"),
        (["{path}", "--metric", "speed"], "no metric 'speed'"),
        (["{path}", "--by", "squad"], "or the keys of a label (team), got 'squad'"),
        (["{path}", "--since", "soon"], "since must be a moment"),
        (["{path}", "{path}"], "one URL is expected"),
        (["import", "{path}"], "import needs the URL of a history and a file at least"),
        (["import", "{path}", "none.json"], "cannot read none.json: No such file"),
        (["import", "/nowhere/metrics.db", "{snapshot}"], "unable to open database file"),
        (["nosuch://host/db"], "url must be of a known database"),
    ],
)
def test_bad_arguments_are_exit_code_2(
    history: History,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """One clear line under the usage, never a traceback."""
    path = str(history._store.database.url.database)
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(difference(T, T + 60).to_json(), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        cli.main(["history", *(a.format(path=path, snapshot=snapshot) for a in arguments)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
