"""Tokens, as the providers report them."""

from __future__ import annotations

from typing import Any

from langmeter.budgets import Budget, Ledger
from langmeter.callbacks.base import Callback, Share
from langmeter.callbacks.views import TokenView
from langmeter.config import MeterConfig
from langmeter.snapshot import Snapshot


class TokenCountingCallback(Callback, TokenView):
    """Counts input, output, cached and reasoning tokens by provider and model.

    With a `limit`, a call whose worst case would take the total past it raises `BudgetExceeded`
    before it is made: the limit is a `Budget(tokens=limit, action="block")`.

    Each property takes a whole snapshot; `of(snapshot)` reads several of one moment.
    """

    def __init__(
        self, *, limit: int | None = None, config: MeterConfig | None = None, **settings: Any
    ) -> None:
        #: The budget of `limit`; None without one.
        self.budget = None if limit is None else Budget(tokens=limit, action="block")
        share: Share = {} if self.budget is None else {"ledger": Ledger((self.budget,), None)}
        super().__init__(share, config=config, **settings)

    @staticmethod
    def of(snapshot: Snapshot) -> TokenView:
        """Return the same figures of a snapshot: `meter.tokens.of(snapshot)`."""
        return TokenView(snapshot)
