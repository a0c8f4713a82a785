"""Sinks: how alerts get to people, each from a thread of its own.

A sink that hangs or fails delays no other. What it does not accept is sent again at growing pauses,
then counted as a dead letter; the other sinks hear of a sink that does not work.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import random
import threading
from collections.abc import Callable, Iterable
from email.message import Message
from time import monotonic, time
from typing import IO, Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from langmeter import _core
from langmeter._base.check import refusal
from langmeter._base.delivery import Count, Listener, Queue, Queued, is_async
from langmeter._base.log import log
from langmeter.alerts.alert import Alert
from langmeter.alerts.options import RETRY_FOR, Sink, Webhook

__all__ = ["SECRET_VARIABLE", "Deliveries", "Delivery", "Refused", "signature"]

#: Variable with the key that bodies are signed with.
SECRET_VARIABLE: Final = "LANGMETER_WEBHOOK_SECRET"
_PREFIX: Final = "whsec_"
#: Seconds between two tries, at first and at most; doubled each time.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
#: Seconds that an alert may wait for its sink before the other sinks hear of that.
PATIENCE: Final = 30.0
#: Bytes of an answer that are read.
_ANSWER: Final = 65_536


class Refused(Exception):  # noqa: N818 (an answer, and not always an error)
    """A receiver did not accept an alert.

    Attributes:
        final: whether another try would get the same answer.
        after: seconds that the receiver asks to wait for; 0 if it does not.
    """

    def __init__(self, message: str, *, final: bool, after: float = 0.0) -> None:
        super().__init__(message)
        self.final = final
        self.after = after


class Delivery:
    """Sends alerts to one sink, in order, from a thread of its own.

    Args:
        name: of the sink, without its secrets.
        send: sends one alert; raises what goes wrong.
        retry_for: seconds after which an alert that is not accepted is given up.
        count: counts what is given up as `callback_errors`.

    Attributes:
        dead_letters: alerts that were given up.
    """

    def __init__(
        self, name: str, send: Callable[[Alert], object], retry_for: float, count: Count
    ) -> None:
        self.name = name
        self.dead_letters = 0
        self._send = send
        self._retry_for = retry_for
        self._count = count
        self._problem = ""
        self._is_reported = False
        self.reset_after_fork()
        self._listener = Listener("sinks", self._deliver, self._queue, count)

    def reset_after_fork(self) -> None:
        """Begin anew: a forked child has not the thread of its parent."""
        if not hasattr(self, "_queue"):
            self._queue = Queue(Queued(queue_size=1024, when_full="drop_oldest"))
        self._queue.reset()
        self._ended = threading.Event()
        self._since: float | None = None

    def notify(self, alert: Alert) -> None:
        """Send an alert, soon."""
        try:
            self._listener.notify(alert)
        except RuntimeError:  # no thread begins at the end of the interpreter
            self._ended.set()
            self._deliver(alert)

    def flush(self, timeout: float) -> bool:
        """Wait until every alert is accepted or given up; False when that takes longer."""
        return self._ended.is_set() or self._queue.flush(max(timeout, 0.0))

    def close(self) -> None:
        """Try what waits once more, and then not again."""
        self._ended.set()

    def problem(self) -> str:
        """Return why the sink does not work, once for each time that it ceases to; "" otherwise."""
        since = self._since
        hangs = since is not None and monotonic() - since > PATIENCE
        if self._is_reported or not (hangs or self._problem):
            return ""
        self._is_reported = True
        return self._problem or f"no answer for {PATIENCE:.0f} s"

    def _deliver(self, alert: Alert) -> None:
        self._since = begin = monotonic()
        pause = _FIRST_PAUSE
        while True:
            try:
                self._send(alert)
            except Exception as error:
                cause = error
            else:
                if self._problem or self._is_reported:
                    log.info("the sink %s accepts alerts again", self.name)
                self._problem, self._is_reported, self._since = "", False, None
                return
            is_final = isinstance(cause, Refused) and cause.final
            wait = pause * random.uniform(0.5, 1.0)
            if isinstance(cause, Refused):
                wait = max(wait, min(cause.after, _LONGEST_PAUSE))
            if is_final or self._ended.is_set() or monotonic() + wait - begin > self._retry_for:
                break
            self._ended.wait(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self.dead_letters += 1
        self._count("callback_errors", 1)
        if not self._problem:
            log.warning("the sink %s did not accept an alert: %s", self.name, cause)
        self._problem = str(cause) or type(cause).__name__
        self._since = None


class Deliveries:
    """All sinks of a meter."""

    def __init__(self, sinks: Iterable[Sink], count: Count) -> None:
        self.each = [_delivery(sink, count) for sink in sinks]

    def notify(self, alert: Alert, *, without: Delivery | None = None) -> None:
        """Send an alert to every sink, but for one."""
        for delivery in self.each:
            if delivery is not without:
                delivery.notify(alert)

    def flush(self, deadline: float) -> bool:
        """Wait for all sinks until a moment of `monotonic`; returns whether all have finished."""
        finished = [delivery.flush(deadline - monotonic()) for delivery in self.each]
        return all(finished)


def _delivery(sink: Sink, count: Count) -> Delivery:
    if isinstance(sink, str):
        if sink == "logging":
            return Delivery("logging", _log, 0.0, count)
        if urlsplit(sink).scheme not in ("http", "https"):
            return _apprise(sink, count)
        sink = Webhook(url=sink)
    if isinstance(sink, Webhook):
        host = urlsplit(sink.url)
        name = f"{host.scheme}://{host.hostname}"
        return Delivery(name, _Post(sink), sink.retry_for, count)
    name = getattr(sink, "__qualname__", repr(sink))
    return Delivery(name, _caller(sink), 0.0, count)


def _log(alert: Alert) -> None:
    (log.warning if alert.status == "firing" else log.info)(
        "%s", "; ".join(alert.text().splitlines())
    )


def _caller(function: Callable[[Alert], Any]) -> Callable[[Alert], Any]:
    if not is_async(function):
        return function
    return lambda alert: asyncio.run(function(alert))


def _apprise(url: str, count: Count) -> Delivery:
    """Return the sink of an address of apprise; ConfigError where apprise does not know it."""
    try:
        import apprise
    except ImportError as error:
        scheme = url.partition("://")[0]
        message = f'alerts to {scheme}:// need pip install "langmeter[alerts]"'
        raise ImportError(message) from error
    service = apprise.Apprise()
    if not service.add(url):
        scheme = url.partition("://")[0]
        raise refusal("sinks", "addresses that apprise knows", f"{scheme}://…")

    def send(alert: Alert) -> None:
        kind = "success" if alert.status == "resolved" else "warning"
        if alert.severity == "critical" and alert.status == "firing":
            kind = "failure"
        if not service.notify(title=alert.title(), body=alert.text(), notify_type=kind):
            raise Refused("apprise could not deliver it", final=False)

    name = f"{url.partition('://')[0]}://…"
    return Delivery(name, send, RETRY_FOR, count)


class _NoRedirect(HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET without a body."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class _Post:
    """Sends alerts to a webhook, signed as Standard Webhooks have it."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        secret = os.environ.get(SECRET_VARIABLE, "") if webhook.secret is None else webhook.secret
        self._key = _key(secret)
        self._open = build_opener(_NoRedirect).open

    def __call__(self, alert: Alert) -> None:
        body, at = alert.to_json(), str(int(time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"langmeter/{_core.__version__}",
            "webhook-id": alert.event_id,
            "webhook-timestamp": at,
        }
        if self._key:
            headers["webhook-signature"] = signature(self._key, alert.event_id, at, body)
        request = Request(self._webhook.url, body, headers, method="POST")
        try:
            with self._open(request, timeout=self._webhook.timeout) as answer:
                answer.read(_ANSWER)
        except HTTPError as error:
            with error:
                after = error.headers.get("Retry-After", "")
            seconds = float(after) if after.isdigit() else 0.0
            is_final = 300 <= error.code < 500 and error.code != 429
            message = f"HTTP {error.code} {error.reason}"
            raise Refused(message, final=is_final, after=seconds) from None


def signature(key: bytes, event_id: str, at: str, body: bytes) -> str:
    """Return the signature of a body: `v1,` and the base64 of its HMAC-SHA256."""
    digest = hmac.new(key, b".".join((event_id.encode(), at.encode(), body)), hashlib.sha256)
    return f"v1,{base64.b64encode(digest.digest()).decode()}"


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        what = f"base64 after {_PREFIX}"
        raise refusal("secret", what, f"{_PREFIX}…", "leave out the prefix") from None
