"""The worst case of a call is one: no real vocabulary, tool or parameter takes it further."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from langmeter import Budget, BudgetExceeded, Meter
from langmeter._core import call_bounds, chat_overhead, count_tokens, input_bound
from langmeter.prices import PriceBook
from langmeter.usage.estimate import TokenEstimator
from tests.core.test_tokenizer import ATOMS, RUNS, SAMPLES
from tests.support.priced import Priced


def _beside(params: Any) -> int:
    """Tokens of what goes with the messages, at most."""
    return call_bounds(params)[0]


ENCODINGS = ("cl100k_base", "o200k_base", "o200k_harmony", "p50k_base")
#: Texts at which some vocabulary has stumbled: each atom alone, repeated, and at random.
HARD = [
    *ATOMS,
    *(run * 500 for run in RUNS),
    *SAMPLES.values(),
    *("".join(random.Random(seed).choices(ATOMS, k=300)) for seed in range(50)),
    *("".join(map(chr, range(first, first + 0x100))) for first in range(0xA0, 0xD700, 0x500)),
    bytes(range(256)).decode("latin-1") * 4,
    json.dumps({"key": ["value", 1.5e-9, None, True]}) * 50,
]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_text_has_more_tokens_than_bytes(encoding: str) -> None:
    """In none of OpenAI's vocabularies, as tiktoken counts (which another test holds ours to)."""
    for text in HARD:
        assert count_tokens(text, encoding) <= input_bound([text])
        assert count_tokens(text, encoding) <= input_bound([[HumanMessage(text)]])


@given(st.text(), st.sampled_from(ENCODINGS))
def test_no_generated_text_has_more_tokens_than_bytes(text: str, encoding: str) -> None:
    """Whatever Unicode allows."""
    text = text.encode("utf-8", "replace").decode()
    assert count_tokens(text, encoding) <= input_bound([text])


@pytest.fixture(scope="module")
def public() -> Path:
    """The files of public vocabularies that litellm ships; it is located, never imported."""
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no vocabularies: uv pip install --no-deps litellm")
    return Path(spec.submodule_search_locations[0], "litellm_core_utils", "tokenizers")


@pytest.mark.slow
def test_the_vocabularies_of_others_stay_below_too(public: Path) -> None:
    """DeepSeek's everywhere; Claude 2's but where it takes a ligature apart before it looks."""
    tokenizers = pytest.importorskip("tokenizers")

    def counter(name: str) -> Any:
        loaded = tokenizers.Tokenizer.from_file(str(public / f"{name}_tokenizer.json"))
        return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)

    deepseek, claude = counter("deepseek"), counter("anthropic")
    plain = [text for text in HARD if text.isascii() or text in SAMPLES.values()]
    assert all(deepseek(text) <= input_bound([[HumanMessage(text)]]) for text in HARD)
    assert all(claude(text) <= input_bound([[HumanMessage(text)]]) for text in plain)
    assert claude("\ufdfa") == 15  # what the page on budgets admits: 3 bytes


messages = st.lists(
    st.one_of(
        st.builds(HumanMessage, st.text(), name=st.sampled_from([None, "ada", "a" * 64])),
        st.builds(
            SystemMessage, st.lists(st.builds(lambda t: {"type": "text", "text": t}, st.text()))
        ),
        st.builds(ToolMessage, st.text(), tool_call_id=st.just("call_" + "x" * 24)),
        st.builds(
            lambda text, args: AIMessage(
                text, tool_calls=[{"name": "look", "args": args, "id": "call_1"}]
            ),
            st.text(),
            st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none())),
        ),
    ),
    max_size=6,
)


@given(messages)
def test_a_chat_is_bounded_with_all_that_is_in_its_messages(chat: list[BaseMessage]) -> None:
    """The offline count, with the overhead of OpenAI's cookbook, never exceeds the bound."""
    if chat:
        counted = TokenEstimator().input("openai", "gpt-4o", [chat]) - chat_overhead("gpt-4o")[2]
        assert counted <= input_bound([chat])


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("é" * 4, 8),
        (["abc", "é"], 5),
        ([{"type": "text", "text": "x" * 1000, "cache_control": {"type": "ephemeral"}}], 1000),
        ([{"type": "image_url", "image_url": {"url": "x" * 9999}}], 2048),
        ([{"type": "image", "source": {"type": "base64", "data": "x" * 9999}}], 2048),
        ([{"type": "file", "id": "file-1"}], 2048),
        ([{"type": "media", "mime_type": "audio/wav", "data": b"x" * 9999}], 2048),
        ([{"type": "tool_use", "input": {"url": "x" * 5000}}], 5000),
        ([{"type": "thinking", "thinking": "x" * 100, "signature": "x" * 100}], 200),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "x" * 5000}]}], 5000),
        ([{"type": "tool_result", "content": [{"type": "image", "data": "x" * 9999}]}], 2048),
        ([{"type": "document", "source": {"type": "text", "data": "x" * 5000}}], 5000),
        ([{"type": "text-plain", "media_type": "text/plain", "data": "x" * 5000}], 5000),
        ([{"type": "search_result", "title": "x" * 100, "content": [5, None]}], 100),
    ],
)
def test_a_content_is_bounded_by_its_texts_and_media(content: Any, tokens: int) -> None:
    """A byte a token, 2,048 a medium whatever its base64 weighs, and the keys beside them."""
    for message in (HumanMessage(content), SystemMessage(content)):
        assert tokens + 16 <= input_bound([[message]]) <= tokens + 16 + 120


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("", tool_calls=[{"name": "look", "args": {"where": "x" * 100}, "id": "1"}]),
        AIMessage(
            "", invalid_tool_calls=[{"name": "look", "args": "x" * 100, "id": "1", "error": ""}]
        ),
        AIMessage("", additional_kwargs={"function_call": {"arguments": "x" * 100}}),
        HumanMessage("", name="x" * 100),
        ToolMessage("", tool_call_id="x" * 100),
    ],
)
def test_what_a_message_has_beside_its_content_counts(message: BaseMessage) -> None:
    """Calls of tools, also broken ones, names and ids go along with it."""
    assert input_bound([[message]]) >= 116


