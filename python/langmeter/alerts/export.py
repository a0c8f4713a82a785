"""Rules for Prometheus: alerting and recording rules over what the exporters write, for a fleet.

What PromQL cannot say is left out and named: anomalies, the state of budgets, figures that the
exporters do not write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from langmeter._base.spans import seconds_of
from langmeter._base.text import plural
from langmeter.alerts.options import Rule
from langmeter.analysis.conditions import Gauge
from langmeter.analysis.metrics import Quantile
from langmeter.exporters import semconv
from langmeter.exporters.semconv import Instrument

__all__ = ["Exported", "prometheus_rules"]

_OUTCOME: Final = semconv.prometheus_label(semconv.OUTCOME)
_MODEL: Final = {
    "provider": semconv.prometheus_label(semconv.PROVIDER),
    "model": semconv.prometheus_label(semconv.REQUEST_MODEL),
}
_DURATIONS: Final[dict[str, tuple[Instrument, ...]]] = {
    "latency": tuple(semconv.DURATION.values()),
    "time_to_first_token": (semconv.TIME_TO_FIRST_TOKEN,),
    "inter_token_latency": tuple(semconv.TIME_PER_OUTPUT_CHUNK.values()),
}
#: Metric -> counters whose increases are its sum, and the outcomes that count.
_SUMS: Final[dict[str, tuple[Instrument, str]]] = {
    "calls": (semconv.CALLS, ""),
    "errors": (semconv.CALLS, "error"),
    "cost": (semconv.COST, ""),
    "stalls": (semconv.STALLS, ""),
}
#: Metric -> outcomes of its part, and of its whole.
_RATIOS: Final = {
    "error_rate": ("error", "ok|error"),
    "abandoned_rate": ("abandoned", "ok|error|cancelled|abandoned"),
}


class _NotSaid(Exception):  # noqa: N818 (an answer)
    """PromQL cannot say a rule; the message says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Rules as Prometheus reads them.

    Attributes:
        text: a file of rules, YAML.
        left_out: name of each rule that is not in it, and why.
    """

    text: str
    left_out: tuple[tuple[str, str], ...]


def prometheus_rules(rules: Iterable[Rule]) -> Exported:
    """Return rules as a file for Prometheus 2.42 or newer, and what it cannot have."""
    recording: dict[str, dict[str, Any]] = {}
    alerting, left_out = [], []
    for number, rule in enumerate(rules, 1):
        try:
            expressions = _Expressions(rule)
            records = expressions.records(f"langmeter:rule_{number}")
        except _NotSaid as error:
            left_out.append((rule.title, str(error)))
            continue
        recording |= {record["record"]: record for record in records}
        alerting.append(_alert(rule, expressions, [record["record"] for record in records]))
    groups: list[dict[str, Any]] = [
        {"name": "langmeter-recording", "rules": list(recording.values())},
        {"name": "langmeter-alerts", "rules": alerting},
    ]
    # JSON is YAML, and quotes every text.
    body = json.dumps({"groups": [each for each in groups if each["rules"]]}, indent=2)
    lines = [f"# {plural(len(alerting), 'alert')} of langmeter, for Prometheus."]
    lines += [f"# Left out: {_line(title)}: {why}" for title, why in left_out]
    return Exported("\n".join([*lines, body]) + "\n", tuple(left_out))


def _line(text: str) -> str:
    return " ".join(text.split())


def _alert(rule: Rule, expressions: _Expressions, records: list[str]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", rule.title).strip("_") or "langmeter"
    alert: dict[str, Any] = {"alert": name, "expr": expressions.alert(name, records)}
    if seconds := seconds_of("for_", rule.for_, or_zero=True):
        alert["for"] = _length(seconds)
    if seconds := seconds_of("keep_firing", rule.keep_firing, or_zero=True):
        alert["keep_firing_for"] = _length(seconds)
    alert["labels"] = {"severity": rule.severity}
    alert["annotations"] = {"summary": f"{rule.title}: {{{{ $value }}}}", "rule": rule.text}
    return alert


class _Expressions:
    """PromQL of one rule."""

    def __init__(self, rule: Rule) -> None:
        condition = rule.condition
        self._rule, self._condition = rule, condition
        if isinstance(condition.metric, Gauge) or condition.metric.name == "anomalies":
            raise _NotSaid("Prometheus does not have it")
        if condition.sign and isinstance(condition.metric, Quantile):
            raise _NotSaid("a change of a quantile needs histograms of its baseline")
        if condition.metric.name not in (*_SUMS, *_RATIOS) and not isinstance(
            condition.metric, Quantile
        ):
            raise _NotSaid(f"the exporters do not write what {condition.metric.name} needs")
        unknown = [name for name in rule.names if name not in _MODEL]
        if unknown:
            raise _NotSaid(f"by {', '.join(unknown)}: it is in metrics of its own")
        self._where = self._place(condition.where)
        self._by = ", ".join(_MODEL[name] for name in rule.names)

    @staticmethod
    def _place(where: str) -> list[str]:
        if not where:
            return []
        if " " in where or where.count("/") != 1:
            raise _NotSaid(f"the place {where!r} is not PROVIDER/MODEL")
        parts = zip(_MODEL.values(), where.split("/"), strict=True)
        return [f"{label}=~{json.dumps(_pattern(part))}" for label, part in parts if part != "*"]

    def records(self, name: str) -> list[dict[str, str]]:
        """Return the recording rules of its windows, the long one first."""
        windows = [self._rule.seconds]
        if self._rule.short is not None:
            windows.append(seconds_of("short", self._rule.short))
        return [
            {"record": f"{name}:{_length(seconds)}", "expr": self._figure(seconds)}
            for seconds in windows
        ]

    def alert(self, name: str, records: list[str]) -> str:
        """Return the condition, with a threshold of its own for the way back."""
        rule, condition = self._rule, self._condition
        sense = ">" if condition.sense > 0 else "<"
        scale = [1.0]
        if rule.short is not None:
            is_sum = condition.metric.name in _SUMS
            scale.append(seconds_of("short", rule.short) / rule.seconds if is_sum else 1.0)
        values = records
        if condition.sign:
            before = seconds_of("baseline", rule.baseline)
            values = [self._change(record, before) for record in records]
        worse = " and ".join(
            f"{value} {sense} {part * rule.threshold:.12g}"
            for value, part in zip(values, scale, strict=True)
        )
        not_better = " and ".join(
            f"{value} {sense} {part * rule.clear:.12g}"
            for value, part in zip(values, scale, strict=True)
        )
        firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
        on = f"on({self._by})"
        return f"({worse}) or (({not_better}) and {on} {firing})"

    def _change(self, record: str, baseline: float) -> str:
        earlier = (
            f"avg_over_time({record}[{_length(baseline)}] offset {_length(self._rule.seconds)})"
        )
        if self._condition.relative:
            return f"({record} / {earlier} - 1)"
        return f"({record} - {earlier})"

    def _figure(self, seconds: float) -> str:
        metric, window = self._condition.metric, _length(seconds)
        if isinstance(metric, Quantile):
            forms = [self._quantile(each, metric, window) for each in _DURATIONS[metric.what]]
            figure = " or ".join(form for pair in forms for form in pair)
            counts = " or ".join(
                self._sum(f"{each.prometheus_name}_count", window)
                for each in _DURATIONS[metric.what]
            )
            return self._enough(figure, counts)
        if metric.name in _RATIOS:
            part, whole = _RATIOS[metric.name]
            total = self._sum(_counter(semconv.CALLS), window, whole)
            return self._enough(
                f"{self._sum(_counter(semconv.CALLS), window, part)} / {total}", total
            )
        counter, outcome = _SUMS[metric.name]
        return self._sum(_counter(counter), window, outcome)

    def _enough(self, figure: str, count: str) -> str:
        """Return a figure where there are enough observations."""
        return f"({figure}) and ({count}) >= {self._rule.min_count}"

    def _quantile(self, instrument: Instrument, metric: Quantile, window: str) -> tuple[str, str]:
        name = instrument.prometheus_name
        by = f", {self._by}" if self._by else ""
        buckets = f"sum by (le{by}) (increase({name}_bucket{self._selector()}[{window}]))"
        native = self._sum(name, window)
        return (
            f"histogram_quantile({metric.q:g}, {buckets})",
            f"histogram_quantile({metric.q:g}, {native})",
        )

    def _sum(self, name: str, window: str, outcome: str = "") -> str:
        by = f" by ({self._by})" if self._by else ""
        return f"sum{by} (increase({name}{self._selector(outcome)}[{window}]))"

    def _selector(self, outcome: str = "") -> str:
        chosen = [*self._where, *([f'{_OUTCOME}=~"{outcome}"'] if outcome else [])]
        return f"{{{', '.join(chosen)}}}" if chosen else ""


def _counter(instrument: Instrument) -> str:
    return f"{instrument.prometheus_name}_total"


def _pattern(part: str) -> str:
    return re.escape(part).replace(r"\*", ".*").replace(r"\?", ".").replace(r"\-", "-")


def _length(seconds: float) -> str:
    return f"{round(seconds)}s"
