"""The command: a program runs as under python itself, and the report follows."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import langmeter
from langmeter import Snapshot
from langmeter.cli import main as cli
from langmeter.cli.session import _sessions

pytestmark = pytest.mark.process

CHAT = """
from langchain_core.language_models.fake_chat_models import FakeListChatModel
def chat(): return FakeListChatModel(responses=["hello"]).invoke("hi").content
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same under `langmeter run`, the report taken off."""
    result = python("-m", "langmeter", "run", *arguments, cwd=cwd)
    head, report, _ = result.stderr.rpartition("\nlangmeter: ")
    assert report, result.stderr
    result.stderr = head
    return result


# What a program can see of how it was started.
LOOK = """
import sys, __main__
print(sys.argv, __name__, sys.path[0], len(sys.path))
print(__main__.__dict__ is globals(), __file__, __package__, __spec__ and __spec__.name)
print(sorted(k for k in globals() if k.startswith("__")), __builtins__ is __import__("builtins"))
print(__loader__ is not None, __doc__)
"""
PROGRAMS = {
    "look": '"""Doc."""\nfrom __future__ import annotations\nx: nope = 1\n' + LOOK,
    "exit 3": "import sys; sys.exit(3)",
    "exit text": "import sys; sys.exit('that was it')",
    "exception": "import neighbour\ndef f():\n    1 / 0\nprint('before', flush=True)\nf()\n",
    "syntax error": "print('never')\nx = = 1\n",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print(a[0], a[2].tb_lineno)\n1 / 0\n",
    "late": (
        "import atexit, threading\natexit.register(print, 'bye')\n"
        "threading.Timer(0.05, print, ['late']).start()\nprint('early')\n1 / 0\n"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_script_runs_as_under_python(tmp_path: Path, name: str) -> None:
    """Output, errors, tracebacks and exit code are the same to the letter."""
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "neighbour.py").write_text("")
    (folder / "program.py").write_text(PROGRAMS[name])
    arguments = ("sub/program.py", "-x", "--json", "a b", "-m")
    expected = python(*arguments, cwd=tmp_path)
    metered = run(*arguments, cwd=tmp_path)
    assert metered.stdout == expected.stdout
    assert metered.stderr.rstrip() == expected.stderr.rstrip()
    assert metered.returncode == expected.returncode


@pytest.mark.parametrize("module", ["package", "package.inner"])
def test_a_module_runs_as_under_python(tmp_path: Path, module: str) -> None:
    """`-m` of a package and of a module in it."""
    package = tmp_path / "package"
    package.mkdir()
    for path in ("__init__.py", "__main__.py", "inner.py"):
        (package / path).write_text(LOOK if path != "__init__.py" else "")
    expected = python("-m", module, "-m", "--json", cwd=tmp_path)
    metered = run("-m", module, "-m", "--json", cwd=tmp_path)
    assert (metered.stdout, metered.returncode) == (expected.stdout, expected.returncode)


def test_directories_and_zip_files_run(tmp_path: Path) -> None:
    """With a `__main__.py` inside, as python runs them."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "__main__.py").write_text(LOOK)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.write(folder / "__main__.py", "__main__.py")
    for target in ("app", "app.zip"):
        expected = python(target, "x", cwd=tmp_path)
        metered = run(target, "x", cwd=tmp_path)
        assert (metered.stdout, metered.returncode) == (expected.stdout, expected.returncode)


