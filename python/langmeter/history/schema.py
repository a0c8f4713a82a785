"""Schema of a history: one table of snapshots by span; connections, and migrations forward.

A row is the difference of one process over one interval, or the sum of many over an hour or a day.
Its `data` is the compact form of a snapshot, compressed: 50 series share one row, because the names
and zeros that they have in common take most of the bytes of each alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from langmeter._base.check import refusal
from langmeter.errors import ConfigError, SourceError

try:
    import sqlalchemy as sql
    from sqlalchemy.pool import NullPool
except ImportError as error:
    raise ImportError('a history needs pip install "langmeter[history]"') from error

#: Newest revision of the migrations.
HEAD: Final = "0002"
#: Where the revision of a database stands.
VERSION_TABLE: Final = "langmeter_version"
#: Levels of rows: what one interval, one hour and one day of UTC have.
INTERVAL, HOUR, DAY = range(3)
#: Seconds of a row of an hour and of a day.
SIZES: Final = {HOUR: 3600, DAY: 86_400}
#: Key of the lock of PostgreSQL that migrations and roll-ups take.
_LOCK: Final = 0x6C616E676D
_MIGRATIONS: Final = Path(__file__).with_name("migrations")

#: STRICT tables of SQLite know INTEGER, TEXT and BLOB.
_WHOLE: Final = sql.BigInteger().with_variant(sql.Integer(), "sqlite")

_metadata: Final = sql.MetaData()
spans: Final = sql.Table(
    "langmeter_span",
    _metadata,
    # 0 is an interval, 1 an hour, 2 a day.
    sql.Column("level", _WHOLE, primary_key=True, autoincrement=False),
    # End of the span, Unix seconds: an hour's and a day's end on theirs.
    sql.Column("ended", _WHOLE, primary_key=True, autoincrement=False),
    sql.Column("host", sql.Text, primary_key=True),
    # Of langmeter.
    sql.Column("version", sql.Text, primary_key=True),
    # Process id and a random text; empty where processes are summed.
    sql.Column("process", sql.Text, primary_key=True),
    # Running number within the process, so that a writing that is tried again counts once.
    sql.Column("number", _WHOLE, primary_key=True, autoincrement=False),
    # Begin of the span, Unix seconds.
    sql.Column("started", _WHOLE, nullable=False),
    # Whether an interval is part of its hour and day; 1 in those.
    sql.Column("rolled", _WHOLE, nullable=False),
    sql.Column("data", sql.LargeBinary, nullable=False),
    sql.Index(
        "langmeter_span_unrolled",
        "ended",
        sqlite_where=sql.text("rolled = 0"),
        postgresql_where=sql.text("rolled = 0"),
    ),
    sqlite_strict=True,
)

alerts: Final = sql.Table(
    "langmeter_alert",
    _metadata,
    # Title of a rule.
    sql.Column("rule", sql.Text, primary_key=True),
    # Process that judges it, and until when without saying so again, Unix seconds.
    sql.Column("holder", sql.Text, nullable=False),
    sql.Column("until", _WHOLE, nullable=False),
    # States of its alerts, JSON.
    sql.Column("state", sql.Text, nullable=False),
    sqlite_strict=True,
)


def location(url: str | os.PathLike[str]) -> sql.URL:
    """Return the URL of a path or a URL; raises ConfigError, which shows no password."""
    text = os.fspath(url)
    if "://" not in text:
        # Absolute: the program may change its folder.
        return sql.URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        made = sql.make_url(text)
    except (sql.exc.ArgumentError, ValueError):
        scheme = text.partition("://")[0]
        raise refusal("url", "a URL of a database", f"{scheme}://…", "write dialect://…") from None
    if made.drivername in ("postgres", "postgresql"):
        made = made.set(drivername="postgresql+psycopg")
    if made.get_backend_name() == "sqlite" and made.database in (None, "", ":memory:"):
        raise refusal("url", "a file", text, "a history outlives its process; name a file")
    return made


class Database:
    """Connections to one database; each is closed after its transaction.

    So no connection lives through a restart of the server or a deleted file, and processes without
    number may share a server that has room for a hundred connections.
    """

    def __init__(self, url: str | os.PathLike[str], timeout: float) -> None:
        self.url = location(url)
        self.name = self.url.render_as_string(hide_password=True)
        self._sqlite = self.url.get_backend_name() == "sqlite"
        self._postgresql = self.url.get_backend_name() == "postgresql"
        arguments: dict[str, Any] = {}
        if self._sqlite:
            arguments = {"timeout": timeout, "check_same_thread": False}
        elif self._postgresql:
            limit = f"{round(timeout * 1000)}"
            arguments = {
                "connect_timeout": max(2, round(timeout)),
                "tcp_user_timeout": limit,
                "options": f"-c statement_timeout={limit} -c lock_timeout={limit}",
            }
        try:
            self._engine = sql.create_engine(self.url, poolclass=NullPool, connect_args=arguments)
        except (sql.exc.ArgumentError, ImportError) as error:
            scheme = self.url.drivername
            raise ConfigError(f"url must be of a known database, got {scheme!r}; {error}") from None
        self._pin: Any = None
        if self._sqlite:
            sql.event.listen(self._engine, "connect", _configure)
            sql.event.listen(self._engine, "begin", _begin)

    @property
    def is_missing(self) -> bool:
        """Whether it is an SQLite file that is not there: opening it would make it."""
        return self._sqlite and not Path(str(self.url.database)).exists()

    def pin(self) -> None:
        """Keep an SQLite file open, unused: the last connection that closes waits for the disk.

        A write takes 2 ms so, and 5 to 20 ms otherwise.
        """
        if self._sqlite and self._pin is None:
            pin = self._engine.raw_connection()
            pin.cursor().execute("SELECT count(*) FROM sqlite_master").fetchall()
            self._pin = pin

    def unpin(self) -> None:
        """Close it, as before a fork: SQLite's locks do not survive one."""
        pin, self._pin = self._pin, None
        if pin is not None:
            pin.close()

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """Run a transaction that writes; in SQLite the only one of its time."""
        with self._engine.execution_options(langmeter_write=True).begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """Run a transaction that reads, whose statements all see one state."""
        options = {} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._engine.execution_options(**options).begin() as connection:
            yield connection

    def lock(self, connection: sql.Connection, *, wait: bool) -> bool:
        """Take the one lock of migrations and roll-ups; returns False where another has it."""
        if not self._postgresql:  # the transaction is the only one that writes
            return True
        if wait:
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
            return True
        taken = connection.scalar(sql.select(sql.func.pg_try_advisory_xact_lock(_LOCK)))
        return bool(taken)

    def revision(self, connection: sql.Connection) -> str | None:
        """Return the revision of the database; None where it is not a history."""
        if not sql.inspect(connection).has_table(VERSION_TABLE):
            return None
        revision: str | None = connection.scalar(
            sql.text(f"SELECT version_num FROM {VERSION_TABLE}")
        )
        return revision

    def _is_whole(self, connection: sql.Connection) -> bool:
        """Whether the database has every table, of this revision."""
        has_table = sql.inspect(connection).has_table
        return self.revision(connection) == HEAD and all(map(has_table, _metadata.tables))

    def migrate(self, connection: sql.Connection) -> None:
        """Make the tables that are missing, or bring those of an older langmeter forward.

        Raises SourceError for a database of a newer langmeter.
        """
        if self._is_whole(connection):
            return
        self.lock(connection, wait=True)
        revision = self.revision(connection)
        if revision == HEAD:
            _metadata.create_all(connection)  # those that someone has dropped
            return
        # Loaded here: 0.2 s that a database of today's revision does without.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if revision is not None and revision not in known:
            raise SourceError(
                f"the history {self.name} has schema {revision}, and this langmeter knows {HEAD}; "
                "upgrade langmeter to read and write it"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _configure(connection: Any, _: object) -> None:
    # Transactions begin where `_begin` says so: the driver would begin them late, and not for DDL.
    connection.isolation_level = None


def _begin(connection: sql.Connection) -> None:
    if not connection.get_execution_options().get("langmeter_write"):
        connection.exec_driver_sql("BEGIN")
        return
    _write_ahead(connection)
    # Without a sync at each commit: a power cut may cost the last rows, never the database.
    connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _write_ahead(connection: sql.Connection) -> None:
    """Switch a new SQLite file to its write-ahead log; wait for others, which SQLite does not.

    It fails at once where two connections switch at the same time, whatever their timeout.
    """
    until = monotonic() + connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() / 1000
    while connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        except sql.exc.OperationalError as error:
            if "locked" not in str(error.orig) or monotonic() > until:
                raise
            sleep(0.005)
