"""The meter: every class in one handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Final

from langmeter.budgets import Budget
from langmeter.callbacks.composite import CompositeCallback
from langmeter.callbacks.cost import CostTrackingCallback
from langmeter.callbacks.defects import DefectAnalysisCallback
from langmeter.callbacks.performance import PerformanceCallback
from langmeter.callbacks.streaming import Delivery, StreamingCallback
from langmeter.callbacks.tokens import TokenCountingCallback
from langmeter.config import Config
from langmeter.defects.options import DefectOptions
from langmeter.monitors.stalls import Stall
from langmeter.prices import PriceBook
from langmeter.streaming import Collect, StreamEvent, StreamFailure, StreamResult
from langmeter.usage import Source


class Meter(CompositeCallback):
    """A handler with everything on.

    `chain.invoke(question, config={"callbacks": [meter]})`, then `print(meter.snapshot())`.
    `Meter(budgets=[Budget(usd=5, per="day", action="block")])` refuses calls beyond 5 USD a day.

    Attributes:
        tokens, cost, performance, streaming, defects: the views of its recorder. A property of
            theirs takes a whole snapshot; `meter.tokens.of(snapshot)` reads all from one.
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
        prices: PriceBook | None = None,
        budgets: Iterable[Budget] = (),
        token_counters: Mapping[str, Source] | None = None,
        labels: Iterable[str] = (),
        defects: DefectOptions | None = None,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        budgets = tuple(budgets)
        config = Config.chosen(config, settings)
        #: Every setting by name, as a second `install()` compares them.
        self._settings = every_setting(
            {
                "on_token_callback": on_token_callback,
                "on_event": on_event,
                "on_complete": on_complete,
                "on_error": on_error,
                "collect": collect,
                "delivery": delivery,
                "on_stall": on_stall,
                "stall_after": stall_after,
                "prices": prices,
                "budgets": budgets,
                "token_counters": token_counters,
                "labels": labels,
                "defects": defects,
                "config": config,
            }
        )
        self.tokens = TokenCountingCallback(config=config)
        self.cost = CostTrackingCallback(prices, budgets=budgets, config=config)
        self.performance = PerformanceCallback(config=config)
        self.streaming = StreamingCallback(
            on_token_callback,
            on_event=on_event,
            on_complete=on_complete,
            on_error=on_error,
            collect=collect,
            delivery=delivery,
            on_stall=on_stall,
            stall_after=stall_after,
            config=config,
        )
        self.defects = DefectAnalysisCallback(defects, config=config)
        views = (self.tokens, self.cost, self.performance, self.streaming, self.defects)
        super().__init__(views, token_counters=token_counters, labels=labels, config=config)


_DEFAULTS: Final = {
    name: parameter.default
    for name, parameter in inspect.signature(Meter.__init__).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "config"
}


def every_setting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of a meter that is made with these keywords, by name."""
    others = {name: value for name, value in arguments.items() if name not in _DEFAULTS}
    config = Config.chosen(others.pop("config", None), others)
    made = {name: arguments.get(name, default) for name, default in _DEFAULTS.items()}
    labels = made["labels"]
    made["labels"] = (labels,) if isinstance(labels, str) else tuple(labels)
    made["budgets"] = tuple(made["budgets"])
    made["token_counters"] = made["token_counters"] or None
    return {**made, **{each.name: getattr(config, each.name) for each in fields(config)}}
