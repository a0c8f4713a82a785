"""langmeter meters LangChain pipelines from inside the process: tokens, money, time and streams.

Importing this module loads the native core and nothing else: every public name is loaded when it is
first asked for (PEP 562), so that `langchain_core` is imported only by those who make a handler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langmeter._core import BUILD_PROFILE, __version__

if TYPE_CHECKING:
    from langmeter.analysis import advise
    from langmeter.budgets import Budget
    from langmeter.callbacks.composite import CompositeCallback
    from langmeter.callbacks.cost import CostTrackingCallback
    from langmeter.callbacks.defects import DefectAnalysisCallback
    from langmeter.callbacks.performance import PerformanceCallback
    from langmeter.callbacks.streaming import StreamingCallback
    from langmeter.callbacks.tokens import TokenCountingCallback
    from langmeter.config import MeterConfig
    from langmeter.errors import (
        BudgetExceeded,
        ConfigError,
        LangmeterError,
        SourceError,
        StoreError,
        StreamDiverged,
        StreamTruncated,
    )
    from langmeter.meter import Meter
    from langmeter.prices import PriceBook
    from langmeter.runnables.attach import attach
    from langmeter.runnables.embeddings import track_embeddings
    from langmeter.runnables.providers import HealthOptions, ProviderManager
    from langmeter.runnables.resume import Restart, restart_of, resume
    from langmeter.scopes import install, track, uninstall
    from langmeter.snapshot import Snapshot
    from langmeter.sources import read

__all__ = [
    "Budget",
    "BudgetExceeded",
    "CompositeCallback",
    "ConfigError",
    "CostTrackingCallback",
    "DefectAnalysisCallback",
    "HealthOptions",
    "LangmeterError",
    "Meter",
    "MeterConfig",
    "NoProviderError",
    "PerformanceCallback",
    "PriceBook",
    "ProviderManager",
    "Restart",
    "Snapshot",
    "SourceError",
    "StoreError",
    "StreamDiverged",
    "StreamTruncated",
    "StreamingCallback",
    "TokenCountingCallback",
    "__version__",
    "advise",
    "attach",
    "install",
    "read",
    "restart_of",
    "resume",
    "track",
    "track_embeddings",
    "uninstall",
]

_ROOMS = {
    "Budget": "budgets",
    "BudgetExceeded": "errors",
    "CompositeCallback": "callbacks.composite",
    "MeterConfig": "config",
    "ConfigError": "errors",
    "CostTrackingCallback": "callbacks.cost",
    "DefectAnalysisCallback": "callbacks.defects",
    "HealthOptions": "runnables.providers",
    "LangmeterError": "errors",
    "Meter": "meter",
    "NoProviderError": "errors",
    "PerformanceCallback": "callbacks.performance",
    "PriceBook": "prices",
    "ProviderManager": "runnables.providers",
    "Restart": "runnables.resume",
    "Snapshot": "snapshot",
    "SourceError": "errors",
    "StoreError": "errors",
    "StreamDiverged": "errors",
    "StreamTruncated": "errors",
    "StreamingCallback": "callbacks.streaming",
    "TokenCountingCallback": "callbacks.tokens",
    "advise": "analysis",
    "attach": "runnables.attach",
    "install": "scopes",
    "read": "sources",
    "restart_of": "runnables.resume",
    "resume": "runnables.resume",
    "track": "scopes",
    "track_embeddings": "runnables.embeddings",
    "uninstall": "scopes",
}


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{room}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if BUILD_PROFILE == "debug":
    from warnings import warn

    warn(
        "langmeter._core is a debug build and several times slower; "
        "build it with `maturin develop --release`",
        RuntimeWarning,
        stacklevel=2,
    )
