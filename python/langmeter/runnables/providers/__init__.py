"""`ProviderManager`: one chat model that is several providers, chosen by what is measured live."""

from __future__ import annotations

from langmeter.runnables.providers.circuit import HealthOptions

__all__ = ["HealthOptions"]
