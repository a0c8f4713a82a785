"""What counts as a number of tokens, and as no usage."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.outputs import LLMResult

from langmeter.usage import NOTHING, Usage, read
from tests.support.responses import RAW_OPENAI, chat, figures

# More digits than Python turns into text; with a name that pytest can print.
VAST = pytest.param(10**5000, id="vast")


@pytest.mark.parametrize(
    ("meta", "billed"),
    [
        ({"cost": 0.0004970133333333333}, Decimal("0.0004970133333333333")),
        ({"cost": 0}, Decimal(0)),
        ({"cost": "0.25"}, Decimal("0.25")),
        ({"cost": None}, None),
        ({"token_usage": {**RAW_OPENAI, "cost": 1e-07}}, Decimal("1E-7")),
        ({"token_usage": {**RAW_OPENAI, "cost_in_usd_ticks": 37756000}}, Decimal("0.0037756000")),
    ],
)
def test_a_billed_cost_is_the_decimal_that_was_sent(meta: Any, billed: Any) -> None:
    """OpenRouter beside or within the usage, xAI in ticks of 10^-10 USD; no float arithmetic."""
    assert read(chat(figures(10, 5), meta)).billed == billed


@pytest.mark.parametrize("cost", [True, "free", float("nan"), float("inf"), -1, [1], VAST])
def test_a_cost_that_is_no_amount_is_refused(cost: Any) -> None:
    """It is counted and the tokens still stand."""
    reading = read(chat(figures(10, 5), {"cost": cost}))
    assert (reading.billed, reading.refused, reading.usage) == (None, 1, Usage(10, 5, 15))


@pytest.mark.parametrize(
    "response",
    [
        None,
        7,
        "text",
        {},
        [],
        object(),
        LLMResult(generations=[]),
        LLMResult(generations=[[]]),
        chat(),
        chat({}),
        chat({"input_tokens": None, "output_tokens": None, "total_tokens": 0}),
    ],
)
def test_no_usage_is_none_and_not_zero(response: Any) -> None:
    """So that what was not reported can be estimated."""
    assert read(response) == NOTHING


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (12, 12),
        (12.0, 12),
        ("12", 12),
        (" 12 ", 12),
        (Decimal("12"), 12),
        (None, 0),
    ],
)
def test_what_is_a_number_is_read_as_one(value: Any, number: int) -> None:
    """Whole floats and digits are numbers, None is an absent one."""
    reading = read(chat(figures(100, 5, 105, into={"cache_read": value})))
    assert reading.usage == Usage(100, 5, 105, cache_read=number)
    assert reading.refused == 0


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "many",
        "1e3",
        "-1",
        "٣",
        -1,
        1 << 40,
        10**400,
        Decimal("NaN"),
        Decimal("0.5"),
        [1],
        {"a": 1},
        object(),
    ],
    ids=lambda value: type(value).__name__ if type(value) is object else repr(value),
)
@pytest.mark.parametrize("place", ["cache_read", "audio", "ephemeral_1h_input_tokens"])
def test_what_is_no_number_is_counted_and_read_as_zero(value: Any, place: str) -> None:
    """Never a guess, never an exception."""
    reading = read(chat(figures(100, 5, into={"cache_creation": 1, place: value})))
    assert reading.usage == Usage(100, 5, 105, cache_write=1)
    assert reading.refused == 1


def test_usage_without_any_number_is_no_usage() -> None:
    """Two refusals and nothing else: better estimated than called 0."""
    reading = read(chat({"input_tokens": "a few", "output_tokens": True, "total_tokens": 1}))
    assert (reading.usage, reading.refused) == (None, 2)


def test_half_a_usage_is_kept() -> None:
    """One number of two still counts, and the other one is refused."""
    reading = read(chat({"input_tokens": 5, "output_tokens": "?", "total_tokens": None}))
    assert (reading.usage, reading.refused) == (Usage(5, 0, 5), 1)


def test_an_object_that_raises_when_looked_at_is_a_refusal() -> None:
    """Whatever stands in the place of a response."""

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert read(Hostile()) == NOTHING._replace(refused=1)
