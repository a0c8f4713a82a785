"""Files that commands are given: snapshots, and prices."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from langmeter._base import output
from langmeter._base.text import printable

if TYPE_CHECKING:
    from langmeter.prices import PriceBook
    from langmeter.snapshot import Snapshot


def read_snapshot(file: str, parser: argparse.ArgumentParser) -> Snapshot:
    """Read a snapshot that `langmeter run --json` or `Snapshot.to_json` wrote.

    Ends the program with exit code 2 where that fails.
    """
    from langmeter.snapshot import Snapshot

    try:
        return Snapshot.from_json(Path(file).read_bytes())
    except OSError as error:
        parser.error(f"cannot read {printable(file)}: {output.reason(error)}")
    except ValueError as error:
        parser.error(f"{printable(file)}: {error}")


def read_prices(options: argparse.Namespace) -> PriceBook:
    """Return the price book of `--prices`; ends the program with exit code 2 where that fails."""
    from langmeter.prices import PriceBook

    parser: argparse.ArgumentParser = options.parser
    try:
        return PriceBook(options.prices)
    except OSError as error:
        parser.error(f"cannot read {printable(options.prices)}: {output.reason(error)}")
    except ValueError as error:
        parser.error(printable(error))
