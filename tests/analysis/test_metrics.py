"""The list of metrics: what each reads, of what, and how it is named."""

from __future__ import annotations

import numpy
import pytest

from langmeter.analysis import metrics
from langmeter.analysis.metrics import Figure, matches, metric, reference
from langmeter.analysis.regression.metrics import NAMES
from tests.support.simulated import calls, latencies

DURATIONS = latencies(500)
SNAPSHOT = calls(DURATIONS, errors=25, cached=10, tokens=(1000, 100), cache_read=400)


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("calls", 500, 500),
        ("errors", 25, 500),
        ("error_rate", 25 / 490, 490),
        ("abandoned_rate", 0, 490),
        ("tokens", 465 * 1100, 465),
        ("input_tokens", 465 * 1000, 465),
        ("output_tokens", 465 * 100, 465),
        ("input_tokens.per_call", 1000, 465),
        ("output_tokens.per_call", 100, 465),
        ("cost", 465 * 0.004, 465),
        ("cost.per_call", 0.004, 465),
        ("cache_read.share", 0.4, 465),
        ("unpriced_calls", 0, 465),
    ],
)
def test_a_metric_is_the_figure_and_what_it_rests_on(name: str, value: float, count: int) -> None:
    """Of the total, by arithmetic that is not ours."""
    figure = metric(name).read(SNAPSHOT.totals)
    assert figure is not None
    assert figure.value == pytest.approx(value)
    assert figure.count == count


@pytest.mark.parametrize("percent", ["50", "95", "99.9"])
def test_a_quantile_is_that_of_numpy(percent: str) -> None:
    """Within the precision of the histogram; a short name is the same metric."""
    figure = metric(f"latency.p{percent}").read(SNAPSHOT.totals)
    assert figure is not None
    timed = DURATIONS[:25] + DURATIONS[35:]  # cache hits are in no distribution
    exact = numpy.percentile(timed, float(percent), method="inverted_cdf")
    assert figure.value == pytest.approx(exact, rel=0.002)
    assert figure.count == 490
    assert metric("ttft.p50") == metric("time_to_first_token.p50")


def test_where_there_is_no_data_there_is_no_figure() -> None:
    """Not a 0 that was never measured, and none of the wrong rows."""
    empty = calls([])
    for name in (*metrics.RATIOS, *metrics.SUMS, "latency.p95", "ttft.p95"):
        assert metric(name).read(empty.totals) is None
    assert metric("success_rate").read(SNAPSHOT.totals) is None
    (component,) = SNAPSHOT.components.values()
    assert metric("cost").read(component) is None
    assert metric("calls").read(component) == Figure(500, 500)


def test_a_reference_names_a_metric_and_a_place() -> None:
    """As rules write it; without a place it is about everything."""
    assert reference("latency.p95[openai/*]") == (metric("latency.p95"), "openai/*")
    assert reference(" cost ") == (metric("cost"), "")
    assert reference("defects.success_rate")[0] is metric("success_rate")
    for text in ("", "cost >", "cost[]", "defects.cost", "latency.p0", "latency.mean"):
        with pytest.raises(ValueError, match=r"(invalid|no) metric"):
            reference(text)
    assert matches("openai/*", "openai/gpt-4o")
    assert not matches("openai/*", "azure_openai/gpt-4o")
    assert not matches("gpt.4", "gptx4")


def test_what_is_compared_is_in_the_list() -> None:
    """Comparisons have every ratio and quantile, and no sum."""
    assert {*metrics.RATIOS} < {*NAMES}
    assert not {*metrics.SUMS} & {*NAMES}
