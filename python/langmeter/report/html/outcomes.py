"""Parts of a report about what went wrong, which model fixes what, and what to change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final

from langmeter._base.text import (
    NOTHING,
    format_count,
    format_duration,
    format_usd,
    plural,
    printable,
    short_name,
)
from langmeter.analysis.advice import Finding
from langmeter.analysis.fixes import FixReport, ModelFixes
from langmeter.analysis.metrics import model_name
from langmeter.analysis.regression.comparison import Comparison, Row
from langmeter.report.html.markup import (
    Child,
    Markup,
    Section,
    element,
    figure,
    join,
    paragraphs,
    section,
    table,
)
from langmeter.report.html.shapes import Point, bar, frontier, interval
from langmeter.snapshot import Snapshot
from langmeter.snapshot.defect_stats import SCORED
from langmeter.snapshot.table import IGNORED

_ROWS: Final = 40
#: Findings in all, and those that are open.
_FINDINGS: Final = 20
_OPEN: Final = 6
_MAPS: Final = 4
#: Names of what only one of two snapshots has.
_NAMED: Final = 6


def uncounted(snapshot: Snapshot) -> Section:
    """Return the part about failures, calls without a price, and what was dropped."""
    content: list[Child] = []
    if failures := sorted(snapshot.failures.items(), key=lambda row: (-row[1], row[0])):
        rows = [(short_name(who), short_name(how), format_count(n)) for (who, how), n in failures]
        content.append(
            figure(
                "Failures",
                "How runs of models and components failed: class of the exception and, where a "
                "server answered, its status. Cancelled runs are among them.",
                table(
                    "Failures by model or component",
                    ("what", "how", "times"),
                    rows[:_ROWS],
                    most=10,
                    class_="words figured",
                ),
                action="429 asks for a lower rate, a retry with backoff, or another provider; "
                "timeouts for a look at p99 under Latency.",
            )
        )
    if snapshot.unpriced:
        rows = [
            (
                short_name(model_name(key)),
                format_count(snapshot.models[key].unpriced_calls),
                format_count(tokens),
            )
            for key, tokens in sorted(snapshot.unpriced.items(), key=lambda row: -row[1])
        ]
        content.append(
            figure(
                "Without a price",
                "Calls of models that no price list has: their cost is not among the money, which "
                "therefore is a lower bound.",
                table(
                    "Calls without a price by model",
                    ("model", "calls", "tokens"),
                    rows[:_ROWS],
                    most=10,
                ),
                action=join(
                    (
                        "Ask ",
                        element("code", "langmeter prices MODEL"),
                        " why, or add a price of your own; later calls are then priced.",
                    )
                ),
            )
        )
    if snapshot.dropped:
        rows = [
            (short_name(name), format_count(n), "counted before" if name in IGNORED else "lost")
            for name, n in sorted(snapshot.dropped.items(), key=lambda row: -row[1])
        ]
        content.append(
            figure(
                "Dropped",
                "What the meter could not count, by the name of the limit or reason.",
                table("Dropped events by reason", ("reason", "times", "effect"), rows),
                action="Look the name up in the guide “What dropped means”: most are a limit that "
                "a setting raises.",
            )
        )
    return section("uncounted", "Failures, unpriced and dropped", content or "None.")


def defects(report: FixReport) -> Section:
    """Return the part about attempts at defects: by model, on a map of costs, by stage."""
    # Those with many defects first: a rate of few says little.
    rows = sorted(report.rows, key=lambda row: (row.defect, -row.stats.closed))
    table_rows = [
        (
            f"{short_name(row.defect)}: {short_name(row.name)}",
            format_count(row.stats.attempts),
            f"{row.stats.fixed:,} of {row.stats.closed:,}",
            _percent(row.stats.success_rate),
            interval(row.interval[0], row.stats.success_rate, row.interval[1]),
            NOTHING if row.stats.closed <= 0 else " to ".join(f"{end:.0%}" for end in row.interval),
            _percent(row.stats.first_attempt_rate),
            format_usd(row.stats.cost_per_fixed),
            format_duration(row.stats.time_to_fix.quantile(0.5)),
            _verdict(row),
        )
        for row in rows[:_ROWS]
    ]
    header = (
        *("defect: model", "attempts", "fixed", "rate", "0 to 100 %", "99 % interval"),
        *("first try", "a fix", "time p50", "verdict"),
    )
    best = [f"{short_name(row.name)} for {short_name(row.defect)}" for row in report.best.values()]
    models = figure(
        "Which model fixes which defects",
        "Share of the defects with a verdict that a model fixed, with its 99 % interval. A model "
        "is called best only where its interval lies above that of each other model; “a fix” is "
        "the cost of all attempts for each fixed defect.",
        table("Success of each model by type and severity of defect", header, table_rows),
        paragraphs([f"… and {len(rows) - _ROWS:,} more rows."] if len(rows) > _ROWS else []),
        action=f"Route by type: {', '.join(best[:5])}."
        if best
        else "Where intervals overlap, no model is shown to be better yet: let more defects come, "
        "or choose by cost.",
    )
    return section("defects", "Defects", models, list(_maps(rows)), _funnel(report))


def _verdict(row: ModelFixes) -> str:
    words = (("best", row.best), ("frontier", row.on_frontier))
    return ", ".join(word for word, holds in words if holds) or NOTHING


def _maps(rows: Sequence[ModelFixes]) -> Iterator[Markup]:
    """Yield the maps of the types of defects that most models have a price and a rate for."""
    groups = []
    for defect, group in groupby(rows, key=lambda row: row.defect):
        points = [
            Point(
                short_name(row.name),
                float(row.stats.cost_per_fixed),
                row.stats.success_rate,
                row.interval,
                row.on_frontier,
            )
            for row in group
            if row.stats.cost_per_fixed and row.stats.closed > 0 and row.stats.success_rate >= 0
        ]
        if len(points) > 1:
            groups.append((defect, points[:8]))
    for defect, points in sorted(groups, key=lambda group: -len(group[1]))[:_MAPS]:
        best = ", ".join(point.name for point in points if point.on_frontier) or "none"
        yield figure(
            f"Cost frontier: {short_name(defect)}",
            "Cost of a fixed defect to the right, share fixed upward, with its 99 % interval. On "
            "the frontier (filled) no other model fixes more for less.",
            frontier(f"Rate and cost of a fix by model; on the frontier: {best}", points),
            action=f"Choose among these: {best}. Each other model is matched or beaten in both.",
        )


def _funnel(report: FixReport) -> Markup:
    total = report.total
    stages = [(name.replace("_", " "), n) for name, n in total.funnel.items()]
    attempts = total.funnel["asked"]
    rows = [
        (name, bar(n / attempts if attempts else math.nan), format_count(n), _share(n, attempts))
        for name, n in stages
    ]
    losses = [(before[1] - after[1], after[0]) for before, after in pairwise(stages) if after[1]]
    lost, stage = max(losses, default=(0, ""))
    outside = {name: n for name, n in total.outcomes.items() if n and name not in SCORED}
    notes = []
    if attempts and not total.funnel["still_right"]:
        notes.append("No fix was verified again later: “still right” is not known.")
    if outside:
        named = ", ".join(f"{name} {n:,}" for name, n in outside.items())
        notes.append(f"Outside of every rate, for they say nothing about the model: {named}.")
    if total.wasted:
        notes.append(
            f"Of {format_usd(total.cost)}, {format_usd(total.wasted)} went to attempts that did "
            "not fix."
        )
    return figure(
        "How far attempts come",
        "Attempts that reached each stage at least.",
        table("Attempts by stage", ("stage", "of all", "attempts", "share"), rows),
        paragraphs(notes),
        action=f"Most are lost before “{stage}” ({format_count(lost)}): read some of these."
        if lost > 0
        else None,
    )


def advice(findings: Sequence[Finding]) -> Section:
    """Return the part about saving money."""
    if not findings:
        return section("advice", "Advice", "Nothing to save was found.")
    items = [
        element(
            "li",
            element("h4", printable(one.title)),
            one.saving_text and element("p", one.saving_text.capitalize(), class_="saving"),
            one.assumption and element("p", f"Assuming that {one.assumption}.", class_="note"),
            element(
                "dl",
                [
                    element(
                        "div",
                        element("dt", name.removesuffix("_usd").replace("_", " ")),
                        element("dd", text),
                    )
                    for name, text in one.figure_texts().items()
                ],
            ),
        )
        for one in findings[:_FINDINGS]
    ]
    first, others = items[:_OPEN], items[_OPEN:]
    more = len(findings) - _FINDINGS
    content = figure(
        "What would cost less",
        "The greatest saving first, on the very traffic of this report; savings of one model do "
        "not add up, because they are about the same calls.",
        element("ol", first, class_="advice"),
        others
        and element(
            "details",
            element("summary", f"{len(others)} more"),
            element("ol", others, class_="advice", start=_OPEN + 1),
        ),
        paragraphs([f"… and {more:,} more with smaller savings."] if more > 0 else []),
        action="Try the first on a part of the traffic, and compare a report before with one after "
        "it: a saving that costs quality is none.",
    )
    return section("advice", "Advice", content)


def comparison(compared: Comparison) -> Section:
    """Return the part about what changed between two snapshots."""
    order = {"worse": 0, "better": 1, "no test": 2, "too few": 3, "same": 4}
    listed = sorted(compared.rows, key=lambda row: order[row.verdict])
    changed = distinct(row for row in listed if row.verdict in ("worse", "better"))
    others = [row for row in listed if row not in changed]
    what, metric, *figures, p, verdict = compared.header
    header = (what, verdict, metric, *figures, "−50 to +50 %", p)
    parts: list[Child] = [element("p", compared.headline, class_="verdict")]
    if changed:
        rows = [_compared(row) for row in changed[: 2 * _ROWS]]
        parts.append(table("Figures that changed", header, rows, most=30, class_="changes"))
    else:
        parts.append(element("p", "No figure changed by more than chance explains."))
    if others:
        rows = [_compared(row) for row in others[: 2 * _ROWS]]
        same = table("Figures without a proven change", header, rows, class_="changes")
        parts.append(element("details", element("summary", "All other figures"), same))
    for label, names in (("Only before", compared.gone), ("Only now", compared.new)):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            text = ", ".join(map(short_name, names[:_NAMED]))
            parts.append(paragraphs([f"{label}: {text}{more}."]))
    confidence = f"{100 * (1 - compared.level):.4g} %"
    content = figure(
        "Before and now",
        f"“worse” and “better” hold for all rows together with a confidence of {confidence}: p is "
        f"corrected for their number. The interval of a row says where its change lies with "
        f"{confidence}.",
        parts,
        action="Look at “worse” with the widest gap from zero first. “too few” asks for more "
        "calls, not for a decision.",
    )
    return section("comparison", "Comparison", content)


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Leave out the test of a whole distribution where a percentile of it is among the rows."""
    listed = list(rows)
    stated = {(row.name, *row.metric.split(".")[:1]) for row in listed if row.interval}
    return [
        row for row in listed if row.interval or (row.name, row.metric.split(".")[0]) not in stated
    ]


def _compared(row: Row) -> tuple[Child, ...]:
    cells = row.cells()
    picture: Child = ""
    if row.interval is not None and math.isfinite(row.change):
        low, high = row.interval
        picture = interval(low, row.change, min(high, 9.0), (-0.5, 0.5))
    verdict = element("span", cells[7], class_=f"tag {row.verdict.replace(' ', '-')}")
    return (cells[0], verdict, *cells[1:6], picture, cells[6])


def _percent(share: float) -> str:
    return NOTHING if share != share else f"{share:.1%}"


def _share(n: int, whole: int) -> str:
    return _percent(n / whole if whole else math.nan)


def worst(snapshot: Snapshot) -> str:
    """Return the most frequent failure of a model as text; "" where there is none."""
    models = {*map(model_name, snapshot.models)}
    failures = [(n, *key) for key, n in snapshot.failures.items() if key[0] in models]
    if not failures:
        return ""
    n, who, how = max(failures)
    return f"{short_name(how)} of {short_name(who)}, {plural(n, 'time')}"
