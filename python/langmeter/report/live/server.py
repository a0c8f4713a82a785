"""Server of the live page, in a thread."""

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


def start(
    source: Source,
    port: int = PORT,
    host: str = HOST,
    *,
    token: str | None = None,
    names: Iterable[str] = (),
    title: str = "langmeter live",
) -> LiveServer:
    """Serve the live page of a source from a thread of this process.

    `/metrics` and `/snapshot.json` are served beside it. The source is read once a second for all
    viewers together, and not at all without one.

    Args:
        source: a meter, or any other source of `langmeter.sources.open`; of a history the page has
            spans of time instead of the last minutes.
        port: to listen on; 0 for a free one.
        host: address to listen on. Any that other machines reach wants a token.
        token: 16 or more characters that a reader must know, as `Authorization: Bearer TOKEN` or
            once at the page, which keeps a cookie. None for that of the variable LANGMETER_TOKEN;
            where there is none, a new one for an address that other machines reach, else none.
        names: further names under which browsers reach the server, those of a proxy.
        title: heading of the page.

    Raises:
        ConfigError: an argument is not one of these, or the source is unknown.
        OSError: the address cannot be listened on.
    """
    whole_number("port", port, 0, 65_535)
    wanted, is_new = token_for(host, token)
    site = Site(source, printable(title))
    return LiveServer(site, Guard(site.app, host, wanted, names), host, port, wanted, is_new)


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


class LiveServer:
    """Server of the live page in a thread; made by `start`, and a context manager.

    Attributes:
        port: port that it listens on.
        url: address of the page, e.g. "http://127.0.0.1:8484/".
        token: what a reader must know; "" for none.
        is_new: whether the token was made here.
    """

    def __init__(
        self, site: Site, pages: ASGIApp, host: str, port: int, token: str, is_new: bool
    ) -> None:
        self.token, self.is_new, self._site = token, is_new, site
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self.port = int(self._socket.getsockname()[1])
        name = socket.gethostname() if host in _ALL else f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.port}/"
        self._server = _Server(pages, site.close)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="langmeter-live", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until the server ends, or an interrupt."""
        while self._thread.is_alive():
            self._thread.join(1)  # on Windows an endless one is not interrupted

    def close(self) -> None:
        """End the server; may be called again."""
        self._server.should_exit = True
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
