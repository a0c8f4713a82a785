"""Four simulated providers that differ in price, speed and skill; one goes down halfway."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_openai import ChatOpenAI

from langmeter.testing.simulator import Choice, Reply, Text
from langmeter.testing.simulator.server import Server
from langmeter.testing.simulator.traffic import Request

from .defects import Defect


@dataclass(frozen=True)
class Provider:
    """What a provider serves.

    Attributes:
        model: the name of its model, by which the simulator knows it.
        skill: share of its answers that are right, by type of defect; "" is every other type.
        seconds: time until the first token.
        down_after: requests after which it answers 503; None for never.
        price: own price, USD per million input and output tokens; None where the catalogue has one.
    """

    model: str
    skill: Mapping[str, float]
    seconds: float
    down_after: int | None = None
    price: tuple[float, float] | None = None


PROVIDERS: Mapping[str, Provider] = {
    "nim": Provider(
        "meta/llama-3.1-8b-instruct", {"": 0.35, "OFF_BY_ONE": 0.8}, 0.005, price=(0.02, 0.05)
    ),
    "hosted": Provider("gpt-4o-mini", {"": 0.6, "LOGIC": 0.3}, 0.01),
    "strong": Provider("gpt-4o", {"": 0.9}, 0.03),
    "spare": Provider("gpt-4.1-mini", {"": 0.7}, 0.01, down_after=12),
}
#: Prices of what the catalogue does not list, as `PriceBook` takes them.
PRICES = {
    f"{name}/{provider.model}": {"input": provider.price[0], "output": provider.price[1]}
    for name, provider in PROVIDERS.items()
    if provider.price is not None
}


class Providers:
    """The simulated providers, and what they answered."""

    def __init__(self, defects: Iterable[Defect], seed: int = 1) -> None:
        self._defects = {defect.id: defect for defect in defects}
        self._seed = seed
        self._requests: Counter[str] = Counter()
        self._server = Server()
        self._server.answer(self._answer)
        #: (model, defect type, kind of answer) → how often; kinds are right, overfitted,
        #: wrong, broken, prose and down.
        self.answered: Counter[tuple[str, str, str]] = Counter()

    def models(self) -> dict[str, ChatOpenAI]:
        """Return a client for each provider."""
        return {
            name: ChatOpenAI(  # type: ignore[call-arg]
                model=provider.model,
                base_url=self._server.url,
                # So that a budget need not hold the most that the model could write.
                max_tokens=400,
                api_key="loopback",  # type: ignore[arg-type]
                max_retries=0,
            )
            for name, provider in PROVIDERS.items()
        }

    def truth(self) -> Any:
        """Return the tokens that were sent, by model."""
        return self._server.truth()

    def __enter__(self) -> Providers:
        self._server.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._server.__exit__(*exc)

    def _answer(self, request: Request) -> Reply:
        name, provider = next(p for p in PROVIDERS.items() if p[1].model == request.model)
        prompt = json.dumps(request.body["messages"])
        defect = next(defect for id, defect in self._defects.items() if f"[{id}]" in prompt)
        self._requests[name] += 1
        tries = self._requests[f"{name}/{defect.id}"] = self._requests[f"{name}/{defect.id}"] + 1
        if provider.down_after is not None and self._requests[name] > provider.down_after:
            self.answered[request.model, defect.type, "down"] += 1
            return Reply(status=503)
        # By model, defect and try, whatever the order in which requests come.
        rng = random.Random(f"{self._seed}/{name}/{defect.id}/{tries}")
        skill = provider.skill.get(defect.type, provider.skill[""])
        [kind] = rng.choices(*zip(*_kinds(skill).items(), strict=True))
        self.answered[request.model, defect.type, kind] += 1
        text = "I would look at the loop." if kind == "prose" else _json(defect, kind, rng, skill)
        pieces = tuple(f"{word} " for word in text.split(" "))
        return Reply(
            (Choice((Text(pieces),)),),
            input=400 + request.prompt,
            output=len(pieces) + 40,
            delays=(provider.seconds,),
        )


def _kinds(skill: float) -> dict[str, float]:
    """Return how probable each kind of answer is."""
    rest = 1 - skill
    wrong = {"overfitted": 0.2, "wrong": 0.4, "broken": 0.25, "prose": 0.15}
    return {"right": skill, **{kind: share * rest for kind, share in wrong.items()}}


def _json(defect: Defect, kind: str, rng: random.Random, skill: float) -> str:
    """Return two candidates, of which the second is recommended."""
    recommended: str = getattr(defect, kind)
    other = rng.choice([defect.right, defect.wrong])
    start, end = defect.lines
    return json.dumps(
        {
            "fix_candidates": [
                {"fix_code": code.strip("\n"), "line_ranges": [{"start": start, "end": end}]}
                for code in (other, recommended)
            ],
            "recommended_fix_index": 1,
            "confidence": round(min(0.99, max(0.01, rng.gauss(skill, 0.1))), 2),
        }
    )
