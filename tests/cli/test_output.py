"""Every command keeps its exit code whatever becomes of its output, and says what is wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langmeter._base import output
from langmeter.cli import main as cli
from tests.support.simulated import calls, latencies

EVIL = "evil\x1b[31m\nname"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two snapshots, one slower."""
    folder = tmp_path_factory.mktemp("snapshots")
    for name, scale in (("base", 1.0), ("slow", 2.0)):
        made = calls(latencies(200, seed=1, scale=scale), model="gpt-4o")
        (folder / f"{name}.json").write_text(made.to_json(), encoding="utf-8")
    return folder


COMMANDS = {
    "compare, ok": (["compare", "--all", "base.json", "base.json"], 0),
    "compare, worse": (["compare", "base.json", "slow.json"], 1),
    "compare, as data": (["compare", "--json", "base.json", "slow.json"], 1),
    "bottlenecks": (["bottlenecks", "base.json"], 0),
    "bottlenecks, as data": (["bottlenecks", "--json", "base.json"], 0),
    "advice": (["advice", "base.json"], 0),
    "prices": (["prices", "openai/gpt-4o"], 0),
    "prices, none": (["prices", "acme/none"], 1),
    "help": (["compare", "--help"], 0),
    "version": (["--version"], 0),
}


@pytest.mark.process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk to try")
@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_cannot_be_written_changes_no_exit_code(folder: Path, name: str) -> None:
    """A pipe whose reader has gone, a full disk, a closed stream: the verdict's own code."""
    arguments, code = COMMANDS[name]
    command = [sys.executable, "-m", "langmeter", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full:
        for out in (writer, full):
            done = subprocess.run(
                command, cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True, check=False
            )
            assert done.returncode == code, done.stderr
            assert "Traceback" not in done.stderr
            assert "Exception ignored" not in done.stderr
            told = "cannot write the output: No space left on device" in done.stderr
            assert told is (out is full and name not in ("help", "version"))
    os.close(writer)


def test_a_stream_that_is_closed_or_missing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has None for a stream that was closed when it began."""
    closed = io.StringIO()
    closed.close()
    for out in (None, closed):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", out)
        output.show("text")
        output.flush()
        output.complain("text")


def test_what_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a terminal without UTF-8: no figure is lost with its µ."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.show("812 µs")
    assert raw.getvalue() == b"812 \\xb5s\n"


class _Flushless(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_help_text_that_cannot_be_flushed_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is 0 all the same."""
    monkeypatch.setattr(sys, "stdout", _Flushless())
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])


def test_ctrl_c_is_exit_code_130(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback."""

    def interrupted(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("langmeter.analysis.bottlenecks.text", interrupted)
    assert cli.main(["bottlenecks", str(folder / "base.json")]) == 130


BAD_FILES = {
    "a folder": (None, "{file}: no meter counts into this directory"),
    "an empty file": (b"", "{file}: not a langmeter snapshot: "),
    "older bytes": (b"LMTR\x02\x00\xff\xfe", "{file}: not a langmeter snapshot: snapshot format 2"),
    "bytes": (b"LM\xff\xfe", "{file}: not a langmeter snapshot: not a JSON text"),
    "other JSON": (
        b'{"models": []}',
        "{file}: not a langmeter snapshot: field 'format' is missing",
    ),
    "a list": (b"[]", "{file}: not a langmeter snapshot"),
    "a contradiction": (
        b'{"format": 3, "models": 3}',
        "models must be a list, got 3; write the text",
    ),
    "cut off": (b'{"format": 3, "mod', "{file}: not a langmeter snapshot: "),
}


@pytest.mark.parametrize("command", ["advice", "bottlenecks", "compare"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_exit_code_2(
    folder: Path, tmp_path: Path, name: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line under the usage names the file and what is wrong with it."""
    content, message = BAD_FILES[name]
    file = tmp_path / "file"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    more = [str(folder / "base.json")] if command == "compare" else []
    with pytest.raises(SystemExit, match="2"):
        cli.main([command, str(file), *more])
    error = capsys.readouterr().err.splitlines()[-1]
    assert message.format(file=file) in error
    assert error.startswith(f"langmeter {command}: error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["advice", EVIL],
        ["bottlenecks", EVIL],
        ["compare", EVIL, EVIL],
        ["prices", "m", "--prices", EVIL],
        ["prices", "m", "--prices", f"{EVIL}.toml"],
        ["demo", "--json", f"{EVIL}/x"],
        ["run", "--json", f"{EVIL}/x", "p.py"],
        ["run", "--prices", EVIL, "p.py"],
        ["run", "--budget", EVIL, "p.py"],
        ["run", "--config", EVIL, "p.py"],
    ],
)
def test_names_of_files_cannot_draw_on_the_terminal(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are escaped in every message."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\\x1b[31m" in error


def test_names_of_models_cannot_draw_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In what advice and prices print, own prices for such a model included."""
    own = tmp_path / "own.json"
    own.write_text('{"openai/*": {"input": 9, "output": 9}, "acme/*": {"input": 1, "output": 1}}')
    file = tmp_path / "file.json"
    file.write_text(calls([1.0] * 50, model=EVIL).to_json())
    for arguments in (
        ["advice", str(file), "--prices", str(own), "--alternative", "acme/small"],
        ["bottlenecks", str(file)],
        ["prices", EVIL, "--provider", "openai", "--prices", str(own)],
        ["prices", f"acme/{EVIL}", "--tier", EVIL],
    ):
        cli.main(arguments)
        shown = capsys.readouterr().out
        assert all(line.isprintable() for line in shown.split("\n"))
        assert "\\x1b[31m\\nname" in shown


def test_a_file_that_cannot_be_written_is_described(tmp_path: Path) -> None:
    """By its name, escaped, and the system's reason."""
    failure = output.write_file(tmp_path / EVIL / "x", "text")
    assert failure is not None
    assert failure.startswith("cannot write ")
    assert failure.endswith("\\x1b[31m\\nname/x: No such file or directory")
    assert (
        output.write_file(tmp_path / "x\0", "text")
        == f"cannot write {tmp_path}/x\\x00: embedded null byte"
    )
    assert output.write_file(tmp_path / "x", "text") is None
