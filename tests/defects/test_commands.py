"""Commands that scorers run: compilers, their limits and their environment."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from langmeter.defects.scorers import Command, Compiles, Limits, score_fix
from tests.support.proposals import GOOD, C, proposal


def python(script: str, **limits: Any) -> Command:
    """A command that runs a Python script with the file as its argument."""
    limits = {"seconds": 20.0, "cpu_seconds": 10, **limits}
    return Command([sys.executable, "-c", script, "{file}"], Limits(**limits))


def on_change(script: str) -> str:
    """A script that does something with a changed file alone."""
    return f"import sys\nif 'return p' in open(sys.argv[1]).read():\n    {script}"


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")


@needs_cc
@pytest.mark.process
@pytest.mark.parametrize(
    ("before", "code", "outcome", "score"),
    [
        (C, GOOD, None, 1.0),
        (C, "    return q;", "does_not_compile", 0.0),
        (C.replace("int f", "type_t f"), GOOD, "infrastructure", None),
    ],
)
def test_a_compiler_judges(
    before: str, code: str, outcome: str | None, score: float | None
) -> None:
    """An original that does not compile either is the failure of the check."""
    fix = Compiles(["cc", "-c", "{file}"])(proposal(code, before))
    assert (fix.outcome, fix.score) == (outcome, score)
    if outcome == "does_not_compile":
        assert fix.source == "compile"
        assert "error" in fix.reason
        assert "/tmp" not in fix.reason


@needs_cc
@pytest.mark.process
def test_without_a_baseline_a_defect_may_be_a_compile_error() -> None:
    """The fix alone is compiled."""
    scorer = Compiles(["cc", "-c", "{file}"], baseline=False)
    assert scorer(proposal("    return q;", C)).outcome == "does_not_compile"
    broken = C.replace("*p;", "q;")
    assert scorer(proposal(GOOD, broken)).score == 1.0


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "limits"),
    [
        ("import time; time.sleep(60)", {"seconds": 1.5}),
        ("while True: pass", {"cpu_seconds": 1}),
        ("bytearray(2**30)", {"memory": 2**28}),
        ("print('x' * 2**20)", {"output": 2**16}),
        ("open('big', 'wb').write(bytes(2**20))", {"output": 2**16}),
        ("import os; os.kill(os.getpid(), 9)", {}),
        ("sys.stderr.buffer.write(b'\\xff\\xfe error \\x1b[31m\\0'); sys.exit(1)", {}),
    ],
    ids=["sleep", "cpu", "memory", "output", "file", "killed", "undecodable"],
)
def test_a_runaway_command_ends(script: str, limits: dict[str, Any]) -> None:
    """Time, CPU, memory and output are limited; where the original passes, the change is wrong."""
    begin = time.monotonic()
    fix = Compiles(python(on_change(script), **limits))(proposal())
    assert (fix.outcome, fix.score, fix.source) == ("does_not_compile", 0.0, "compile")
    assert fix.reason.isprintable()
    assert fix.reason
    assert time.monotonic() - begin < 30
    again = Compiles(python(f"import sys; {script}" if "while" not in script else script, **limits))
    assert again(proposal()).outcome == "infrastructure"


@pytest.mark.process
def test_without_a_baseline_a_time_limit_is_infrastructure() -> None:
    """Nothing shows that the command would have ended."""
    slow = python("import time; time.sleep(60)", seconds=0.5)
    assert Compiles(slow, baseline=False)(proposal()).outcome == "infrastructure"


@pytest.mark.process
@pytest.mark.parametrize("ending", ["", "time.sleep(60)"], ids=["leaves", "hangs"])
def test_what_a_command_started_ends_with_it(tmp_path: Path, ending: str) -> None:
    """Children in its process group are killed, whether it ends or hangs."""
    pids = tmp_path / "pids"
    script = (
        "import os, time\n"
        f"with open({os.fspath(pids)!r}, 'w') as file:\n"
        "    for _ in range(5):\n"
        "        pid = os.fork()\n"
        "        if not pid: time.sleep(60); os._exit(0)\n"
        "        file.write(f'{pid} ')\n"
        f"{ending}"
    )
    code, _ = python(script, seconds=3.0).run("x.c", C)
    assert code == (None if ending else 0)
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 5
    deadline = time.monotonic() + 10
    while any(map(_runs, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(_runs, children))


def _runs(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.process
def test_a_command_sees_its_directory_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the file byte by byte, no variable of the host, no input, and no shell."""
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    script = (
        "import os, sys; print(sorted(os.environ), os.listdir(), os.getcwd() == os.environ['HOME'],"
        "open(sys.argv[1], 'rb').read(), sys.stdin.read(), sys.argv[2:], sep='|', end='')"
    )
    command = Command([sys.executable, "-c", script, "{file}", "$HOME; *"], env={"MORE": "1"})
    code, output = command.run("é.c", "a\r\n\udcff")
    names, *rest = output.split("|")
    assert code == 0
    assert "OPENAI_API_KEY" not in names
    assert {"'HOME'", "'MORE'", "'PATH'", "'TMPDIR'"} <= set(names.strip("[]").split(", "))
    assert rest == ["['é.c']", "True", repr(b"a\r\n\xff"), "", "['$HOME; *']"]


@pytest.mark.process
@pytest.mark.parametrize("program", ["no-such-compiler", "folder", "script"])
def test_a_command_that_cannot_be_run_is_infrastructure(tmp_path: Path, program: str) -> None:
    """A missing compiler is not the failure of a model; called by itself it is an OSError."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    path = program if program == "no-such-compiler" else os.fspath(tmp_path / program)
    scorer = Compiles([path, "{file}"])
    with pytest.raises(OSError, match=program):
        scorer(proposal())
    fix = score_fix(proposal(), [scorer])
    assert (fix.outcome, fix.score, fix.source) == ("infrastructure", None, "form")
