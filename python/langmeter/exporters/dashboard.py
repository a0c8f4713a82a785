"""A dashboard for Grafana, made of the names that the exporters use.

Each query asks for classic and native histograms and for both generations of the conventions, so
that it has data whichever of them a process exports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from langmeter.exporters import semconv
from langmeter.exporters.semconv import Instrument

#: Format of Grafana's dashboards, which Grafana 10 and newer read.
_SCHEMA: Final = 39
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_JOB: Final = 'job=~"$job"'
_MODEL: Final = semconv.prometheus_label(semconv.REQUEST_MODEL)
_OUTCOME: Final = semconv.prometheus_label(semconv.OUTCOME)
_TYPE: Final = semconv.prometheus_label(semconv.TOKEN_TYPE)
_KIND, _NAME = semconv.COMPONENT_DURATION.labels


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    unit: str
    description: str
    #: Queries by the legend of their series.
    queries: dict[str, str]
    is_number: bool = False


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it: plain dicts, lists and texts."""
    panels: list[dict[str, Any]] = []
    place = 0
    for row, members in _rows().items():
        panels.append(_at(place, 0, 24, 1, {"type": "row", "title": row, "collapsed": False}))
        place += 1
        for number, panel in enumerate(members):
            x, y = number % 3 * 8, place + number // 3 * 8
            panels.append(_at(y, x, 8, 8, _drawn(panel)))
        place += (len(members) + 2) // 3 * 8
    for number, drawn in enumerate(panels):
        drawn["id"] = number + 1
    return {
        "title": "langmeter",
        "uid": "langmeter",
        "tags": ["langmeter", "llm"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": panels,
    }


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the title of each panel of a dashboard with each of its queries."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def _rows() -> dict[str, list[_Panel]]:
    calls, errors = _rate(semconv.CALLS), _rate(semconv.CALLS, f'{_OUTCOME}="error"')
    share, model = "percentunit", f"{{{{{_MODEL}}}}}"
    inputs, cached = _tokens("input"), _tokens("cache_read")
    label, reason = semconv.LABEL_COST.labels[1], semconv.DROPPED.labels[0]
    error = semconv.prometheus_label(semconv.ERROR)
    fixed = _by(_MODEL, semconv.DEFECTS_FIXED)
    closed = _by(_MODEL, semconv.DEFECTS_CLOSED)
    spent = _by(_MODEL, semconv.DEFECT_COST)
    return {
        "Calls": [
            _Panel("Calls", "reqps", "Ended calls.", {model: _sum(_MODEL, calls)}),
            _Panel(
                "Error rate",
                share,
                "Share of calls that ended with an error.",
                {model: f"{_sum(_MODEL, errors)} / {_sum(_MODEL, calls)}"},
            ),
            _Panel("Errors", "reqps", "By class and status.", {f"{{{{{error}}}}}": _errors(error)}),
            _Panel("In flight", "none", "Now.", {model: _by(_MODEL, semconv.IN_FLIGHT)}),
            _Panel("Duration", "s", "Of whole calls.", _quantiles(*semconv.DURATION.values())),
            _Panel(
                "Retries, cut answers, silent streams",
                "reqps",
                "Retried calls, answers at the limit of their length, stalls of streams.",
                {
                    "retried": f"sum({_rate(semconv.RETRIED)})",
                    "truncated": f"sum({_rate(semconv.TRUNCATED)})",
                    "stalls": f"sum({_rate(semconv.STALLS)})",
                },
            ),
        ],
        "Money and tokens": [
            _Panel(
                "Cost",
                "currencyUSD",
                "Of priced calls in the range.",
                {"USD": f"sum(increase({_selected(semconv.COST)}[$__range]))"},
                is_number=True,
            ),
            _Panel(
                "Cost per hour",
                "currencyUSD",
                "By model, at the rate of the moment.",
                {model: f"3600 * {_sum(_MODEL, _rate(semconv.COST))}"},
            ),
            _Panel(
                "Cost per hour by label",
                "currencyUSD",
                "By value of the labels that the meter splits by.",
                {f"{{{{{label}}}}}": f"3600 * {_sum(label, _rate(semconv.LABEL_COST))}"},
            ),
            _Panel(
                "Tokens",
                "cps",
                "Per second.",
                {"input": inputs, "output": _tokens("output"), "cached": cached},
            ),
            _Panel(
                "Cache hits", share, "Cached among input tokens.", {"hits": f"{cached} / {inputs}"}
            ),
            _Panel(
                "Without a price",
                "none",
                "Tokens that are in no cost; name their prices.",
                {model: _by(_MODEL, semconv.UNPRICED_TOKENS)},
            ),
        ],
        "Streams": [
            _Panel("First token", "s", "From the start.", _quantiles(semconv.TIME_TO_FIRST_TOKEN)),
            _Panel(
                "First chunk",
                "s",
                "As the conventions count it.",
                _quantiles(*semconv.TIME_TO_FIRST_CHUNK.values()),
            ),
            _Panel(
                "Per output token",
                "s",
                "By the final usage.",
                _quantiles(semconv.TIME_PER_OUTPUT_TOKEN),
            ),
        ],
        "Components": [
            _Panel("Tools", "s", "p95.", {f"{{{{{_NAME}}}}}": _component("tool", semconv.TOOL)}),
            _Panel("Agents", "s", "p95.", {f"{{{{{_NAME}}}}}": _component("agent", semconv.AGENT)}),
            _Panel(
                "Dropped",
                "none",
                "What was not counted.",
                {f"{{{{{reason}}}}}": f"topk(5, {_sum(reason, _rate(semconv.DROPPED))})"},
            ),
        ],
        "Defects": [
            _Panel("Fixed", share, "Among defects with a verdict.", {model: f"{fixed} / {closed}"}),
            _Panel("Cost of a fix", "currencyUSD", "All attempts.", {model: f"{spent} / {fixed}"}),
            _Panel(
                "Attempts",
                "none",
                "By outcome.",
                {f"{{{{{_OUTCOME}}}}}": _by(_OUTCOME, semconv.ATTEMPTS)},
            ),
        ],
    }


# --- queries --------------------------------------------------------------------------------------


def _selected(instrument: Instrument, *conditions: str, suffix: str | None = None) -> str:
    if suffix is None:
        suffix = "_total" if instrument.kind == "counter" else ""
    return f"{instrument.prometheus_name}{suffix}{{{', '.join((_JOB, *conditions))}}}"


def _rate(instrument: Instrument, *conditions: str, suffix: str | None = None) -> str:
    return f"rate({_selected(instrument, *conditions, suffix=suffix)}[$__rate_interval])"


def _sum(names: str, query: str) -> str:
    return f"sum by ({names}) ({query})"


def _by(names: str, instrument: Instrument) -> str:
    return _sum(names, _selected(instrument))


def _errors(name: str) -> str:
    return _sum(name, _rate(semconv.ERRORS))


def _quantiles(*instruments: Instrument) -> dict[str, str]:
    """Return queries for p50, p95 and p99 by model."""
    return {
        f"p{round(100 * q)} {{{{{_MODEL}}}}}": " or ".join(
            _quantile(q, instrument, _MODEL) for instrument in instruments
        )
        for q in (0.5, 0.95, 0.99)
    }


def _quantile(q: float, instrument: Instrument, names: str, *conditions: str) -> str:
    """Return a query for a quantile of native histograms, or else of classic ones."""
    native = _sum(names, _rate(instrument, *conditions))
    classic = _sum(f"le, {names}", _rate(instrument, *conditions, suffix="_bucket"))
    return f"histogram_quantile({q}, {native}) or histogram_quantile({q}, {classic})"


def _component(kind: str, attribute: str) -> str:
    """Return a query for p95 of components of a kind, by name in either generation."""
    latest, name = semconv.COMPONENT_DURATIONS[kind], semconv.prometheus_label(attribute)
    newer = _quantile(0.95, latest, name)
    older = _quantile(0.95, semconv.COMPONENT_DURATION, _NAME, f'{_KIND}="{kind}"')
    return f'{older} or label_replace({newer}, "{_NAME}", "$1", "{name}", "(.*)")'


def _tokens(kind: str) -> str:
    """Return a query for tokens per second of a kind, in either generation."""
    is_of_kind = f'{_TYPE}="{kind}"'
    newer = next(_rate(counter) for counter, own, _ in semconv.USAGE if own == kind)
    older = f"sum({_rate(semconv.TOKENS, is_of_kind)})"
    if kind in ("input", "output"):
        native = f"histogram_sum(sum({_rate(semconv.TOKEN_USAGE, is_of_kind)}))"
        older = f"{native} or sum({_rate(semconv.TOKEN_USAGE, is_of_kind, suffix='_sum')})"
    return f"({older} or sum({newer}))"


# --- Grafana's form -------------------------------------------------------------------------------


def _at(y: int, x: int, width: int, height: int, panel: dict[str, Any]) -> dict[str, Any]:
    return {**panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _drawn(panel: _Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _SOURCE,
            "expr": query,
            "legendFormat": name,
        }
        for number, (name, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": "stat" if panel.is_number else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus"}
    yield {
        "name": "job",
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({semconv.CALLS.prometheus_name}_total, job)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
