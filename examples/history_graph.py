"""A graph whose figures outlive it: run it twice, and ask for both runs.

`python examples/history_graph.py metrics.db`, then `langmeter history metrics.db --by team`.
"""

import sys
from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

from langmeter import Meter
from langmeter.history import History
from langmeter.testing.simulator import Simulator


class State(TypedDict):
    """What the nodes hand on."""

    question: str
    draft: str
    answer: str


def main(database: str) -> None:
    """Run the graph five times, and print what the database has by then."""
    meter = Meter(history=database, labels=("team",))
    with Simulator(speed=20) as service:
        model = ChatOpenAI(model="gpt-4o-mini", base_url=service.url, api_key="loopback")

        def draft(state: State) -> dict[str, str]:
            return {"draft": str(model.invoke(f"Draft: {state['question']}").content)}

        def revise(state: State) -> dict[str, str]:
            return {"answer": str(model.invoke(f"Revise: {state['draft']}").content)}

        builder = StateGraph(State)
        builder.add_node("draft", draft)
        builder.add_node("revise", revise)
        builder.add_edge(START, "draft")
        builder.add_edge("draft", "revise")
        builder.add_edge("revise", END)
        graph = builder.compile()
        for number in range(5):
            config = {
                "callbacks": [meter],
                "metadata": {"team": "search" if number % 2 else "chat"},
            }
            graph.invoke({"question": f"What is {number}?"}, config=config)
    meter.close()
    for row in History(database).query("calls", by="team"):
        print(f"{row.labels['team']}: {row.value:.0f} calls since {row.start:%Y-%m-%d %H:%M}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "metrics.db")
