"""Prometheus: by the parsers of its official client, and by what a snapshot says."""

from __future__ import annotations

import math
import threading
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from langmeter import ConfigError, Snapshot, sources
from langmeter.exporters import prometheus, semconv
from langmeter.exporters.buckets import cumulative
from tests.support.exposition import samples_of, scraped
from tests.support.simulated import calls
from tests.support.traffic import EPOCH, Traffic

DURATION = "gen_ai_client_operation_duration_seconds"
CALL = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-4o",
    "gen_ai_response_model": "gpt-4o",
}


FAILED = {"error_type": "RateLimitError 429"}
MODEL = {name: text for name, text in CALL.items() if name != "gen_ai_operation_name"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(semconv.OPT_IN, raising=False)
    monkeypatch.delenv(sources.TOKEN, raising=False)


def _value(samples: dict[Any, float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_every_figure_of_a_model_is_that_of_the_snapshot(snapshot: Snapshot, form: str) -> None:
    """The official parsers of both text forms read calls, tokens, money and durations."""
    samples = scraped(snapshot, form)
    for (provider, model), stats in snapshot.models.items():
        own = {
            "gen_ai_provider_name": provider,
            "gen_ai_request_model": model,
            "gen_ai_response_model": model,
        }
        call = {**own, "gen_ai_operation_name": "chat"}
        answered = _value(samples, f"{DURATION}_count", **call)
        failed = samples.get((f"{DURATION}_count", frozenset({**call, **FAILED}.items())), 0)
        assert (answered, failed) == (stats.calls - stats.errors, stats.errors)
        seconds = _value(samples, f"{DURATION}_sum", **call)
        if failed:
            seconds += _value(samples, f"{DURATION}_sum", **call, **FAILED)
        assert seconds == pytest.approx(stats.latency.sum)
        for outcome, count in stats.outcomes.items():
            name = "langmeter_calls_total"
            assert _value(samples, name, **own, langmeter_outcome=outcome) == count
        usage = ("gen_ai_client_token_usage_sum", {**call, "gen_ai_token_type": "input"})
        if stats.priced_calls + stats.unpriced_calls:
            assert _value(samples, usage[0], **usage[1]) == stats.tokens.input
        else:
            assert (usage[0], frozenset(usage[1].items())) not in samples
        cost = ("langmeter_cost_usd_total", frozenset(own.items()))
        assert samples.get(cost) == (None if stats.cost is None else float(stats.cost))
    errors = _value(samples, "langmeter_errors_total", **MODEL, error_type="RateLimitError 429")
    assert errors == snapshot.models["openai", "gpt-4o"].errors == 10


def test_begin_of_counters_is_said(snapshot: Snapshot) -> None:
    """`_created` is the begin of the recorder, so that a restart is not a loss of spend."""
    samples = scraped(snapshot, "openmetrics")
    assert snapshot.started_at is not None
    begin = snapshot.started_at.timestamp()
    assert begin > EPOCH
    created = {key: value for key, value in samples.items() if key[0].endswith("_created")}
    assert set(created.values()) == {begin}
    counters = {name for name, _ in samples if name.endswith(("_total", "_count"))}
    for name in counters:
        assert any(key[0] == name.rpartition("_")[0] + "_created" for key in created), name


def test_zero_is_sent_and_unknown_is_not() -> None:
    """A free model costs 0, an unpriced one has no cost, and nothing dropped is 0."""
    samples = scraped(calls([1.0], cost=0))
    model = {**MODEL}
    assert _value(samples, "langmeter_cost_usd_total", **model) == 0
    assert _value(samples, "langmeter_unpriced_calls", **model) == 0
    assert _value(samples, "langmeter_calls_total", **model, langmeter_outcome="error") == 0
    assert _value(samples, "langmeter_dropped_total", langmeter_reason="hook_errors") == 0
    unpriced = scraped(calls([1.0], cost=None))
    assert not any(name == "langmeter_cost_usd_total" for name, _ in unpriced)
    assert _value(unpriced, "langmeter_unpriced_calls", **model) == 1


def test_labels_components_and_defects_have_families(snapshot: Snapshot) -> None:
    """Money by team, durations of components, and attempts at defects are exported."""
    samples = scraped(snapshot)
    team = {"langmeter_label_key": "team", "langmeter_label_value": "checkout"}
    cost = snapshot.labels["team", "checkout"].cost
    assert cost
    assert _value(samples, "langmeter_label_cost_usd_total", **team) == float(cost)
    tool = {"langmeter_component_kind": "tool", "langmeter_component_name": "search"}
    assert _value(samples, "langmeter_component_duration_seconds_count", **tool) == 20
    defect = {
        "langmeter_defect_type": "leak",
        "langmeter_defect_severity": "high",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4o",
    }
    assert _value(samples, "langmeter_defects_fixed", **defect) == 2
    assert _value(samples, "langmeter_attempts", **defect, langmeter_outcome="failed") == 1
    assert _value(samples, "langmeter_defects_cost_usd_total", **defect) == 0.004


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_names_survive_whatever_is_in_them(form: str) -> None:
    """Quotes, line ends, backslashes and other scripts are read back; "" is not a label."""
    traffic, weird = Traffic(), 'we"ird\n\\{}=, é 日本'
    for provider, model in (("", ""), ("", "gpt"), ("acme", ""), ("acme", "a/b"), (weird, weird)):
        traffic.call(provider, model, error=f"Error {weird}")
    samples = scraped(traffic, form)
    errors = [dict(labels) for name, labels in samples if name == "langmeter_errors_total"]
    assert {each["error_type"] for each in errors} == {f"Error {weird}"}
    assert {
        (each["gen_ai_provider_name"], each.get("gen_ai_request_model")) for each in errors
    } == {
        ("unknown", None),
        ("unknown", "gpt"),
        ("acme", None),
        ("acme", "a/b"),
        (weird, weird),
    }


def test_the_newer_conventions_count_unknown_usage_as_zero(snapshot: Snapshot) -> None:
    """Inference has its own names; tokens without a stated modality are `unknown`, never text."""
    samples = scraped(snapshot, conventions="latest")
    name = "gen_ai_client_inference_usage_input_tokens_total"
    silent = {**CALL, "gen_ai_provider_name": "acme", "gen_ai_token_modality": "unknown"}
    silent |= dict.fromkeys(("gen_ai_request_model", "gen_ai_response_model"), "silent-1")
    assert _value(samples, name, **silent) == 0
    audio = _value(samples, name, **CALL, gen_ai_token_modality="audio")
    rest = _value(samples, name, **CALL, gen_ai_token_modality="unknown")
    assert (audio, audio + rest) == (30, snapshot.models["openai", "gpt-4o"].tokens.input)
    agent = {"gen_ai_operation_name": "invoke_agent", "gen_ai_agent_name": "planner"}
    assert _value(samples, "gen_ai_invoke_agent_duration_seconds_count", **agent) == 20
    names = {name for name, _ in samples}
    assert not any(each.startswith("gen_ai_client_operation_") for each in names)
    assert "gen_ai_client_token_usage_sum" not in names
    kinds = {dict(labels).get("langmeter_component_kind") for _, labels in samples}
    assert kinds == {None, "tool", "agent", "retriever"}
    timed = [dict(labels) for each, labels in samples if each.startswith("langmeter_component_dur")]
    assert {labels["langmeter_component_kind"] for labels in timed} == {"retriever"}


def test_the_environment_chooses_the_conventions(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_SEMCONV_STABILITY_OPT_IN` is a list; other entries of it change nothing."""
    monkeypatch.setenv(semconv.OPT_IN, "http/dup, gen_ai_latest_experimental")
    assert any(name.startswith("gen_ai_client_inference") for name, _ in scraped(snapshot))
    monkeypatch.setenv(semconv.OPT_IN, "http")
    assert any(name.startswith("gen_ai_client_operation") for name, _ in scraped(snapshot))
    with pytest.raises(ConfigError, match="conventions must be one of 'released', 'latest'"):
        prometheus.collector(snapshot, conventions="newest")  # type: ignore[arg-type]


@given(st.lists(st.floats(1e-6, 3600), min_size=1, max_size=60))
def test_classic_buckets_are_right_within_the_digits(durations: list[float]) -> None:
    """A duration is counted at most 0.1 % from its bucket, and a bound counts in its own."""
    latency = calls(durations).models["openai", "gpt-4o"].latency
    bounds = semconv.DURATION_BOUNDS
    counts = cumulative(latency, bounds)
    for bound, count in zip(bounds, counts, strict=False):
        least = sum(each <= bound * 0.999 - 1e-6 for each in durations)
        most = sum(each <= bound * 1.001 + 1e-6 for each in durations)
        assert least <= count <= most
    assert counts[-1] == len(durations)


def test_a_duration_on_a_bound_is_in_its_bucket() -> None:
    """`le` is inclusive."""
    latency = calls(list(semconv.DURATION_BOUNDS)).models["openai", "gpt-4o"].latency
    assert cumulative(latency, semconv.DURATION_BOUNDS) == [*range(1, 15), 14]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=40))
def test_tokens_by_call_are_a_histogram_of_their_own_bounds(numbers: list[tuple[int, int]]) -> None:
    """Counted by numpy: buckets within 2 digits, the sum exact, calls without any left out."""
    traffic = Traffic()
    for read, written in numbers:
        traffic.call(tokens=(read, written))
    samples = scraped(traffic.snapshot())
    for place, kind in enumerate(("input", "output")):
        tokens = np.array([each[place] for each in numbers])
        tokens = tokens[tokens > 0]
        own = {**CALL, "gen_ai_token_type": kind}
        name = "gen_ai_client_token_usage"
        if not len(tokens):
            assert (f"{name}_count", frozenset(own.items())) not in samples
            continue
        assert _value(samples, f"{name}_sum", **own) == tokens.sum()
        assert _value(samples, f"{name}_count", **own) == len(tokens)
        for power in range(14):
            count = _value(samples, f"{name}_bucket", **own, le=floatToGoString(4.0**power))
            assert (tokens <= 4**power * 0.99).sum() <= count <= (tokens <= 4**power * 1.01).sum()


def test_durations_of_failures_are_those_of_their_errors() -> None:
    """`error.type` divides calls of a model and runs of tools; what returned has none."""
    traffic = Traffic()
    for seconds, error in (
        (1.0, None),
        (2.0, "TimeoutError"),
        (4.0, "TimeoutError"),
        (8.0, "E 500"),
    ):
        traffic.call(seconds=seconds, error=error)
        traffic.component("tool", "search", seconds, error=error)
    snapshot = traffic.snapshot()
    assert snapshot.models["openai", "gpt-4o"].failed_latency.count == 3
    assert snapshot.components["tool", "search"].failed_latency.count == 3
    tool = {"gen_ai_operation_name": "execute_tool", "gen_ai_tool_name": "search"}
    samples = scraped(snapshot, conventions="latest")
    for name, own in (("client_inference", CALL), ("execute_tool", tool)):
        total = f"gen_ai_{name}_duration_seconds_sum"
        assert _value(samples, total, **own) == pytest.approx(1, rel=0.001)
        by_error = {"TimeoutError": 6, "E 500": 8}
        for error, seconds in by_error.items():
            failed = _value(samples, total, **own, error_type=error)
            assert failed == pytest.approx(seconds, rel=0.001)
    unnamed = scraped(calls([1.0, 3.0], errors=1))
    other = _value(unnamed, f"{DURATION}_sum", **CALL, error_type="_OTHER")
    assert other == pytest.approx(1, rel=0.001)


def test_durations_that_returned_never_go_back_beside_threads() -> None:
    """They are a difference of two parts of one snapshot: in no bucket less than before."""
    traffic = Traffic()
    exporter = prometheus.collector(traffic)
    is_over = threading.Event()

    def load(place: int) -> None:
        error = ("TimeoutError", None)[place % 2]
        while not is_over.is_set():
            run = uuid4()
            traffic.recorder.run_started(run, None, 0, "chat", "openai", "gpt-4o")
            traffic.recorder.run_ended(run, 0, int(error is not None), error=error)

    threads = [threading.Thread(target=load, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    try:
        last: dict[Any, float] = {}
        for _ in range(200):
            samples = samples_of(iter(exporter.collect()))
            for key, value in last.items():
                if key[0].startswith(DURATION):
                    assert samples[key] >= value, key
            last = samples
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert last[f"{DURATION}_count", frozenset(CALL.items())] > 0


def test_no_attribute_is_of_one_request() -> None:
    """A hundred times as many calls have as many series."""
    few, many = Traffic(), Traffic()
    few.everything(20)
    many.everything(2000)
    assert set(scraped(few.snapshot())) == set(scraped(many.snapshot()))


def test_counters_never_go_back() -> None:
    """Whatever happens next, no counter, bucket, count or sum is less than it was."""
    traffic = Traffic()
    exporter = prometheus.collector(traffic)
    last: dict[Any, float] = {}
    for round_ in range(5):
        traffic.call(error="TimeoutError" if round_ % 2 else None, audio=round_)
        traffic.defect(f"D{round_}", "failed")
        samples = samples_of(iter(exporter.collect()))
        for key, value in last.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum", "_created")):
                assert samples[key] >= value, key
        last = samples


def test_classic_and_exact_quantiles_differ_by_a_bucket(snapshot: Snapshot) -> None:
    """What a server makes of classic buckets is within the bucket that holds the quantile."""
    stats = snapshot.models["openai", "gpt-4o"]
    counts = np.array(cumulative(stats.latency, semconv.DURATION_BOUNDS))
    place = int(np.searchsorted(counts, math.ceil(0.95 * stats.latency.count)))
    low = semconv.DURATION_BOUNDS[place - 1]
    assert low <= stats.latency.quantile(0.95) <= 2 * low
