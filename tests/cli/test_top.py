"""`langmeter top`: on a terminal, in a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pyte
import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langmeter import Budget, Meter
from langmeter.cli import main as cli
from langmeter.exporters import prometheus

_TOP = (sys.executable, "-m", "langmeter", "top")
_DEADLINE = 60.0


def model(answers: int = 1000) -> GenericFakeChatModel:
    """Return a chat model with fixed answers, of a provider that has prices."""
    usage = {"input_tokens": 1200, "output_tokens": 300, "total_tokens": 1500}
    metadata = {"model_name": "gpt-4o-mini", "model_provider": "openai"}
    answer = AIMessage("4", usage_metadata=usage, response_metadata=metadata)
    names = {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}
    return GenericFakeChatModel(messages=iter([answer] * answers), metadata=names)


class Terminal:
    """A program on a pseudo-terminal, and what stands there as the emulator `pyte` has it."""

    def __init__(self, arguments: list[str], lines: int = 30, columns: int = 110) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.master, self.slave = pty.openpty()
        self.resize(lines, columns)
        self.settings = termios.tcgetattr(self.slave)
        self.output = b""
        self.process = subprocess.Popen(
            [*_TOP, *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            # Ctrl-C is a signal of the terminal that controls a session.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
        )

    def resize(self, lines: int, columns: int) -> None:
        """Change the size of the terminal."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)
        self.screen.resize(lines, columns)

    def wait_for(self, condition: Callable[[str], bool]) -> str:
        """Read until the screen is as it must be; returns its text."""
        deadline = monotonic() + _DEADLINE
        while not condition(text := "\n".join(self.screen.display)):
            assert monotonic() < deadline, text
            if select.select([self.master], [], [], 0.2)[0]:
                self._read()
            else:
                assert self.process.poll() is None, text
        return text

    def end(self, text: str) -> int:
        """Type a text; returns the exit code."""
        os.write(self.master, text.encode())
        return self.wait()

    def wait(self) -> int:
        """Read to the end; returns the exit code."""
        deadline = monotonic() + _DEADLINE
        while self.process.poll() is None:
            assert monotonic() < deadline
            if select.select([self.master], [], [], 0.2)[0]:
                self._read()
        while select.select([self.master], [], [], 0)[0]:
            self._read()
        return self.process.returncode

    def _read(self) -> None:
        data = os.read(self.master, 1 << 16)
        self.output += data
        self._stream.feed(data)


@contextmanager
def top(*arguments: str) -> Iterator[Terminal]:
    """Run the command on a terminal, and end it at the end."""
    terminal = Terminal(list(arguments))
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
        os.close(terminal.slave)


@pytest.mark.process
def test_a_terminal_shows_what_a_service_does() -> None:
    """Calls that are made while it runs are on the screen at the next reading, and so is money."""
    meter = Meter(budgets=[Budget(usd=0.01, per="day", action="warn")])
    with prometheus.start(0, meter) as server:
        url = f"http://127.0.0.1:{server.port}/snapshot.json"
        with top(url, "--interval", "0.2s") as terminal:
            terminal.wait_for(lambda text: "q quit" in text)
            model().batch(["2 + 2?"] * 10, config={"callbacks": [meter]})
            text = terminal.wait_for(
                lambda text: "the last" in text and "openai/gpt-4o-mini" in text
            )
            assert f"langmeter top {url}" in text
            assert "0.01 USD a day" in text
            row = next(row for row in text.split("\n") if row.startswith("openai/gpt-4o-mini"))
            assert "$" in row
            assert terminal.end("q") == 0
            assert termios.tcgetattr(terminal.slave) == terminal.settings
            assert terminal.output.count(b"\x1b[?1049h") == 1
            assert terminal.output.count(b"\x1b[?1049l") == 1
            assert terminal.output.rstrip().endswith((b"\x1b[?25h", b"\x1b[?1049l"))