@pytest.mark.parametrize("arguments", [("none.py",), ("-m", "none.py"), ("-m", "pack"), ("empty",)])
def test_what_is_not_there_fails_as_under_python(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The same exit code, a message that names it, and no report of what never began."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    expected = python(*arguments, cwd=tmp_path)
    metered = python("-m", "langmeter", "run", *arguments, cwd=tmp_path)
    assert metered.returncode == expected.returncode != 0
    assert arguments[-1] in metered.stderr
    assert "langmeter: " not in metered.stderr


def test_every_call_is_metered_and_written(tmp_path: Path) -> None:
    """Threads included, after an exception too, and calls made by the program's exit handlers."""
    (tmp_path / "program.py").write_text(
        CHAT + "import atexit, threading\natexit.register(chat)\n"
        "thread = threading.Thread(target=chat)\nthread.start()\nprint(chat())\n1 / 0\n"
    )
    result = python("-m", "langmeter", "run", "--json", "out.json", "program.py", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == "hello\n"
    assert "ZeroDivisionError" in result.stderr
    assert "run_program.py" not in result.stderr
    assert result.stderr.index("ZeroDivisionError") < result.stderr.index("\nlangmeter: ")
    snapshot = Snapshot.from_json((tmp_path / "out.json").read_text())
    assert snapshot.totals.calls == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_ctrl_c_ends_as_under_python(tmp_path: Path) -> None:
    """The traceback, the report, and an end by the signal, which a shell shows as 130."""
    (tmp_path / "program.py").write_text(
        CHAT + "import time\nchat()\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-m", "langmeter", "run", "program.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert "run_program.py" not in errors
    assert "fakelistchatmodel" in errors.rpartition("\nlangmeter: ")[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_child_does_not_report(tmp_path: Path) -> None:
    """One process was asked for, one report comes."""
    (tmp_path / "program.py").write_text("import os\nif os.fork(): os.wait()\n")
    result = python("-W", "ignore", "-m", "langmeter", "run", "program.py", cwd=tmp_path)
    assert result.stderr.count("langmeter: ") == 1


# In this process, where coverage sees it.


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], Any]]]:
    """What was registered for the exit; argv, path, `__main__` and excepthook are put back."""
    handlers: list[Callable[[], Any]] = []
    monkeypatch.setattr(
        atexit, "register", lambda function, *args: handlers.append(lambda: function(*args))
    )
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    # It would mark this process as ending, and no child forked later would flush its queues.
    monkeypatch.setattr("multiprocessing.util._exit_function", lambda: None)
    handlers.clear()
    yield handlers
    for session in reversed(_sessions[:]):
        session.end()


