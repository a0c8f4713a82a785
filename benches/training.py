"""What the compiler is shown of the native module: `python -m benches.training [--smoke]`.

A wheel is built twice: as a program that counts how often each branch is taken, which runs this,
and then for real, by those counts (`make wheels`, `make bench`). What is not shown here is taken
for rare, is made small instead of fast, and goes to another page: so calls of every kind come in
their thousands, and then each part of the benchmarks in its short form.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from benches.model import MODEL, PROMPT, FakeChat
from benches.peers import ours
from benches.speed import WORKLOADS, measure
from langmeter import Budget, Meter, Snapshot

#: Parts of `python -m benches`. Not `history`: it merges snapshots a billion times, beside which
#: calls are rare. Its reading is in `_snapshots`.
_PARTS = (
    "tables",
    "regression",
    "anomalies",
    "defects",
    "directory",
    "budgets",
    "exporters",
    "live",
    "providers",
)


class _Refusing(FakeChat):
    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("refused")


class _Retriever(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(query)]


@tool
def _double(number: int) -> int:
    """Double it."""
    return 2 * number


def _calls(rounds: int) -> None:
    """Calls as the speed table makes them: by themselves, in threads and tasks, streamed."""
    measure(WORKLOADS, [ours()], seconds=0, rounds=rounds, progress=_say)


def _components(rounds: int) -> None:
    """Failed calls, chains, tools and retrievers, under budgets and labels, and in attempts."""
    meter = Meter(
        labels=("team",),
        budgets=[Budget(calls=10**9), Budget(usd=10**6, per="day")],
    )
    chat, refusing = FakeChat(), _Refusing()
    chain = RunnableLambda(lambda question: PROMPT) | chat
    config: Any = {"callbacks": [meter], "metadata": {"team": "search"}}
    for number in range(rounds):
        with meter.defects.attempt(f"CID-{number}", type="leak", severity="high"):
            chain.invoke("?", config)
        _double.invoke({"number": number}, config)
        _Retriever().invoke("?", config)
        try:
            refusing.invoke(PROMPT, config)
        except ConnectionError:
            continue
        raise SystemExit("a call that fails did not")
    counted = meter.snapshot().totals.outcomes
    if (counted["ok"], counted["error"]) != (rounds, rounds):
        raise SystemExit(f"{rounds} calls answered and {rounds} failed, counted {dict(counted)}")


def _snapshots(rounds: int) -> None:
    """A snapshot of 100 models: taken, added, subtracted, written and read."""
    meter = Meter()
    for number in range(100):
        name = f"{MODEL}-{number}"
        meter.cost.prices.set("openai", name, input=1, output=2)
        FakeChat(model=name, answered_by=name).invoke(PROMPT, {"callbacks": [meter]})
    before = meter.snapshot()
    for _ in range(rounds):
        now = meter.snapshot()
        again = Snapshot.from_json((now + before).to_json())
        if again.totals.calls != 200 or (now - before).totals.calls:
            raise SystemExit(f"200 calls, of which none was new, are {again.totals.calls}")


def _parts(names: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        for name in names:
            # In a process of its own, as some parts want an empty one.
            command = [sys.executable, "-m", "benches", name, "--smoke"]
            with log.open("w") as out:
                done = subprocess.run(command, stdout=out, stderr=out, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()}")
            _say(name)


def _say(what: str) -> None:
    print(what, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run all of it, in some two minutes; SystemExit where a count is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benches.training")
    parser.add_argument("--smoke", action="store_true", help="a few calls, and no parts")
    smoke = parser.parse_args(arguments).smoke
    _calls(2 if smoke else 1_000)
    _components(2 if smoke else 2_000)
    _snapshots(2 if smoke else 200)
    if not smoke:
        _parts(_PARTS)


if __name__ == "__main__":
    main()
