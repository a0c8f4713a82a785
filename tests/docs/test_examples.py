"""The programs under examples run, and their databases hold what they say."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from langmeter import sources
from langmeter.history import History
from tests.support.pages import ROOT, run

pytestmark = [pytest.mark.process, pytest.mark.clients]


@pytest.mark.parametrize(
    ("name", "output", "calls"),
    [
        ("history_graph", ["chat: 6 calls", "search: 4 calls"], 10),
        ("history_pool", ["gpt-4o-mini-2024-07-18: 12 calls"], 12),
    ],
)
def test_a_program_with_a_history_adds_to_it(
    name: str, output: list[str], calls: int, tmp_path: Path
) -> None:
    """Run twice, it has the calls of both runs."""
    command = f"{shlex.quote(sys.executable)} -W error {ROOT}/examples/{name}.py metrics.db"
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    for line in output:
        assert line in done.stdout
    assert run(command, tmp_path).returncode == 0
    assert History(tmp_path / "metrics.db").snapshot().totals.calls == 2 * calls


def test_a_web_service_has_its_metrics() -> None:
    """FastAPI beside the pages: what it was asked is what Prometheus would scrape."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port = each.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, f"{ROOT}/examples/fastapi_metrics.py", str(port)]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                page = urllib.request.urlopen(f"{url}/metrics", timeout=5).read()
                break
            except OSError:
                assert service.poll() is None, service.stderr and service.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        for team in ("search", "search", "checkout"):
            question = f"{url}/ask?question=2%2B2&team={team}"
            assert urllib.request.urlopen(question, timeout=30).status == 200
        page = urllib.request.urlopen(f"{url}/metrics", timeout=5).read()
        calls = {
            sample.labels["langmeter_label_value"]: sample.value
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
            if sample.name == "langmeter_label_calls_total"
        }
        # The simulator refuses some calls, which the client makes again inside of one.
        assert calls == {"search": 2, "checkout": 1}
        assert sources.read(f"{url}/snapshot.json").totals.calls == 3
        with pytest.raises(OSError, match="404"):
            urllib.request.urlopen(f"{url}/other", timeout=5)
    finally:
        service.terminate()
        service.communicate(timeout=30)
