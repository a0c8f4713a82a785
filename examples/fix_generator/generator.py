"""The fix generator: a LangGraph graph that asks, checks, and asks another provider."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END, START, StateGraph

from langmeter import BudgetExceeded, Meter
from langmeter.defects import Attempt, Fix, read_fix

from .defects import Defect

MAX_ATTEMPTS = 3
PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You repair {language} functions. Answer as JSON with fix_candidates."),
        ("human", "Defect [{id}] of type {type} in this function:\n{code}"),
    ]
)


class State(TypedDict, total=False):
    """A defect on its way: the providers to ask, how often it was asked, the last answer."""

    defect: Defect
    providers: Sequence[str]
    tries: int
    attempt: Attempt
    answer: str | None
    fix: str
    outcome: str


def graph(models: Mapping[str, BaseChatModel], meter: Meter) -> Any:
    """Return the compiled graph; `models` maps the name of a provider to its client."""

    def ask(state: State) -> State:
        """Ask the next provider. What it costs, and how it ends, counts to the attempt."""
        defect, tries = state["defect"], state.get("tries", 0)
        provider = state["providers"][tries]
        attempt = meter.defects.attempt(
            defect.id,
            type=defect.type,
            severity=defect.severity,
            language=defect.language,
            strategy="replace lines",
        )
        result: State = {"tries": tries + 1, "attempt": attempt, "answer": None}
        try:
            with attempt:
                result["answer"] = (PROMPT | models[provider]).invoke(vars(defect)).text
        except BudgetExceeded:
            result["outcome"] = "budget"
        except Exception:  # the provider failed: the attempt is `infrastructure`
            result["outcome"] = "infrastructure"
        return result

    def check(state: State) -> State:
        """Apply, compile and test each candidate; the recommended one decides."""
        defect, attempt, answer = state["defect"], state["attempt"], state["answer"]
        if answer is None:
            return {}
        read = read_fix(answer)
        attempt.judge(read)
        if read.outcome is not None:
            return {"outcome": read.outcome}
        outcome, code = "failed", ""
        for index, candidate in enumerate(json.loads(answer)["fix_candidates"]):
            recommended = index == read.recommended
            fix: Fix = defect.judge(candidate["fix_code"])
            attempt.candidate(index, recommended=recommended).judge(fix)
            if recommended and fix.outcome is not None:
                outcome, code = fix.outcome, candidate["fix_code"]
        return {"outcome": outcome, "fix": code}

    def next_step(state: State) -> str:
        over = state["outcome"] in ("fixed", "budget") or state["tries"] >= MAX_ATTEMPTS
        return END if over else "ask"

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("check", check)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "check")
    builder.add_conditional_edges("check", next_step)
    return builder.compile()
