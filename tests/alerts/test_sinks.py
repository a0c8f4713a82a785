"""Sinks: a real receiver of webhooks, a real mail server, functions, and the log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest

from langmeter import ConfigError, MeterConfig
from langmeter.alerts import Alert, Webhook
from langmeter.alerts import sinks as sinks_module
from langmeter.alerts.alert import moment
from langmeter.alerts.sinks import Deliveries
from tests.support.waiting import eventually
from tests.support.webhooks import Webhooks, webhooks


def alert(number: int = 1, **figures: Any) -> Alert:
    start = moment(1_790_000_000)
    values: dict[str, Any] = {
        "event_id": f"evt_{number}",
        "status": "firing",
        "name": "slow",
        "rule": "latency.p95 > 2s",
        "severity": "critical",
        "labels": {"model": "gpt-4o"},
        "value": 2.5,
        "threshold": 2.0,
        "unit": "s",
        "count": 40,
        "before": None,
        "window_start": start,
        "at": moment(1_790_000_300),
        "started_at": start,
        "metric": "latency.p95",
    }
    return Alert(**{**values, **figures})


@pytest.fixture
def receiver() -> Iterator[Webhooks]:
    with webhooks() as received:
        yield received


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other in milliseconds."""
    monkeypatch.setattr(sinks_module, "_FIRST_PAUSE", 0.001)


class Sent:
    """Sinks, and what they lost."""

    def __init__(self, *sinks: Any) -> None:
        self.lost: Counter[str] = Counter()
        self.deliveries = Deliveries(sinks, lambda name, n: self.lost.update({name: n}))

    def __call__(self, *alerts: Alert) -> None:
        for each in alerts:
            self.deliveries.notify(each)

    def wait(self) -> None:
        for each in self.deliveries.each:
            assert each.flush(60)


def test_a_webhook_gets_the_alert_as_json(receiver: Webhooks) -> None:
    """Figures, rule and span, and what to look at next."""
    sent = Sent(receiver.url)
    sent(alert(), alert(2, status="resolved"))
    sent.wait()
    first, second = receiver.alerts
    assert first == alert().to_dict()
    assert first["title"] == "firing: slow [model=gpt-4o]: 2.50 s"
    assert first["look_at"].startswith("langmeter bottlenecks")
    assert first["window_start"] == "2026-09-21T14:13:20+00:00"
    assert second["status"] == "resolved"
    assert "webhook-signature" not in receiver.headers[0]


@pytest.mark.parametrize(
    ("secret", "key"),
    [("whsec_" + base64.b64encode(b"\x00\xffkey").decode(), b"\x00\xffkey"), ("plain", b"plain")],
)
def test_a_webhook_is_signed(receiver: Webhooks, secret: str, key: bytes) -> None:
    """As Standard Webhooks have it: id, moment and body, by HMAC-SHA256."""
    sent = Sent(Webhook(url=receiver.url, secret=secret))
    sent(alert())
    sent.wait()
    headers = receiver.headers[0]
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode()
    expected = hmac.digest(key, content + receiver.bodies[0], hashlib.sha256)
    version, _, text = headers["webhook-signature"].partition(",")
    assert version == "v1"
    assert base64.b64decode(text) == expected


def test_the_example_of_standard_webhooks_is_signed_alike() -> None:
    """The figures of the test vector in its specification's libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sinks_module.signature(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_key_may_come_from_the_environment(
    receiver: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the webhook has one, or refuses one."""
    monkeypatch.setenv(sinks_module.SECRET_VARIABLE, "from the environment")
    MeterConfig.load()  # which does not take the variable for a setting
    sent = Sent(receiver.url, Webhook(url=receiver.url, secret=""))
    sent(alert())
    sent.wait()
    assert sorted("webhook-signature" in headers for headers in receiver.headers) == [False, True]


def test_what_is_tried_again_has_the_same_id(receiver: Webhooks) -> None:
    """A receiver that was down gets the alert when it is back, and can tell a repetition."""
    receiver.statuses = [503, 429, 500, 200]
    sent = Sent(receiver.url)
    sent(alert())
    sent.wait()
    assert {headers["webhook-id"] for headers in receiver.headers} == {"evt_1"}
    assert len(receiver.bodies) == 4
    assert not sent.lost
    assert sent.deliveries.each[0].dead_letters == 0


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
def test_a_refusal_is_final(receiver: Webhooks, status: int) -> None:
    """It is not tried again, and counted; a redirected POST would lose its body."""
    receiver.statuses = [status, 200]
    sent = Sent(receiver.url)
    sent(alert(), alert(2))
    sent.wait()
    assert [headers["webhook-id"] for headers in receiver.headers] == ["evt_1", "evt_2"]
    assert sent.deliveries.each[0].dead_letters == 1
    assert sent.lost == {"callback_errors": 1}


