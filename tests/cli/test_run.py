"""`langmeter run`: its options, and a report that is written however the program ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from langmeter import Budget, Snapshot
from langmeter.budgets import parse_budget
from langmeter.cli import main as cli
from langmeter.cli import session
from langmeter.errors import ConfigError

pytestmark = pytest.mark.process

CHAT = """
from langchain_core.language_models.fake_chat_models import FakeListChatModel
def chat(**metadata):
    return FakeListChatModel(responses=["hello"]).invoke("hi", config={"metadata": metadata})
"""
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")


class Program:
    """A program in a folder of its own, run by `langmeter run --json out.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir()

    def start(self, code: str, *options: str, **more: Any) -> subprocess.Popen[str]:
        """Write it and start it."""
        (self.folder / "program.py").write_text(code)
        command = [sys.executable, "-m", "langmeter", "run", "--json", "out.json", *options]
        more.setdefault("stdout", subprocess.PIPE)
        if hasattr(signal, "SIGHUP"):  # the tests themselves may run under nohup
            default = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
            more.setdefault("preexec_fn", default)
        return subprocess.Popen(
            [*command, "program.py"],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            **more,
        )

    def run(self, code: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Write it and run it to its end."""
        process = self.start(code, *options, **more)
        out, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    @property
    def snapshot(self) -> Snapshot:
        """What was written."""
        return Snapshot.from_json((self.folder / "out.json").read_text(encoding="utf-8"))

    @property
    def calls(self) -> int:
        """Model calls in it."""
        return self.snapshot.totals.calls


@pytest.fixture
def program() -> Iterator[Program]:
    """A program that is still to be written."""
    # Not `tmp_path`: under it the socket of a fork server has a path longer than Unix allows (108
    # bytes), as pytest-xdist's workers add a folder of their own.
    with tempfile.TemporaryDirectory() as folder:
        yield Program(Path(folder))


# --- signals -------------------------------------------------------------------------------------

WAITS = {
    "asleep": "import time\nprint('ready', flush=True)\ntime.sleep(600)\n",
    "on a thread": (
        "import threading\nthread = threading.Thread(target=threading.Event().wait, daemon=True)\n"
        "thread.start()\nprint('ready', flush=True)\nthread.join()\n"
    ),
    "in a loop": (
        "import asyncio\nasync def main():\n    print('ready', flush=True)\n"
        "    await asyncio.sleep(600)\nasyncio.run(main())\n"
    ),
    "at its exit": (
        "import atexit, time\n@atexit.register\ndef late():\n"
        "    print('ready', flush=True)\n    time.sleep(600)\n"
    ),
}


@POSIX
@pytest.mark.parametrize(
    ("name", "wait"),
    [
        *(("SIGTERM", wait) for wait in WAITS),
        *(("SIGHUP", "asleep"), ("SIGHUP", "in a loop"), ("SIGQUIT", "asleep")),
        *(("SIGUSR1", "in a loop"), ("SIGUSR2", "asleep"), ("SIGXCPU", "asleep")),
        *(("SIGALRM", "in a loop"), ("SIGVTALRM", "asleep"), ("SIGPROF", "asleep")),
    ],
)
def test_a_signal_that_ends_the_program_does_not_end_the_report(
    program: Program, name: str, wait: str
) -> None:
    """The report and the file are written; the exit status is that of the signal."""
    process = program.start(f"{CHAT}chat()\n{WAITS[wait]}")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -getattr(signal, name)
    assert errors.count("\nlangmeter: ") == 1
    assert "Traceback" not in errors
    assert program.calls == 1
    assert not list(program.temporary.iterdir())


#: The kernel may give a signal to any thread, and a wait that has just begun is not interrupted.
UNSEEN = """
import multiprocessing, os, signal, sys, threading, time
lock = multiprocessing.get_context("spawn").Semaphore(0)
def send():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
def wait():
    chat()
    threading.Thread(target=send, daemon=True).start()
    lock.acquire()
"""
#: Where the wait is, and how many processes make a call.
PLACES = {
    "here": ("wait()\n", 1),
    "in a fork": (
        "if os.fork() == 0:\n    wait()\nassert os.wait()[1] == signal.SIGTERM\n"
        "chat()\nos.kill(os.getpid(), signal.SIGTERM)\n",
        2,
    ),
    "beside a descriptor of the program": (
        "signal.set_wakeup_fd(os.open(os.devnull, os.O_WRONLY | os.O_NONBLOCK))\n"
        "assert signal.set_wakeup_fd(-1) > 2\nassert signal.set_wakeup_fd(-1) == -1\nwait()\n",
        1,
    ),
}


@POSIX
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_that_interrupts_no_wait_ends_the_program(program: Program, place: str) -> None:
    """It comes to another thread while the main one waits in C, where no handler runs."""
    code, calls = PLACES[place]
    done = program.run(f"{CHAT}{UNSEEN}{code}")
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert program.calls == calls
    assert done.stderr.count("\nlangmeter: ") == 1


OWN_HANDLERS = {
    "ends": ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", 7),
    "goes on": ("signal.signal(signal.SIGTERM, lambda *_: print('mine'))", 0),
    "ignores": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0),
    "dies by it": (
        "signal.signal(signal.SIGTERM, lambda n, _: (signal.signal(n, signal.SIG_DFL), "
        "os.kill(os.getpid(), n)))",
        -signal.SIGTERM,
    ),
    "in asyncio": (
        "asyncio.run(asyncio.sleep(0)); loop = asyncio.new_event_loop();"
        "loop.add_signal_handler(signal.SIGTERM, print, 'never');"
        "loop.remove_signal_handler(signal.SIGTERM)",
        -signal.SIGTERM,
    ),
}


@POSIX
@pytest.mark.parametrize("name", OWN_HANDLERS)
def test_a_handler_of_the_program_is_left_alone(program: Program, name: str) -> None:
    """It sees the default action before its own, and what it does is done; the report follows."""
    line, code = OWN_HANDLERS[name]
    done = program.run(
        f"import asyncio, os, signal, sys, time\n{CHAT}chat()\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)\n"
        f"{line}\nos.kill(os.getpid(), signal.SIGTERM)\nprint('went on')\n"
    )
    assert done.returncode == code
    assert done.stdout.startswith("True\n")
    assert ("went on" in done.stdout) is (code == 0)
    assert ("mine" in done.stdout) is (name == "goes on")
    assert done.stderr.count("\nlangmeter: ") == 1
    assert program.calls == 1


@POSIX
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(program: Program) -> None:
    """As nohup has it for SIGHUP."""
    done = program.run(
        f"import os, signal\n{CHAT}os.kill(os.getpid(), signal.SIGHUP)\nchat()\n",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert done.returncode == 0
    assert program.calls == 1


def test_os_exit_does_not_lose_the_report(program: Program) -> None:
    """The status is the program's own."""
    done = program.run(f"import os\n{CHAT}chat()\nos._exit(3)\n")
    assert done.returncode == 3
    assert "\nlangmeter: " in done.stderr
    assert program.calls == 1


# --- streams and folders -------------------------------------------------------------------------

STREAMS = {
    "closed": "import sys\nsys.stdout.close()\nsys.stderr.close()\n",
    "taken away": "import sys\nsys.stdout = sys.stderr = None\n",
    "replaced": "import io, sys\nsys.stdout = sys.stderr = io.StringIO()\n",
    "of bytes": "import io, sys\nsys.stdout = sys.stderr = io.BytesIO()\n",
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_the_program_closed_do_not_end_the_report(program: Program, name: str) -> None:
    """It goes where standard error was when the program began; the file is written, too."""
    done = program.run(f"{CHAT}chat()\n{STREAMS[name]}")
    assert done.returncode == 0
    assert "\nlangmeter: " in done.stderr
    assert "Traceback" not in done.stderr
    assert program.calls == 1


def test_the_report_is_written_into_no_file_of_the_program(program: Program) -> None:
    """A file that got the number of standard error keeps what the program wrote."""
    program.run(
        f"import os\n{CHAT}chat()\nos.close(2)\n"
        "kept = os.open('own.txt', os.O_CREAT | os.O_WRONLY)\nassert kept == 2\n"
        "import sys\nsys.stderr.close()\n"
    )
    assert (program.folder / "own.txt").read_text() == ""
    assert program.calls == 1


@POSIX
def test_a_report_that_nobody_can_read_changes_no_exit_code(program: Program) -> None:
    """Standard error is closed from the start, or is a pipe whose reader has gone."""
    (program.folder / "program.py").write_text(f"{CHAT}chat()\nraise SystemExit(4)\n")
    command = f"{sys.executable} -m langmeter run --json out.json program.py"
    for shell in (f"{command} 2>&-", f"{command} >&- 2>&-", f"{{ {command} 2>&1 >&3 | :; }} 3>&1"):
        script = f"set -o pipefail; {shell}"
        command_line = ["bash", "-c", script]
        done = subprocess.run(command_line, cwd=program.folder, capture_output=True, check=False)
        assert done.returncode == 4
        assert program.calls == 1
        (program.folder / "out.json").unlink()


def test_paths_are_those_of_the_start(program: Program) -> None:
    """Though the program changes its directory: the file, prices and settings of a worker, too."""
    elsewhere = program.folder / "elsewhere"
    elsewhere.mkdir()
    (program.folder / "own.toml").write_text('[prices."fake/list"]\ninput = 1\noutput = 1\n')
    (program.folder / "set.toml").write_text("max_series = 77\n")
    done = program.run(
        f"import os\nos.chdir({str(elsewhere)!r})\n{CHAT}chat()\n",
        *("--prices", "own.toml", "--config", "set.toml"),
    )
    assert done.returncode == 0, done.stderr
    assert program.calls == 1
    assert not list(elsewhere.iterdir())


# --- workers -------------------------------------------------------------------------------------

WORKERS = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor

def chat(n):
    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    return FakeListChatModel(responses=["hello"]).invoke("hi").content

def nested(method):
    chat(0)
    child = multiprocessing.get_context(method).Process(target=chat, args=(0,))
    child.start()
    child.join()

if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        pool.map(chat, range(4))
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        list(executor.map(chat, range(2)))
    worker = context.Process(target=nested, args=(method,))
    worker.start()
    worker.join()
    chat(0)
"""


@pytest.mark.parametrize(
    "method", [m for m in ("fork", "spawn", "forkserver") if hasattr(os, "fork") or m == "spawn"]
)
def test_workers_of_multiprocessing_are_in_the_report(program: Program, method: str) -> None:
    """Those of a pool, which ends them by SIGTERM, of an executor, and a worker's own worker."""
    (program.folder / "workers.py").write_text(WORKERS)
    done = program.run(f"import runpy, sys\nsys.argv[1:] = [{method!r}]\n{WORKERS}")
    assert done.returncode == 0, done.stderr
    assert program.calls == 4 + 2 + 2 + 1
    assert done.stderr.count("\nlangmeter: ") == 1
    assert "this process and " in done.stderr
    assert not list(program.temporary.iterdir())


SHARING = """
import multiprocessing, sys, time

def spend(most):
    from langchain_core.language_models.fake_chat_models import FakeListChatModel
    from langmeter import BudgetExceeded
    made = 0
    while made < most:
        try:
            FakeListChatModel(responses=["hello"]).invoke("hi")
            made += 1
        except BudgetExceeded as refusal:
            if refusal.reason == "limit":
                return
            time.sleep(0.05)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    # The first four end before the budget does: what they have not spent is there for the others.
    for most in (5, 1000):
        workers = [context.Process(target=spend, args=(most,)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are metered on Linux")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_share_the_budget_of_the_run(program: Program, method: str) -> None:
    """Eight workers make exactly as many calls as the limit."""
    done = program.run(
        f"import sys\nsys.argv[1:] = [{method!r}]\n{SHARING}", "--budget", "calls=50,action=block"
    )
    assert done.returncode == 0, done.stderr
    totals = program.snapshot.totals
    assert (totals.calls, totals.errors) == (50, 0)
    assert "8 workers" in done.stderr
    assert not list(program.temporary.iterdir())


@POSIX
def test_forked_children_are_in_the_report_however_they_end(program: Program) -> None:
    """By the last line, `os._exit`, an exception, SIGTERM, and SIGKILL: none loses a call."""
    done = program.run(
        f"import os, signal, sys\n{CHAT}"
        "def kill(how):\n    os.kill(os.getpid(), how)\n"
        "ends = [lambda: None, lambda: os._exit(0), lambda: 1 / 0,\n"
        "        lambda: kill(signal.SIGTERM), lambda: kill(signal.SIGKILL)]\n"
        "for end in ends:\n"
        "    if os.fork() == 0:\n        chat()\n        end()\n        sys.exit()\n"
        "    os.wait()\n"
        "chat()\n"
    )
    assert done.returncode == 0
    assert program.calls == len(["last line", "_exit", "exception", "TERM", "KILL"]) + 1
    assert done.stderr.count("\nlangmeter: ") == 1
    assert "this process and 5 workers" in done.stderr


@POSIX
def test_a_worker_that_is_killed_right_after_a_call_loses_nothing(program: Program) -> None:
    """Its figures are in the file before the call returns; a call in flight is abandoned."""
    done = program.run(
        f"import os, signal, sys, time\n{CHAT}"
        "reading, writing = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    for _ in range(20):\n        chat()\n"
        "    os.write(writing, b'.')\n    time.sleep(600)\n"
        "os.read(reading, 1)\nos.kill(child, signal.SIGKILL)\nos.wait()\n"
    )
    assert done.returncode == 0
    assert (program.snapshot.totals.calls, program.snapshot.in_flight) == (20, 0)
    assert program.snapshot.totals.latency.count == 20


def test_a_worker_that_makes_no_call_loads_no_langchain(program: Program) -> None:
    """It would take a second of each."""
    done = program.run(
        "import multiprocessing, sys\n"
        "def work():\n    print(*{'langchain_core', 'langmeter.meter'} & sys.modules.keys())\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    worker.start()\n    worker.join()\n"
    )
    assert done.stdout == "\n"
    assert done.returncode == 0


# --- a program that meters itself, and options ---------------------------------------------------


@pytest.mark.parametrize("settings", ["", "max_runs=1000", "Meter(labels=('team',))"])
def test_the_programs_own_meter_is_its_own(program: Program, settings: str) -> None:
    """It is another one than that of the run, which goes on when the program uninstalls."""
    done = program.run(
        f"from langmeter import Meter, install, uninstall\n{CHAT}"
        f"chat()\nmeter = install({settings})\nassert install({settings and 'meter'}) is meter\n"
        "chat()\nassert uninstall() is meter\nassert uninstall() is None\nchat()\n"
        "print(meter.snapshot().totals.calls)\n"
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert program.calls == 3


def test_options_make_the_meter(program: Program) -> None:
    """Labels, own prices, a budget and settings are those of the command."""
    (program.folder / "own.json").write_text('{"fake/*": {"input": 1, "output": 1}}')
    (program.folder / "set.toml").write_text("significant_digits = 2\n")
    done = program.run(
        f"{CHAT}from langmeter import BudgetExceeded\n"
        "chat(team='search', user=1)\n"
        "try:\n    chat(team='chat')\nexcept BudgetExceeded as error:\n    print(error)\n",
        *("--labels", "team, user", "--prices", "own.json", "--config", "set.toml"),
        *("--budget", "calls=1,per=day,action=block,name=mine"),
    )
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout
    assert ("team", "search") in program.snapshot.labels
    assert program.calls == 1


def test_a_file_of_the_working_directory_makes_the_meter(program: Program) -> None:
    """Also in a worker that begins after the program has changed its directory."""
    (program.folder / "langmeter.toml").write_text('labels = ["team"]\n[[budgets]]\ncalls = 9\n')
    done = program.run(
        "import multiprocessing, os\n"
        "def work():\n"
        "    from langchain_core.language_models.fake_chat_models import FakeListChatModel\n"
        "    model = FakeListChatModel(responses=['hello'])\n"
        "    model.invoke('hi', config={'metadata': {'team': 'search'}})\n"
        "if __name__ == '__main__':\n"
        "    work()\n"
        "    os.chdir('/')\n"
        "    worker = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    worker.start()\n"
        "    worker.join()\n",
    )
    assert done.returncode == 0, done.stderr
    assert program.snapshot.labels["team", "search"].calls == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "a,b,c,d"], "must be up to 3 keys"),
        (["--labels", "team,"], "must be up to 3 keys"),
        (["--prices", "none.toml"], "cannot read {folder}/none.toml: No such file or directory"),
        (["--prices", "."], "cannot read {folder}: Is a directory"),
        (["--prices", "program.py"], "must end in .toml or .json"),
        (["--prices", "empty.json"], "empty.json is not valid JSON"),
        (["--config", "none.toml"], "none.toml"),
        (["--config", "bad.toml"], "max_runs"),
        (["--budget", "usd=five"], "usd must be|usd = 'five': must be"),
        (["--budget", "tokens=1.5"], "tokens"),
        (["--budget", ""], "must be KEY=VALUE"),
        (["--budget", "usd=5,usd=6"], "'usd' must be given once"),
        (["--budget", "usd=5,model=a,model=b"], "'model' must be given once"),
        (["--budget", "usd=5,team=search"], "unknown setting team"),
        (["--budget", "usd=5,per=week"], "per"),
        (["--budget", "per=day"], "exactly one of"),
        (["--json", "none/x.json"], "no such directory; make it first"),
        (["--jso", "x.json"], "unrecognized arguments: --jso"),
    ],
)
def test_options_that_make_no_meter_are_exit_code_2(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One clear line under the usage, before any line of the program has run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text("print('ran')")
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "bad.toml").write_text("max_runs = 0\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", *options, "program.py"])
    assert ended.value.code == 2
    output = capsys.readouterr()
    alternatives = message.format(folder=tmp_path).split("|")
    assert any(text in output.err for text in alternatives), output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_a_bad_setting_of_the_environment_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named as an option would be."""
    monkeypatch.setenv("LANGMETER_MAX_RUNS", "none")
    (tmp_path / "program.py").write_text("print('ran')")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", str(tmp_path / "program.py")])
    assert "LANGMETER_MAX_RUNS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("usd=5", {"usd": "5"}),
        (
            "usd=0.50, per=day, action=block, at=0.5|1.0",
            {"usd": "0.50", "per": "day", "action": "block", "at": (0.5, 1.0)},
        ),
        (
            "tokens=1000,provider=openai,model=gpt-4o*|o3,tag=x,scope.team=search,name=n",
            {
                "tokens": 1000,
                "name": "n",
                "scope": {
                    "provider": "openai",
                    "model": ("gpt-4o*", "o3"),
                    "tag": "x",
                    "team": "search",
                },
            },
        ),
    ],
)
def test_a_budget_is_read_as_its_arguments(text: str, expected: dict[str, Any]) -> None:
    """Each key is an argument of `Budget`, or of its scope."""
    made, wanted = parse_budget(text), Budget(**expected)
    for name in ("unit", "limit", "per", "action", "at", "name", "scope"):
        assert getattr(made, name) == getattr(wanted, name)


def test_a_budget_that_cannot_be_is_a_value_error() -> None:
    """It names the text of the command."""
    for text in ("usd=0", "calls=-1", "at=0.5", "usd=5,at=nought", "usd=5,at=2"):
        with pytest.raises(ValueError, match=f"--budget '{text}': ") as caught:
            parse_budget(text)
        assert not isinstance(caught.value.__context__, TypeError)
        assert isinstance(caught.value, ValueError | ConfigError)


def test_a_json_of_the_demo_is_a_snapshot(program: Program) -> None:
    """What the run writes is what `Snapshot.from_json` reads, labels included."""
    program.run(f"{CHAT}chat(team='x')\n", "--labels", "team", "--labels", "user")
    data = json.loads((program.folder / "out.json").read_text(encoding="utf-8"))
    assert data["models"][0]["calls"] == 1


def test_the_first_process_of_a_container_ends_by_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel ignores a signal's default action there, and the process would go on for ever."""
    monkeypatch.setattr(session, "_set_handler", lambda *_: None)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="143"):
        session._die(signal.SIGTERM)
