"""A web service with `/metrics`: `python examples/fastapi_metrics.py [PORT]`.

It answers `/ask?question=…`, and Prometheus scrapes its calls, tokens and costs from `/metrics`;
`langmeter advice http://127.0.0.1:8000/snapshot.json` reads the same figures.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from langchain_openai import ChatOpenAI

from langmeter import Meter
from langmeter.exporters import prometheus
from langmeter.testing.simulator import Simulator

meter = Meter(labels=("team",))


@asynccontextmanager
async def service(app: FastAPI) -> AsyncIterator[None]:
    """Start the simulated provider; a real service has the address of its own."""
    with Simulator(speed=20) as provider:
        app.state.model = ChatOpenAI(
            model="gpt-4o-mini", base_url=provider.url, api_key="loopback", max_retries=5
        )
        yield


app = FastAPI(lifespan=service)


@app.get("/ask")
async def ask(question: str, team: str = "search") -> str:
    """Answer a question."""
    config = {"callbacks": [meter], "metadata": {"team": team}}
    message = await app.state.model.ainvoke(question, config=config)
    return str(message.text)


# Last: it answers what no route above does, with 404 for all but its two pages.
app.mount("/", prometheus.asgi_app(meter))

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, log_level="warning")
