"""`Server`: the simulator in a thread of this process, whose replies a test can script."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

import uvicorn

from .app import Service
from .ground_truth import Truth
from .reply import Raw, Reply
from .traffic import Request, Traffic


class Server:
    """The simulator on a loopback port, served by uvicorn in a thread.

    Args:
        traffic: the shape of replies that are not scripted; None for the defaults.
        port: 0 for a free one.
        keep_alive: False closes each connection after its reply. Clients that outlive an event
            loop, as LangChain's cached ones do in tests, need that: they would use a connection
            that belongs to a loop that is closed.

    Raises:
        OSError: the port is in use.
    """

    def __init__(
        self, traffic: Traffic | None = None, *, port: int = 0, keep_alive: bool = True
    ) -> None:
        self._service = Service(traffic or Traffic())
        # The default backlog of 100 refuses some of a few hundred clients that come at once.
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._service.app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                # Broken connections are what a test wants; uvicorn takes them for errors.
                log_level="critical",
                access_log=False,
                date_header=False,
                server_header=False,
                headers=[] if keep_alive else [("connection", "close")],
                backlog=1024,
                # Clients decide when a connection ends: a test may pause longer than 5 seconds.
                timeout_keep_alive=3600,
                timeout_graceful_shutdown=0,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="langmeter-simulator", daemon=True
        )

    @property
    def root(self) -> str:
        """The address without a path, for clients of Anthropic and Google."""
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    @property
    def url(self) -> str:
        """The `base_url` of OpenAI's clients: `root` and /v1."""
        return f"{self.root}/v1"

    def script(self, *replies: Reply | Raw) -> None:
        """Answer the next requests with these replies, and all further ones with the last.

        Without replies the traffic is drawn again.
        """
        self._service.script = list(replies)

    def answer(self, function: Callable[[Request], Reply | Raw | None] | None) -> None:
        """Answer each request with what a function of it returns; None draws the traffic again.

        The function runs in the event loop of the service, one request after the other. Where it
        returns None, the script or the traffic answers; a ValueError of it is a refused request.
        """
        self._service.answer = function

    def truth(self) -> Truth:
        """Return what was sent until now.

        Whatever a client has received completely is in it. A client that left is in it as soon as
        the service has noticed, which is at its next write.
        """
        return self._service.tally.truth()

    def __enter__(self) -> Server:
        """Start the thread; the port listens already."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all connections and the thread."""
        self._server.should_exit = True
        self._thread.join()