def test_a_receiver_that_is_away_is_given_up_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """And logged once, without the path of the address, which is a secret."""
    with webhooks() as received:
        url = received.url
    sent = Sent(Webhook(url=url, retry_for=0.01))
    sent(alert(), alert(2))
    sent.wait()
    assert sent.deliveries.each[0].dead_letters == 2
    (record,) = caplog.records
    assert "did not accept an alert" in record.message
    assert "secret" not in record.message
    assert "secret" not in repr(Webhook(url=url))


def test_a_sink_that_hangs_delays_no_other(
    receiver: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have their alerts meanwhile, and hear of it once."""
    got: list[str] = []
    receiver.hold.clear()
    monkeypatch.setattr(sinks_module, "PATIENCE", -1.0)
    sent = Sent(receiver.url, lambda each: got.append(each.event_id))
    sent(alert(), alert(2), alert(3))
    hanging, working = sent.deliveries.each
    assert working.flush(60)
    assert got == ["evt_1", "evt_2", "evt_3"]
    assert eventually(lambda: hanging.problem() == "no answer for -1 s")
    assert hanging.problem() == ""
    assert working.problem() == ""
    assert not hanging.flush(0)
    receiver.hold.set()
    assert hanging.flush(60)
    assert len(receiver.bodies) == 3


def test_functions_are_called_in_order_and_may_be_async() -> None:
    """What they raise is counted, and reaches the other sinks alone."""
    got: list[str] = []
    threads: set[str] = set()

    async def remember(each: Alert) -> None:
        threads.add(threading.current_thread().name)
        got.append(each.event_id)

    def fail(each: Alert) -> None:
        raise OSError("full")

    sent = Sent(remember, fail)
    sent(*(alert(number) for number in range(5)))
    sent.wait()
    assert got == [f"evt_{number}" for number in range(5)]
    assert threads == {"langmeter-callbacks"}
    assert sent.lost == {"callback_errors": 5}
    assert sent.deliveries.each[1].problem() == "full"


def test_the_log_is_a_sink(caplog: pytest.LogCaptureFixture) -> None:
    """A warning when an alert fires, information when it resolves."""
    caplog.set_level(logging.INFO, "langmeter")
    sent = Sent("logging")
    sent(alert(link="https://example.com"), alert(2, status="resolved"))
    sent.wait()
    firing, resolved = caplog.records
    assert firing.levelno == logging.WARNING
    assert firing.message.split("; ") == [
        "firing: slow [model=gpt-4o]: 2.50 s",
        "rule: latency.p95 > 2s (critical)",
        "span: 2026-09-21 14:13:20 to 14:18:20 UTC, 40 observations",
        "since: 2026-09-21 14:13:20 UTC (5 m 00 s)",
        "look at: langmeter bottlenecks SOURCE: where the time of pipelines goes",
        "link: https://example.com",
    ]
    assert resolved.levelno == logging.INFO


class _Mailbox:
    """Handler of aiosmtpd that keeps messages."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


def test_apprise_sends_mail() -> None:
    """Through a real SMTP server."""
    controller = pytest.importorskip("aiosmtpd.controller")
    pytest.importorskip("apprise")
    mailbox = _Mailbox()
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port = each.getsockname()[1]
    server = controller.Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        address = (
            f"mailto://127.0.0.1:{port}?from=meter@example.com&to=team@example.com&mode=insecure"
        )
        sent = Sent(address)
        sent(alert())
        sent.wait()
        assert sent.deliveries.each[0].dead_letters == 0
    finally:
        server.stop()
    (message,) = mailbox.messages
    assert message["Subject"] == "firing: slow [model=gpt-4o]: 2.50 s"
    assert message["To"].endswith("team@example.com")
    body = message.get_body(("html", "plain")).get_content()
    assert "latency.p95 &gt; 2s" in body or "latency.p95 > 2s" in body


def test_an_address_that_apprise_does_not_know_is_refused() -> None:
    """Without what may be a secret in it."""
    pytest.importorskip("apprise")
    with pytest.raises(ConfigError, match="addresses that apprise knows") as refused:
        Sent("nosuchservice://token")
    assert "token" not in str(refused.value)


@pytest.mark.parametrize("key", ["whsec_%%%"])
def test_a_key_that_is_not_base64_is_refused(key: str) -> None:
    """Without showing it."""
    with pytest.raises(ConfigError, match="secret must be base64") as refused:
        Sent(Webhook(url="https://example.com", secret=key))
    assert "%%%" not in str(refused.value)
