"""A receiver of webhooks: what came, and the answers that a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhooks:
    """Requests that came, and the status of the next answers; the last one is repeated.

    Attributes:
        url: address that takes them.
        bodies: as they came.
        headers: of each, by lower-case name.
        statuses: of the next answers; 302 leads elsewhere.
        hold: each answer waits for it.
    """

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.statuses = [200]
        self.hold = threading.Event()
        self.hold.set()

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """The bodies as JSON."""
        return [json.loads(body) for body in self.bodies]


@contextmanager
def webhooks() -> Iterator[Webhooks]:
    """A receiver for the time of a block."""
    received = Webhooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.headers.append({name.lower(): text for name, text in self.headers.items()})
            received.bodies.append(body)
            received.hold.wait(60)
            several = len(received.statuses) > 1
            status = received.statuses.pop(0) if several else received.statuses[0]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{received.url}elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    received.url = f"http://127.0.0.1:{server.server_address[1]}/secret/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield received
    finally:
        received.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
