"""Shared budgets in a SQLite file: one transaction a renewal, for the processes of one machine."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time as clocks
from contextlib import closing, suppress
from dataclasses import fields
from operator import attrgetter
from random import random
from threading import Lock
from time import monotonic, sleep, time
from typing import Any, Final

from langmeter.budgets.shared.account import Account, Holding, Reply, Request, Stale, renew
from langmeter.errors import StoreError

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS budgets (key TEXT PRIMARY KEY, account TEXT NOT NULL) STRICT"
)
#: Seconds between two attempts at the lock of the file, at most. SQLite's own pauses grow to 0.1 s.
_PAUSE: Final = 0.004
#: Pages of the log after which it is copied into the file, which only the periodic task does.
_PAGES: Final = 1000
#: Milliseconds by which the clock of the machine differs from the time that passed: it was set.
_STEP: Final = 100
_ROW: Final = attrgetter(*(each.name for each in fields(Holding)))
_NAMES: Final = tuple(each.name for each in fields(Account) if each.name != "holdings")
#: Connections of a parent process: a forked child must not even close them.
_inherited: Final[list[sqlite3.Connection]] = []


class SQLiteStore:
    """Budgets in a file on this machine; not on a network file system.

    The clock of the store is that of the machine. Leases end by the time that passed, in every
    process alike, when that clock is set.

    Args:
        path: of the file; it and its directory are made if missing.
        mode: permission bits of the file.
    """

    def __init__(self, path: str, mode: int = 0o600) -> None:
        self._path = os.path.abspath(path)  # a program may change its directory
        self._mode = mode
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._pid = 0
        self._lock = Lock()

    def renew(self, key: str, request: Request, timeout: float) -> Reply | Stale:
        """Renew a lease; raises StoreError where the file cannot be written within `timeout` s."""
        deadline = monotonic() + timeout
        if self._pid != os.getpid():
            if self._connection is not None:
                _inherited.append(self._connection)
            self._pid, self._lock, self._connection = os.getpid(), Lock(), None
        if not self._lock.acquire(timeout=timeout):
            raise StoreError(f"{self._path}: locked for {timeout:g} s")
        try:
            return self._renewed(self._begun(deadline, waits=request.need > 0), key, request)
        except (sqlite3.Error, OSError, ValueError, TypeError, LookupError) as error:
            self._close()
            raise StoreError(f"{self._path}: {error}") from error
        finally:
            self._lock.release()

    def _renewed(self, db: sqlite3.Connection, key: str, request: Request) -> Reply | Stale:
        try:
            row = db.execute("SELECT account FROM budgets WHERE key = ?", (key,)).fetchone()
            now, passed = int(time() * 1000), _passed()
            account = _read(row[0], now, passed) if row else Account()
            reply = renew(account, request, now)
            if isinstance(reply, Reply):
                db.execute(
                    "INSERT INTO budgets VALUES (?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET account = excluded.account",
                    (key, _written(account, now, passed)),
                )
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return reply

    def _begun(self, deadline: float, *, waits: bool) -> sqlite3.Connection:
        """Return a connection whose transaction holds the file's lock; `waits`: for a call."""
        # A checkpoint waits for the disk, 5 to 50 ms.
        pages = 0 if waits else _PAGES
        while True:
            try:
                if self._connection is not None and self._file != _identity(self._path):
                    self._close()  # deleted or replaced: other processes use another file by now
                db = self._connection or self._opened()
                db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or monotonic() >= deadline:
                    raise
                sleep(random() * _PAUSE)
            else:
                return db

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:  # a directory that is deleted later stays deleted
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, self._mode))
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_SCHEMA)
        except BaseException:
            db.close()
            raise
        self._connection, self._file = db, _identity(self._path)
        return db

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error), closing(connection):
                pass

    def __del__(self) -> None:
        if self._pid == os.getpid():
            self._close()
        elif self._connection is not None:
            _inherited.append(self._connection)


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file a path leads to; None where there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _passed() -> int:
    """Return milliseconds since the machine started, sleep included where the system says so."""
    if sys.platform == "linux":
        return int(1000 * clocks.clock_gettime(clocks.CLOCK_BOOTTIME))
    return int(1000 * monotonic())


def _written(account: Account, now: int, passed: int) -> str:
    """Return an account as text, with the clocks of the machine at this renewal."""
    figures: dict[str, Any] = {name: getattr(account, name) for name in _NAMES}
    figures["holdings"] = {name: _ROW(holding) for name, holding in account.holdings.items()}
    return json.dumps({"now": now, "passed": passed, **figures}, separators=(",", ":"))


def _read(text: str, now: int, passed: int) -> Account:
    """Return an account; its times are moved with the clock where that was set meanwhile."""
    values: dict[str, Any] = json.loads(text)
    then, before = values.pop("now"), values.pop("passed")
    holdings = {name: Holding(*row) for name, row in values.pop("holdings").items()}
    account = Account(**values, holdings=holdings)
    step = (now - then) - (passed - before)
    # After a restart of the machine less may have passed than before it: nothing is moved.
    if passed >= before and abs(step) > _STEP:
        account.short += step
        for holding in holdings.values():
            holding.renewed += step
            holding.expires += step
    return account
