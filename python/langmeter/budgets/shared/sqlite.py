"""Shared budgets in a SQLite file: one transaction a renewal, for the processes of one machine."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict
from random import random
from threading import Lock
from time import monotonic, sleep, time
from typing import Final

from langmeter.budgets.shared.account import Account, Holding, Reply, Request, Stale, renew
from langmeter.errors import StoreError

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS budgets (key TEXT PRIMARY KEY, account TEXT NOT NULL) STRICT"
)
#: Seconds between two attempts at the lock of the file, at most. SQLite's own pauses grow to 0.1 s.
_PAUSE: Final = 0.004


class SQLiteStore:
    """Budgets in a file on this machine; not on a network file system.

    Args:
        path: of the file; it and its directory are made if missing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._lock = Lock()

    def renew(self, key: str, request: Request, timeout: float) -> Reply | Stale:
        """Renew a lease; raises StoreError where the file cannot be written within `timeout` s."""
        deadline = monotonic() + timeout
        if self._pid != os.getpid():  # a connection does not survive a fork
            self._pid, self._lock, self._connection = os.getpid(), Lock(), None
        if not self._lock.acquire(timeout=timeout):
            raise StoreError(f"{self._path}: locked for {timeout:g} s")
        try:
            return self._renewed(self._begun(deadline), key, request)
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            self._close()
            raise StoreError(f"{self._path}: {error}") from error
        finally:
            self._lock.release()

    def _renewed(self, db: sqlite3.Connection, key: str, request: Request) -> Reply | Stale:
        try:
            row = db.execute("SELECT account FROM budgets WHERE key = ?", (key,)).fetchone()
            account = _account(row[0]) if row else Account()
            reply = renew(account, request, int(time() * 1000))
            if isinstance(reply, Reply):
                db.execute(
                    "INSERT INTO budgets VALUES (?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET account = excluded.account",
                    (key, json.dumps(asdict(account), separators=(",", ":"))),
                )
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return reply

    def _begun(self, deadline: float) -> sqlite3.Connection:
        """Return a connection whose transaction holds the file's lock."""
        while True:
            try:
                db = self._connection or self._opened()
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or monotonic() >= deadline:
                    raise
                sleep(random() * _PAUSE)
            else:
                return db

    def _opened(self) -> sqlite3.Connection:
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, 0o600))
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_SCHEMA)
        except BaseException:
            db.close()
            raise
        self._connection = db
        return db

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error), closing(connection):
                pass

    def __del__(self) -> None:
        if self._pid == os.getpid():
            self._close()


def _account(text: str) -> Account:
    values = json.loads(text)
    holdings = {name: Holding(**holding) for name, holding in values.pop("holdings").items()}
    return Account(**values, holdings=holdings)
