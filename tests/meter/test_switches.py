"""Parts of a meter that are switched off, and meters that are made by a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from langmeter import (
    Budget,
    BudgetExceeded,
    CostTrackingCallback,
    DefectAnalysisCallback,
    Meter,
    MeterConfig,
    StreamingCallback,
    TokenCountingCallback,
    install,
    track,
    uninstall,
)
from langmeter.prices import PriceBook, catalogue
from tests.support.models import chat_model

FILE = """\
max_runs = 99
labels = ["team"]
prices."fake/fake" = { input = 1, output = 1 }
streams = { collect = true }
defects.keys = { type = "checker" }
[[budgets]]
calls = 1
action = "block"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the working directory."""
    monkeypatch.chdir(tmp_path)
    (path := tmp_path / "langmeter.toml").write_text(FILE)
    return path


def test_every_way_to_make_a_meter_reads_the_file(file: Path) -> None:
    """`Meter`, `install` and `track` have the same configuration."""
    made = [Meter(), install()]
    uninstall()
    with track() as tracked:
        made.append(tracked)
    for meter in made:
        assert (meter.config.max_runs, meter.config.labels) == (99, ("team",))
        assert len(meter.cost.budgets) == 1
        assert meter.streaming._streams.collects
    assert install(max_runs=99).config.origin("max_runs") is not None
    assert install(max_runs=99) is uninstall()


def test_a_budget_of_a_file_refuses(file: Path) -> None:
    """As one by keyword does."""
    model = chat_model()
    with track() as meter:
        model.invoke("hi", config={"metadata": {"team": "x"}})
        with pytest.raises(BudgetExceeded, match="1 calls"):
            model.invoke("hi")
    assert meter.snapshot().labels["team", "x"].calls == 1


def test_each_handler_takes_its_part(file: Path) -> None:
    """Budgets and prices, streams, names of defects; all of them labels."""
    cost, streaming = CostTrackingCallback(), StreamingCallback()
    assert len(cost.budgets) == 1
    assert cost.calculate_cost("fake", 1_000_000, 0, model="fake") == 1
    assert streaming._streams.collects
    assert DefectAnalysisCallback()._services.defects.keys == {"type": "checker"}  # type: ignore[union-attr]
    for handler in (cost, streaming, TokenCountingCallback()):
        assert handler.config.max_runs == 99
        assert handler._services.labels == ("team",)
    assert TokenCountingCallback()._services.ledger is None


def test_what_is_switched_off_is_not_there() -> None:
    """Neither the view nor what it would do; calls are counted as before."""
    meter = Meter(streams=False, defects=False, anomalies=False)
    list(chat_model().stream("hi", config={"callbacks": [meter]}))
    assert meter.snapshot().totals.calls == 1
    assert meter._services.observers == ()
    assert meter._services.streams is None
    assert meter._services.defects is None
    for name in ("streaming", "defects"):
        with pytest.raises(AttributeError, match="switched off; make it without"):
            getattr(meter, name)
        assert not hasattr(meter, name)
    everything = Meter()
    chat_model().invoke("hi", config={"callbacks": [everything]})
    assert len(everything._services.observers) == 2


def test_without_prices_calls_are_unpriced_and_nothing_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Budgets in calls and tokens hold all the same."""
    warmed: list[Any] = []
    monkeypatch.setattr(catalogue, "warm", lambda **keywords: warmed.append(keywords))
    meter = Meter(prices=False, budgets=[Budget(calls=1, action="block")])
    model = chat_model()
    model.invoke("hi", config={"callbacks": [meter]})
    with pytest.raises(BudgetExceeded):
        model.invoke("hi", config={"callbacks": [meter]})
    assert meter.cost.total_cost is None
    assert meter.snapshot().totals.calls == 1
    assert warmed == []
    Meter()
    assert warmed


def test_a_configuration_is_used_as_it_is(file: Path) -> None:
    """Neither the file nor the environment is read beside it."""
    config = MeterConfig(max_runs=5, prices=PriceBook({"a/m": {"input": 1, "output": 1}}))
    meter = Meter(config=config)
    assert meter.config is config
    assert meter.cost.budgets == ()
    assert meter.cost.prices is config.prices
    assert meter._services.labels == ()


def test_token_counters_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of megabytes is not read by each part of a meter."""
    from langmeter.usage import token_counters

    loaded: list[str] = []
    monkeypatch.setattr(
        token_counters,
        "_loaded",
        lambda name, source: loaded.append(name) or (lambda model: len),  # type: ignore[func-returns-value]
    )
    meter = Meter(token_counters={"fake": len})
    assert loaded == ["fake"]
    assert meter._services.estimator.counter("", "fake-1")("four") == 4
