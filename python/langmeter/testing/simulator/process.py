"""`Simulator`: the simulator in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from .ground_truth import Truth
from .traffic import Traffic


class Simulator:
    """The simulator in a child process, as a context manager; may be entered again, at zero.

    Args:
        seed: the same seed and the same requests give the same replies.
        port: 0 for a free one.
        **traffic: any other field of `Traffic`, e.g. `speed=20` or `rate_limited=0.5`.

    Raises:
        TypeError: `traffic` names no field of `Traffic`.
        ValueError: a value is outside its range.
    """

    def __init__(self, seed: int = 0, *, port: int = 0, **traffic: Any) -> None:
        self.traffic = Traffic(seed=seed, **traffic)
        self._port = port
        self._child: subprocess.Popen[str] | None = None
        self._url = ""
        self._last: Truth | None = None

    @property
    def url(self) -> str:
        """The `base_url` of OpenAI's clients, ending in /v1; "" before the service has started."""
        return self._url

    @property
    def root(self) -> str:
        """The address without a path, for clients of Anthropic and Google."""
        return self._url.removesuffix("/v1")

    def truth(self) -> Truth:
        """Return what was sent until now, or until the end once the service has stopped.

        Whatever a client has received completely is in it. A client that left is in it as soon as
        the service has noticed, which is at its next write.

        Raises:
            RuntimeError: the service has not started, or it died.
        """
        if self._child is None:
            if self._last is None:
                raise RuntimeError("the simulator is not running and left no truth; enter it first")
            return self._last
        address = urlsplit(self._url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            connection.request("GET", "/truth")
            return Truth.from_dict(json.load(connection.getresponse()))
        except (OSError, http.client.HTTPException) as error:
            code = self._child.poll()
            raise RuntimeError(f"the simulator does not answer (exit code {code})") from error
        finally:
            connection.close()

    def __enter__(self) -> Simulator:
        """Start the service and wait until it listens."""
        if self._child is not None:
            raise RuntimeError("the simulator is already running")
        # A process, not a thread: what the service computes is then not taken from the program
        # under the meter. 150 streams of 8,100 tokens took 5.3 s of that program's CPU beside a
        # process and 6.8 s beside an asyncio thread.
        traffic = json.dumps(asdict(self.traffic))
        command = ["--until-eof", "--port", str(self._port), "--traffic", traffic]
        root = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        child = subprocess.Popen(
            [sys.executable, "-m", __name__.rpartition(".")[0], *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            child.communicate()
            raise RuntimeError(f"the simulator did not start (exit code {child.returncode})")
        self._url, self._last, self._child = json.loads(line)["url"], None, child
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep the truth and end the service; clients still connected see their connection end."""
        child = self._child
        assert child is not None
        try:
            self._last = self.truth()
        except RuntimeError:
            self._last = None  # `truth()` says so when it is called
        self._child = None
        # Killed, not asked: a polite end of uvicorn takes 0.2 s, and there is nothing to save.
        child.kill()
        child.communicate()
