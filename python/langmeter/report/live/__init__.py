"""A live page: what happens now, by model, provider, label and defect type, in a browser.

`pip install "langmeter[serve]"` brings Starlette and uvicorn. Rooms: `site` (the pages) · `guard`
(who may read them) · `server` · `feed` (one reading a second for all viewers) · `view` (a reading
as events) · `past` (the last minutes) · `tables`, `states` (its parts).
"""

from __future__ import annotations

from collections.abc import Iterable

from langmeter.sources import Source

try:
    from langmeter.report.live.server import HOST, PORT, LiveServer, app
except ImportError as error:
    raise ImportError('the live page needs pip install "langmeter[serve]"') from error

__all__ = ["HOST", "PORT", "LiveServer", "app", "start"]


def start(
    source: Source,
    port: int = PORT,
    host: str = HOST,
    *,
    token: str | None = None,
    names: Iterable[str] = (),
    title: str = "langmeter live",
) -> LiveServer:
    """Serve the live page of a source from a thread of this process.

    `/metrics` and `/snapshot.json` are served beside it. The source is read once a second for all
    viewers together, and not at all without one.

    Args:
        source: a meter, or any other source of `langmeter.sources.open`; of a history the page has
            spans of time instead of the last minutes.
        port: to listen on; 0 for a free one.
        host: address to listen on. Any that other machines reach wants a token.
        token: 16 or more characters that a reader must know, as `Authorization: Bearer TOKEN` or
            once at the page, which keeps a cookie. None for that of the variable LANGMETER_TOKEN;
            where there is none, a new one for an address that other machines reach, else none.
        names: further names under which browsers reach the server, those of a proxy.
        title: heading of the page.

    Raises:
        ConfigError: an argument is not one of these, or the source is unknown.
        OSError: the address cannot be listened on.
    """
    server = LiveServer(source, port, host, token=token, names=names, title=title)
    server.begin()
    return server
