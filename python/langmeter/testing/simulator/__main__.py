"""`python -m langmeter.testing.simulator`: the service alone, for any OpenAI client, until Ctrl-C.

Prints one line of JSON, `{"url": …}`, when it listens. `--until-eof` is for `Simulator`, whose
child this is: the service then ends with its standard input, so that it never outlives its parent,
and leaves Ctrl-C to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import threading
from collections.abc import Sequence

from .server import Server
from .traffic import Traffic


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on 127.0.0.1; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m langmeter.testing.simulator", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--traffic", default="{}", help='fields of Traffic, e.g. {"seed": 7}')
    parser.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        traffic = Traffic(**json.loads(options.traffic))
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    if options.until_eof:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(_serve(traffic, options.port, options.until_eof))
    except KeyboardInterrupt:
        return 130
    return 0


async def _serve(traffic: Traffic, port: int, until_eof: bool) -> None:
    service = Server(traffic)
    # 1,024: the default backlog of 100 refuses some of a few hundred clients that come at once.
    listener = await asyncio.start_server(service.serve, "127.0.0.1", port, backlog=1024)
    address, port = listener.sockets[0].getsockname()
    print(json.dumps({"url": f"http://{address}:{port}/v1"}), flush=True)
    stop = asyncio.Event()
    if until_eof:
        loop = asyncio.get_running_loop()
        # A thread, as the loop of Windows cannot watch a pipe that another one made.
        threading.Thread(target=_wait_for_eof, args=(loop, stop), daemon=True).start()
    await stop.wait()
    listener.close()


def _wait_for_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    sys.exit(main())
