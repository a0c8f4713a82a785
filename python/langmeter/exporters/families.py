"""A snapshot as families of points, which Prometheus and OpenTelemetry write in their own forms.

A point that is zero is there, and one that is unknown is not: the cost of a model without a priced
call, the usage of calls without usage in the released conventions. No attribute is of one request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from langmeter import _core
from langmeter.exporters import semconv
from langmeter.exporters.buckets import SECOND, TOKEN
from langmeter.exporters.semconv import Generation, Instrument
from langmeter.snapshot import Distribution, Snapshot
from langmeter.snapshot.stats import CallStats, ComponentStats, ModelStats


@dataclass(frozen=True, slots=True)
class Histogram:
    """A distribution as it is exported.

    Attributes:
        distribution: how often each value came.
        sum: of the values, seconds or tokens.
        unit: steps of the distribution that are a second, or a token.
    """

    distribution: Distribution
    sum: float
    unit: int

    @property
    def count(self) -> int:
        """Number of values."""
        return self.distribution.count


Value: TypeAlias = "float | Histogram"
#: Who failed → how → how often, and their durations.
_Failures: TypeAlias = "dict[str, dict[str, tuple[int, Distribution]]]"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric and its points: values of its attributes, in order, and the figure."""

    instrument: Instrument
    points: list[tuple[tuple[str, ...], Value]] = field(default_factory=list)


