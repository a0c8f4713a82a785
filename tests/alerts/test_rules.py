"""Rules: what can be written, and what a mistake says."""

from __future__ import annotations

import pytest

from langmeter import ConfigError
from langmeter.alerts import Rule, burn_rate
from langmeter.analysis.regression.rules import Rule as ComparisonRule


@pytest.mark.parametrize(
    ("text", "threshold", "clear"),
    [
        ("latency.p95 > 2s", 2.0, 1.8),
        ("latency.p95[openai/*] > 250ms", 0.25, 0.225),
        ("error_rate > 5%", 0.05, 0.045),
        ("cost > 10 per 1h", 10.0, 9.0),
        ("defects.success_rate < 60%", 0.6, 0.66),
        ("latency.p95 > +50%", 0.5, 0.45),
        ("calls < -20%", -0.2, -0.18),
        ("latency.p95 > +1s", 1.0, 0.9),
        ("anomalies > 0", 0.0, 0.0),
        ("budget('team-a').used > 80%", 0.8, 0.72),
    ],
)
def test_a_threshold_is_in_the_unit_of_its_metric(
    text: str, threshold: float, clear: float
) -> None:
    """A per cent without a sign is a hundredth; an alert resolves a tenth better than it fires."""
    rule = Rule(text)
    assert rule.threshold == pytest.approx(threshold)
    assert rule.clear == pytest.approx(clear)


@pytest.mark.parametrize(
    ("text", "remedy", "position"),
    [
        ("latency.p95 > 2x", "latency.p95 is given in s", 16),
        ("latncy.p95 > 2s", "no metric 'latncy.p95'", 1),
        ("cost 5", "'>' or '<' is missing after the metric", 6),
        ("cost >", "a number is missing", 7),
        ("cost > 5 per 1y", "per must be a length of time", 14),
        ("cost > 5 %", "cost is given in a plain number", 10),
        ("cost > 5 usd now", "'now' is too much", 14),
        ("  ", "a metric is missing", 3),
        ("budget('a').left > 1", "no figure budget(…).left", 1),
    ],
)
def test_a_mistake_has_its_position(text: str, remedy: str, position: int) -> None:
    """The message says what is wrong, and at which character."""
    with pytest.raises(ConfigError) as refused:
        Rule(text)
    message = str(refused.value)
    assert message.startswith("text must be a condition")
    assert remedy in message
    assert message.endswith(f"at character {position}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "calls > -5%"}, "write > "),
        ({"text": "error_rate > 5% per 1h"}, "to have per"),
        ({"text": "latency.p95 > 2s", "resolve": "3s"}, "resolve must be no worse than 2s"),
        ({"text": "latency.p95 > 2s", "resolve": "1 %"}, "resolve must be a value"),
        ({"text": "budget('a').used > 8%", "by": "team"}, "by must be left out"),
        ({"text": "cost > 1", "by": ("team", "component")}, "by must be component alone"),
        ({"text": "cost > 1", "window": "0s"}, "window must be a length of time above 0"),
        ({"text": "cost > 1", "for_": "soon"}, "for_ must be a length of time"),
        ({"text": "cost > 1", "min_count": 0}, "min_count must be a whole number from 1"),
        ({"text": "cost > 1", "short": "5m"}, "short must be shorter than window"),
        ({"text": 5}, "text must be a condition"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, object], message: str) -> None:
    """With the option that is wrong."""
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        Rule(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["latency.p95>+10%", "error_rate[openai/gpt-4o]>+1pp"])
def test_comparisons_and_alerts_have_one_grammar(text: str) -> None:
    """What `langmeter compare` takes is an alert, too."""
    compared, alert = ComparisonRule.parse(text), Rule(text)
    assert compared.threshold == alert.threshold
    assert compared.relative is alert.condition.relative
    assert compared.where == alert.condition.where


def test_the_burn_rates_are_those_of_the_workbook() -> None:
    """14.4 times over 1 h and 5 min, 6 times over 6 h and 30 min, once over 3 d and 6 h."""
    rules = burn_rate(objective="0.1%")
    assert [rule.threshold for rule in rules] == pytest.approx([0.0144, 0.006, 0.001])
    assert [rule.seconds / 3600 for rule in rules] == [1, 6, 72]
    assert [float(rule.short) / 60 for rule in rules] == [5, 30, 360]  # type: ignore[arg-type]
    assert [rule.severity for rule in rules] == ["critical", "critical", "warning"]


def test_money_burns_by_the_even_pace_of_its_period() -> None:
    """Of 720 USD in 30 days one goes each hour, so that 14.4 in an hour are too many."""
    rules = burn_rate("cost", budget=720)
    assert [rule.threshold for rule in rules] == pytest.approx([14.4, 36, 72])
    of_a_day = burn_rate("cost", budget=720, per="1d")
    assert [rule.threshold for rule in of_a_day] == pytest.approx([14.4, 36, 72])
    assert [rule.seconds for rule in of_a_day] == pytest.approx([120, 720, 8640])


def test_an_objective_or_a_budget_is_given() -> None:
    """Not both, and not neither."""
    for wrong in ({}, {"objective": "1%", "budget": 5}):
        with pytest.raises(ConfigError, match="give one of the two"):
            burn_rate(**wrong)  # type: ignore[arg-type]
