"""Formats of the providers: how each reads a request and writes a reply.

Every module here is a `Format`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..reply import Reply
from ..traffic import Request
from .common import Event


class Format(Protocol):
    """The functions of a module that knows the format of one provider's API."""

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Return what a request wants.

        Args:
            body: the JSON object that was sent.
            path: the variable part of the URL, "" where the route has none.

        Raises:
            ValueError: the provider would refuse the request.
        """

    def whole(self, reply: Reply, request: Request) -> dict[str, Any]:
        """Return the body of a reply that is not streamed."""

    def events(self, reply: Reply, request: Request) -> Iterator[Event]:
        """Yield the events of a stream."""

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return the body of a refusal."""

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream."""