class Families:
    """Collects points by metric, in the order in which metrics appear.

    Args:
        conventions: generation of the GenAI conventions.
    """

    def __init__(self, conventions: Generation) -> None:
        self._conventions: Generation = conventions
        self._families: dict[str, Family] = {}
        #: Tokens of unknown modality by counter and call: what is left of a whole when its parts
        #: are taken off, so that it might go back where a snapshot is taken while a call ends.
        self._rests: dict[tuple[str, tuple[str, ...]], int] = {}
        self._source: object = None
        self._turn = threading.Lock()

    def of(self, snapshot: Snapshot) -> list[Family]:
        """Return the families of a snapshot; safe to call from several threads."""
        with self._turn:
            return self._collected(snapshot)

    def _collected(self, snapshot: Snapshot) -> list[Family]:
        self._families = {}
        source = (snapshot._native.origin, snapshot._native.started_at)
        if source != self._source:
            self._source, self._rests = source, {}
        failures: _Failures = {}
        for (who, how), durations in snapshot.failed_latency.items():
            failures.setdefault(who, {})[how] = (snapshot.failures[who, how], durations)
        for key, stats in snapshot.models.items():
            self._model(_named(*key), stats, failures.get("/".join(key), {}))
        for label, figures in snapshot.labels.items():
            self._label(label, figures)
        self._components(snapshot, failures)
        self._defects(snapshot)
        for reason in _core.DROPPED:
            self._add(semconv.DROPPED, (reason,), snapshot.dropped.get(reason, 0))
        return list(self._families.values())

    def _add(self, instrument: Instrument, attributes: tuple[str, ...], value: Value) -> None:
        family = self._families.get(instrument.name)
        if family is None:
            family = self._families[instrument.name] = Family(instrument)
        family.points.append((attributes, value))

    def _durations(
        self, instrument: Instrument, attributes: tuple[str, ...], durations: Distribution
    ) -> None:
        self._add(instrument, attributes, Histogram(durations, durations.sum, SECOND))

    def _by_error(
        self,
        instrument: Instrument,
        attributes: tuple[str, ...],
        stats: CallStats | ComponentStats,
        failures: Mapping[str, tuple[int, Distribution]],
    ) -> None:
        """Add the durations of runs that returned, and those of the others by `error.type`."""
        failed = stats.failed_latency
        self._durations(instrument, (*attributes, ""), stats.latency - failed)
        for how, (_, durations) in failures.items():
            self._durations(instrument, (*attributes, how), durations)
        if failed.count and not failures:
            self._durations(instrument, (*attributes, semconv.OTHER_ERROR), failed)

    def _model(
        self,
        model: tuple[str, str, str],
        stats: ModelStats,
        failures: Mapping[str, tuple[int, Distribution]],
    ) -> None:
        call = ("chat", *model)
        self._by_error(semconv.DURATION[self._conventions], call, stats, failures)
        if stats.streamed:
            self._streams(call, stats)
        self._usage(call, stats)
        for outcome, count in stats.outcomes.items():
            self._add(semconv.CALLS, (*model, outcome), count)
        for how, (count, _) in failures.items():
            self._add(semconv.ERRORS, (*model, how), count)
        if stats.cost is not None:
            self._add(semconv.COST, model, float(stats.cost))
            self._add(semconv.RETRIED_COST, model, float(stats.retried_cost or 0))
        for counter, count in (
            (semconv.RETRIED, stats.retried_calls),
            (semconv.TRUNCATED, stats.truncated),
            (semconv.STALLS, stats.stalls),
            (semconv.UNPRICED_CALLS, stats.unpriced_calls),
            (semconv.UNPRICED_TOKENS, stats.unpriced_tokens),
            (semconv.IN_FLIGHT, stats.in_flight),
        ):
            self._add(counter, model, count)
        for kind in semconv.TOKEN_KINDS[self._conventions]:
            self._add(semconv.TOKENS, (*model, kind), getattr(stats.tokens, kind))

    def _streams(self, call: tuple[str, ...], stats: CallStats) -> None:
        for names, distribution in (
            (semconv.TIME_TO_FIRST_CHUNK, stats.time_to_first_chunk),
            (semconv.TIME_PER_OUTPUT_CHUNK, stats.inter_token_latency),
        ):
            self._durations(names[self._conventions], call, distribution)
        self._durations(semconv.TIME_TO_FIRST_TOKEN, call[1:], stats.time_to_first_token)
        self._durations(semconv.TIME_PER_OUTPUT_TOKEN, call[1:], stats.time_per_output_token)

    def _usage(self, call: tuple[str, ...], stats: ModelStats) -> None:
        tokens, is_released = stats.tokens, self._conventions == "released"
        for kind, numbers, used in (
            ("input", stats.input_tokens_per_call, tokens.input),
            ("output", stats.output_tokens_per_call, tokens.output),
        ):
            if used:
                # The counter's sum, which is exact.
                histogram = Histogram(numbers.distribution, used, TOKEN)
                if is_released:
                    self._add(semconv.TOKEN_USAGE, (*call, kind), histogram)
                else:
                    self._add(semconv.TOKENS_OF_OPERATION[kind], call, histogram)
        if is_released:
            return
        for counter, kind, parts in semconv.USAGE:
            rest = getattr(tokens, kind)
            for modality, part in parts.items():
                if count := getattr(tokens, part):
                    self._add(counter, (*call, modality), count)
                    rest -= count
            place = (counter.name, call)
            self._rests[place] = rest = max(rest, self._rests.get(place, 0))
            self._add(counter, (*call, semconv.UNKNOWN), rest)

    def _label(self, key: tuple[str, str], stats: CallStats) -> None:
        self._add(semconv.LABEL_CALLS, key, stats.calls)
        if stats.cost is not None:
            self._add(semconv.LABEL_COST, key, float(stats.cost))
        for kind in ("input", "output"):
            self._add(semconv.LABEL_TOKENS, (*key, kind), getattr(stats.tokens, kind))

    def _components(self, snapshot: Snapshot, failures: _Failures) -> None:
        named = semconv.COMPONENT_DURATIONS if self._conventions == "latest" else {}
        for key, stats in snapshot.components.items():
            kind, name = key
            if kind == "llm":  # models have rows of their own
                continue
            if kind in named:
                attributes = (semconv.OPERATIONS[kind], name)
                self._by_error(named[kind], attributes, stats, failures.get(f"{kind} {name}", {}))
            else:
                self._durations(semconv.COMPONENT_DURATION, key, stats.latency)
            for outcome, count in stats.outcomes.items():
                self._add(semconv.COMPONENT_CALLS, (*key, outcome), count)

    def _defects(self, snapshot: Snapshot) -> None:
        for (defect_type, provider, model, severity), stats in snapshot.defects.items():
            key = (defect_type, severity, provider, model)
            self._add(semconv.DEFECTS_TRIED, key, stats.defects)
            self._add(semconv.DEFECTS_CLOSED, key, stats.closed)
            self._add(semconv.DEFECTS_FIXED, key, stats.fixed)
            for outcome, count in stats.outcomes.items():
                self._add(semconv.ATTEMPTS, (*key, outcome), count)
            if stats.cost is not None:
                self._add(semconv.DEFECT_COST, key, float(stats.cost))
            self._durations(semconv.TIME_TO_FIX, key, stats.time_to_fix)


def _named(provider: str, model: str) -> tuple[str, str, str]:
    """Return provider and model as attributes.

    A row of a snapshot has the name of the model that answered: the requested one is not recorded,
    and both attributes have that name.
    """
    return provider or semconv.UNKNOWN, model, model


def attributes(family: Family) -> Iterator[tuple[dict[str, str], Value]]:
    """Return the points of a family with their attributes by name; empty ones are left out."""
    for values, value in family.points:
        names = zip(family.instrument.attributes, values, strict=True)
        yield {name: text for name, text in names if text}, value
