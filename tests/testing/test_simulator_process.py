"""The simulator as a process of its own, in a thread, and from the command line."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from langmeter.testing.simulator import OUTCOMES, Sent, Simulator, Traffic, Truth
from langmeter.testing.simulator.__main__ import main
from langmeter.testing.simulator.server import Server

pytestmark = pytest.mark.process

NO_FAULTS: dict[str, Any] = {"rate_limited": 0.0, "server_error": 0.0, "broken": 0.0}


def request(service: Simulator | Server, *questions: str) -> None:
    """Send questions as chat completions, one after the other on one connection."""
    with httpx.Client(trust_env=False) as client:
        for question in questions:
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
            client.post(f"{service.url}/chat/completions", json=body).raise_for_status()


def test_same_seed_same_truth() -> None:
    """A process and a thread with one seed send the same to the same requests, in any order."""
    questions = [f"question {n % 9}" for n in range(20)]
    with (
        Simulator(9, speed=math.inf, **NO_FAULTS) as outside,
        Server(Traffic(9, speed=math.inf, **NO_FAULTS)) as inside,
    ):
        request(outside, *questions)
        request(inside, *reversed(questions))
        assert outside.truth() == inside.truth()
    assert outside.truth() == inside.truth()
    assert outside.truth().sent("ok").calls == 20


def test_truth_is_kept() -> None:
    """The truth outlives the service, travels as plain data and is new at a second start."""
    service = Simulator(1, speed=math.inf, **NO_FAULTS)
    assert (service.url, service.root) == ("", "")
    with pytest.raises(RuntimeError, match="not running"):
        service.truth()
    with service:
        assert service.url == f"{service.root}/v1"
        request(service, "Hello")
        with pytest.raises(RuntimeError, match="already running"):
            service.__enter__()
    truth = service.truth()
    assert truth.sent("ok", model="gpt-4o-mini-2024-07-18").calls == 1
    assert truth.sent(model="gpt-4o") == Sent()
    assert Truth.from_dict(json.loads(json.dumps(truth.to_dict()))) == truth
    assert set(truth.models["gpt-4o-mini-2024-07-18"]) <= set(OUTCOMES)
    with service:
        assert service.truth() == Truth({})


def test_death_is_reported() -> None:
    """A service that has died says so when its truth is requested, at once and later."""
    service = Simulator()
    with service:
        assert service._child is not None
        service._child.kill()
        service._child.wait()
        with pytest.raises(RuntimeError, match=r"does not answer \(exit code -9\)"):
            service.truth()
    with pytest.raises(RuntimeError, match="left no truth"):
        service.truth()


def test_port_in_use(capfd: pytest.CaptureFixture[str]) -> None:
    """A port that is taken is an error at the start."""
    with Server() as server:
        port = urlsplit(server.url).port or 0
        with pytest.raises(OSError, match="in use"):
            Server(port=port)
        with pytest.raises(RuntimeError, match=r"did not start \(exit code 1\)"):
            Simulator(port=port).__enter__()
    assert "in use" in capfd.readouterr().err


def test_unknown_setting() -> None:
    """A setting that does not exist is a TypeError, before anything starts."""
    with pytest.raises(TypeError, match="velocity"):
        Simulator(velocity=3)


def test_alone() -> None:
    """`python -m langmeter.testing.simulator` serves until Ctrl-C."""
    command = [sys.executable, "-m", "langmeter.testing.simulator", "--traffic", '{"seed": 3}']
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["url"].startswith("http://127.0.0.1:")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130


@pytest.mark.parametrize("traffic", ["{", '{"velocity": 1}', '{"speed": 0}'])
def test_alone_refuses(traffic: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Impossible traffic is a usage error."""
    with pytest.raises(SystemExit, match="2"):
        main(["--traffic", traffic])
    assert "error:" in capsys.readouterr().err


def test_until_eof(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The service of a `Simulator` ends with its standard input, not with Ctrl-C."""
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"anything")))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["--until-eof"]) == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads(capsys.readouterr().out)["url"].endswith("/v1")
