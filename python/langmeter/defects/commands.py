"""Commands of the user, run with limits. This is not a sandbox."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from langmeter._base.check import real_number, refusal, whole_number

#: Sets the limits and becomes the command. A program of its own, because `preexec_fn` may hang
#: where the host has threads. Python ignores SIGXFSZ, and its children would inherit that.
_LAUNCH: Final = """
import os, resource, signal, sys
cpu, memory, size = map(int, sys.argv[1:4])
for name, value in ("CPU", cpu), ("AS", memory), ("FSIZE", size), ("CORE", 0):
    limit = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
try:
    os.execv(sys.argv[4], sys.argv[4:])
except OSError:
    sys.exit(127)
"""
#: Exit codes of a command that could not be run.
_NOT_RUN: Final = (126, 127)


@dataclass(frozen=True)
class Limits:
    """Limits of a command.

    They end a runaway command; they do not keep a hostile one from files or the network, and a
    process that leaves its process group lives on. For that, run a container as the command.

    Attributes:
        seconds: wall time. Then the process group is killed.
        cpu_seconds: CPU time of each process, whole seconds.
        memory: bytes of address space of each process.
        output: bytes of each file that it writes; what it prints is one of them.
    """

    seconds: float = 60.0
    cpu_seconds: int = 60
    memory: int = 2 * 2**30
    output: int = 16 * 2**20

    def __post_init__(self) -> None:
        if real_number("seconds", self.seconds, 0, 86_400) == 0:
            raise refusal("seconds", "more than 0", self.seconds)
        whole_number("cpu_seconds", self.cpu_seconds, 1, 86_400)
        whole_number("memory", self.memory, 16 * 2**20, 2**62)
        whole_number("output", self.output, 1, 2**62)


@dataclass(frozen=True)
class Command:
    """Program with arguments, run in an empty temporary directory and never by a shell.

    It gets `PATH`, and `HOME` and `TMPDIR` in that directory: no other variable of the host, whose
    secrets a model's code could read there.

    Attributes:
        arguments: the program and its arguments; `{file}` stands for the file to check.
        limits: when it is ended.
        env: environment variables that it gets besides.

    Raises:
        ConfigError: `arguments` is not a list of texts, or the system is Windows, which lacks the
            limits.
    """

    arguments: Sequence[str]
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.arguments
        if sys.platform == "win32":
            raise refusal("Command", "left out on win32", given, "write a scorer in Python")
        remedy = 'write ["cc", "-c", "{file}"]'
        if not isinstance(given, list | tuple) or not given:
            raise refusal("arguments", "a list of texts", given, remedy)
        if not all(isinstance(each, str) and "\0" not in each for each in given):
            raise refusal("arguments", "a list of texts", given, remedy)

    def run(self, name: str, text: str) -> tuple[int | None, str]:
        """Run it on a file. Returns the exit code, None at the limit of wall time, and its output.

        Raises OSError where it cannot be run at all.
        """
        with (
            tempfile.TemporaryDirectory(prefix="langmeter-", ignore_cleanup_errors=True) as folder,
            tempfile.TemporaryFile() as output,
        ):
            file = Path(folder, name)
            file.write_bytes(text.encode("utf-8", "surrogateescape"))
            path = os.environ.get("PATH", os.defpath)
            env = {"PATH": path, "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8", **self.env}
            program = shutil.which(self.arguments[0], path=env["PATH"])
            if program is None:
                raise FileNotFoundError(f"no program {self.arguments[0]}")
            rest = [each.replace("{file}", str(file)) for each in self.arguments[1:]]
            limits = map(str, (self.limits.cpu_seconds, self.limits.memory, self.limits.output))
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-c",
                    _LAUNCH,
                    *limits,
                    os.path.abspath(program),
                    *rest,
                ],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                # A file, not a pipe: its size is limited, and a process that lives on holds none.
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            try:
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(self.limits.seconds)
            finally:  # also what it left running in the background
                if sys.platform != "win32":  # there none can be made
                    with suppress(OSError):
                        os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if code in _NOT_RUN:
                raise OSError(f"{self.arguments[0]} cannot be run: exit code {code}")
            output.seek(0)
            printed = output.read(self.limits.output).decode("utf-8", "replace")
            return code, printed.replace(f"{folder}{os.sep}", "")
