"""`python -m langmeter.testing.simulator`: the simulator alone, until Ctrl-C.

Prints one line of JSON, `{"url": …}`, when it listens. `--until-eof` is for `Simulator`, whose
child this is: the service then ends with its standard input, so that it never outlives its parent,
and leaves Ctrl-C to it.
"""

from __future__ import annotations

import argparse
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
        server = Server(Traffic(**json.loads(options.traffic)), port=options.port)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    except OSError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if options.until_eof:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with server:
            # The reader of this line may send Ctrl-C before `print` returns.
            print(json.dumps({"url": server.url}), flush=True)
            if options.until_eof:
                while sys.stdin.buffer.read(4096):
                    pass
            else:
                threading.Event().wait()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
