"""Real servers of metrics as processes on loopback: Prometheus, VictoriaMetrics, a Collector.

`make e2e` puts them under target/tools; a test of one that is not there says how it gets there.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

TOOLS = Path(__file__).parents[2] / "target" / "tools"


def tool(name: str, place: str) -> str:
    """The path of a server; skips the test where it is neither under target/tools nor on PATH."""
    path = TOOLS / place
    if path.is_file():
        return str(path)
    if on_path := shutil.which(name):
        return on_path
    pytest.skip(f"{name} is not there: make target/tools/{place.split('/')[0]}")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for a condition, and return what it returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if outcome := condition():
                return outcome
        except (URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise TimeoutError(condition)


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """A process for the time of a block."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Queries:
    """PromQL of a server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, query: str, at: float | None = None) -> dict[tuple[str, ...], float]:
        """Values by the values of their labels, in order of the labels' names."""
        parameters = {"query": query} | ({} if at is None else {"time": str(at)})
        with urlopen(f"{self.url}/api/v1/query?{urlencode(parameters)}", timeout=20) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return {
            tuple(text for _, text in sorted(series["metric"].items())): float(series["value"][1])
            for series in body["data"]["result"]
        }


@contextmanager
def prometheus(targets: dict[str, str], folder: Path) -> Iterator[Queries]:
    """Prometheus that scrapes targets by the names of their jobs, each second."""
    binary = tool("prometheus", "prometheus/usr/bin/prometheus")
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [address]}]}
        for job, address in targets.items()
    ]
    config = folder / "prometheus.yml"  # JSON is YAML
    settings = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config.write_text(json.dumps({"global": settings, "scrape_configs": jobs}))
    url = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url}",
        "--enable-feature=native-histograms",
    ]
    with running(command, folder / "prometheus.log"):
        queries = Queries(f"http://{url}")
        until(lambda: sum(queries("up").values()) == len(targets))
        yield queries


@contextmanager
def victoria_metrics(folder: Path) -> Iterator[Queries]:
    """VictoriaMetrics, which takes OTLP under /opentelemetry."""
    binary = tool("victoria-metrics", "victoria-metrics/victoria-metrics")
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr={address}",
        "-opentelemetry.usePrometheusNaming",
        "-search.latencyOffset=0s",
    ]
    with running(command, folder / "victoria-metrics.log"):
        url = f"http://{address}"
        until(lambda: urlopen(f"{url}/health", timeout=5).status == 200)
        yield Queries(url)


@contextmanager
def collector(forward_to: str, folder: Path) -> Iterator[str]:
    """The OpenTelemetry Collector, which takes OTLP over gRPC and forwards it over HTTP."""
    binary = tool("otelcol", "otelcol/otelcol")
    port = free_port()
    config = folder / "collector.yaml"
    settings = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {"otlphttp": {"endpoint": forward_to, "compression": "none"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["otlphttp"]}},
        },
    }
    config.write_text(json.dumps(settings))
    with running([binary, f"--config={config}"], folder / "collector.log"):

        def listens() -> bool:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True

        until(listens)
        yield f"http://127.0.0.1:{port}"
