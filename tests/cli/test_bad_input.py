"""What `langmeter report`, `serve` and `top` refuse."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from langmeter.cli import main as cli

MISSING = "cannot read missing.json: No such file or directory"
CASES = [
    ("report missing.json", MISSING),
    ("report missing.json FILE", MISSING),
    ("report FILE FILE FILE", "SOURCE must be one or two sources, got 3; name two at most"),
    ("report FILE --since 1d", "only a history keeps spans"),
    ("report FILE -o no/where.html", "no such directory; make it first"),
    ("report FILE --json -o no/where.json", "no such directory; make it first"),
    ("report FILE --prices missing.toml", "cannot read missing.toml"),
    ("report EMPTY", "no meter counts into this directory"),
    ("serve missing.json", MISSING),
    ("serve EMPTY", "no meter counts into this directory"),
    ("serve FILE --port 70000", "port must be a whole number from 0 to 65,535, got 70000"),
    ("serve FILE --token short", "token must be 16 or more printable ASCII characters"),
    ("serve FILE --host 0.0.0.0 --token ''", "token must be a token for 0.0.0.0"),
    ("serve FILE --host 192.0.2.1 --port 0", "cannot listen on 192.0.2.1:0"),
    ("top missing.json", MISSING),
    ("top EMPTY", "no meter counts into this directory"),
    ("top FILE --by customer", "by must be the keys of a declared label ((team))"),
    ("top FILE --sort beauty", "sort must be one of cost, calls, flight"),
    ("top FILE --interval soon", "--interval must be a length of time above 0"),
    ("top FILE --window 0s", "--window must be a length of time above 0"),
]


@pytest.mark.parametrize(("command", "message"), CASES)
def test_bad_input_is_refused(
    command: str,
    message: str,
    file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Standard error says what is wrong and what to write instead; exit code 2, and no page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    words = [file if word == "FILE" else word for word in shlex.split(command)]
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "command",
    [
        "history some.db",
        "history import some.db FILE",
        "fold EMPTY --history some.db",
        "alerts check --rule 'calls > 1' --history some.db",
        "report some.db",
    ],
)
def test_a_command_names_the_extra_that_it_lacks(command: str, file: str, tmp_path: Path) -> None:
    """Without SQLAlchemy each command that reads a history says what to install."""
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "some.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    words = [file if word == "FILE" else word for word in shlex.split(command)]
    code = "import sys; sys.modules['sqlalchemy'] = None; from langmeter.cli import main; "
    program = f"{code}sys.exit(main.main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith('a history needs pip install "langmeter[history]"')
    assert "Traceback" not in done.stderr
