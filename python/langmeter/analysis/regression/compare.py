"""Two snapshots, before and now: what got worse, by how much, and whether that may be chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from statistics import NormalDist
from typing import Final, NamedTuple

from langmeter._base.text import short_name
from langmeter.analysis.metrics import Stats, component_place, defect_place, model_name
from langmeter.analysis.regression import significance as tests
from langmeter.analysis.regression.comparison import Comparison, Row, Ruling, Verdict
from langmeter.analysis.regression.metrics import Evidence, Measure, Pair, usual
from langmeter.analysis.regression.rules import Rule
from langmeter.snapshot import Snapshot

__all__ = ["LEVEL", "compare"]

LEVEL: Final = 0.05
#: Most names in a message about a place that is not there.
_NAMED: Final = 8


class _Subject(NamedTuple):
    kind: str
    name: str
    base: Stats
    now: Stats


class _Compared(NamedTuple):
    subject: _Subject
    measure: Measure
    evidence: Evidence
    rules: tuple[Rule, ...]


def compare(
    base: Snapshot,
    now: Snapshot,
    rules: Iterable[str | Rule] = (),
    *,
    level: float = LEVEL,
    strict: bool = False,
) -> Comparison:
    """Compare what was metered before with what was metered now.

    Every model, every component, every row of defects and the total over all models, where both
    snapshots have them.

    Args:
        base: the snapshot to compare with.
        now: the snapshot to judge.
        rules: what must not happen, e.g. `latency.p95>+10%`, `error_rate[openai/gpt-4o]>+1pp`;
            see docs/guides/performance.md. A rule is broken where the change exceeds its
            threshold and is significant; where there is no test, by the threshold alone.
        level: the probability of a false alarm, 0 to 1 exclusive. It holds for all rows that rules
            cover together, and for all other rows together (Holm).
        strict: rules that too little is known for are broken, too.

    Raises:
        ValueError: a rule cannot be read, names a metric that does not exist or a place that is in
            neither snapshot, or `level` is out of range.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, e.g. {LEVEL}; got {level!r}")
    if isinstance(rules, str):
        raise ValueError(f"rules are a list; write [{rules!r}]")
    parsed = tuple(Rule.parse(rule) if isinstance(rule, str) else rule for rule in rules)
    if strict and not parsed:
        raise ValueError("strict is about rules; give one, or leave strict out")
    _check_places(base, now, parsed)
    compared = []
    for subject in _subjects(base, now, parsed):
        pair = Pair(subject.base, subject.now)
        compared += [
            _Compared(subject, measure, evidence, covering)
            for measure, covering in _measures(subject, parsed)
            if (evidence := measure.read(pair, level)) is not None
        ]
    judged: dict[int, Row] = {}
    smallest: dict[int, float] = {}
    for ruled in (True, False):
        family = {place: c for place, c in enumerate(compared) if bool(c.rules) is ruled}
        rows, first = _judge(family, level)
        judged |= rows
        smallest |= dict.fromkeys(rows, first)
    rulings = [
        _rule(rule, judged[place], smallest[place])
        for rule in parsed
        for place, c in enumerate(compared)
        if rule in c.rules
    ]
    met = {ruling.rule for ruling in rulings}
    rulings += [Ruling(rule, None, "no data") for rule in parsed if rule not in met]
    return Comparison(
        tuple(judged[place] for place in range(len(compared))),
        tuple(rulings),
        level,
        strict,
        *_apart(base, now),
    )


def _subjects(base: Snapshot, now: Snapshot, rules: tuple[Rule, ...]) -> Iterator[_Subject]:
    if base.models.keys() == now.models.keys() and len(base.models) == 1:
        # The total of one model is that model: comparing it again would only cost power.
        pass
    elif base.models and now.models:
        yield _Subject("total", "total", base.totals, now.totals)
    for key in sorted(base.models.keys() & now.models.keys()):
        yield _Subject("model", model_name(key), base.models[key], now.models[key])
    for pair in sorted(base.components.keys() & now.components.keys()):
        kind, name = pair[0], component_place(pair)
        # A model once more, by the class that calls it: compared where a rule asks for it.
        if kind != "llm" or any(rule.covers(kind, name) for rule in rules):
            yield _Subject(kind, name, base.components[pair], now.components[pair])
    for row in sorted(base.defects.keys() & now.defects.keys()):
        yield _Subject("defect", defect_place(row), base.defects[row], now.defects[row])


