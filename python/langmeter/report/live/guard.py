"""Guard of the live page: who may read it, under which names, and what the page itself may load."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langmeter import sources
from langmeter._base.check import refusal
from langmeter.report.html.markup import element
from langmeter.report.html.page import document

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # With "no-referrer" browsers send `Origin: null` with the form of the token.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
#: Fewest characters of a token.
_MIN_TOKEN: Final = 16
#: Longest form that is read.
_MAX_FORM: Final = 4096
#: Seconds that a browser keeps the cookie.
_AGE: Final = 86_400
#: Path of the form of the token, and what it needs.
_OPEN: Final = ("/assets/page.css", "/assets/icon.svg")


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_for(host: str, token: str | None) -> tuple[str, bool]:
    """Return the token that a server on this address wants, "" for none, and whether it is new.

    Raises:
        ConfigError: the token is too short, or "" for an address that other machines reach.
    """
    given = os.environ.get(sources.TOKEN, "") if token is None else token
    if given:
        if len(given) < _MIN_TOKEN or not given.isascii() or not given.isprintable():
            # The token itself is not part of the message: it may be logged.
            allowed = f"{_MIN_TOKEN} or more printable ASCII characters"
            raise refusal(
                "token", allowed, f"{len(given)} characters", "leave it out for a new one"
            )
        return given, False
    if is_loopback(host):
        return "", False
    if token is not None:
        raise refusal("token", f"a token for {host}", token, "leave it out for a new one")
    return secrets.token_urlsafe(24), True


class Guard:
    """ASGI application around the pages.

    Args:
        pages: the application that answers what is allowed.
        host: address that the server listens on.
        token: what a reader must know; "" for none.
        names: further names under which the server is reached, those of a proxy.
    """

    def __init__(self, pages: ASGIApp, host: str, token: str, names: Iterable[str] = ()) -> None:
        self._pages, self._token = pages, token
        own = () if is_loopback(host) else (host, socket.gethostname(), socket.getfqdn())
        self._names = {name.lower() for name in ("localhost", *own, *names)}
        self._is_local = is_loopback(host)
        # The cookie is not the token: who reads a cookie cannot send the token elsewhere. It
        # outlives a restart with the same token.
        key = hmac.new(token.encode(), b"langmeter live page", hashlib.sha256).hexdigest()
        self._session = key
        self._cookie = f"langmeter-{key[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._pages(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, text in _HEADERS.items():
                    headers[name] = text
            await send(message)

        answer = self._refusal(request.headers) or await self._unknown(request)
        await (answer or self._pages)(scope, receive, guarded)

    def _refusal(self, headers: Headers) -> Response | None:
        """Return the answer to what a page of another site, or under another name, sends."""
        host = headers.get("host", "")
        if not self._is_own(_name(host)):
            # A name of another site that leads here (DNS rebinding) would make its pages ours.
            text = "this is not a name of this server; use its address, or start it with --name\n"
            return PlainTextResponse(text, 421)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return PlainTextResponse("requests of other sites are refused\n", 403)
        fetch = {name: headers.get(f"sec-fetch-{name}") for name in ("site", "mode")}
        if fetch["site"] == "cross-site" and fetch["mode"] != "navigate":
            return PlainTextResponse("requests of other sites are refused\n", 403)
        return None

    def _is_own(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be rebound; on loopback only loopback leads here.
        return address.is_loopback or not self._is_local

    async def _unknown(self, request: Request) -> Response | None:
        """Return the answer to a reader without the token; None where it is allowed."""
        if not self._token:
            return None
        path = _path(request)
        if path == "/login" and request.method == "POST":
            return await self._exchanged(request, form=True)
        if path == "/" and "token" in request.query_params:
            return await self._exchanged(request, form=False)
        if self._is_known(request.headers) or path in _OPEN:
            return None
        if path == "/" and request.method == "GET":
            return _login(request)
        headers = {"www-authenticate": "Bearer"}
        return PlainTextResponse("this page wants its token\n", 401, headers)

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() == "bearer" and _same(token.strip(), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._session)

    async def _exchanged(self, request: Request, *, form: bool) -> Response:
        """Exchange the token for the cookie, and lead to the page, whose address has no token."""
        from urllib.parse import parse_qs

        if form:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_FORM:
                    return PlainTextResponse("too long\n", 413)
            token = parse_qs(body.decode("latin-1")).get("token", [""])[0].strip()
        else:
            token = request.query_params["token"]
        if not _same(token, self._token):
            return _login(request, "This is not the token of this server.")
        root = request.scope.get("root_path", "")
        answer = RedirectResponse(f"{root}/", 303)
        answer.set_cookie(
            self._cookie,
            self._session,
            max_age=_AGE,
            path=f"{root}/",
            # A false header of a reader makes the reader's own cookie stricter.
            secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
            httponly=True,
            samesite="lax",
        )
        return answer


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _path(request: Request) -> str:
    scope: Any = request.scope
    return str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"


def _name(host: str) -> str:
    """Return the name of a header Host, without its port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _login(request: Request, problem: str = "") -> Response:
    """Return the form of the token."""
    root = request.scope.get("root_path", "")
    form = element(
        "form",
        element("label", "Token, as the server printed it", for_="token"),
        element(
            "input",
            type="password",
            name="token",
            id="token",
            required=True,
            autocomplete="current-password",
        ),
        element("button", "Open"),
        problem and element("p", problem, class_="problem", role="alert"),
        method="post",
        action=f"{root}/login",
        class_="login",
    )
    head = (
        element("link", rel="stylesheet", href=f"{root}/assets/page.css"),
        element("link", rel="icon", href=f"{root}/assets/icon.svg"),
    )
    note = "This page loads nothing from elsewhere."
    text = document("langmeter live", form, (), head=head, end=(), note=note)
    return HTMLResponse(text, 401)
