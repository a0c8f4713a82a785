"""Sources of snapshots: a meter, a file, a history, or a page that serves snapshots.

`open(source)` is the one way from a name to figures; every command takes its SOURCE through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, Protocol, TypeAlias, runtime_checkable
from urllib.parse import urlsplit

from langmeter._base.check import refusal, shown
from langmeter._base.spans import Moment
from langmeter._base.text import printable
from langmeter.errors import SourceError
from langmeter.snapshot import Snapshot
from langmeter.snapshot.state import MAGIC

__all__ = ["SnapshotSource", "Source", "open", "read"]

#: Variable of the environment with the token that a page asks for.
TOKEN: Final = "LANGMETER_TOKEN"
#: Seconds that a page may take, whole.
TIMEOUT: Final = 5.0
#: Most bytes of a page.
MAX_BYTES: Final = 50_000_000
_CHUNK: Final = 1 << 16
_BINARY: Final = (b"LMTR", MAGIC)
_SQLITE: Final = b"SQLite format 3\0"


@runtime_checkable
class SnapshotSource(Protocol):
    """Anything that gives snapshots: a meter, a handler, a history, what `open` returns."""

    def snapshot(self) -> Snapshot:
        """Return the figures up to now."""


@runtime_checkable
class Spans(Protocol):
    """A source that keeps figures by time."""

    def between(self, since: Moment, until: Moment) -> Snapshot:
        """Return what was counted in a span; moments are as of a history."""


#: A name of a source, or the source itself.
Source: TypeAlias = "str | os.PathLike[str] | Snapshot | SnapshotSource"


def open(source: Source) -> SnapshotSource:
    """Return the source of a name; it is read at each call of its `snapshot()`.

    Args:
        source: a meter (one that counts into a directory stands for all processes there) or any
            object with `snapshot()`, a snapshot, the path of a snapshot (JSON or
            bytes), of a directory of meters, or of a history in SQLite, the URL of a history (`postgresql://…`,
            `sqlite:///…`), or the URL of a page that serves a snapshot (`https://…/snapshot.json`),
            which is sent `Authorization: Bearer $LANGMETER_TOKEN` where that variable is set.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(source, Snapshot):
        return _Reading(lambda: source)
    if isinstance(source, str | os.PathLike):
        return _named(os.fspath(source))
    if isinstance(source, SnapshotSource):
        # A meter that counts into a directory stands for all its processes.
        file = getattr(source, "file", None)
        return _named(str(file.parent)) if isinstance(file, Path) else source
    raise refusal(
        "source",
        "a meter, a snapshot, a path or a URL",
        source,
        "pass a meter, snapshot.json, metrics.db, postgresql://… or https://…/snapshot.json",
    )


def read(source: Source, *, since: Moment = None, until: Moment = None) -> Snapshot:
    """Return the snapshot of a source; of a history, that of a span.

    Args:
        source: as of `open`.
        since: begin of the span: a datetime, "2026-10-14", "7d" or a timedelta before now. None for
            the beginning.
        until: its end; None for now.

    Raises:
        ConfigError: the source is unknown, or a span is given and it is not a history.
        OSError: a file cannot be read.
        SnapshotError: what was read is not a snapshot.
        SourceError: a page or a database does not answer.
        ImportError: the extra of a history is not installed.
    """
    reader = open(source)
    if since is None and until is None:
        return reader.snapshot()
    if not isinstance(reader, Spans):
        name = "until" if since is None else "since"
        raise refusal(
            name, f"None for {shown(source)}", since or until, "only a history keeps spans"
        )
    return reader.between(since, until)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A source that is read by a function."""

    snapshot: Callable[[], Snapshot]


def _named(name: str) -> SnapshotSource:
    scheme = name.partition("://")[0].lower() if "://" in name else ""
    if scheme in ("http", "https"):
        return _Reading(lambda: _decoded(_page(name), _shown_url(name)))
    if scheme == "file":
        raise refusal("source", "a path or a URL of http, https or a database", name, "drop file:")
    if not scheme and os.path.isdir(name):
        from langmeter.directory import Directory

        return Directory(name)
    if scheme or _begins(name, _SQLITE):
        from langmeter.history import History

        return History(name)
    return _Reading(lambda: _decoded(Path(name).read_bytes(), ""))


def _begins(path: str, magic: bytes) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(magic)) == magic
    except (OSError, ValueError):
        return False  # reading it raises the error that names it


def _decoded(data: bytes, where: str) -> Snapshot:
    try:
        return (Snapshot.from_bytes if data.startswith(_BINARY) else Snapshot.from_json)(data)
    except ValueError as error:
        if where:
            raise SourceError(f"{where}: {error}") from error
        raise


def _page(url: str) -> bytes:
    """Return the body of a page, within `TIMEOUT` and `MAX_BYTES`; raises SourceError."""
    import http.client
    import urllib.error
    import urllib.request

    where, deadline = _shown_url(url), monotonic() + TIMEOUT
    try:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        if token := os.environ.get(TOKEN):
            # Not for where a redirect leads: that may be another host.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            body = bytearray()
            # `read1` returns what has come: a page that sends a byte a second must not last.
            while chunk := answer.read1(_CHUNK):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise SourceError(f"{where} is larger than {MAX_BYTES // 10**6} MB")
                if monotonic() > deadline:
                    raise TimeoutError
            if answer.length:
                raise SourceError(f"{where}: the answer was cut off after {len(body):,} bytes")
            return bytes(body)
    except urllib.error.HTTPError as error:
        with error:
            remedy = ""
            if error.code in (401, 403):
                remedy = f"; set {TOKEN} to " + ("another" if token else "the") + " token"
            raise SourceError(f"{where} answered {error.code} {error.reason}{remedy}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            raise SourceError(f"{where} did not answer within {TIMEOUT:g} s") from None
        why = getattr(cause, "strerror", None) or cause
        raise SourceError(f"{where} cannot be read: {why}") from error


def _shown_url(url: str) -> str:
    """Return a URL for messages: without user, password and query, which may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return printable(parts._replace(netloc=host, query="", fragment="").geturl())
    except ValueError:
        return printable(url.partition("?")[0])
