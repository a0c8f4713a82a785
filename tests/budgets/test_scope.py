"""What a scope covers: by every name, whatever stands in the metadata."""

from __future__ import annotations

import enum
import logging
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from langmeter import Budget, BudgetExceeded, CompositeCallback, CostTrackingCallback, Meter
from langmeter._base.provider_names import provider_name
from langmeter._base.scope import covers_all, covers_model
from langmeter._core import text_of


class Tenant(str, enum.Enum):  # noqa: UP042 (the kind that is asked about)
    """As plans and tenants are written: `str()` of a member is not what it equals."""

    GOLD = "gold"


class Loud(str):
    """A string that says something else of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class NoText:
    """A value of which no text can be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Hostile(dict[str, Any]):
    """Metadata that cannot be looked at."""

    def __contains__(self, key: object) -> bool:
        raise RuntimeError("no look")


def calls_made(budget: Budget, meter: Any, *, streamed: bool = False, **settings: Any) -> int:
    """How many of five calls the budgets of a meter let through."""
    model, made = FakeListChatModel(responses=["x"]), 0
    config: Any = {"callbacks": [meter], **settings}
    for _ in range(5):
        try:
            if streamed:
                list(model.stream("q", config=config))
            else:
                model.invoke("q", config=config)
            made += 1
        except BudgetExceeded:
            pass
    assert budget.reserved == 0
    return made


@pytest.mark.parametrize(
    ("metered", "names"),
    [
        (
            "openai",
            ["openai", "Open AI", "langchain-openai", "openai-codex", "text-completion-openai"],
        ),
        ("azure.ai.openai", ["azure", "azure_openai", "azurechatopenai", "azure-openai", "azure*"]),
        ("azure.ai.inference", ["azure_ai"]),
        (
            "aws.bedrock",
            ["amazon_bedrock", "bedrock", "bedrock_converse", "aws", "anthropic-bedrock"],
        ),
        ("gcp.gemini", ["google_genai", "google-genai", "google", "gemini", "gcp.*"]),
        ("gcp.gemini", ["langchain_google_genai", "Google AI Studio", "google_ai_studio"]),
        ("gcp.vertex_ai", ["google_vertexai", "vertexai", "vertex_ai", "google_anthropic_vertex"]),
        ("gcp.vertex_ai", ["Vertex AI", "vertex", "vertex-ai", "langchain-google-vertexai"]),
        ("together", ["together", "Together AI", "together.ai", "langchain_together"]),
        ("mistral_ai", ["mistralai", "mistral", "Mistral AI", "mistral-ai"]),
        ("x_ai", ["xai", "x-ai", " XAI "]),
        ("moonshot_ai", ["moonshot", "moonshotai", "moonshot_ai"]),
        ("nvidia_nim", ["nvidia", "NVIDIA", "nim", "nvidia-ai-endpoints"]),
        ("ollama", ["ollama", "Ollama", "langchain-ollama"]),
    ],
)
def test_a_provider_is_covered_by_every_name_that_it_has(metered: str, names: list[str]) -> None:
    """LangChain's, OpenTelemetry's, LiteLLM's and the price catalogue's."""
    for name in names:
        assert covers_model({"provider": (name,)}, metered, "m"), name
    assert not covers_model({"provider": ("anthropic",)}, metered, "m")
    assert provider_name(metered) == metered


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        ("gpt-4o", True),
        ("GPT-4o", True),
        ("gpt-*", True),
        ("openai/gpt-4o", True),
        ("openai:gpt-4o", True),
        ("azure/gpt-4o", False),
        ("gpt-4", False),
    ],
)
def test_a_model_is_covered_by_its_name_with_and_without_its_provider(
    scope: str, covered: bool
) -> None:
    """As prices and `init_chat_model` write it."""
    assert covers_model({"model": (scope,)}, "openai", "gpt-4o") is covered