@tool
def look(where: str, how: list[str] | None = None) -> str:
    """Look somewhere and say what is there."""
    return where


class Answer(BaseModel):
    """An answer with a long schema."""

    text: str
    reasons: list[str]


def test_what_is_sent_beside_the_messages_counts() -> None:
    """Definitions of tools and what a provider puts before them, schemas, instructions."""
    definition = convert_to_openai_tool(look)
    text = json.dumps(definition)
    assert _beside({"tools": [definition]}) >= len(text.replace(" ", "")) + 804
    # Anthropic: 346 before them, 735 for its computer, 700 for its editor.
    own = [{"type": "computer_20250124", "name": "computer"}, {"type": "text_editor_20250728"}]
    assert _beside({"tools": own}) >= 346 + 735 + 700
    schema = Answer.model_json_schema()
    for params in (
        {"response_format": {"type": "json_schema", "json_schema": schema}},
        {"response_format": Answer},
        {"output_config": {"format": schema}},
        {"tools": [Answer]},
        {"instructions": "x" * len(str(schema))},
    ):
        assert _beside(params) >= len(json.dumps(schema).replace(" ", ""))
    assert _beside({"tools": None, "response_format": None, "temperature": 1}) == 0

    class Broken:
        @staticmethod
        def model_json_schema() -> Any:
            raise TypeError("no schema")

    assert _beside({"response_format": Broken}) > 0


@pytest.mark.parametrize(
    ("params", "metadata", "most"),
    [
        ({"max_tokens": 5}, {"ls_max_tokens": 9}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, None, 7),
        ({"max_tokens": None}, {"ls_max_tokens": 9}, None),
        ({"max_tokens": "5"}, {}, None),
        ({"generation_config": {"max_output_tokens": 9}}, {"ls_max_tokens": 9}, 9),
        ({}, {"ls_max_tokens": None}, None),
        ({}, {"ls_max_tokens": -1}, None),
        ({}, None, None),
    ],
)
def test_the_limit_of_an_answer_is_found(params: Any, metadata: Any, most: int | None) -> None:
    """In the call's parameters, else where LangChain says it."""
    assert call_bounds(params, metadata)[1] == most


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 5}, 5),
        ({"candidate_count": 4}, 4),
        ({"n": None}, 1),
        ({"n": True, "best_of": "9"}, 1),
    ],
)
def test_all_answers_that_are_asked_for_count(params: Any, count: int) -> None:
    """Each of them is billed, chosen or not."""
    assert call_bounds(params)[2] == count


class Unlimited(Priced):
    """A model without a limit of its own."""

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("bound", "limited", "answered"), [({"n": 4}, 400, 4 * 2048), ({"best_of": 3}, 300, 3 * 2048)]
)
def test_several_answers_are_held_with_and_without_a_limit(
    bound: dict[str, int], limited: int, answered: int
) -> None:
    """Each at `max_tokens`, or at what the model may give: 2,048 at least."""
    config_tokens = len("x") + 16
    for model, worst in ((Priced(), limited), (Unlimited(), answered)):
        for spare, refused in ((0, False), (-1, True)):
            budget = Budget(tokens=config_tokens + worst + spare, action="block")
            meter = Meter(prices=PriceBook(), budgets=[budget])
            call = model.bind(**bound)
            if refused:
                with pytest.raises(BudgetExceeded):
                    call.invoke("x", {"callbacks": [meter]})
            else:
                call.invoke("x", {"callbacks": [meter]})
            assert budget.reserved == 0


def test_tools_and_schemas_are_held() -> None:
    """A definition of 1,000 bytes does not fit 1,000 tokens."""
    for bound in ({"tools": [{"description": "x" * 1000}]}, {"response_format": "x" * 1000}):
        budget = Budget(tokens=1000, action="block")
        with pytest.raises(BudgetExceeded):
            Priced().bind(**bound).invoke("x", {"callbacks": [Meter(budgets=[budget])]})
        assert (budget.spent, budget.reserved) == (0, 0)


def test_a_limit_that_a_client_nests_is_held() -> None:
    """LangChain's metadata has it: the call fits where 2,048 tokens would not."""
    budget = Budget(tokens=200, action="block")
    config: Any = {"callbacks": [Meter(budgets=[budget])], "metadata": {"ls_max_tokens": 100}}
    Unlimited().invoke("x", config)
    assert budget.spent == 110
