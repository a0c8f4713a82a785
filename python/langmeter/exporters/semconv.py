"""Names of metrics and attributes, all of them, for Prometheus and OpenTelemetry alike.

What the GenAI semantic conventions name has their name; everything else is under `langmeter.*`. The
conventions exist in two generations: the released one (v1.41.0, the last of
open-telemetry/semantic-conventions) and the newer one of open-telemetry/semantic-conventions-genai
(its migration guide 32c328e8, token metrics 066d4a7f), which is in development.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from langmeter._base.check import one_of

Generation: TypeAlias = Literal["released", "latest"]
Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

GENERATIONS: Final = ("released", "latest")
#: Variable that chooses the generation, and its value for the newer one.
OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
LATEST: Final = "gen_ai_latest_experimental"

#: Bounds of the classic buckets that the conventions recommend for durations, seconds.
DURATION_BOUNDS: Final = tuple(0.01 * 2**power for power in range(14))
#: The same for numbers of tokens.
TOKEN_BOUNDS: Final = tuple(4.0**power for power in range(14))
#: A modality that the provider does not state. To call it "text" would be to invent data.
UNKNOWN: Final = "unknown"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
TOKEN_TYPE: Final = "gen_ai.token.type"
MODALITY: Final = "gen_ai.token.modality"
TOOL: Final = "gen_ai.tool.name"
AGENT: Final = "gen_ai.agent.name"
ERROR: Final = "error.type"
#: Value of `error.type` where no other is known.
OTHER_ERROR: Final = "_OTHER"
OUTCOME: Final = "langmeter.outcome"

#: Attributes of calls of a model.
_CALL: Final = (OPERATION, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL)
_MODEL: Final = _CALL[1:]
#: The same of durations: calls that returned an answer have no `error.type`.
_TIMED: Final = (*_CALL, ERROR)
_COMPONENT: Final = ("langmeter.component.kind", "langmeter.component.name")
_LABEL: Final = ("langmeter.label.key", "langmeter.label.value")
_DEFECT: Final = ("langmeter.defect.type", "langmeter.defect.severity", PROVIDER, REQUEST_MODEL)

#: Units of OpenTelemetry as Prometheus writes them; one in braces is left out there.
_UNITS: Final = {"s": "seconds", "By": "bytes"}


@dataclass(frozen=True)
class Instrument:
    """One metric.

    Attributes:
        kind: counter (never goes back), gauge or histogram.
        name: name in OpenTelemetry.
        unit: unit as UCUM writes it; `{token}` is a count of tokens.
        description: one sentence.
        attributes: names of its attributes, in the order of the values of its points.
    """

    kind: Kind
    name: str
    unit: str
    description: str
    attributes: tuple[str, ...] = ()

    @cached_property
    def bounds(self) -> tuple[float, ...]:
        """Bounds of the classic buckets of a histogram."""
        return DURATION_BOUNDS if self.unit == "s" else TOKEN_BOUNDS

    @cached_property
    def prometheus_name(self) -> str:
        """Name in Prometheus, as OpenTelemetry's rules translate it; counters without `_total`."""
        name = prometheus_label(self.name)
        unit = _UNITS.get(self.unit, "")
        return f"{name}_{unit}" if unit else name

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of its attributes in Prometheus."""
        return tuple(map(prometheus_label, self.attributes))


def prometheus_label(name: str) -> str:
    """Return the name of an attribute in Prometheus."""
    return name.replace(".", "_")


def generation(conventions: Generation | None) -> Generation:
    """Return the generation of the conventions; of None, that of the environment.

    Raises ConfigError for another one.
    """
    if conventions is not None:
        return one_of("conventions", conventions, GENERATIONS)
    values = os.environ.get(OPT_IN, "").split(",")
    return "latest" if LATEST in map(str.strip, values) else "released"


def _seconds(name: str, description: str, attributes: tuple[str, ...] = _CALL) -> Instrument:
    return Instrument("histogram", name, "s", description, attributes)


def _count(
    name: str, unit: str, description: str, attributes: tuple[str, ...] = _MODEL
) -> Instrument:
    return Instrument("counter", name, unit, description, attributes)


def _gauge(
    name: str, unit: str, description: str, attributes: tuple[str, ...] = _MODEL
) -> Instrument:
    return Instrument("gauge", name, unit, description, attributes)


def _by_generation(
    name: str, description: str, attributes: tuple[str, ...] = _CALL
) -> dict[Generation, Instrument]:
    return {
        "released": _seconds(f"gen_ai.client.operation.{name}", description, attributes),
        "latest": _seconds(f"gen_ai.client.inference.{name}", description, attributes),
    }


# --- the conventions ------------------------------------------------------------------------------

DURATION: Final = _by_generation("duration", "Duration of calls of models.", _TIMED)
TIME_TO_FIRST_CHUNK: Final = _by_generation(
    "time_to_first_chunk", "Time from the start of a streamed call to its first chunk."
)
TIME_PER_OUTPUT_CHUNK: Final = _by_generation(
    "time_per_output_chunk", "Time between one chunk of a streamed call and the next."
)
#: Released: of the calls that had tokens of the kind.
TOKEN_USAGE: Final = Instrument(
    "histogram",
    "gen_ai.client.token.usage",
    "{token}",
    "Input and output tokens of calls with known usage.",
    (*_CALL, TOKEN_TYPE),
)
#: Latest: kind of tokens → the same.
TOKENS_OF_OPERATION: Final = {
    kind: Instrument(
        "histogram",
        f"gen_ai.client.inference.operation.{kind}_tokens",
        "{token}",
        f"{kind.capitalize()} tokens of calls that had any.",
        _CALL,
    )
    for kind in ("input", "output")
}
_USAGE: Final = "gen_ai.client.inference.usage"
#: Latest: counter, the kind of tokens, and the parts of it that are of a known modality.
USAGE: Final = tuple(
    (_count(f"{_USAGE}.{name}", "{token}", description, (*_CALL, MODALITY)), kind, parts)
    for name, description, kind, parts in (
        (
            "input_tokens",
            "Input tokens, cached ones among them.",
            "input",
            {"audio": "audio_input", "image": "image_input", "video": "video_input"},
        ),
        (
            "output_tokens",
            "Output tokens, those of reasoning among them.",
            "output",
            {"audio": "audio_output", "image": "image_output", "video": "video_output"},
        ),
        (
            "cache_read.input_tokens",
            "Input tokens that came from the provider's cache.",
            "cache_read",
            {"audio": "cached_audio", "image": "cached_image"},
        ),
        (
            "cache_write.input_tokens",
            "Input tokens that were written to the provider's cache.",
            "cache_write",
            {},
        ),
        (
            "reasoning.output_tokens",
            "Output tokens that the model spent on reasoning.",
            "reasoning",
            {},
        ),
    )
)
#: Latest: kind of component → histogram of its durations.
COMPONENT_DURATIONS: Final = {
    "tool": _seconds(
        "gen_ai.execute_tool.duration", "Duration of calls of tools.", (OPERATION, TOOL, ERROR)
    ),
    "agent": _seconds(
        "gen_ai.invoke_agent.duration", "Duration of runs of agents.", (OPERATION, AGENT, ERROR)
    ),
}
#: Kind of component → value of `gen_ai.operation.name`.
OPERATIONS: Final = {"tool": "execute_tool", "agent": "invoke_agent"}

# --- langmeter's own ------------------------------------------------------------------------------

CALLS: Final = _count(
    "langmeter.calls", "{call}", "Ended calls of models by outcome.", (*_MODEL, OUTCOME)
)
ERRORS: Final = _count(
    "langmeter.errors",
    "{call}",
    "Failed and cancelled calls of models by exception class and HTTP status.",
    (*_MODEL, ERROR),
)
COST: Final = _count("langmeter.cost.usd", "{USD}", "Cost of priced calls, US dollars.")
RETRIED_COST: Final = _count(
    "langmeter.retried.cost.usd", "{USD}", "Cost of retried calls, US dollars."
)
RETRIED: Final = _count("langmeter.retried.calls", "{call}", "Retried calls.")
TRUNCATED: Final = _count(
    "langmeter.truncated.calls", "{call}", "Answers that ended at the limit of their length."
)
STALLS: Final = _count("langmeter.stream.stalls", "{stall}", "Stalls of streams.")
#: Kinds of tokens that the conventions of a generation do not count.
TOKENS: Final = _count(
    "langmeter.tokens",
    "{token}",
    "Tokens of kinds that the conventions do not count.",
    (*_MODEL, TOKEN_TYPE),
)
TOKEN_KINDS: Final[dict[Generation, tuple[str, ...]]] = {
    "released": ("cache_read", "cache_write", "reasoning", "estimated", "saved"),
    "latest": ("estimated", "saved"),
}
UNPRICED_CALLS: Final = _gauge(
    "langmeter.unpriced.calls", "{call}", "Calls with usage that have no price so far."
)
UNPRICED_TOKENS: Final = _gauge(
    "langmeter.unpriced.tokens", "{token}", "Tokens of calls that have no price so far."
)
IN_FLIGHT: Final = _gauge("langmeter.in_flight", "{call}", "Calls that had begun and not ended.")
TIME_TO_FIRST_TOKEN: Final = _seconds(
    "langmeter.time_to_first_token",
    "Time from the start of a streamed call to its first piece of output.",
    _MODEL,
)
TIME_PER_OUTPUT_TOKEN: Final = _seconds(
    "langmeter.time_per_output_token",
    "Time that a streamed call takes for an output token after the first, by the final usage.",
    _MODEL,
)
LABEL_CALLS: Final = _count(
    "langmeter.label.calls", "{call}", "Ended calls of models by label.", _LABEL
)
LABEL_COST: Final = _count(
    "langmeter.label.cost.usd", "{USD}", "Cost of priced calls by label, US dollars.", _LABEL
)
LABEL_TOKENS: Final = _count(
    "langmeter.label.tokens",
    "{token}",
    "Input and output tokens by label.",
    (*_LABEL, TOKEN_TYPE),
)
COMPONENT_CALLS: Final = _count(
    "langmeter.component.calls",
    "{call}",
    "Ended runs of chains, nodes, agents, tools, retrievers and fixes by outcome.",
    (*_COMPONENT, OUTCOME),
)
COMPONENT_DURATION: Final = _seconds(
    "langmeter.component.duration",
    "Duration of runs of components that the conventions do not time.",
    _COMPONENT,
)
#: Verdicts may be revised, so that figures of attempts may go back: they are gauges.
DEFECTS_TRIED: Final = _gauge(
    "langmeter.defects.tried", "{defect}", "Defects with an attempt.", _DEFECT
)
DEFECTS_CLOSED: Final = _gauge(
    "langmeter.defects.closed", "{defect}", "Defects with a verdict about the model.", _DEFECT
)
DEFECTS_FIXED: Final = _gauge(
    "langmeter.defects.fixed", "{defect}", "Defects that an attempt fixed.", _DEFECT
)
ATTEMPTS: Final = _gauge(
    "langmeter.attempts", "{attempt}", "Ended attempts at defects by outcome.", (*_DEFECT, OUTCOME)
)
DEFECT_COST: Final = _count(
    "langmeter.defects.cost.usd",
    "{USD}",
    "Cost of the priced model calls under attempts at defects, US dollars.",
    _DEFECT,
)
TIME_TO_FIX: Final = _seconds(
    "langmeter.defects.time_to_fix",
    "Time from the begin of a defect's first attempt to the end of its first fix.",
    _DEFECT,
)
DROPPED: Final = _count(
    "langmeter.dropped", "{event}", "What was capped, reaped or refused.", ("langmeter.reason",)
)
EXPORTS_DROPPED: Final = _count(
    "langmeter.exports.dropped", "{export}", "Exports that their receiver did not accept.", ()
)
