"""A real Prometheus scrapes a process whose calls go on: its answers are those of the snapshot."""

from __future__ import annotations

import math
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from langmeter import Snapshot
from langmeter.exporters import prometheus, semconv
from langmeter.exporters.buckets import cumulative
from langmeter.exporters.dashboard import dashboard, queries
from tests.e2e.servers import Queries, tool, until
from tests.e2e.servers import prometheus as real_prometheus
from tests.support.traffic import Traffic

pytestmark = pytest.mark.e2e

#: Form of the histograms and generation of the conventions, by job.
JOBS = {
    f"{form}-{generation}": {"native_schema": schema, "conventions": generation}
    for form, schema in (("classic", None), ("native", 5))
    for generation in semconv.GENERATIONS
}
GPT = 'gen_ai_request_model="gpt-4o"'


class Scraped(NamedTuple):
    """A server, what was counted before its window and in all, and the window."""

    ask: Queries
    before: Snapshot
    after: Snapshot
    window: str
    at: float


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    traffic = Traffic().everything(60)
    with ExitStack() as stack:
        servers = {
            job: stack.enter_context(prometheus.start(0, traffic, token="", **settings))  # type: ignore[arg-type]
            for job, settings in JOBS.items()
        }
        targets = {job: server.url.removeprefix("http://") for job, server in servers.items()}
        folder = tmp_path_factory.mktemp("prometheus")
        ask = stack.enter_context(real_prometheus(targets, folder))

        def scrapes(count: int) -> None:
            for _ in range(count):
                begun = time.time()
                until(lambda begun=begun: min(ask("timestamp(up)").values()) > begun)  # type: ignore[misc]

        scrapes(2)
        before, begun = traffic.snapshot(), time.time()
        scrapes(1)
        for _ in range(8):
            traffic.everything(150)
            time.sleep(0.5)
        after = traffic.snapshot()
        scrapes(2)
        at = time.time()
        yield Scraped(ask, before, after, f"{math.ceil(at - begun)}s", at)


def _latency(snapshot: Snapshot) -> Any:
    return snapshot.models["openai", "gpt-4o"].latency


@pytest.mark.parametrize("job", JOBS)
def test_counters_are_those_of_the_snapshot(scraped: Scraped, job: str) -> None:
    """Now to the last call, and `increase` over the window within its extrapolation."""
    own = f'job="{job}"'
    counted = (scraped.after - scraped.before).models["openai", "gpt-4o"]
    total = scraped.after.models["openai", "gpt-4o"]
    for name, increase, whole in (
        ("langmeter_calls_total", counted.calls, total.calls),
        ("langmeter_cost_usd_total", float(counted.cost or 0), float(total.cost or 0)),
    ):
        selected = f"{name}{{{own}, {GPT}}}"
        (now,) = scraped.ask(f"sum({selected})", scraped.at).values()
        assert now == pytest.approx(whole)
        (grown,) = scraped.ask(f"sum(increase({selected}[{scraped.window}]))", scraped.at).values()
        assert grown == pytest.approx(increase, rel=0.2)
        # The window may extrapolate by an interval at each end; the rate between its ends is exact.
        begin = scraped.at - float(scraped.window[:-1])
        (then,) = scraped.ask(f"sum({selected})", begin).values()
        assert now - then == pytest.approx(increase)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_quantiles_are_those_of_the_snapshot(scraped: Scraped, job: str, q: float) -> None:
    """Native: within 1 %. Classic: what its buckets make of the same durations, within 2 %."""
    generation = JOBS[job]["conventions"]
    name = semconv.DURATION[generation].prometheus_name  # type: ignore[index]
    latency = _latency(scraped.after - scraped.before)
    own = f'{{job="{job}", {GPT}}}'
    if job.startswith("native"):
        query = f"histogram_quantile({q}, sum(rate({name}{own}[{scraped.window}])))"
        expected, off = latency.quantile(q), 0.01
        assert not scraped.ask(f"{name}_bucket{own}", scraped.at)
    else:
        query = f"histogram_quantile({q}, sum by (le) (rate({name}_bucket{own}[{scraped.window}])))"
        expected, off = _interpolated(latency, q), 0.02
    (quantile,) = scraped.ask(query, scraped.at).values()
    assert quantile == pytest.approx(expected, rel=off)


