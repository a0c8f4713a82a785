"""Who may read the live page: hosts, origins, tokens, cookies, and what the page may load."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from langmeter import ConfigError, Meter, Snapshot, sources
from langmeter.report import live
from langmeter.report.live.guard import token_for
from tests.support.traffic import Traffic

SNAPSHOT = Traffic().everything(20).snapshot()
TOKEN = "a-token-that-is-long-enough"
LOCAL = "http://127.0.0.1:8484"
FAR = "http://10.0.0.7:8484"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sources.TOKEN, raising=False)


def client(base: str = LOCAL, host: str = "127.0.0.1", token: str | None = None) -> TestClient:
    """A browser at an address of a server."""
    pages = live.app(SNAPSHOT, host, token=token, names=["meter.example"])
    return TestClient(pages, base, follow_redirects=False)


@pytest.fixture
def far() -> TestClient:
    """A browser at a server that other machines reach."""
    return client(FAR, "0.0.0.0", TOKEN)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        *(("127.0.0.1:8484", 200), ("localhost", 200), ("LOCALHOST:9", 200), ("[::1]:8484", 200)),
        *(("127.0.0.2", 200), ("meter.example:443", 200)),
        *(("evil.example", 421), ("evil.example:8484", 421), ("10.0.0.7", 421), ("", 421)),
        *(("127.0.0.1.evil.example", 421), ("[::1", 200), ("localhost.evil.example", 421)),
    ],
)
def test_a_server_answers_to_its_own_names(name: str, status: int) -> None:
    """A name that leads here by rebinding is refused, whatever is asked for."""
    for path in ("/", "/snapshot.json", "/metrics", "/assets/page.js"):
        assert client().get(path, headers={"host": name}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": LOCAL}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:8485"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], status: int) -> None:
    """A request that a page of another origin makes gets nothing; a link to the page works."""
    assert client().get("/snapshot.json", headers=headers).status_code == status


def test_every_answer_has_the_policy(far: TestClient) -> None:
    """Pages, refusals and the form of the token allow nothing inline and nothing from elsewhere."""
    answers = [
        *(client().get(path) for path in ("/", "/metrics", "/snapshot.json", "/nowhere")),
        *(far.get("/"), far.get("/metrics"), client().get("/", headers={"host": "evil.example"})),
    ]
    for answer in answers:
        policy = dict(
            part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    page = client().get("/").text
    assert "<style" not in page
    assert " style=" not in page
    assert page.count("<script") == page.count('<script src="assets/page.js"') == 1


def test_loopback_needs_no_token_unless_one_is_given() -> None:
    """On loopback everything is open; with a token nothing is."""
    assert client().get("/snapshot.json").status_code == 200
    locked = client(token=TOKEN)
    assert [locked.get(path).status_code for path in ("/", "/events", "/metrics")] == [401] * 3


def test_without_the_token_there_are_no_figures(far: TestClient) -> None:
    """The form, its styles and the icon are all that a stranger gets."""
    for path in ("/events", "/metrics", "/snapshot.json", "/assets/page.js", "/nowhere", "/login"):
        answer = far.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    form = far.get("/")
    assert form.status_code == 401
    assert "gpt-4o" not in form.text
    assert '<form method="post" action="/login"' in form.text
    assert far.get("/assets/page.css").status_code == 200
    assert far.get("/assets/icon.svg").status_code == 200


@pytest.mark.parametrize("door", ["form", "address"])
def test_the_token_is_exchanged_for_a_cookie(far: TestClient, door: str) -> None:
    """The answer leads to an address without the token; the cookie is HttpOnly and SameSite."""
    if door == "form":
        answer = far.post("/login", data={"token": TOKEN}, headers={"origin": FAR})
    else:
        answer = far.get(f"/?token={quote(TOKEN)}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/;" in cookie + ";"
    assert TOKEN not in str(answer.headers)
    assert TOKEN not in answer.text
    assert far.get("/").status_code == 200
    assert Snapshot.from_json(far.get("/snapshot.json").text) == SNAPSHOT
    # A server that was started again with the token knows the cookie; one with another does not.
    again = client(FAR, "0.0.0.0", TOKEN)
    again.cookies = far.cookies
    assert again.get("/").status_code == 200
    other = client(FAR, "0.0.0.0", TOKEN + "!")
    other.cookies = far.cookies
    assert other.get("/").status_code == 401


def test_the_cookie_is_kept_from_plain_connections_behind_tls() -> None:
    """Where the page comes by https, the cookie is sent by https alone."""
    secure = client("https://meter.example", "0.0.0.0", TOKEN)
    answer = secure.post("/login", data={"token": TOKEN})
    assert "; secure" in answer.headers["set-cookie"].lower()
    proxied = client("http://meter.example", "0.0.0.0", TOKEN)
    headers = {"x-forwarded-proto": "https", "origin": "https://meter.example"}
    answer = proxied.post("/login", data={"token": TOKEN}, headers=headers)
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_it_may_be_mounted_below_a_path() -> None:
    """In an application of one's own, pages, cookie and form stay below the path."""
    pages = live.app(SNAPSHOT, "0.0.0.0", token=TOKEN)
    whole = Starlette(routes=[Mount("/meter", pages)])
    browser = TestClient(whole, FAR, follow_redirects=False)
    assert 'action="/meter/login"' in browser.get("/meter/").text
    answer = browser.post("/meter/login", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/meter/")
    assert "path=/meter/;" in answer.headers["set-cookie"].lower() + ";"
    for path in ("", "metrics", "snapshot.json", "assets/page.js"):
        assert browser.get(f"/meter/{path}").status_code == 200
    assert browser.get("/snapshot.json").status_code == 404


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], TOKEN.upper(), "é" * 20])
def test_a_wrong_token_opens_nothing(far: TestClient, wrong: str) -> None:
    """Neither door, nor the header, takes another token."""
    for answer in (
        far.post("/login", data={"token": wrong}),
        far.get("/", params={"token": wrong}),
        far.get("/metrics", headers=[(b"authorization", f"Bearer {wrong}".encode())]),
    ):
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    name = far.post("/login", data={"token": TOKEN}).headers["set-cookie"].partition("=")[0]
    far.cookies.clear()
    far.cookies.set(name, wrong if wrong.isascii() else "x")
    assert far.get("/").status_code == 401


