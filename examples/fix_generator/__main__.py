"""`python -m examples.fix_generator [--rounds 4] [--budget 0.05] [--json FILE]`."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from langmeter import Budget, Meter, PriceBook, attach
from langmeter.analysis import defects as which_model_fixes_what

from . import defects
from .check import differences
from .generator import MAX_ATTEMPTS, graph
from .providers import PRICES, PROVIDERS, Providers


def main(arguments: list[str] | None = None) -> int:
    """Fix the defects, print the tables and the check; the exit code is 1 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m examples.fix_generator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that each defect is met (3)")
    parser.add_argument("--budget", type=Decimal, default=Decimal("0.50"), help="USD (0.50)")
    parser.add_argument("--seed", type=int, default=1, help="decides about the answers (1)")
    parser.add_argument("--json", type=Path, help="a file for the snapshot")
    options = parser.parse_args(arguments)

    known = [one for one in defects.load() if one.language != "c" or shutil.which("cc")]
    todo = [
        replace(defect, id=f"{defect.id}-{number}")
        for number in range(1, options.rounds + 1)
        for defect in known
    ]
    budget = Budget(usd=options.budget, action="block", name="fixes")
    meter = Meter(prices=PriceBook(PRICES), budgets=[budget])
    with Providers(todo, options.seed) as providers:
        models = providers.models()
        attach(models, meter)
        generator = graph(models, meter)
        rng = random.Random(options.seed)
        states = [
            {"defect": defect, "providers": rng.sample([*PROVIDERS], MAX_ATTEMPTS)}
            for defect in todo
        ]
        results = generator.batch(states, {"max_concurrency": 4})
        for result in results:
            if result["outcome"] == "fixed":
                # In life by another process, days later: the receipt is a text.
                holds = result["defect"].still_holds(result["fix"])
                result["outcome"] = "fixed" if holds else "failed later"
                outcome = "fixed" if holds else "failed"
                meter.defects.record(result["attempt"].receipt, outcome, source="re-scan")
        snapshot = meter.snapshot()
        refused = Counter(r["defect"].type for r in results if r["outcome"] == "budget")
        wrong = list(differences(snapshot, providers, refused))
    ends = Counter(result["outcome"] for result in results)
    print(f"{len(todo)} defects: " + ", ".join(f"{n} {name}" for name, n in ends.most_common()))
    print(f"spent {budget.spent} of {budget.limit} USD\n")
    print(which_model_fixes_what(snapshot))
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong:
        print("\nCheck: the providers know of exactly these attempts, outcomes, tokens and costs.")
    if options.json is not None:
        options.json.write_text(snapshot.to_json() + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
