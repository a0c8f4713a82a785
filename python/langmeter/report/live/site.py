"""Routes of the live page: the page, its events, `/metrics` and `/snapshot.json`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from langmeter import sources
from langmeter.exporters import prometheus
from langmeter.report.html.markup import element
from langmeter.report.html.page import assets, document
from langmeter.report.html.timeline import ByTime
from langmeter.report.live.feed import MAX_VIEWERS, Feed, Reading, moving, span
from langmeter.sources import Source

#: Spans of a history, and their names.
SPANS: Final = {
    "1h": "hour",
    "6h": "6 hours",
    "24h": "day",
    "7d": "week",
    "30d": "30 days",
    "all": "all",
}
_USUAL: Final = "24h"
#: Milliseconds after which a browser tries again.
_RETRY: Final = b"retry: 1000\n\n"


class Site:
    """The pages of a source.

    Args:
        source: what they are of.
        title: heading of the page.
    """

    def __init__(self, source: Source, title: str) -> None:
        reader, self._title = sources.open(source), title
        self.feeds: dict[str, Feed] = {}
        if isinstance(reader, ByTime):
            self.feeds |= {name: span(reader, None if name == "all" else name) for name in SPANS}
        else:
            reader = Reading(reader)
            self.feeds[""] = moving(reader)
        self.usual = _USUAL if _USUAL in self.feeds else ""
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/events", self._events),
                Route("/assets/{name}", self._asset),
                # It has no token of its own: the guard around all pages has looked already.
                Mount("/", prometheus.asgi_app(reader, token="")),
            ]
        )
        style, script = assets(("live.css", "live.js"), __package__)
        icon = (files(__package__) / "assets" / "icon.svg").read_text(encoding="utf-8")
        self._assets = {
            "page.css": (style, "text/css"),
            "page.js": (script, "text/javascript"),
            "icon.svg": (icon, "image/svg+xml"),
        }

    def close(self) -> None:
        """End all viewers, so that the server can end."""
        for feed in self.feeds.values():
            feed.close()

    async def _page(self, request: Request) -> Response:
        name = request.query_params.get("span", self.usual)
        if name not in self.feeds:
            return PlainTextResponse(f"span must be one of {', '.join(self.feeds)}\n", 400)
        return HTMLResponse(_shell(self._title, name, list(self.feeds)))

    async def _asset(self, request: Request) -> Response:
        if request.path_params["name"] not in self._assets:
            return PlainTextResponse("there is no such file\n", 404)
        text, media_type = self._assets[request.path_params["name"]]
        return Response(text, media_type=media_type)

    async def _events(self, request: Request) -> Response:
        feed = self.feeds.get(request.query_params.get("span", self.usual))
        if feed is None:
            return PlainTextResponse(f"span must be one of {', '.join(self.feeds)}\n", 400)
        if sum(each.viewers for each in self.feeds.values()) >= MAX_VIEWERS:
            return PlainTextResponse(f"{MAX_VIEWERS} viewers look already\n", 503)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        headers = {"x-accel-buffering": "no"}
        return StreamingResponse(_stream(feed), media_type="text/event-stream", headers=headers)


async def _stream(feed: Feed) -> AsyncIterator[bytes]:
    viewer = feed.join()
    try:
        yield _RETRY
        async for event in viewer.events():
            yield event
    finally:
        feed.leave(viewer)


def _shell(title: str, name: str, names: Sequence[str]) -> str:
    """Return the page without figures: its script gets them."""
    spans = [
        element(
            "li",
            element(
                "a",
                SPANS[each],
                href=f"?span={each}",
                aria_current="page" if each == name else None,
            ),
        )
        for each in names
        if each
    ]
    lead = (
        element(
            "div",
            element("p", "connecting …", class_="status", id="status", role="status"),
            element("p", id="at", class_="span"),
            element("button", "Pause", id="pause", type="button", aria_pressed="false"),
            class_="bar-of-status",
        ),
        element("nav", element("ul", spans), class_="spans", aria_label="Time") if spans else None,
        element("p", id="problem", class_="problem", role="alert", hidden=True),
        element("dl", class_="tiles five", id="tiles"),
        element("ul", class_="summary", id="needs"),
    )
    head = (
        element("link", rel="stylesheet", href="assets/page.css"),
        element("link", rel="icon", href="assets/icon.svg"),
    )
    end = element("script", src="assets/page.js", data_span=name)
    note = "This page loads nothing from elsewhere and holds no prompt or answer."
    return document(title, lead, (), head=head, end=end, note=note)
