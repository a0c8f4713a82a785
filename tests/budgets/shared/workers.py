"""Processes that share a budget, forked from one that has imported everything.

`python workers.py PROCESSES THREADS SECONDS WORDS…`: each process makes calls in its threads until
a call is refused, or for so many seconds, and prints a line with the number of calls, of refusals
for want of a store, and what it spent; before it a line with "!" and each fraction of the limit
that it was told as crossed. WORDS are keywords of `Budget`, as JSON; besides them

- `patient`: it goes on until a call is refused in another period than the first refused one;
- `lease`: seconds of the lease, in the place of the constant;
- `clock`: path of a file with the seconds by which its clock is ahead, read whenever it is asked;
- `waits`: it forks after a line of its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langmeter import Budget, BudgetExceeded, Meter
from langmeter._base.delivery import notices
from langmeter.budgets import budget as budgets
from langmeter.budgets.shared import Terms, lease, sqlite
from langmeter.prices import PriceBook


class Model(FakeListChatModel):
    """A model of 1 dollar per 1,000 tokens that asks for at most 4 tokens and gives 2."""

    responses: list[str] = ["ok"]  # noqa: RUF012

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "acme", "ls_model_name": "big", "ls_max_tokens": 4}

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"max_tokens": 4}

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        message = AIMessage("ok", usage_metadata=usage, response_metadata={"model_name": "big"})
        return ChatResult(generations=[ChatGeneration(message=message)])


def work(threads: int, seconds: float, words: dict[str, Any]) -> str:
    """Make calls; return a line that says how many."""
    patient = words.pop("patient", False)
    if "lease" in words:  # the constant, for a test that has not half a minute
        vars(budgets)["Terms"] = partial(Terms, seconds=words.pop("lease"))
    if path := words.pop("clock", None):
        for module in (lease, sqlite):
            vars(module)["time"] = lambda: time.time() + float(Path(path).read_text())
    told: list[float] = []
    words = {"at": (), "on_threshold": lambda event: told.append(event.fraction), **words}
    budget = Budget(action="block", **words)
    meter = Meter(prices=PriceBook({"acme/*": {"input": 1000, "output": 1000}}), budgets=[budget])
    model, end = Model(), time.monotonic() + seconds
    made, lost = [0] * threads, [0] * threads

    def call(place: int) -> None:
        first = None
        while time.monotonic() < end:
            try:
                model.invoke("?", config={"callbacks": [meter]})
            except BudgetExceeded as refusal:
                if refusal.reason == "limit":
                    first = first or refusal.resets_at
                    if not patient or refusal.resets_at != first:
                        return
                    time.sleep(0.01)
                    continue
                # A machine with more work than cores may not get to the store in time.
                lost[place] += 1
                time.sleep(0.02)
            else:
                made[place] += 1

    workers = [threading.Thread(target=call, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    notices.flush(30)
    lines = [f"!{fraction}" for fraction in told]
    return "\n".join([*lines, json.dumps([sum(made), sum(lost), str(meter.cost.total_cost or 0)])])


def spend(calls: int, words: dict[str, Any]) -> None:
    """Make calls, and end without a word; for `multiprocessing`."""
    meter = Meter(prices=None, budgets=[Budget(action="block", **words)])
    for _ in range(calls):
        Model().invoke("?", config={"callbacks": [meter]})


def main(processes: int, threads: int, seconds: float, words: dict[str, Any]) -> None:
    """Fork, and wait for all."""
    import logging

    logging.disable(logging.WARNING)
    print(os.getpid(), flush=True)
    if words.pop("waits", False):
        sys.stdin.readline()
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            try:
                line = work(threads, seconds, words)
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            finally:
                from langmeter.budgets.shared import renewals

                renewals.shared.leave()
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4]))
