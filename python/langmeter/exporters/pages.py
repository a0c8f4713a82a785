"""Pages of a source: `/metrics` for Prometheus and `/snapshot.json` for `langmeter` commands.

One function answers a request; an ASGI application and a server of the standard library call it.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8

from langmeter import sources
from langmeter._base.check import one_of
from langmeter._base.log import log
from langmeter.exporters import native, semconv
from langmeter.exporters.buckets import SCALES
from langmeter.exporters.families import Families
from langmeter.exporters.metrics import SnapshotCollector
from langmeter.exporters.semconv import Generation
from langmeter.snapshot import Snapshot
from langmeter.sources import SnapshotSource, Source

_OPENMETRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a request."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Pages:
    """Answers requests about a source; the arguments are those of `prometheus.asgi_app`."""

    def __init__(
        self,
        source: Source,
        native_schema: int | None,
        token: str | None,
        conventions: Generation | None,
    ) -> None:
        if native_schema is not None:
            one_of("native_schema", native_schema, SCALES)
        self._source: SnapshotSource = sources.open(source)
        self._schema = native_schema
        self._token = os.environ.get(sources.TOKEN, "") if token is None else token
        self._families = Families(semconv.generation(conventions))

    def answer(self, method: str, path: str, accept: str, authorization: str) -> Answer:
        """Return the answer to a request."""
        page = path.strip("/")
        if page not in ("", "metrics", "snapshot.json"):
            return Answer(404, _TEXT, b"there are /metrics and /snapshot.json\n")
        if not self._is_allowed(authorization):
            return Answer(401, _TEXT, b"wrong token\n", (("WWW-Authenticate", "Bearer"),))
        if method not in ("GET", "HEAD"):
            return Answer(405, _TEXT, b"GET or HEAD\n", (("Allow", "GET, HEAD"),))
        try:
            snapshot = self._source.snapshot()
            if page == "snapshot.json":
                return Answer(200, "application/json", snapshot.to_json().encode())
            return self._metrics(snapshot, accept)
        except Exception as error:  # a source that does not answer is not an error of the host's
            log.warning("%s of %r: %s", page or "metrics", self._source, error)
            return Answer(503, _TEXT, b"the source does not answer\n")

    def _is_allowed(self, authorization: str) -> bool:
        if not self._token:
            return True
        scheme, _, token = authorization.strip().partition(" ")
        right = hmac.compare_digest(token.strip().encode(), self._token.encode())
        return right and scheme.lower() == "bearer"

    def _metrics(self, snapshot: Snapshot, accept: str) -> Answer:
        if self._schema is not None and native.is_accepted(accept):
            begin = snapshot._native.started_at
            body = native.exposition(self._families.of(snapshot), begin, self._schema)
            return Answer(200, native.CONTENT_TYPE, body)
        encode, content_type = choose_encoder(accept)
        if content_type.startswith(_OPENMETRICS):
            # Our names need no escaping; to look for what does takes 11 of 25 ms for 1,000 lines.
            encode = partial(encode, escaping=ALLOWUTF8)  # type: ignore[call-arg]
        return Answer(
            200, content_type, encode(SnapshotCollector(sources.open(snapshot), self._families))
        )