@pytest.mark.parametrize(
    ("value", "text"), [(Tenant.GOLD, "gold"), (Loud("gold"), "gold"), (5, "5")]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_value_is_read_alike_by_scopes_and_labels(
    value: object, text: str, streamed: bool
) -> None:
    """A string is what it equals, whatever its class says of it; the rest is what `str()` says."""
    budget = Budget(calls=1, scope={"plan": text}, action="block")
    meter = Meter(labels=("plan",), budgets=[budget])
    assert calls_made(budget, meter, metadata={"plan": value}, streamed=streamed) == 1
    assert meter.snapshot().labels[("plan", text)].calls == 1
    read = text_of(value)
    assert (read, type(read)) == (text, str)


def test_a_scope_may_be_written_with_members_of_an_enum() -> None:
    """Keys and values are their characters."""
    budget = Budget(calls=1, scope={"plan": Tenant.GOLD, "tag": [Tenant.GOLD]}, action="block")
    assert dict(budget.scope) == {"plan": ("gold",), "tag": ("gold",)}
    assert budget.name == "1 calls for plan gold, tag gold"
    meter = Meter(budgets=[budget])
    assert calls_made(budget, meter, metadata={"plan": "gold"}, tags=[Tenant.GOLD, "other"]) == 1


@pytest.mark.parametrize("handler", ["meter", "cost", "composite"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_value_that_cannot_be_read_disarms_no_budget_and_loses_no_call(
    handler: str, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The call is counted and held by every budget but those that ask for that very value."""
    overall = Budget(calls=3, action="block", name="overall")
    budgets = [Budget(calls=1, action="block", scope={"x": "ada"}), overall]
    budgets.append(Budget(calls=100, action="block", scope={"y": "bob", "x": ["ada", "bob"]}))
    meter: Any = Meter(budgets=budgets)
    if handler != "meter":
        meter = CostTrackingCallback(budgets=[*map(_again, budgets)])
        overall = meter.budgets[1]
        meter = CompositeCallback([meter]) if handler == "composite" else meter
    with caplog.at_level(logging.WARNING, logger="langmeter"):
        metadata = {"x": NoText(), "y": "bob"}
        assert calls_made(overall, meter, metadata=metadata, streamed=streamed) == 3
    snapshot = meter.snapshot()
    assert (snapshot.totals.calls, overall.spent) == (3, 3)
    assert snapshot.dropped["budget_refused"] == 2
    said = [r for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(said) == 1


def _again(budget: Budget) -> Budget:
    (calls,) = (int(budget.limit),)
    return Budget(calls=calls, action="block", scope=dict(budget.scope), name=budget.name)


def test_metadata_that_cannot_be_looked_at_is_no_way_around_a_budget() -> None:
    """A mapping of a foreign kind that raises is held by the budgets without a scope."""
    overall = Budget(calls=2, action="block")
    meter = Meter(budgets=[overall, Budget(calls=1, action="block", scope={"x": "ada"})])
    ledger = meter._services.ledger
    assert ledger is not None
    demand = ledger.demand("acme", "big", ["x"], Hostile(), ["t"], None)
    assert demand is not None
    assert demand[0] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scope": {"model": 5}}, r"scope\.model must be a text or several, got 5; pass e.g."),
        ({"per": "week"}, r"per must be one of .*, got 'week'; pass"),
        ({"unpriced": "refuse"}, r"unpriced must be 'allow' for a budget of calls, got 'refuse'; "),
        ({"at": [2]}, r"at must be up to 8 fractions .*, got \[2\]; pass"),
    ],
)
def test_a_wrong_setting_is_named_with_range_value_and_remedy(wrong: Any, message: str) -> None:
    """In one form: name, what it must be, what it is, what to do."""
    with pytest.raises(ValueError, match=message):
        Budget(calls=1, **wrong)


@pytest.mark.parametrize(
    ("scope", "names", "covered"),
    [
        ({}, {}, True),
        ({}, {"provider": "openai", "model": "gpt-4o"}, True),
        ({"provider": ("openai",)}, {"provider": "openai", "model": "gpt-4o"}, True),
        ({"provider": ("openai",)}, {"provider": "anthropic"}, False),
        ({"model": ("gpt-4o*",)}, {"provider": "openai", "model": "gpt-4o-mini"}, True),
        ({"model": ("openai/gpt-4o",)}, {"provider": "openai", "model": "gpt-4o"}, True),
        ({"model": ("gpt-4o",)}, {"provider": "openai"}, False),
        ({"provider": ("google",)}, {"provider": "google_genai"}, True),
        ({"team": ("search", "ads")}, {"team": "ads"}, True),
        ({"team": ("search",)}, {"team": "ads"}, False),
        ({"team": ("search",)}, {"provider": "openai"}, False),
        ({"tag": ("batch",)}, {"tag": "batch"}, False),
    ],
)
def test_a_scope_covers_a_row_whose_names_it_has(
    scope: dict[str, tuple[str, ...]], names: dict[str, str], covered: bool
) -> None:
    """A key that the row is not of leaves calls out; of tags no row is."""
    assert covers_all(scope, names) is covered
