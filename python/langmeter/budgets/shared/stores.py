"""Stores of shared budgets by their addresses."""

from __future__ import annotations

from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from langmeter._base.check import refusal
from langmeter.budgets.shared.account import Reply, Request, Stale
from langmeter.budgets.shared.redis import RedisStore
from langmeter.budgets.shared.sqlite import SQLiteStore

#: Schemes of addresses, and what redis-py calls them.
_SERVERS: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
}


class Store(Protocol):
    """Keeps the figures of shared budgets; safe in any thread, and in a forked child."""

    def renew(self, key: str, request: Request, timeout: float) -> Reply | Stale:
        """Do what `account.renew` does to a budget; raises StoreError after `timeout` seconds."""


def checked_store(name: str, store: Any) -> Any:
    """Return the address of a store, None or False; raises ConfigError."""
    if store is None or store is False:
        return store
    if isinstance(store, str):
        parts = urlsplit(store)
        if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
            return store
        if parts.scheme in _SERVERS and parts.netloc:
            return store
    allowed = "the address of a store"
    remedy = "write 'sqlite:///budgets.db', 'redis://HOST' or 'valkey://HOST', False for none"
    raise refusal(name, allowed, store, remedy)


def open_store(url: str) -> Store:
    """Return the store of an address that was checked; connects when it is first used."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return SQLiteStore(unquote(rest.removeprefix("/").partition("?")[0]))
    return RedisStore(f"{_SERVERS[scheme]}://{rest}")
