"""The file that the compact table is kept in: who may use it, and what spoils it."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider

from langmeter.prices import PriceBook, cache, catalogue, table
from tests.support.tables import TABLE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, and a process that has not loaded the catalogue."""
    kept = tmp_path / "cache"
    monkeypatch.setenv("LANGMETER_CACHE", str(kept))
    monkeypatch.setattr(catalogue, "_table", None)
    monkeypatch.setattr(catalogue, "_absent", False)
    monkeypatch.setattr(catalogue, "_warming", None)
    return kept


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The times that the table was built from genai-prices' data."""
    calls: list[Path] = []
    run = catalogue._run

    def counted(data: Path) -> Any:
        calls.append(data)
        return run(data)

    monkeypatch.setattr(catalogue, "_run", counted)
    return calls


def load(monkeypatch: pytest.MonkeyPatch) -> str:
    """Load the catalogue as a new process does; the model that a price is listed under."""
    monkeypatch.setattr(catalogue, "_table", None)
    card = PriceBook().card("openai", "gpt-4o-2024-08-06")
    assert card is not None
    assert card.source.startswith("genai-prices ")
    return card.model


def test_the_second_process_reads_the_file(
    folder: Path, built: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one builds the table; the file is the user's alone."""
    assert [load(monkeypatch) for _ in range(3)] == ["gpt-4o"] * 3
    assert len(built) == 1
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def spoiled(way: str, file: Path) -> None:
    data = file.read_bytes()
    head, _, body = data.partition(b"\n")
    match way:
        case "cut":
            file.write_bytes(data[:-1000])
        case "empty":
            file.write_bytes(b"")
        case "one digit":
            file.write_bytes(data.replace(b'"2.5"', b'"2.4"', 1))
        case "another schema":
            file.write_bytes(json.dumps({**json.loads(head), "schema": 99}).encode() + b"\n" + body)
        case "no header":
            file.write_bytes(b"null\n" + body)
        case "others may write":
            file.chmod(0o666)
        case "a link":
            file.rename(file.with_name("elsewhere"))
            file.symlink_to(file.with_name("elsewhere"))
        case "a pipe":
            file.unlink()
            os.mkfifo(file, 0o600)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="owners, links and pipes of POSIX")
