"""Other systems: langmeter is imported and meters where the system lacks what POSIX has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import langmeter

#: Takes away what Python on Windows does not have, once the libraries are loaded, which know where
#: they are; then langmeter is imported, each module of it, and meters.
WINDOWS = """
import asyncio, importlib, multiprocessing, os, pkgutil, signal, subprocess, sys, tempfile, uuid
import langchain_core.callbacks, langchain_core.language_models, langchain_core.tracers
import genai_prices, httpx, rich, sqlalchemy, alembic, starlette, uvicorn, prometheus_client
import opentelemetry.sdk.metrics, opentelemetry.exporter.otlp.proto.http.metric_exporter
import opentelemetry.exporter.otlp.proto.grpc.metric_exporter, opentelemetry.sdk.trace.export

for module in ("fcntl", "pwd", "grp", "resource", "termios", "syslog"):
    sys.modules[module] = None  # importing it raises ImportError
for module, names in {
    os: "fork register_at_fork geteuid getuid killpg waitpid O_CLOEXEC O_NOFOLLOW O_NONBLOCK "
    "sched_getaffinity WIFSIGNALED",
    signal: "SIGKILL SIGHUP SIGXFSZ SIGPIPE SIGALRM SIGUSR1 pthread_sigmask",
}.items():
    for name in names.split():
        getattr(module, name)
        delattr(module, name)
sys.platform = "win32"

import langmeter
for module in pkgutil.walk_packages(langmeter.__path__, "langmeter."):
    if not module.name.endswith("__main__") and ".migrations" not in module.name:
        importlib.import_module(module.name)

meter = langmeter.Meter()
model = langchain_core.language_models.FakeListChatModel(responses=["42"])
model.invoke("Why?", config={"callbacks": [meter]})
assert meter.snapshot().totals.calls == 1
try:
    langmeter.Meter(directory="x")
except langmeter.ConfigError as error:
    print(error)
try:
    langmeter.read(".")
except langmeter.ConfigError as error:
    print(error)
"""


@pytest.mark.process
def test_it_meters_without_what_windows_lacks(tmp_path: Path) -> None:
    """Every module is imported, calls are counted, and directories are refused with a remedy."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WINDOWS],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(langmeter.__file__).parents[1]), "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    remedy = "export by OTLP (langmeter.exporters.otlp), or write a history"
    assert done.stdout.splitlines() == [
        f"directory must be left out on win32, got 'x'; {remedy}",
        f"directory must be left out on win32, got '.'; {remedy}",
    ]
