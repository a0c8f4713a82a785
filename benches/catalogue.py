"""What the price catalogue costs a process: the first on a machine, and those after it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

from benches.rows import Row

#: Loads the catalogue and asks for a price; prints seconds of processor time, KB resident and KB
#: at the most (Linux).
_LOADS = """
import json, time
import langchain_core.callbacks, langmeter.meter
from langmeter import PriceBook
def sizes():
    with open("/proc/self/status") as file:
        rows = dict(line.split(":", 1) for line in file)
    return [int(rows[name].split()[0]) for name in ("VmRSS", "VmHWM")]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the most so far is forgotten
before = time.process_time(), *sizes()
card = PriceBook().warm(wait=True).card("openai", "gpt-4o-mini")
assert card is not None
after = time.process_time(), *sizes()
print(json.dumps([b - a for a, b in zip(before, after)]))
"""


def _process(folder: str) -> tuple[float, float, float]:
    environment = {**os.environ, "LANGMETER_CACHE": folder}
    command = [sys.executable, "-c", _LOADS]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seconds, resident, most = json.loads(told.stdout)
    return seconds * 1e3, resident / 1024, most / 1024


def catalogue(times: int) -> list[Row]:
    """Loading the catalogue and one price, each time in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        first = _process(folder)
        later = [_process(folder) for _ in range(times)]
    ms, resident, most = map(statistics.median, zip(*later, strict=True))
    return [
        Row(
            "the price catalogue, from the second process on",
            "at most 50 ms and 6 MB",
            f"{ms:.1f} ms, {resident:.2f} MB resident, {most:.2f} at the most",
            ms <= 50 and most <= 6,
        ),
        Row(
            "the price catalogue, in the first process on a machine",
            "",
            f"{first[0]:.0f} ms, {first[1]:.2f} MB resident, {first[2]:.2f} at the most",
            None,
        ),
    ]
