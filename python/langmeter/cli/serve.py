"""The command `langmeter serve`: figures as a page that moves."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from langmeter._base import output
from langmeter._base.text import printable
from langmeter.cli.files import SOURCE, refusing

if TYPE_CHECKING:
    from langmeter.report.live import LiveServer


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "serve",
        help="figures as a live page in the browser",
        description="Serve a page with what happens now, by model, provider, label and defect "
        "type, with budgets, alerts, circuits and streams; of a history, spans of time. /metrics "
        "and /snapshot.json are beside it. It listens on this machine alone unless --host says "
        "otherwise, and then wants a token.",
    )
    command.add_argument("source", metavar="SOURCE", help=SOURCE)
    command.add_argument(
        "--port", type=int, default=8484, metavar="N", help="port (8484); 0 for a free one"
    )
    command.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address (127.0.0.1)"
    )
    command.add_argument(
        "--token",
        metavar="TEXT",
        help="what readers must know; by default LANGMETER_TOKEN of the environment, which other "
        "users of this machine cannot see, or for another --host a new one",
    )
    command.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="further name under which browsers reach it, that of a proxy; repeat",
    )
    command.add_argument("--title", default="langmeter live", metavar="TEXT", help="its heading")
    command.set_defaults(parser=command)


def run(options: argparse.Namespace) -> int:
    """Serve until it is interrupted; returns the exit code."""
    parser: argparse.ArgumentParser = options.parser
    try:
        from langmeter.report.live import start
    except ImportError as error:
        parser.error(str(error))
    with refusing(options.source, parser):
        from langmeter.sources import open

        source = open(options.source)
        source.snapshot()  # what cannot be read is said now, not on the page
    try:
        server = start(
            source,
            options.port,
            options.host,
            token=options.token,
            names=options.name,
            title=options.title,
        )
    except OSError as error:
        where = f"{printable(options.host)}:{options.port}"
        parser.error(f"cannot listen on {where}: {output.reason(error)}")
    except ValueError as error:
        parser.error(printable(error))
    with server, suppress(KeyboardInterrupt):
        _announce(server)
        server.wait()
    return 0


def _announce(server: LiveServer) -> None:
    if server.is_new:
        output.show(f"serving {server.url}?token={quote(server.token)}")
        output.show("the address with its token is printed once: open it, or copy it, now")
    else:
        wants = ", which asks for its token" if server.token else ""
        output.show(f"serving {server.url}{wants}")
