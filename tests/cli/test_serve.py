"""`langmeter serve`: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from langmeter import Snapshot, sources
from langmeter.cli import main as cli
from tests.support.traffic import Traffic

SNAPSHOT = Traffic().everything(5).snapshot()


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A snapshot as a file."""
    path = tmp_path / "snapshot.json"
    path.write_text(SNAPSHOT.to_json(), encoding="utf-8")
    return str(path)


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "token"),
    [((), ""), (("--host", "0.0.0.0"), "made"), (("--token", "sixteen-letters-or-more"), "given")],
)
def test_it_serves_until_it_is_interrupted(file: str, options: tuple[str, ...], token: str) -> None:
    """One line has the address; a token that was made is printed once, a given one is not."""
    environment = {name: text for name, text in os.environ.items() if name != sources.TOKEN}
    command = [sys.executable, "-m", "langmeter", "serve", file, "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.match(r"serving http://[^:]+:(\d+)/(?:\?token=(\S+))?(.*)", line)
        assert match
        assert bool(match[2]) == (token == "made")
        assert match[3] == (", which asks for its token" if token == "given" else "")
        secret = match[2] or ("sixteen-letters-or-more" if token else "")
        url = f"http://127.0.0.1:{match[1]}/snapshot.json"
        if token:
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url)
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {secret}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert Snapshot.from_json(answer.read()) == SNAPSHOT
    finally:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""
    assert not secret or secret not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.json"], "cannot read missing.json: No such file or directory"),
        (["FILE", "--port", "70000"], "port must be a whole number from 0 to 65,535, got 70000"),
        (["FILE", "--token", "short"], "token must be 16 or more printable ASCII characters"),
        (["FILE", "--host", "0.0.0.0", "--token", ""], "token must be a token for 0.0.0.0"),
        (["FILE", "--host", "192.0.2.1", "--port", "0"], "cannot listen on 192.0.2.1:0"),
    ],
)
def test_bad_input_is_refused(
    arguments: list[str],
    message: str,
    file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bad input is one line and exit code 2."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["serve", *(file if word == "FILE" else word for word in arguments)])
    assert exit_code.value.code == 2
    assert message in capsys.readouterr().err
