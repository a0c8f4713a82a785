"""The command `langmeter alerts`: what rules would have done, and rules for Prometheus."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from langmeter._base import output
from langmeter._base.text import printable, render_table, short_name
from langmeter.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from langmeter.alerts import Alert, Rule


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "alerts",
        help="what alerts would have fired; rules for Prometheus",
        description="`check` plays a history back, and prints the alerts that would have fired, "
        "and when. `export` prints the rules as alerting and recording rules of Prometheus; what "
        "PromQL cannot say is named and left out. Rules are those of --rule, or of the "
        "configuration.",
    )
    command.add_argument("action", choices=("check", "export"), help="what to do")
    command.add_argument("--history", metavar="URL", help="history to check the rules on")
    command.add_argument(
        "--rule", action="append", default=[], metavar="TEXT", help='"latency.p95 > 2s"; repeat'
    )
    command.add_argument("--config", metavar="FILE", help="file that has the rules")
    command.add_argument("--since", metavar="T", help="7d (ago), or 2026-10-14T09:30, UTC")
    command.add_argument("--until", metavar="T", help="the same; now if not given")
    command.add_argument(
        "--json",
        action="store_true",
        help="check: one array of alerts as JSON; export: JSON without comments",
    )
    command.add_argument("-o", "--output", metavar="FILE", help="export: write FILE instead")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    parser: argparse.ArgumentParser = options.parser
    try:
        rules = _rules(options)
        if not rules:
            parser.error("there are no rules; give --rule, or alerts in the configuration")
        if options.action == "export":
            return _export(rules, options)
        if options.history is None:
            parser.error("check needs --history URL")
        return _check(rules, options)
    except (ConfigError, SourceError, ImportError) as error:
        parser.error(printable(error))


def _rules(options: argparse.Namespace) -> list[Rule]:
    from langmeter.alerts import Rule
    from langmeter.config import MeterConfig

    if options.rule:
        return [Rule(text) for text in options.rule]
    alerts = MeterConfig.load(options.config).alerts
    return [rule if isinstance(rule, Rule) else Rule(rule) for rule in alerts]


def _export(rules: list[Rule], options: argparse.Namespace) -> int:
    from langmeter.alerts.export import prometheus_rules

    exported, file = prometheus_rules(rules), options.output
    text = exported.text
    if options.json:
        text = "".join(line for line in text.splitlines(keepends=True) if line[:1] != "#")
    for title, why in exported.left_out:
        output.complain(f"left out: {printable(title)}: {why}")
    if file is None:
        output.show(text.rstrip("\n"))
        return 0
    problem = output.write_file(Path(file), text)
    if problem is not None:
        output.complain(problem)
        return 2
    return 0


def _check(rules: list[Rule], options: argparse.Namespace) -> int:
    from langmeter.alerts.replay import left_out, replayed

    for title in left_out(rules):
        output.complain(f"not judged: {printable(title)}: a history has no budgets")
    alerts = replayed(options.history, rules, since=options.since, until=options.until)
    if options.json:
        output.show_json([alert.to_dict() for alert in alerts])
        return 0
    output.show("\n".join(_table(alerts)) if alerts else "no alert would have fired")
    return 0


def _table(alerts: list[Alert]) -> list[str]:
    header = ("at (UTC)", "status", "alert", "of", "figure", "count")
    cells = [
        (
            f"{alert.at:%Y-%m-%d %H:%M}",
            alert.status,
            short_name(alert.name),
            short_name(", ".join(f"{name}={text}" for name, text in alert.labels.items()) or "all"),
            alert.figure(),
            f"{alert.count:,}",
        )
        for alert in alerts
    ]
    return list(render_table(header, cells, output.terminal_width(sys.stdout)))
