"""The command `langmeter dashboard`: a dashboard for Grafana of what the exporters write."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from langmeter._base import output


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "dashboard",
        help="print a dashboard for Grafana",
        description="Print the JSON of a dashboard for Grafana over Prometheus: calls, money, "
        "tokens, streams, components and defects. Each query asks for classic and native "
        "histograms, and for both generations of the GenAI conventions. Import it in Grafana by "
        "Dashboards, New, Import.",
    )
    command.add_argument("-o", "--output", metavar="FILE", help="write FILE instead")
    command.add_argument(
        "--json", action="store_true", help="what it prints is JSON with and without this"
    )
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    from langmeter.exporters.dashboard import dashboard

    text = json.dumps(dashboard(), indent=2) + "\n"
    if options.output is None:
        output.show(text.rstrip("\n"))
        return 0
    problem = output.write_file(Path(options.output), text)
    if problem is not None:
        output.complain(problem)
        return 2
    return 0
