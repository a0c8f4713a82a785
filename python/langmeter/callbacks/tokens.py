"""Tokens, as the providers report them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from langmeter.budgets import Budget, Ledger
from langmeter.callbacks.base import Callback, Share
from langmeter.config import Config
from langmeter.snapshot import Tokens


class TokenCountingCallback(Callback):
    """Counts input, output, cached and reasoning tokens by provider and model.

    With a `limit`, a call whose worst case would take the total past it raises `BudgetExceeded`
    before it is made: the limit is a `Budget(tokens=limit, action="block")`.
    """

    def __init__(
        self, *, limit: int | None = None, config: Config | None = None, **settings: Any
    ) -> None:
        #: The budget of `limit`; None without one.
        self.budget = None if limit is None else Budget(tokens=limit, action="block")
        share: Share = {} if self.budget is None else {"ledger": Ledger((self.budget,), None)}
        super().__init__(share, config=config, **settings)

    @property
    def input_tokens(self) -> int:
        """Input tokens of all models, cached ones included."""
        return self.snapshot().totals.tokens.input

    @property
    def output_tokens(self) -> int:
        """Output tokens of all models, reasoning included."""
        return self.snapshot().totals.tokens.output

    @property
    def total_tokens(self) -> int:
        """Tokens of all models, by the provider's own total where it sends one."""
        return self.snapshot().totals.tokens.total

    @property
    def provider_usage(self) -> Mapping[str, Tokens]:
        """Token counts by provider, over all its models."""
        usage: dict[str, Tokens] = {}
        for (provider, _), stats in self.snapshot().models.items():
            usage[provider] = usage.get(provider, Tokens()) + stats.tokens
        return MappingProxyType(usage)
