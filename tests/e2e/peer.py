"""aimock as a process on loopback: scripted answers, faults, and a journal of what it served.

The journal is the oracle: it names for each request the script that was served, with the usage that
went over the wire, the status, and whether the stream was cut.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

CLI = Path(__file__).parent / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"

#: Characters in a piece of a streamed answer.
PIECE = 6
#: Milliseconds before the first piece of a slow stream, and pieces per second after it.
FIRST_MS, PER_SECOND = 60, 50
QUESTIONS = 24
MODELS = 3
LONG = "a long answer that comes slowly, word for word, and is left alone half way"
TOOL = {"name": "weather", "arguments": '{"city": "Oslo"}'}


def usage(n: int) -> dict[str, Any]:
    """Usage of the n-th answer, no two alike; only the OpenRouter dialect sends the details."""
    return {
        "prompt_tokens": 100 + 7 * n,
        "completion_tokens": 10 + 3 * n,
        "prompt_tokens_details": {"cached_tokens": 3 * n},
        "completion_tokens_details": {"reasoning_tokens": 2 * n},
    }


def script() -> list[dict[str, Any]]:
    """What the peer answers, by a part of the prompt."""

    def answer(n: int, prompt: str, response: dict[str, Any], **how: Any) -> dict[str, Any]:
        match = {"userMessage": prompt, **how.pop("match", {})}
        named = {"model": f"served-{n % MODELS}", "usage": usage(n), **response}
        return {"match": match, "response": named, "chunkSize": PIECE, **how}

    slow = {"streamingProfile": {"ttft": FIRST_MS, "tps": PER_SECOND}}
    called, done = {"match": {"hasToolResult": False}}, {"match": {"hasToolResult": True}}
    refusal = {"error": {"message": "busy", "type": "server_error"}, "status": 503}
    return [
        *(
            answer(n, f"question {n:03}", {"content": f"answer {n} " * (n % 5 + 1)})
            for n in range(QUESTIONS)
        ),
        answer(30, "slow", {"content": LONG}, **slow),
        # Pauses, because the peer throws away what it has not sent when it cuts.
        answer(31, "cut", {"content": LONG}, truncateAfterChunks=6, latency=10),
        answer(33, "Oslo", {"toolCalls": [TOOL]}, **called),
        answer(36, "Oslo", {"content": "It rains in Oslo."}, **done),
        {"match": {"userMessage": "again", "sequenceIndex": 0}, "response": refusal},
        answer(35, "again", {"content": "at last"}, match={"sequenceIndex": 1}),
    ]


def why_not() -> str | None:
    """Why the peer cannot run here; None if it can."""
    if shutil.which("node") is None:
        return "no node on the PATH"
    return None if CLI.is_file() else "aimock is not installed: run `make e2e`"


@dataclass(frozen=True)
class Peer:
    """A running aimock. `scope` separates the journals and sequences of one test from another's."""

    url: str
    scope: str = ""

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Peer]:
        """Start it with its script, on a free port; stop it at the end."""
        fixtures = folder / "script.json"
        fixtures.write_text(json.dumps({"fixtures": script()}), encoding="utf-8")
        command = ["node", str(CLI), "--port", "0", "--fixtures", str(fixtures), "--strict"]
        with subprocess.Popen(
            [*command, "--validate-on-load", "--journal-max", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                said = []
                for line in process.stdout:
                    said.append(line)
                    found = re.search(r"listening on (http://\S+)", line)
                    if found:
                        yield cls(found[1])
                        return
                raise RuntimeError("aimock did not start: " + "".join(said))
            finally:
                process.kill()

    def scoped(self, scope: str) -> Peer:
        """The same peer with a journal of its own."""
        return replace(self, scope=scope)

    def headers(self, **faults: int) -> dict[str, str]:
        """What a client of this scope sends; `faults` are probabilities of drop, malformed, …,
        or the milliseconds of `latency` before an answer.

        No connection is kept: LangChain shares its clients between event loops, and a test's loop
        ends before the next one's begins.
        """
        chaos = {f"x-aimock-chaos-{name}": str(rate) for name, rate in faults.items()}
        return {"X-Test-Id": self.scope, "Connection": "close", **chaos}

    def journal(self) -> list[dict[str, Any]]:
        """The requests of this scope, oldest first."""
        with urlopen(f"{self.url}/__aimock/journal?testId={quote(self.scope)}") as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        return entries
