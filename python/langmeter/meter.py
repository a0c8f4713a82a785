"""The meter: every class in one handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

from langmeter.budgets import Budget
from langmeter.callbacks.base import Callback
from langmeter.callbacks.composite import CompositeCallback
from langmeter.callbacks.cost import CostTrackingCallback
from langmeter.callbacks.defects import DefectAnalysisCallback
from langmeter.callbacks.performance import PerformanceCallback
from langmeter.callbacks.streaming import StreamingCallback
from langmeter.callbacks.tokens import TokenCountingCallback
from langmeter.config import MeterConfig
from langmeter.config.settings import KEYWORDS
from langmeter.defects import DefectOptions
from langmeter.monitors.stalls import Stall
from langmeter.prices import PriceBook
from langmeter.streaming import (
    Collect,
    Delivery,
    StreamEvent,
    StreamFailure,
    StreamOptions,
    StreamResult,
)
from langmeter.usage import Source

HandlerT = TypeVar("HandlerT", bound=Callback)


class Meter(CompositeCallback):
    """A handler with everything on.

    `chain.invoke(question, config={"callbacks": [meter]})`, then `print(meter.snapshot())`.
    `Meter(budgets=[Budget(usd=5, per="day", action="block")])` refuses calls beyond 5 USD a day.

    Keywords are the settings of `langmeter.MeterConfig`, and the options of
    `langmeter.streaming.StreamOptions` by their own names. One that is left out or None comes from
    the environment, the file, or the defaults, as of `MeterConfig.load`. `streams=False` and
    `defects=False` leave those views out; asking for one then raises AttributeError.

    Attributes:
        tokens, cost, performance, streaming, defects: the views of its recorder. A property of
            theirs takes a whole snapshot; `meter.tokens.of(snapshot)` reads all from one.

    Raises:
        ConfigError: settings are refused; it names all of them.
        TypeError: `config` is given beside other settings.
    """

    def __init__(
        self,
        *,
        on_token_callback: Callable[[str], Any] | None = None,
        on_event: Callable[[StreamEvent], Any] | None = None,
        on_complete: Callable[[StreamResult], Any] | None = None,
        on_error: Callable[[StreamFailure], Any] | None = None,
        collect: bool | Collect | None = None,
        delivery: Delivery | None = None,
        on_stall: Callable[[Stall], Any] | None = None,
        stall_after: float | None = None,
        streams: StreamOptions | bool | None = None,
        prices: PriceBook | bool | None = None,
        budgets: Iterable[Budget] | Literal[False] | None = None,
        token_counters: Mapping[str, Source] | None = None,
        labels: Iterable[str] | None = None,
        defects: DefectOptions | bool | None = None,
        anomalies: bool | None = None,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        settings |= {
            "on_token_callback": on_token_callback,
            "on_event": on_event,
            "on_complete": on_complete,
            "on_error": on_error,
            "collect": collect,
            "delivery": delivery,
            "on_stall": on_stall,
            "stall_after": stall_after,
            "streams": streams,
            "prices": prices,
            "budgets": budgets,
            "token_counters": token_counters,
            "labels": labels,
            "defects": defects,
            "anomalies": anomalies,
        }
        config = MeterConfig.chosen(config, settings, *KEYWORDS)
        # Counters of tokens are loaded once, for all.
        part = replace(config, token_counters=None) if config.token_counters else config
        self.tokens = TokenCountingCallback(config=part)
        self.cost = CostTrackingCallback(config=part)
        self.performance = PerformanceCallback(config=part)
        self._streaming = StreamingCallback(config=part) if config.streams else None
        self._defects = DefectAnalysisCallback(config=part) if config.defects else None
        views = (self.tokens, self.cost, self.performance, self._streaming, self._defects)
        super().__init__([view for view in views if view is not None], config=config)

    @property
    def streaming(self) -> StreamingCallback:
        """Streams and those who listen to them."""
        return _switched_on(self._streaming, "streams")

    @property
    def defects(self) -> DefectAnalysisCallback:
        """Attempts to fix defects."""
        return _switched_on(self._defects, "defects")


def _switched_on(view: HandlerT | None, facet: str) -> HandlerT:
    if view is None:
        raise AttributeError(
            f"{facet} of this meter are switched off; make it without {facet}=False"
        )
    return view
