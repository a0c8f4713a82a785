"""Server of the live page, in a thread or until it is interrupted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from langmeter._base.check import whole_number
from langmeter._base.text import printable
from langmeter.report.live.guard import Guard, token_for
from langmeter.report.live.site import Site
from langmeter.sources import Source

PORT: Final = 8484
HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128
#: Addresses that stand for all of the machine.
_ALL: Final = ("0.0.0.0", "::", "")


class LiveServer:
    """Server of the live page of a source; made by `start`, and a context manager.

    Attributes:
        port: port that it listens on.
        url: address of the page, e.g. "http://127.0.0.1:8484/".
        token: what a reader must know; "" for none.
        is_new: whether the token was made here.
    """

    def __init__(
        self,
        source: Source,
        port: int = PORT,
        host: str = HOST,
        *,
        token: str | None = None,
        names: Iterable[str] = (),
        title: str = "langmeter live",
    ) -> None:
        whole_number("port", port, 0, 65_535)
        self.token, self.is_new = token_for(host, token)
        self._site = Site(source, printable(title))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self.port = int(self._socket.getsockname()[1])
        name = socket.gethostname() if host in _ALL else f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.port}/"
        app = Guard(self._site.app, host, self.token, names)
        self._server = _Server(app, self._site.close)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until the process is interrupted."""
        self._server.run([self._socket])

    def begin(self) -> None:
        """Serve from a thread."""
        run = self._server.run
        self._thread = threading.Thread(
            target=run, args=([self._socket],), name="langmeter-live", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the server; may be called again."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Config(uvicorn.Config):
    """Settings of a server that leaves the loggers of its host alone."""

    def configure_logging(self) -> None:
        """Configure nothing: loggers belong to the process, which may run another uvicorn."""


class _Protocol(H11Protocol):
    """HTTP without a log of requests, whose addresses may have the token."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.access_log = False


class _Server(uvicorn.Server):
    """Server whose viewers are sent away before it waits for them."""

    def __init__(self, app: ASGIApp, leave: Callable[[], None]) -> None:
        config = _Config(
            app,
            loop="asyncio",
            http=_Protocol,
            ws="none",
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._leave = leave

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the viewers, then the server."""
        self._leave()
        await super().shutdown(sockets)


def app(
    source: Source,
    host: str = HOST,
    *,
    token: str | None = None,
    names: Iterable[str] = (),
    title: str = "langmeter live",
) -> ASGIApp:
    """Return the pages as an ASGI application, for a server of your own."""
    wanted, _ = token_for(host, token)
    return Guard(Site(source, printable(title)).app, host, wanted, names)
