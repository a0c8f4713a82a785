"""Replay of a history through the engine: the alerts that rules would have given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

from langmeter._base.spans import Moment
from langmeter.alerts.alert import Alert
from langmeter.alerts.engine import Engine
from langmeter.alerts.options import Rule
from langmeter.analysis.conditions import Gauge

if TYPE_CHECKING:
    from langmeter.history.store import Span

__all__ = ["left_out", "replayed"]

#: Seconds between two evaluations, and most of them where nothing was counted.
_STEP: Final = 60
_QUIET: Final = 1500


def left_out(rules: Iterable[Rule]) -> list[str]:
    """Return the names of the rules that a history has no figures for."""
    return [rule.title for rule in rules if isinstance(rule.condition.metric, Gauge)]


def replayed(
    url: str | os.PathLike[str],
    rules: Iterable[Rule],
    *,
    since: Moment = None,
    until: Moment = None,
) -> list[Alert]:
    """Return the alerts that would have fired and resolved over a history.

    Rules are judged at the end of each interval, and each minute between; where only hours or days
    are kept, at the end of those.

    Args:
        url: path or URL of the history.
        rules: the rules.
        since: begin: a datetime, its text, or a length of time before now; None for all.
        until: end; None for now.

    Raises:
        ConfigError: a moment is not one.
        SourceError: the database does not answer, or is not a history.
    """
    from langmeter.history import History

    engine = Engine(rules, interval=_STEP)
    alerts: list[Alert] = []
    last = None
    for ended, spans in _by_end(History(url).spans(since, until)):
        if last is not None:
            quiet = range(last + _STEP, ended, _STEP)
            for now in [*quiet[:_QUIET], *quiet[-1:]]:
                alerts += engine.evaluate(now)
        for span in spans:
            engine.observe(span.started, span.ended, span.snapshot)
        alerts += engine.evaluate(ended)
        last = ended
    return alerts


def _by_end(spans: Iterable[Span]) -> Iterator[tuple[int, list[Span]]]:
    for ended, group in groupby(spans, lambda span: span.ended):
        yield ended, list(group)
