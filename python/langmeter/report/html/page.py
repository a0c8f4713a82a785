"""The page: what matters in a few sentences, the parts, and all that a browser needs for them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from langmeter import _core
from langmeter._base.text import (
    NOTHING,
    format_count,
    format_duration,
    format_usd,
    printable,
    short_name,
)
from langmeter.analysis.advice import Finding
from langmeter.analysis.bottlenecks import bottlenecks
from langmeter.analysis.fixes import FixReport
from langmeter.analysis.limits import Forecast
from langmeter.analysis.regression.comparison import Comparison
from langmeter.report.html.lines import Lines
from langmeter.report.html.markup import Child, Markup, Section, element, join
from langmeter.report.html.outcomes import distinct, worst
from langmeter.report.states import sentences as state_sentences
from langmeter.snapshot import Snapshot

#: Share of failed calls from which on the page begins with them.
_MANY_ERRORS: Final = 0.01
#: Parts of sentences about the state that are not those of its processes: name and title.
_PLACES: Final = {
    "unpriced": ("uncounted", "Without a price"),
    "dropped": ("uncounted", "Dropped"),
}


def tiles(snapshot: Snapshot, report: FixReport) -> Markup:
    """Return the figures that a reader looks for first."""
    totals, tokens = snapshot.totals, snapshot.totals.tokens
    failed = 1 - totals.success_rate
    rows = [
        ("Cost", ("≥ " if totals.unpriced_calls and totals.cost else "") + format_usd(totals.cost)),
        ("Calls", format_count(totals.calls)),
        ("Failed", f"{failed:.2%}" if failed == failed else NOTHING),
        ("Tokens in", format_count(tokens.input)),
        ("Tokens out", format_count(tokens.output)),
        ("Latency p50", format_duration(totals.latency.quantile(0.5))),
        ("Latency p95", format_duration(totals.latency.quantile(0.95))),
        ("TTFT p50", format_duration(totals.time_to_first_token.quantile(0.5))),
    ]
    if report.rows:
        rate = report.total.success_rate
        rows.append(("Defects fixed", f"{rate:.1%}" if rate == rate else NOTHING))
        rows.append(("Cost of a fix", format_usd(report.total.cost_per_fixed)))
    items = [element("div", element("dt", name), element("dd", text)) for name, text in rows]
    return element("dl", items, class_="tiles five" if len(rows) > 8 else "tiles")


def summary(sentences: Sequence[tuple[str, str, str, str]]) -> Markup:
    """Return what `sentences` has, each with a link to its part."""
    items = [
        element("li", text, " ", element("a", f"See {title}", href=f"#{name}"), class_=kind)
        for kind, text, name, title in sentences
    ]
    return element("ul", items, class_="summary") if items else Markup()


def sentences(
    snapshot: Snapshot,
    budgets: Sequence[Forecast],
    report: FixReport,
    findings: Sequence[Finding],
    compared: Comparison | None,
) -> Iterator[tuple[str, str, str, str]]:
    """Yield what deserves a look: "good", "bad" or "", a sentence, name and title of its part."""
    totals = snapshot.totals
    if compared is not None:
        worse = [f"{row.metric} of {short_name(row.name)}" for row in distinct(compared.worse)]
        more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
        text = f"Worse than before: {', '.join(worse[:3])}{more}."
        kind = "bad" if worse else "good"
        yield kind, text if worse else "Nothing got worse.", "comparison", "Comparison"
    if (failed := 1 - totals.success_rate) >= _MANY_ERRORS:
        text = f"{failed:.1%} of the calls failed"
        text += f", most often by {worst(snapshot)}." if worst(snapshot) else "."
        yield "bad", text, "uncounted", "Failures"
    for kind, text, part in state_sentences(snapshot, budgets):
        yield kind, text, *_PLACES.get(part, ("budgets", "Budgets and alerts"))
    if rows := [one for one in bottlenecks(snapshot) if one.critical_seconds]:
        text = f"{rows[0].kind} {short_name(rows[0].name)} is {rows[0].critical_share:.0%} of the"
        yield "", f"The {text} critical path.", "time", "Where the time goes"
    if saving := next((one for one in findings if one.saving is not None and one.saving > 0), None):
        text = f"{printable(saving.title)} ({saving.saving_text})."
        yield "good", text, "advice", "Advice"
    if report.rows and report.total.wasted:
        text = f"{format_usd(report.total.wasted)} went to attempts that did not fix a defect."
        yield "", text, "defects", "Defects"


def page(title: str, lead: Child, parts: Sequence[Section], charts: Sequence[Lines]) -> str:
    """Return the whole document.

    Args:
        title: its heading.
        lead: what stands below the heading, before the parts.
        parts: its sections, in order.
        charts: those of the parts, which scripts draw again.
    """
    style, script = assets(("report.js",))
    data = json.dumps({chart.name: chart.data() for chart in charts}, separators=(",", ":"))
    # Inside of a script element only these can end it or begin a comment.
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return document(
        title,
        lead,
        parts,
        head=(
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("style", Markup(style)),
        ),
        end=(
            element("script", Markup(data), type="application/json", id="data"),
            element("script", Markup(script)),
        ),
        note="This page loads nothing and holds no prompt or answer.",
    )


def document(
    title: str, lead: Child, parts: Sequence[Section], *, head: Child, end: Child, note: str
) -> str:
    """Return a document with the head and the foot that all pages have.

    Args:
        title: its heading.
        lead: what stands below the heading, before the parts.
        parts: its sections, in order.
        head: what its head has beside the title.
        end: the last elements of its body, the scripts.
        note: last sentence of the foot.
    """
    whole = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"langmeter {_core.__version__}"),
        element("title", title),
        head,
    )
    body = element(
        "body",
        element("a", "Skip to the report", href="#main", class_="skip"),
        element("header", element("h1", title), lead),
        element("nav", element("ul", links(parts)), aria_label="Contents"),
        element("main", [part.markup for part in parts], id="main", tabindex=-1),
        element(
            "footer",
            element(
                "p",
                f"Made by langmeter {_core.__version__}. Percentiles are of HDR histograms, right "
                "within 0.1 %, and never averaged. Lines: uPlot 1.6.32, MIT licence, © 2022 Leon "
                f"Sorokin. {note}",
            ),
        ),
        end,
    )
    return f"<!doctype html>\n{element('html', whole, body, lang='en')}\n"


def links(parts: Sequence[Section]) -> Markup:
    """Return the items of the list of contents."""
    return join([element("li", element("a", part.title, href=f"#{part.name}")) for part in parts])


@cache
def assets(own: tuple[str, ...], folder: str = __package__) -> tuple[str, str]:
    """Return the styles and the scripts of a page: those that all pages have, then its own.

    Args:
        own: names of the files of the page itself.
        folder: package whose assets they are.
    """
    shared, more = (files(package) / "assets" for package in (__package__, folder))
    names = ("uPlot.min.css", "report.css", "uPlot.iife.min.js", "charts.js")
    paths = [*(shared / name for name in names), *(more / name for name in own)]
    style, script = (
        "\n".join(
            path.read_text(encoding="utf-8").strip() for path in paths if path.name.endswith(kind)
        )
        for kind in (".css", ".js")
    )
    return style, script


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
