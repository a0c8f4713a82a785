"""A live page: what happens now, by model, provider, label and defect type, in a browser.

`pip install "langmeter[serve]"` brings Starlette and uvicorn. Rooms: `site` (the pages) · `guard`
(who may read them) · `server` · `feed` (one reading a second for all viewers) · `view` (a reading
as events) · `past` (the last minutes) · `tables` (its figures).
"""

from __future__ import annotations

try:
    from langmeter.report.live.server import HOST, PORT, LiveServer, app, start
except ImportError as error:
    raise ImportError('the live page needs pip install "langmeter[serve]"') from error

__all__ = ["HOST", "PORT", "LiveServer", "app", "start"]
