"""One range check, and warnings that cannot flood a log."""

from __future__ import annotations

import logging
from math import inf, nan
from typing import Any

import pytest

from langmeter import ConfigError
from langmeter._base.check import one_of, real_number, refusal, whole_number
from langmeter._base.warn import MAX_WARNINGS, LimitedWarnings


@pytest.mark.parametrize("wrong", [0, 11, 2.0, True, "3", None, -1])
def test_a_value_that_is_not_a_whole_number_in_the_range_is_refused(wrong: Any) -> None:
    """The message names the argument, the range, the value and the remedy, in this order."""
    with pytest.raises(ConfigError) as caught:
        whole_number("size", wrong, 1, 10, remedy="lower it")
    want = f"size must be a whole number from 1 to 10, got {wrong!r}; lower it"
    assert str(caught.value) == want
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("wrong", [nan, inf, -inf, True, "1", None, -0.1])
def test_a_value_that_is_not_a_finite_number_in_the_range_is_refused(wrong: Any) -> None:
    """Neither nan nor an infinity is in any range, with an upper end or without."""
    for high in (None, 5):
        with pytest.raises(ConfigError, match=r"wait must be seconds from 0"):
            real_number("wait", wrong, 0, high, unit="seconds")


def test_values_in_the_range_come_back() -> None:
    """Whole numbers as they are, others as float; both ends belong to the range."""
    assert [whole_number("n", n, 1, 3) for n in (1, 3)] == [1, 3]
    assert whole_number("n", 10**30, 0) == 10**30
    assert [real_number("x", x, 0, 5) for x in (0, 5, 2.5)] == [0.0, 5.0, 2.5]
    assert one_of("per", "day", ("day", "hour")) == "day"


def test_a_choice_outside_the_list_is_refused() -> None:
    """True is not 1 here: a choice has the type of the one that it equals."""
    with pytest.raises(ConfigError, match=r"per must be one of 'day', 'hour', got 'week'"):
        one_of("per", "week", ("day", "hour"))
    with pytest.raises(ConfigError):
        one_of("n", True, (1, 2))


def test_a_value_that_cannot_be_shown_is_named_by_its_type() -> None:
    """A `repr` that raises does not hide the error."""

    class Raising:
        def __repr__(self) -> str:
            raise RuntimeError

    assert str(refusal("n", "a number", Raising())) == "n must be a number, got a Raising"


def test_ten_subjects_are_warned_about_and_the_rest_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each subject once; the tenth line says that there will be no more."""
    counted: list[int] = []
    warnings = LimitedWarnings("models without a price", counted.append)
    with caplog.at_level(logging.WARNING, "langmeter"):
        for number in range(25):
            for _ in range(3):
                warnings.warn(number, "no price is known for %s", number)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == MAX_WARNINGS == 10
    assert lines[0] == "no price is known for 0"
    assert lines[-1] == "no price is known for 9; further models without a price are only counted"
    assert (warnings.suppressed, sum(counted)) == (15, 15)
    assert 24 in warnings
    assert 25 not in warnings


def test_subjects_are_remembered_up_to_a_bound() -> None:
    """Beyond 1,024 subjects a new one is taken as known, so that nothing grows."""
    warnings = LimitedWarnings("things")
    logging.disable(logging.CRITICAL)
    try:
        for number in range(3000):
            warnings.warn(number, "%s", number)
    finally:
        logging.disable(logging.NOTSET)
    assert warnings.suppressed == 1024 - MAX_WARNINGS
    assert 5000 in warnings
