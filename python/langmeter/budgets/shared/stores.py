"""Stores of shared budgets by their addresses."""

from __future__ import annotations

import re
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
    """Return the address of a store, None or False; raises ConfigError without its password."""
    if store is None or store is False:
        return store
    allowed = _allowed(store) if isinstance(store, str) else "the address of a store"
    if not allowed:
        return store
    given = _without_login(store) if isinstance(store, str) else store
    remedy = "write 'sqlite:///budgets.db', 'redis://HOST' or 'valkey://HOST', False for none"
    raise refusal(name, allowed, given, remedy)


def _allowed(store: str) -> str:
    """Return what is to be in the place of an address that is wrong; empty for a right one."""
    try:
        parts = urlsplit(store)
        port = parts.port
    except ValueError:
        return "the address of a store, with a host and a port from 1 to 65,535"
    if parts.scheme == "sqlite":
        if parts.netloc or parts.query or parts.path[1:] in ("", ":memory:"):
            return "the address of a store, a path after sqlite:///"
        if parts.path.endswith("/"):
            return "the address of a store, the path of a file"
        return ""
    if parts.scheme not in _SERVERS or not parts.hostname:
        return "the address of a store"
    if port == 0:
        return "the address of a store, with a port from 1 to 65,535"
    if not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
        return "the address of a store whose path is the number of a database"
    return ""


def _without_login(store: str) -> str:
    """Return a text that was to be an address, without what may be a password in it."""
    text = store.partition("?")[0]
    if "@" not in text:
        return text
    scheme, _, rest = text.partition(":")
    return f"{'' if '@' in scheme else scheme}://***@{rest.rpartition('@')[2]}"


def open_store(url: str, mode: int = 0o600) -> Store:
    """Return the store of an address that was checked; connects when it is first used.

    Args:
        url: the address.
        mode: permission bits of a file that is made.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return SQLiteStore(unquote(rest.removeprefix("/")), mode)
    return RedisStore(f"{_SERVERS[scheme]}://{rest}")