def _check_places(base: Snapshot, now: Snapshot, rules: tuple[Rule, ...]) -> None:
    """Raise ValueError for a rule about a place that is in neither snapshot: it always holds."""
    places = {("total", "total")}
    for snapshot in (base, now):
        places |= {("model", model_name(key)) for key in snapshot.models}
        places |= {(key[0], component_place(key)) for key in snapshot.components}
        places |= {("defect", defect_place(row)) for row in snapshot.defects}
    for rule in rules:
        if rule.where and not any(rule.covers(kind, name) for kind, name in places):
            names = sorted(
                name for kind, name in places if (kind == "defect") is rule.measure.of_defects
            )
            known = get_close_matches(rule.where, names, n=3) or names[:_NAMED]
            more = f" and {len(names) - len(known):,} more" if len(names) > len(known) else ""
            raise ValueError(
                f"{rule.text!r}: {rule.where!r} must match what was metered, and neither snapshot "
                f"has it; they have {', '.join(map(short_name, known)) or 'no defects'}{more}"
            )


def _measures(
    subject: _Subject, rules: tuple[Rule, ...]
) -> Iterator[tuple[Measure, tuple[Rule, ...]]]:
    """Metrics that are compared for a subject, each with the rules that cover it."""
    about = [rule for rule in rules if rule.covers(subject.kind, subject.name)]
    named = {rule.measure.name: rule.measure for rule in about}
    for name, measure in {**{m.name: m for m in usual(subject.base)}, **named}.items():
        yield measure, tuple(rule for rule in about if rule.measure.name == name)


def _judge(family: Mapping[int, _Compared], level: float) -> tuple[dict[int, Row], float]:
    """Rows of what is corrected together, and how small the smallest p has to be."""
    floors = [c.evidence.min_p_value if c.evidence.tails else math.inf for c in family.values()]
    can = dict(zip(family, tests.testable(floors, level), strict=True))
    tested = [place for place, possible in can.items() if possible]
    raw = {place: c.evidence.tails.p for place, c in family.items() if c.evidence.tails}
    corrected = dict(zip(tested, tests.holm([raw[place] for place in tested]), strict=True))
    rows = {}
    for place, (subject, measure, evidence, _) in family.items():
        verdict, needed = _verdict(
            measure, evidence, corrected.get(place), level, level / max(1, len(raw))
        )
        rows[place] = Row(
            subject.kind,
            subject.name,
            measure.name,
            measure.unit,
            evidence.before,
            evidence.after,
            evidence.calls,
            evidence.relative,
            evidence.interval,
            None if place not in raw or verdict == "too few" else corrected.get(place, 1.0),
            raw.get(place),
            verdict,
            needed,
            evidence.note,
        )
    return rows, level / max(1, len(tested))


def _verdict(
    measure: Measure, evidence: Evidence, p: float | None, level: float, hardest: float
) -> tuple[Verdict, int | None]:
    """The verdict by the corrected p (None: cannot be significant), and how many would be needed.

    `hardest` is the p to reach were all comparisons of the family tested.
    """
    tails = evidence.tails
    if tails is None:
        return "no test", None
    if p is None:
        needed = tests.required_sample_size(evidence.floor_of, hardest) if evidence.floor_of else 0
        # With enough calls but too few cases among them, no change is visible.
        return ("too few", needed) if min(evidence.calls) < needed else ("same", None)
    if p > level:
        return "same", None
    increased = tails.increase < tails.decrease
    return ("worse" if increased is measure.more_is_worse else "better"), None


def _rule(rule: Rule, row: Row, smallest: float) -> Ruling:
    exceeded = rule.exceeded(row.before, row.after)
    if row.verdict == "too few":
        return Ruling(rule, row, "too few", row.needed)
    if not exceeded:
        return Ruling(rule, row, "held")
    if row.verdict in ("no test", "worse", "better"):
        return Ruling(rule, row, "broken")
    return Ruling(rule, row, "not significant", _would_tell(row, smallest))


def _would_tell(row: Row, smallest: float) -> int | None:
    """Calls on each side that would make a change that stays as it is significant, about."""
    if row.raw_p is None or row.raw_p >= 0.99:
        return None
    # The standard error falls with the root of the number.
    normal = NormalDist()
    wanted, had = normal.inv_cdf(smallest / 2), normal.inv_cdf(row.raw_p / 2)
    return max(math.ceil(min(row.calls) * (wanted / had) ** 2), min(row.calls) + 1)


def _apart(base: Snapshot, now: Snapshot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of what only one of them has."""
    names = [
        {
            *map(model_name, snapshot.models),
            *map(component_place, snapshot.components),
            *map(defect_place, snapshot.defects),
        }
        for snapshot in (base, now)
    ]
    return tuple(sorted(names[0] - names[1])), tuple(sorted(names[1] - names[0]))
