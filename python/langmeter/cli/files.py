"""Arguments of commands by name: sources of snapshots, and files of prices."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from langmeter._base import output
from langmeter._base.text import printable, printable_lines

if TYPE_CHECKING:
    from langmeter.prices import PriceBook
    from langmeter.snapshot import Snapshot


#: Help of an argument SOURCE.
SOURCE: Final = (
    "a snapshot (JSON or bytes), a directory, a history, or the URL of a snapshot or history"
)


def read_snapshot(source: str, parser: argparse.ArgumentParser) -> Snapshot:
    """Read a snapshot from any source that `langmeter.read` takes.

    Ends the program with exit code 2 where that fails.
    """
    from langmeter.sources import read

    with refusing(source, parser):
        return read(source)


@contextmanager
def refusing(source: str, parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the program with exit code 2 where a source cannot be read, and say why."""
    from langmeter.errors import SourceError

    try:
        yield
    except OSError as error:
        parser.error(f"cannot read {printable(source)}: {output.reason(error)}")
    except (SourceError, ImportError) as error:
        parser.error(printable(error))
    except ValueError as error:
        parser.error(f"{printable(source)}: {error}")


def read_prices(options: argparse.Namespace) -> PriceBook:
    """Return the price book of `--prices`, else of the configuration.

    Ends the program with exit code 2 where that fails.
    """
    from langmeter.prices import PriceBook

    parser: argparse.ArgumentParser = options.parser
    try:
        if options.prices is None:
            from langmeter.config import MeterConfig

            prices = MeterConfig.load().prices
            return prices if isinstance(prices, PriceBook) else PriceBook()
        return PriceBook(options.prices)
    except OSError as error:
        parser.error(f"cannot read {printable(options.prices)}: {output.reason(error)}")
    except ValueError as error:
        parser.error(printable_lines(error))