def test_run_in_process(
    tmp_path: Path, exits: list[Callable[[], Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 0, the report goes to stderr, the snapshot to the file."""
    program = tmp_path / "program.py"
    program.write_text(CHAT + "import sys\nprint(chat(), sys.argv[1:])\n")
    out = tmp_path / "out.json"
    assert cli.main(["run", "--json", str(out), str(program), "--json", "x"]) == 0
    exits[0]()
    captured = capsys.readouterr()
    assert captured.out == "hello ['--json', 'x']\n"
    assert "fakelistchatmodel" in captured.err
    assert json.loads(out.read_text())["models"][0]["calls"] == 1


def test_two_dashes_end_the_options(
    tmp_path: Path, exits: list[Callable[[], Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """As for other commands; those of the program stay its own."""
    program = tmp_path / "program.py"
    program.write_text("import sys\nprint(sys.argv[1:])\n")
    assert cli.main(["run", "--", str(program), "--", "x"]) == 0
    assert capsys.readouterr().out == "['--', 'x']\n"
    exits[0]()
    assert capsys.readouterr().err == "\nlangmeter: nothing metered\n"


def test_run_a_module_in_process(
    tmp_path: Path,
    exits: list[Callable[[], Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`-m` finds modules and packages in the current directory."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "langmeter_example"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys\nprint(__spec__.name, sys.argv[1:])\n")
    assert cli.main(["run", "-m", "langmeter_example", "-m"]) == 0
    assert capsys.readouterr().out == "langmeter_example.__main__ ['-m']\n"
    for missing in ("langmeter_none", "langmeter_none.inner", "langmeter._core"):
        with pytest.raises(SystemExit, match="1"):
            cli.main(["run", "-m", missing])
    assert "No code object" in capsys.readouterr().err


def test_run_paths_in_process(
    tmp_path: Path, exits: list[Callable[[], Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory with a `__main__`, one without, and a script that is not there."""
    with pytest.raises(SystemExit, match="1"):
        cli.main(["run", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", str(tmp_path / "none.py")])
    (tmp_path / "__main__.py").write_text("print(__file__)")
    assert cli.main(["run", str(tmp_path)]) == 0
    assert capsys.readouterr().out.rstrip() == str(tmp_path / "__main__.py")


def test_exceptions_pass_and_show_only_the_program(
    tmp_path: Path, exits: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception itself arrives; printed, it begins in the script."""
    shown: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda *args: shown.append(args))
    program = tmp_path / "program.py"
    program.write_text("def f():\n    1 / 0\nf()\n")
    with pytest.raises(ZeroDivisionError) as caught:
        cli.main(["run", str(program)])
    sys.excepthook(caught.type, caught.value, caught.tb)
    ((_, error, traceback),) = shown
    assert error is caught.value
    assert traceback.tb_frame.f_code.co_filename == str(program)
    other = ValueError()
    sys.excepthook(ValueError, other, None)
    assert shown[-1] == (ValueError, other, None)
    program.write_text("raise SystemExit(5)")
    with pytest.raises(SystemExit, match="5"):
        cli.main(["run", str(program)])


def test_without_a_search_path_of_its_own(
    tmp_path: Path, exits: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -P` puts no directory first, and none is replaced."""
    program = tmp_path / "program.py"
    program.write_text("")
    before = list(sys.path)

    # The rest too: what is imported meanwhile asks for it.
    rest = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != "_"}
    monkeypatch.setattr(sys, "flags", SimpleNamespace(**{**rest, "safe_path": True}))
    cli.main(["run", str(program)])
    assert sys.path == before


def test_a_file_that_cannot_be_written_is_reported(
    tmp_path: Path, exits: list[Callable[[], Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is seen to fail is refused before the program runs, the rest told after the report."""
    program = tmp_path / "program.py"
    program.write_text("")
    for command in ("run", "demo"):
        for path, message in (
            (tmp_path / "none" / "x.json", "no such directory"),
            (tmp_path, "is a directory"),
        ):
            with pytest.raises(SystemExit, match="2"):
                cli.main([command, "--json", str(path), *[str(program)][: command == "run"]])
            assert message in capsys.readouterr().err
    cli.main(["run", "--json", str(tmp_path / "x.json"), str(program)])
    (tmp_path / "x.json").mkdir()
    exits[0]()
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "-m"], ["run", "--"], ["run", "--json", "x"]]
)
def test_a_program_must_be_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the usage, and exit code 2."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "name a script" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["run", "--help"], ["run", "-h", "x.py"], ["--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help is for the command, when it stands before the program."""
    with pytest.raises(SystemExit, match="0"):
        cli.main(arguments)
    assert "usage: langmeter" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the native module, the only one there is."""
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"langmeter {langmeter.__version__}\n"


def test_without_a_command_there_is_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with exit code 2; the arguments are those of the process."""
    monkeypatch.setattr(sys, "argv", ["langmeter"])
    assert cli.main() == 2
    assert "usage: langmeter" in capsys.readouterr().err


def test_demo_gets_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is left out is the demo's own default; its exit code is the command's."""
    asked: list[dict[str, Any]] = []

    def run_demo(**settings: Any) -> int:
        asked.append(settings)
        return 7

    monkeypatch.setattr("langmeter.demo.run_demo", run_demo)
    assert cli.main(["demo"]) == 7
    assert cli.main(["demo", "--calls", "5", "--concurrency", "2", "--json", "x"]) == 7
    assert asked == [{}, {"calls": 5, "concurrency": 2, "json": "x"}]
    for bad in ("0", "-1", "many", "1" * 5000):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["demo", "--calls", bad])
        assert "must be a whole number from 1 to 1,000,000" in capsys.readouterr().err