def _interpolated(latency: Any, q: float) -> float:
    bounds = (0.0, *semconv.DURATION_BOUNDS)
    counts = [0, *cumulative(latency, semconv.DURATION_BOUNDS)]
    rank = q * latency.count
    for (low, less), (high, more) in pairwise(zip(bounds, counts, strict=False)):
        if more >= rank:
            return low + (high - low) * (rank - less) / (more - less)
    raise AssertionError("a duration above all bounds")


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("title", "query"), list(queries(dashboard())))
def test_every_query_of_the_dashboard_has_data(
    scraped: Scraped, job: str, title: str, query: str
) -> None:
    """Whatever form and generation a process exports, each panel shows numbers."""
    for variable, value in (
        ("$job", job),
        ("$__rate_interval", scraped.window),
        ("$__range", scraped.window),
    ):
        query = query.replace(variable, value)
    assert "$" not in query.replace('"$1"', "")
    values = list(scraped.ask(query, scraped.at).values())
    assert [value for value in values if not math.isnan(value)], title


_CHAT = 'gen_ai_operation_name=~"chat|generate_content|text_completion"'
_BY = "sum by ({by}) ({change}({name}{{{where}}}[{window}]))"
_P95 = "histogram_quantile(0.95, sum by (le, {by}) (rate({name}_bucket{{{where}}}[{window}])))"
_MODEL, _AGENT, _TOOL = "gen_ai_request_model", "gen_ai_agent_name", "gen_ai_tool_name"
_OPERATION, _INFERENCE = "gen_ai_client_operation_duration_seconds", "gen_ai_client_inference"
#: Queries of the conventions' migration guide, in names that Prometheus 2 knows: generation, form,
#: metric, what it is summed by, and a condition.
GUIDE = [
    ("released", _BY, f"{_OPERATION}_count", _MODEL, _CHAT),
    ("released", _P95, _OPERATION, _MODEL, _CHAT),
    ("released", _BY, "gen_ai_client_token_usage_sum", "", 'gen_ai_token_type="input"'),
    ("released", _BY, "gen_ai_client_token_usage_sum", "", 'gen_ai_token_type="output"'),
    ("released", _BY, "gen_ai_client_token_usage_sum", _MODEL, ""),
    ("latest", _BY, f"{_INFERENCE}_duration_seconds_count", _MODEL, ""),
    ("latest", _P95, f"{_INFERENCE}_duration_seconds", _MODEL, ""),
    ("latest", _BY, f"{_INFERENCE}_usage_input_tokens_total", _MODEL, ""),
    ("latest", _BY, f"{_INFERENCE}_usage_output_tokens_total", _MODEL, ""),
    ("latest", _BY, f"{_INFERENCE}_usage_cache_read_input_tokens_total", "", ""),
    ("latest", _BY, "gen_ai_invoke_agent_duration_seconds_count", _AGENT, ""),
    ("latest", _P95, "gen_ai_invoke_agent_duration_seconds", _AGENT, ""),
    ("latest", _BY, "gen_ai_execute_tool_duration_seconds_count", _TOOL, ""),
    ("latest", _P95, "gen_ai_execute_tool_duration_seconds", _TOOL, ""),
]


@pytest.mark.parametrize(("generation", "form", "name", "by", "where"), GUIDE)
def test_dashboards_of_others_have_data(
    scraped: Scraped, generation: str, form: str, name: str, by: str, where: str
) -> None:
    """The scenarios of the migration guide that langmeter records have positive values."""
    where = ", ".join(filter(None, (f'job="classic-{generation}"', where)))
    fields = {"name": name, "by": by, "where": where, "window": scraped.window}
    values = scraped.ask(form.format(**fields, change="increase"), scraped.at)
    assert [value for value in values.values() if value > 0]
    assert by == "" or all(key[0] for key in values if key)


@pytest.mark.parametrize("settings", JOBS.values(), ids=JOBS)
def test_promtool_accepts_the_metrics(settings: dict[str, Any]) -> None:
    """`promtool check metrics` has nothing to say about their names, types and units."""
    binary = tool("promtool", "prometheus/usr/bin/promtool")
    source = Traffic().everything(20)
    with prometheus.start(0, source, token="", **settings) as server:
        text = urllib.request.urlopen(f"{server.url}/metrics").read()
    done = subprocess.run([binary, "check", "metrics"], input=text, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