@pytest.mark.process
def test_keys_and_sizes_are_obeyed_at_once(file: str) -> None:
    """A key changes the order, a terminal of another size the screen, without a new reading."""
    with top(file, "--interval", "1h") as terminal:

        def models(text: str) -> list[str]:
            words = [row.split(" ")[0] for row in text.split("\n")]
            return [word for word in words if "/" in word and word != "USD/h"]

        first = models(terminal.wait_for(lambda text: "q quit" in text))
        assert first[0] == "openai/gpt-4o"
        os.write(terminal.master, b"n")
        terminal.wait_for(lambda text: models(text) == sorted(first))
        terminal.resize(12, 60)
        terminal.wait_for(lambda text: "q quit" in text and "p50" not in text)
        assert terminal.end("\x03") == 0
        assert termios.tcgetattr(terminal.slave) == terminal.settings


@pytest.mark.process
def test_a_signal_gives_the_terminal_back(file: str) -> None:
    """After SIGTERM the terminal is as it was, and the exit code says so."""
    with top(file) as terminal:
        terminal.wait_for(lambda text: "q quit" in text)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 128 + signal.SIGTERM
        assert termios.tcgetattr(terminal.slave) == terminal.settings
        assert terminal.output.count(b"\x1b[?1049l") == 1


@pytest.mark.process
def test_a_source_that_goes_is_tried_again() -> None:
    """The screen says that a page does not answer, keeps its figures, and goes on when it does."""
    meter = Meter()
    model().batch(["2 + 2?"] * 10, config={"callbacks": [meter]})
    server = prometheus.start(0, meter)
    with top(f"http://127.0.0.1:{server.port}/snapshot.json", "--interval", "0.2s") as terminal:
        terminal.wait_for(lambda text: "openai/gpt-4o-mini" in text)
        port = server.port
        server.close()
        text = terminal.wait_for(lambda text: "cannot be read, tried again" in text)
        assert "openai/gpt-4o-mini" in text
        with prometheus.start(port, meter):
            terminal.wait_for(lambda text: "cannot be read" not in text)
            assert terminal.end("q") == 0


def test_what_is_not_a_terminal_gets_one_reading(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe it prints the same as with `--once`, without a single escape sequence."""
    assert cli.main(["top", file]) == 0
    plain = capsys.readouterr().out
    assert cli.main(["top", file, "--once"]) == 0
    assert capsys.readouterr().out == plain
    assert "openai/gpt-4o" in plain
    assert "\x1b" not in plain


def test_every_kind_of_source_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory, a history and a page give the calls that were made."""
    directory, history = tmp_path / "meters", tmp_path / "metrics.db"
    meter = Meter(directory=str(directory), history=str(history))
    model().batch(["2 + 2?"] * 10, config={"callbacks": [meter]})
    assert meter.flush() is None
    with prometheus.start(0, meter) as server:
        url = f"http://127.0.0.1:{server.port}/snapshot.json"
        for source in (str(directory), str(history), url):
            assert cli.main(["top", source, "--json", "--by", "provider"]) == 0
            data = json.loads(capsys.readouterr().out)
            assert [row["name"] for row in data["rows"]] == ["openai"]
            assert data["total"]["calls_per_second"] > 0
            assert data["total"]["usd_per_hour"] > 0
    meter.close()


@pytest.mark.process
def test_one_line_is_for_status_bars(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--once` it is one line, and without it one for each reading until Ctrl-C."""
    assert cli.main(["top", file, "--line", "--once"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert " calls/s | 0 in flight | " in line
    command = [*_TOP, file, "--line", "--interval", "0.1s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [line] * 3
        process.send_signal(signal.SIGINT)
        assert process.wait(_DEADLINE) == 130


def test_without_rich_the_other_forms_work(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal needs rich, and the message says how to get it; texts do not."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["top", file, "--once"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("langmeter._base.output.terminal_width", lambda file: 80)
    assert cli.main(["top", file]) == 2
    assert "pip install 'langmeter[top]'" in capsys.readouterr().err
