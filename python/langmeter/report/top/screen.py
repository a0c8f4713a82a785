"""`langmeter top` on a terminal: drawn by `rich`, led by keys."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Final, Literal

from langmeter._base.text import printable, text_width
from langmeter.analysis.limits import Forecast
from langmeter.report.top.figures import Figures, Row, in_order
from langmeter.report.top.text import (
    BUDGETS,
    budget_cells,
    cells,
    columns,
    heading,
    sparkline,
    state_lines,
    title,
)

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

#: Key → sort order.
KEYS: Final = {
    **{"u": "cost", "c": "calls", "f": "flight", "e": "errors"},
    **{"l": "latency", "t": "ttft", "k": "tokens", "b": "budget", "n": "name"},
}
HELP: Final = (
    "q quit  p pause  sort: u USD/h  c calls/s  f in flight  e errors  l p95  t TTFT  "
    "k tokens  b budget  n name"
)
#: Readings of the sparkline.
_BURN: Final = 60
#: Seconds between two looks at the keys.
_POLL: Final = 0.1
#: Columns of a narrow terminal, the most important ones first.
_IMPORTANT: Final = (
    *("USD/h", "budget", "limit in", "calls/s", "p95", "errors", "in flight", "tokens/s"),
    *("TTFT", "p50"),
)
_OF_BUDGETS: Final = ("share", "at limit in", "used", "limit", "resets in", "reserved")
#: Width that names keep at least, and part of a wide terminal.
_NAME_WIDTH: Final = 18
_NAME_PART: Final = 3
#: Space between two columns.
_SPACE: Final = 2
#: Share of failed calls from which on a row is red.
_MANY_ERRORS: Final = 0.05
#: Rows of the table at least, however low the terminal is.
_LEAST: Final = 3


class Screen:
    """The screen of the terminal: the last figures, in the order that was chosen.

    Args:
        name: of the source.
        sort: order of the rows, one of `SORTS`.
    """

    def __init__(self, name: str, sort: str = "cost") -> None:
        self.name = printable(name)
        self.sort = sort
        self.is_paused = False
        self.figures: Figures | None = None
        self.problem = ""
        self._burn: deque[float] = deque(maxlen=_BURN)

    def take(self, figures: Figures | None, problem: str = "") -> None:
        """Take the next figures, or why there are none."""
        self.problem = problem
        if figures is not None and not self.is_paused:
            self.figures = figures
            self._burn.append(figures.total.usd_per_hour)

    def press(self, key: str) -> bool:
        """Do what a key stands for; returns False for the one that ends the program."""
        if key in KEYS:
            self.sort = KEYS[key]
        elif key == "p":
            self.is_paused = not self.is_paused
        return key not in ("q", "\x03", "\x04")

    def draw(self, console: Console) -> Group:
        """Return what fits on a console."""
        from rich.console import Group
        from rich.text import Text

        def text(words: str, style: str = "") -> Text:
            # As Text, because a name may look like markup.
            return Text(words, style, no_wrap=True, overflow="ellipsis")

        lines = [text(f"langmeter top {self.name}", "bold")]
        figures = self.figures
        if figures is not None:
            paused = ", paused" if self.is_paused else ""
            lines.append(text(title(figures) + paused, "dim"))
        if self.problem:
            lines.append(
                text(f"cannot be read, tried again: {printable(self.problem)}", "bold red")
            )
        if figures is None:
            return Group(*lines)
        if any(value > 0 for value in self._burn):
            most = max(value for value in self._burn if not math.isnan(value))
            lines.append(text(f"USD/h {sparkline(tuple(self._burn))} at most {most:,.4g}"))
        notes = [
            text(words, "bold red" if kind == "bad" else "") for kind, words in state_lines(figures)
        ]
        budgets = figures.budgets[: max(1, console.height // 5)]
        # Headers with a line below them, the total, and what stands around the tables.
        around = len(lines) + (3 + len(budgets) if budgets else 0) + 5
        most_notes = max(0, console.height - around - _LEAST - 1)
        notes = notes[:most_notes]
        room = max(_LEAST, console.height - around - len(notes) - bool(notes))
        parts: list[RenderableType] = [*lines, self._rows(figures, room, console.width)]
        if budgets:
            parts += [text(""), _budgets(budgets, console.width)]
        if notes:
            parts += [text(""), *notes]
        return Group(*parts, text(HELP, "dim"))

    def _rows(self, figures: Figures, room: int, width: int) -> Table:
        header = [(heading(figures), "name"), *columns(figures)]
        rows = in_order(figures.rows, self.sort)
        name, *others = cells(figures.total)
        if len(rows) > room:
            name += f" ({len(rows) - room:,} rows are not shown)"
        lines = [cells(row) for row in rows[:room]]
        styles = [_style(row) for row in rows[:room]]
        chosen = [sort == self.sort for _, sort in header]
        return _table(
            [name for name, _ in header],
            [*lines, (name, *others)],
            [*styles, "bold"],
            _IMPORTANT,
            width,
            chosen,
        )


def _style(row: Row) -> str:
    if not (row.calls_per_second or row.in_flight):
        return "dim"
    return "red" if row.error_share >= _MANY_ERRORS else ""


def _budgets(rows: Sequence[Forecast], width: int) -> Table:
    styles = [
        "red" if row.share >= 1 else "yellow" if row.reached_in is not None else "" for row in rows
    ]
    lines = [budget_cells(row) for row in rows]
    return _table(BUDGETS, lines, styles, _OF_BUDGETS, width)


def _table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    styles: Sequence[str],
    important: Sequence[str],
    width: int,
    bold: Sequence[bool] = (),
) -> Table:
    """Return a table of as many columns as fit, the most important ones, in their usual order."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(text_width, column)) for column in zip(header, *lines, strict=False)]
    # The name takes what the others leave.
    room, places = width - 1, {0}
    least = min(widths[0], max(_NAME_WIDTH, width // _NAME_PART))
    for name in important:
        place = header.index(name) if name in header else 0
        if place and room - widths[place] - _SPACE >= least:
            places.add(place)
            room -= widths[place] + _SPACE
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for place in sorted(places):
        style = "bold" if any(bold[place : place + 1]) else ""
        justify: Literal["left", "right"] = "right" if place else "left"
        table.add_column(
            Text(header[place], style),
            justify=justify,
            no_wrap=True,
            overflow="ellipsis",
            max_width=widths[place] if place else max(room, 1),
        )
    for line, style in zip(lines, styles, strict=True):
        # As Text, because a name may look like markup.
        table.add_row(*(Text(line[place]) for place in sorted(places)), style=style)
    return table


def show(
    name: str, read: Callable[[], Figures], *, interval: float, sort: str, failures: Sequence[type]
) -> None:
    """Show figures until `q` or Ctrl-C; needs the extra `top`.

    A source that cannot be read is tried again: the screen says why, and keeps the last figures.

    Args:
        name: of the source.
        read: returns the next figures; called in a thread of its own.
        interval: seconds between two readings.
        sort: order of the rows at the beginning.
        failures: exceptions of `read` that are shown; others end the program.

    Raises:
        ImportError: `rich` is not installed.
    """
    from rich.console import Console
    from rich.live import Live

    screen, console = Screen(name, sort), Console()
    readings: deque[tuple[Figures | None, BaseException | None]] = deque(maxlen=2)
    done = threading.Event()

    def follow() -> None:
        while not done.is_set():
            try:
                readings.append((read(), None))
            except Exception as error:
                readings.append((None, error))
            done.wait(interval)

    threading.Thread(target=follow, name="langmeter-top", daemon=True).start()
    try:
        with (
            _keys() as pressed,
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            size, drawn_at = console.size, 0.0
            while True:
                changed = False
                while readings:
                    figures, error = readings.popleft()
                    if error is not None and not isinstance(error, tuple(failures)):
                        raise error
                    screen.take(figures, "" if error is None else str(error) or repr(error))
                    changed = True
                for key in pressed():
                    changed = True
                    if not screen.press(key):
                        return
                # A terminal of another size, and the age of figures that do not change.
                if changed or console.size != size or monotonic() - drawn_at > 1:
                    size, drawn_at = console.size, monotonic()
                    live.update(screen.draw(console), refresh=True)
    except KeyboardInterrupt:
        pass
    finally:
        done.set()


#: Signals that end the program; Windows lacks the second.
_SIGNALS: Final = ("SIGTERM", "SIGHUP")


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Give a function that waits a moment for keys, with the terminal as it must be for that.

    A signal that ends the program gives the terminal back, too.
    """
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in previous:
        signal.signal(number, _end)
    try:
        # On Windows keys are not read: Ctrl-C ends the program.
        if sys.platform == "win32" or sys.stdin is None or not sys.stdin.isatty():
            yield _wait
            return
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        settings = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        try:
            yield lambda: _pressed(descriptor)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _pressed(descriptor: int) -> str:
    if not select.select([descriptor], [], [], _POLL)[0]:
        return ""
    data = os.read(descriptor, 64)
    if not data:  # the terminal has gone
        return "q"
    # An escape sequence, of an arrow for instance, is not what its letters are.
    return "" if data.startswith(b"\x1b") else data.decode("ascii", "ignore").lower()


def _wait() -> str:
    threading.Event().wait(_POLL)
    return ""


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