@pytest.mark.parametrize(
    "way",
    [
        "cut",
        "empty",
        "one digit",
        "another schema",
        "no header",
        "others may write",
        "a link",
        "a pipe",
    ],
)
def test_a_file_that_cannot_be_trusted_is_built_again(
    way: str, folder: Path, built: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged, forged, linked or writable for others: it is not used, and replaced."""
    load(monkeypatch)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    spoiled(way, file)
    assert load(monkeypatch) == "gpt-4o"
    assert len(built) == 2
    assert not file.is_symlink()
    assert file.read_bytes() == good
    load(monkeypatch)
    assert len(built) == 2


@pytest.mark.slow
def test_a_file_of_another_user_is_not_used(
    folder: Path, built: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write a price can make a budget fail."""
    load(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 12345, raising=False)
    assert load(monkeypatch) == "gpt-4o"
    assert len(built) == 2


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    folder: Path, built: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only home: the table is built in each process, and nothing is said."""
    folder.write_text("a file stands where the folder should be")
    assert [load(monkeypatch) for _ in range(2)] == ["gpt-4o"] * 2
    assert len(built) == 2


@pytest.mark.parametrize("chosen", ["", "relative/folder"])
def test_no_file_is_kept_where_none_is_wanted(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LANGMETER_CACHE=` keeps no file, nor does a path that is not absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANGMETER_CACHE", chosen)
    assert cache.folder() is None
    load(monkeypatch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="folders of their own")
def test_the_folder_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """`XDG_CACHE_HOME`, if it is absolute, else `~/.cache`; none without a home."""
    monkeypatch.delenv("LANGMETER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache.folder() == Path("/var/cache/me/langmeter")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.folder() == Path("/home/me/.cache/langmeter")
    monkeypatch.setenv("HOME", "nowhere")
    assert cache.folder() is None


def test_other_data_has_another_file(tmp_path: Path) -> None:
    """One byte of genai-prices' data, or its version, changes the name."""
    data = tmp_path / "data.py"
    data.write_text("providers = []")
    first = cache.file_name(data, "1.0")
    assert cache.file_name(data, "1.1") != first
    data.write_text("providers = ()")
    assert cache.file_name(data, "1.0") != first


def test_files_of_old_versions_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files are kept, and what a process that died left unfinished is removed."""
    folder.mkdir()
    for n in range(8):
        old = folder / f"prices-{n}.jsonl"
        old.write_text("")
        os.utime(old, (n, n))
    unfinished, running = folder / ".prices-1.tmp", folder / ".prices-2.tmp"
    for part in (unfinished, running, folder / "of another user"):
        part.write_text("")
    os.utime(unfinished, (1, 1))
    load(monkeypatch)
    names = {file.name for file in folder.iterdir()}
    assert {".prices-2.tmp", "of another user", "prices-7.jsonl"} <= names
    assert len(names) == 6
    assert unfinished.name not in names


@pytest.mark.process
def test_eight_processes_at_once_leave_one_whole_file(folder: Path) -> None:
    """Each writes a file of its own name and renames it; all have the price."""
    code = (
        "from langmeter.prices import PriceBook\n"
        "print(PriceBook().cost('openai', 'gpt-4o', input=1_000_000))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    prices = {process.communicate(timeout=300)[0].strip() for process in running}
    assert len(prices) == 1
    (file,) = folder.iterdir()
    assert cache.read(file) is not None


@pytest.mark.process
def test_nothing_of_genai_prices_is_imported(folder: Path) -> None:
    """Neither by the process that builds the table nor by the one that reads it."""
    code = (
        "import sys\n"
        "from langmeter.prices import PriceBook\n"
        "assert PriceBook().card('anthropic', 'claude-sonnet-4-5')\n"
        "print(sorted({'genai_prices', 'pydantic', 'httpx2'} & sys.modules.keys()))"
    )
    for _ in range(2):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]", done.stderr


def test_data_written_in_another_way_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What cannot be run by itself is asked of genai-prices, with the same answers."""
    monkeypatch.setattr(catalogue, "_run", lambda data: data.providers)
    assert load(monkeypatch) == "gpt-4o"
    text = table.to_text(catalogue._table) if catalogue._table else None
    assert text == table.to_text(TABLE)


def test_a_clause_of_a_kind_to_come_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that `UpdatePrices` has set may hold what no file can."""

    class Odd:
        def is_match(self, name: str) -> bool:
            return len(name) == 3

    models = [ModelInfo("odd", Odd(), prices=ModelPrice(input_mtok=1))]  # type: ignore[arg-type]
    fresh = DataSnapshot([Provider("acme", "Acme", "x", models=models)], True)
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", fresh)
    book = PriceBook()
    assert book.cost("acme", "abc", input=1_000_000) == 1
    assert book.cost("acme", "abcd", input=1_000_000) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_prices_load_loads_them_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent does not wait for its thread, nor the child for a lock that the thread held."""
    halfway, on = threading.Event(), threading.Event()
    run = catalogue._run

    def slow(data: Path) -> Any:
        if threading.current_thread().name == "langmeter:prices":
            halfway.set()
            on.wait(60)
        return run(data)

    monkeypatch.setattr(catalogue, "_run", slow)
    catalogue.warm()
    assert halfway.wait(60)
    on_in_child = os.fork()
    if on_in_child == 0:
        catalogue._run = run
        os._exit(0 if PriceBook().card("openai", "gpt-4o") else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(on_in_child, 0)[1]) == 0
    assert not catalogue.ready()
    on.set()
    catalogue.warm(wait=60)
    assert catalogue.loaded()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_child_forked_in_an_import_goes_on_without_prices(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock of that import is held for ever there: it says so, and does not wait."""
    monkeypatch.setattr(catalogue, "_table", None)
    monkeypatch.setattr(catalogue, "_importing", True)
    child = os.fork()
    if child == 0:
        os._exit(0 if catalogue.ready() and not catalogue.loaded() else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_WATCHED = """
import sys, threading

class Watch:
    def find_spec(self, name, path, target=None):
        if threading.current_thread() is not threading.main_thread():
            print(name)

sys.meta_path.insert(0, Watch())
from langmeter.prices import PriceBook
PriceBook().warm(wait=True)
"""


@pytest.mark.process
def test_the_thread_that_loads_prices_imports_no_module(tmp_path: Path) -> None:
    """A child that is forked during an import of a thread could never import that module again."""
    for _ in ("built", "read"):
        names = subprocess.run(
            [sys.executable, "-c", _WATCHED],
            env={**os.environ, "LANGMETER_CACHE": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert names == ["genai_prices"]  # searched for, and not imported


def test_waiting_has_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer delays no caller beyond the timeout."""
    on = threading.Event()
    monkeypatch.setattr(catalogue, "_read", lambda number: on.wait(60) and TABLE)
    PriceBook().warm(wait=0.05)
    assert not catalogue.ready()
    on.set()
    catalogue.warm(wait=True)
    assert catalogue.loaded()


def test_a_missing_package_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the remedy; own prices hold, and no question waits."""
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    book = PriceBook({"openai/mine": {"input": 1, "output": 1}})
    with caplog.at_level(logging.WARNING):
        assert book.cost("openai", "gpt-4o", input=1) is None
        assert book.cost("openai", "gpt-4o-mini", input=1) is None
    assert book.cost("openai", "mine", input=1_000_000) == 1
    assert (book.ready, catalogue.loaded()) == (True, False)
    assert len([r for r in caplog.records if "pip install genai-prices" in r.message]) == 1
