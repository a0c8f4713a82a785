"""Recorded traffic of real providers, replayed through their real LangChain clients into a `Meter`.

The oracle is the usage in the recorded bytes, read without LangChain by a program that is not
ours. The recordings lie beside the repository, not in it; without them nothing is tested here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPLAY = ROOT.parent / "shared" / "replay" / "replay.py"
#: Those whose clients are in the test group.
APIS = "openai-chat,openai-responses,anthropic"
#: What the server waits before it answers.
FIRST_MS = 5

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(not REPLAY.is_file(), reason="no recorded traffic beside the repo"),
]


def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own: it empties `os.environ` and disables logging."""
    return subprocess.run(
        [
            sys.executable,
            str(REPLAY),
            "--handler",
            "tests.support.replay_handler:factory",
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One call a meter: two recordings of each kind, in every mode."""
    report = tmp_path_factory.mktemp("replay") / "runs.jsonl"
    slow = ("--timing", "--first-ms", str(FIRST_MS))
    done = replay("--api", APIS, "--quick", "2", *slow, "--report", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]


def test_every_number_that_reaches_a_callback_is_exact(runs: list[dict[str, Any]]) -> None:
    """In all six fields, in every mode; what failed counts nothing."""
    statuses = Counter(run["status"] for run in runs)
    assert not statuses["FAIL"] + statuses["MISSING"] + statuses["client-error"]
    # `client-lost`: langchain-anthropic drops the input tokens of streams that name them only at
    # their start.
    assert {run["api"] for run in runs if run["status"] == "client-lost"} <= {"anthropic"}
    exact = Counter((run["api"], run["mode"]) for run in runs if run["status"] == "ok")
    modes = ("invoke", "ainvoke", "stream", "astream", "invoke_stream")
    assert set(exact) == {(api, mode) for api in APIS.split(",") for mode in modes}


def test_providers_have_the_names_of_opentelemetry(runs: list[dict[str, Any]]) -> None:
    """One label a call, and it is the vendor's."""
    labels = {(run["api"], label[0]) for run in runs for label in run["labels"]}
    assert labels == {
        ("openai-chat", "openai"),
        ("openai-responses", "openai"),
        ("anthropic", "anthropic"),
    }


def test_one_meter_with_32_calls_in_flight_is_exact(runs: list[dict[str, Any]]) -> None:
    """Sums over all calls and of each model, by the name in its response."""
    lost = {run["id"] for run in runs if run["status"] != "ok"}
    reachable = {run["id"] for run in runs} - lost
    done = replay("--id", ",".join(sorted(reachable)), "--aggregate", "--concurrency", "32")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 client errors" in done.stdout
    equal, models = map(int, re.findall(r"(\d+)/(\d+) equal in all fields", done.stdout)[0])
    assert equal == models > 1, done.stdout
    assert "labels that no response carried" not in done.stdout


def test_no_time_is_shorter_than_the_servers_or_longer_than_the_call(
    runs: list[dict[str, Any]],
) -> None:
    """The wait for the first byte ≤ time to first token ≤ latency ≤ the whole call, in each run."""
    bucket = 1.001
    streamed = 0
    for run in runs:
        latency, first = run["timing"]["latency_s"], run["timing"]["ttft_s"]
        assert latency * bucket >= FIRST_MS / 1e3, run
        assert latency <= run["wall"] * bucket, run
        assert first is None or FIRST_MS / 1e3 / bucket <= first <= latency * bucket, run
        streamed += first is not None
    assert streamed > len(runs) / 4
