"""Schema of a history: what is in the database, and how it moves from version to version."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from langmeter import SourceError
from langmeter.history import History, schema
from langmeter.history.store import Store
from tests.support.histories import difference, row
from tests.support.pages import ROOT
from tests.support.waiting import eventually

#: A database that the first version wrote, as text.
FIRST = ROOT / "tests/history/v0001.sql"
_SECOND = '''"""A column more, for a test."""

import sqlalchemy as sql
from alembic import op

revision = "9999"
down_revision = "0002"


def upgrade() -> None:
    """Add a column."""
    op.add_column("langmeter_span", sql.Column("note", sql.Text, server_default="older"))
'''


def test_the_migrations_make_what_the_code_expects(url: str) -> None:
    """The tables of the migrations are those that queries are written for."""
    database = Store(url).database
    with database.writing() as connection:
        database.migrate(connection)
        options = {"version_table": schema.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema._metadata) == []
        assert context.get_current_revision() == schema.HEAD
    script = ScriptDirectory(str(schema._MIGRATIONS))
    assert script.get_current_head() == schema.HEAD


def test_sqlite_has_a_strict_table_and_a_log(tmp_path: Path) -> None:
    """Types are checked by the database, and readers do not wait for the writer."""
    file = tmp_path / "metrics.db"
    Store(file).append([row(difference(86_400, 86_460))])
    connection = sqlite3.connect(file)
    (text,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'langmeter_span'"
    ).fetchone()
    assert text.strip().endswith("STRICT")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE langmeter_span SET started = 'yesterday'")
    connection.close()


def test_times_are_seconds_of_utc(url: str, execute: Callable[[str], list[Any]]) -> None:
    """Anyone can read them with SQL."""
    Store(url).append([row(difference(86_400, 86_460))])
    query = "SELECT started, ended, host, number, rolled FROM langmeter_span"
    assert execute(query) == [(86_400, 86_460, "a", 1, 0)]


def test_a_newer_langmeter_takes_the_rows_along(
    url: str, execute: Callable[[str], list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a migration forward, for a reader as for a writer; the older one is then refused."""
    store = Store(url)
    store.append([row(difference(86_400, 86_460), number=1)])
    older = schema._MIGRATIONS
    newer = tmp_path / "migrations 100%"
    shutil.copytree(older, newer)
    (newer / "versions/v9999_note.py").write_text(_SECOND)
    with monkeypatch.context() as newer_langmeter:
        newer_langmeter.setattr(schema, "_MIGRATIONS", newer)
        newer_langmeter.setattr(schema, "HEAD", "9999")
        newer_langmeter.setattr("langmeter.history.store.HEAD", "9999")
        assert History(url).snapshot().totals.calls == 1
        assert execute("SELECT note FROM langmeter_span") == [("older",)]
        Store(url).append([row(difference(86_460, 86_520), number=2)])
        assert History(url).snapshot().totals.calls == 2
    with pytest.raises(
        SourceError, match="schema 9999.*upgrade langmeter".replace(".*", r"[^;]*; ")
    ):
        History(url).snapshot()
    with pytest.raises(SourceError, match="knows 0002"):
        Store(url).append([row(difference(86_520, 86_580), number=3)])
    assert execute("SELECT count(*) FROM langmeter_span") == [(2,)]


def test_a_database_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Its tables and its snapshots, whose format has a version of its own, stay readable."""
    file = tmp_path / "first.db"
    connection = sqlite3.connect(file)
    connection.executescript(FIRST.read_text(encoding="utf-8"))
    connection.close()
    history = History(file)
    totals = history.snapshot().totals
    assert (totals.calls, totals.errors, totals.tokens.total) == (12, 2, 11_000)
    assert totals.cost == Decimal("0.04")
    assert totals.latency.count == 12
    (team,) = history.query("calls", by="team")
    assert (dict(team.labels), team.value) == ({"team": "search"}, 6)
    Store(file).append([row(difference(86_400, 86_460))])
    assert history.snapshot().totals.calls == 13


def test_two_that_begin_at_once_make_one_history(url: str) -> None:
    """The first writings of two processes wait for each other."""
    failures: list[BaseException] = []

    def begin(name: str) -> None:
        try:
            Store(url, timeout=30).append([row(difference(86_400, 86_460), process=name)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(str(name),)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert History(url).snapshot().totals.calls == 4


def test_a_first_writing_waits_for_another_that_makes_the_file(tmp_path: Path) -> None:
    """SQLite itself fails at once where a file that is written switches to its write-ahead log."""
    file = tmp_path / "metrics.db"
    failures: list[BaseException] = []

    def begin() -> None:
        try:
            Store(file, timeout=60).append([row(difference(86_400, 86_460))])
        except BaseException as error:
            failures.append(error)

    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=begin)
    thread.start()
    assert not eventually(lambda: not thread.is_alive(), 0.2)
    other.execute("COMMIT")
    thread.join()
    other.close()
    assert failures == []
    assert History(file).snapshot().totals.calls == 1


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("metrics.db", f"sqlite:///{Path.cwd()}/metrics.db"),
        ("sqlite:////srv/m.db", "sqlite:////srv/m.db"),
        ("postgresql://u:secret@h/d", "postgresql+psycopg://u:***@h/d"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_a_name_is_a_path_or_a_url(url: str, name: str) -> None:
    """A path is made absolute; a message has no password."""
    assert schema.Database(url, 1.0).name == name


def test_the_driver_is_the_one_that_is_tested(url: str) -> None:
    """SQLite of the standard library, or psycopg 3."""
    with Store(url).database.reading() as connection:
        assert connection.dialect.driver == ("psycopg" if "postgresql" in url else "pysqlite")
        assert connection.scalar(sql.text("SELECT 1")) == 1
