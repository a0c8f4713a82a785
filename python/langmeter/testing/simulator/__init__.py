"""Providers on loopback that know exactly what they sent. Needs the extra `demo`.

    with Simulator(seed=7, speed=20) as service:
        model = ChatOpenAI(model="gpt-4o-mini", base_url=service.url, api_key="any")
        model.invoke("What is a histogram?")
        print(service.truth().sent("ok"))  # Sent(calls=1, input=…, output=…, cache_read=…, …)

Answers OpenAI's chat completions, Responses and embeddings, Anthropic's messages and Gemini's
generateContent, streamed and not, with heavy-tailed sizes and delays, cached and reasoning tokens
in the usage, dated model names, and now and then a 429 with retry-after, a 500 and a connection
that breaks; `Traffic` has every figure. The request header `x-simulate` decides about its request:
"ok" or one of `FAULTS`.

`Simulator` is a process of its own; `langmeter.testing.simulator.server.Server` runs in a thread of
a test, which may script its replies. `python -m langmeter.testing.simulator` serves alone.
"""

from __future__ import annotations

from .ground_truth import OUTCOMES, Sent, Truth
from .process import Simulator
from .reply import FAULTS, Choice, Raw, Reply, Text, Thought, ToolUse
from .traffic import MODELS, Traffic

__all__ = [
    "FAULTS",
    "MODELS",
    "OUTCOMES",
    "Choice",
    "Raw",
    "Reply",
    "Sent",
    "Simulator",
    "Text",
    "Thought",
    "ToolUse",
    "Traffic",
    "Truth",
]
