"""Sources of snapshots, against real files and a real HTTP server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import langmeter
from langmeter import ConfigError, Meter, SourceError, sources
from langmeter.cli import main as cli
from langmeter.errors import SnapshotError
from tests.support.simulated import calls, latencies

SNAPSHOT = calls(latencies(20))


class Pages:
    """An HTTP server whose answers a test decides; it keeps the headers that it was sent."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda request: None
        self.tokens: list[str | None] = []
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages.tokens.append(self.headers["Authorization"])
                pages.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/snapshot.json"

    def serve(self, body: bytes, code: int = 200, **headers: str) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            request.wfile.write(body)

        self.answer = answer


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    monkeypatch.delenv(sources.TOKEN, raising=False)
    pages = Pages()
    yield pages
    pages.server.shutdown()
    pages.server.server_close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    text, binary = tmp_path / "snapshot.json", tmp_path / "snapshot.bin"
    text.write_text(SNAPSHOT.to_json(), encoding="utf-8")
    binary.write_bytes(SNAPSHOT.to_bytes())
    return text, binary


def test_files_are_read_in_either_form(files: tuple[Path, Path]) -> None:
    """JSON and bytes are told apart by their first bytes; a path may be a text."""
    for file in files:
        assert langmeter.read(file) == SNAPSHOT
        assert langmeter.read(str(file)) == SNAPSHOT


def test_a_file_is_read_again_at_each_snapshot(files: tuple[Path, Path]) -> None:
    """A source shows what the file holds by then."""
    source = sources.open(files[0])
    assert source.snapshot() == SNAPSHOT
    files[0].write_text((SNAPSHOT + SNAPSHOT).to_json(), encoding="utf-8")
    assert source.snapshot() == SNAPSHOT + SNAPSHOT


def test_meters_and_snapshots_are_sources() -> None:
    """Whatever has a snapshot() is one, and a snapshot is the source of itself."""
    meter = Meter()
    assert sources.open(meter) is meter
    assert langmeter.read(meter).models == {}
    assert langmeter.read(SNAPSHOT) is SNAPSHOT


@pytest.mark.parametrize("source", [3, None, object(), b"LMTR", "file:///snapshot.json"])
def test_what_is_not_a_source_is_refused(source: Any) -> None:
    """The error lists what is one."""
    with pytest.raises(ConfigError, match=r"source must be a (path or a URL|meter, a snapshot)"):
        sources.open(source)


def test_only_a_history_has_spans(files: tuple[Path, Path]) -> None:
    """A file holds one sum: a span of it is refused."""
    for span in ({"since": "7d"}, {"until": datetime.now(UTC)}):
        with pytest.raises(ConfigError, match=r"must be None .* only a history keeps spans"):
            langmeter.read(files[0], **span)


def test_bad_files_raise_what_python_raises(tmp_path: Path) -> None:
    """A missing file is an OSError, another text a SnapshotError."""
    with pytest.raises(FileNotFoundError):
        langmeter.read(tmp_path / "none.json")
    (tmp_path / "other").write_text("{}")
    with pytest.raises(SnapshotError):
        langmeter.read(tmp_path / "other")


@pytest.mark.parametrize("binary", [False, True])
def test_pages_are_read_in_either_form(pages: Pages, binary: bool) -> None:
    """What a page serves is told apart as that of a file is."""
    pages.serve(SNAPSHOT.to_bytes() if binary else SNAPSHOT.to_json().encode())
    assert langmeter.read(pages.url) == SNAPSHOT
    assert pages.tokens == [None]


def test_the_token_is_sent_and_not_passed_on(pages: Pages, monkeypatch: Any) -> None:
    """A redirect leads to another host, which must not learn the token."""
    monkeypatch.setenv(sources.TOKEN, "secret")
    other = Pages()
    try:
        other.serve(SNAPSHOT.to_json().encode())
        pages.serve(b"", 302, Location=other.url)
        assert langmeter.read(pages.url) == SNAPSHOT
        assert pages.tokens == ["Bearer secret"]
        assert other.tokens == [None]
    finally:
        other.server.shutdown()
        other.server.server_close()


def _too_large(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b" " * 65_536)
    except OSError:
        pass


def _cut_off(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"{")


def _drips(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b" ")
            time.sleep(0.02)
    except OSError:
        pass


def _silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_too_large, "is larger than 1 MB"),
        (_cut_off, "cut off after 1 bytes"),
        (_drips, r"did not answer within 0\.2 s"),
        (_silent, r"did not answer within 0\.2 s"),
    ],
)
def test_a_bad_page_is_given_up(
    pages: Pages, monkeypatch: pytest.MonkeyPatch, answer: Any, message: str
) -> None:
    """Neither a page without an end nor one that sends a byte at a time holds the reader."""
    monkeypatch.setattr(sources, "MAX_BYTES", 10**6)
    monkeypatch.setattr(sources, "TIMEOUT", 0.2)
    pages.answer = answer
    with pytest.raises(SourceError, match=message):
        langmeter.read(pages.url)


@pytest.mark.parametrize(
    ("code", "token", "message"),
    [
        (404, None, r"snapshot\.json answered 404 Not Found$"),
        (401, None, "401 Unauthorized; set LANGMETER_TOKEN to the token"),
        (403, "old", "403 Forbidden; set LANGMETER_TOKEN to another token"),
    ],
)
def test_a_refusal_is_named(
    pages: Pages, monkeypatch: Any, code: int, token: str | None, message: str
) -> None:
    """The message has the status, and the remedy where a token is missing."""
    if token:
        monkeypatch.setenv(sources.TOKEN, token)
    pages.serve(b"no", code)
    with pytest.raises(SourceError, match=message):
        langmeter.read(pages.url)


def test_what_a_page_serves_instead_is_named(pages: Pages) -> None:
    """A page of HTML is not a snapshot; neither is a closed port a page."""
    pages.serve(b"<html>")
    with pytest.raises(SourceError, match="not a langmeter snapshot"):
        langmeter.read(pages.url)
    with pytest.raises(SourceError, match="cannot be read: Connection refused"):
        langmeter.read("http://127.0.0.1:1/snapshot.json")


def test_messages_have_no_secrets(pages: Pages) -> None:
    """Users, passwords and queries of a URL are left out of messages."""
    pages.serve(b"", 500)
    url = pages.url.replace("http://", "http://user:pass@") + "?key=hidden"
    with pytest.raises(SourceError) as caught:
        langmeter.read(url)
    assert "pass" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_commands_take_any_source(
    pages: Pages, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A command prints the same from JSON, from bytes and from a page."""
    pages.serve(SNAPSHOT.to_json().encode())
    outputs = set()
    for source in (*map(str, files), pages.url):
        assert cli.main(["bottlenecks", source]) == 0
        outputs.add(capsys.readouterr().out)
        assert cli.main(["compare", source, str(files[1])]) == 0
        outputs.add(capsys.readouterr().out)
    assert len(outputs) == 2
    with pytest.raises(SystemExit) as ended:
        cli.main(["bottlenecks", "http://127.0.0.1:1/snapshot.json"])
    assert ended.value.code == 2
    assert "cannot be read: Connection refused" in capsys.readouterr().err
