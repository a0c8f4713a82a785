"""`ProviderManager`: one chat model that is several providers, chosen by what is measured live."""

from __future__ import annotations

from langmeter.runnables.providers.circuit import HealthOptions
from langmeter.runnables.providers.decisions import Decision, Explanation, Preview
from langmeter.runnables.providers.manager import ProviderManager

__all__ = ["Decision", "Explanation", "HealthOptions", "Preview", "ProviderManager"]