def test_a_form_that_is_too_long_is_not_read(far: TestClient) -> None:
    """A body beyond 4 kB is refused."""
    assert far.post("/login", content=b"token=" + b"x" * 5000).status_code == 413


def test_programs_send_the_token_as_a_header(far: TestClient) -> None:
    """Prometheus and `langmeter` commands send `Authorization: Bearer`."""
    headers = {"authorization": f"bearer  {TOKEN}"}
    assert far.get("/metrics", headers=headers).status_code == 200
    assert far.get("/snapshot.json", headers={"authorization": f"Basic {TOKEN}"}).status_code == 401


def test_which_token_a_server_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, of the environment, none on loopback, else a new one; never a short one."""
    assert token_for("127.0.0.1", None) == token_for("::1", "") == ("", False)
    assert token_for("localhost", TOKEN) == (TOKEN, False)
    (first, is_new), (second, _) = token_for("0.0.0.0", None), token_for("0.0.0.0", None)
    assert is_new
    assert len(first) >= 32
    assert first != second
    for host, token in (("0.0.0.0", ""), ("127.0.0.1", "short"), ("10.0.0.7", "ü" * 20)):
        with pytest.raises(ConfigError, match="token must be") as error:
            token_for(host, token)
        assert not token or token not in str(error.value)
    monkeypatch.setenv(sources.TOKEN, TOKEN)
    assert token_for("127.0.0.1", None) == (TOKEN, False)


@pytest.fixture
def served() -> Iterator[live.LiveServer]:
    """A server on all addresses, with a token that it made."""
    with live.start(Meter(), 0, "0.0.0.0") as server:
        yield server


def test_no_log_has_the_token(
    served: live.LiveServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the server's own logs nor a host's log of requests has the token or the cookie."""
    access, lines = logging.getLogger("uvicorn.access"), logging.StreamHandler()
    access.addHandler(lines)
    try:
        with caplog.at_level(logging.DEBUG):
            cookie = ""
            for path, status in ((f"/?token={quote(served.token)}", 303), ("/", 200)):
                connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
                connection.request("GET", path, headers={"cookie": cookie})
                answer = connection.getresponse()
                answer.read()
                connection.close()
                assert answer.status == status
                cookie = answer.headers.get("set-cookie", "").partition(";")[0]
    finally:
        access.removeHandler(lines)
    text = caplog.text + "".join(capfd.readouterr())
    assert served.token not in text
    assert served.is_new
    assert served.token not in served.url
    assert "GET /" not in text
