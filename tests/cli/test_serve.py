"""`langmeter serve`: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from langmeter import Snapshot, sources


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "token"),
    [((), ""), (("--host", "0.0.0.0"), "made"), (("--token", "sixteen-letters-or-more"), "given")],
)
def test_it_serves_until_it_is_interrupted(
    file: str, snapshot: Snapshot, options: tuple[str, ...], token: str
) -> None:
    """One line has the address; a token that was made is printed once, a given one is not."""
    environment = {name: text for name, text in os.environ.items() if name != sources.TOKEN}
    command = [sys.executable, "-m", "langmeter", "serve", file, "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        match = re.match(r"serving http://[^:]+:(\d+)/(?:\?token=(\S+))?(.*)", line)
        assert match
        assert bool(match[2]) == (token == "made")
        assert match[3] == (", which asks for its token" if token == "given" else "")
        secret = match[2] or ("sixteen-letters-or-more" if token else "")
        url = f"http://127.0.0.1:{match[1]}/snapshot.json"
        if token:
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url)
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {secret}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert Snapshot.from_json(answer.read()) == snapshot
    finally:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""
    assert not secret or secret not in output
