"""`langmeter advice` and `langmeter prices`: what they print, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import genai_prices
import pytest

from langmeter import Snapshot, _core
from langmeter.cli import main as cli

LLM = _core.KINDS.index("llm")


@pytest.fixture
def snapshot() -> Snapshot:
    """40 calls of gpt-4o, 1,000 tokens in and 200 out, charged as genai-prices does."""
    recorder = _core.Recorder(significant_digits=2)
    usage = genai_prices.Usage(input_tokens=1000, output_tokens=200)
    price = genai_prices.calc_price(usage, "gpt-4o", provider_id="openai").total_price
    for _ in range(40):
        run = uuid4()
        recorder.run_started(run, None, LLM, "chat", "openai", "gpt-4o")
        counts = (1000, 200, 1200, *[0] * 16)
        recorder.run_ended(run, LLM, 0, usage=counts, cost=int(price.scaleb(12)))
    return Snapshot(recorder.snapshot())


@pytest.fixture(params=[None, 1])
def file(request: pytest.FixtureRequest, snapshot: Snapshot, tmp_path: Path) -> str:
    """The snapshot as JSON, indented or not."""
    path = tmp_path / "snapshot.json"
    path.write_text(f"\n{snapshot.to_json(indent=request.param)}\n", encoding="utf-8")
    return str(path)


def test_advice_reads_every_form_of_a_snapshot(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The findings are printed with their figures: 40 × 0.0045 USD for one, half of it batched."""
    assert cli.main(["advice", file]) == 0
    shown = capsys.readouterr().out
    assert "openai/gpt-4o: the same traffic on openai/gpt-4o-mini" in shown
    batch = shown[shown.index("at the batch price") :]
    assert "saves at most $0.09000" in batch
    assert "$0.1800" in batch


def test_advice_compares_with_the_models_that_are_named(
    snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several may be named, with own prices: by hand 0.18 less 48,000 tokens at 1 a million."""
    path = tmp_path / "snapshot.json"
    path.write_text(snapshot.to_json(), encoding="utf-8")
    own = tmp_path / "own.toml"
    own.write_text('[prices."acme/one"]\ninput = 1\noutput = 1\n', encoding="utf-8")
    arguments = ["--alternative", "acme/one", "--alternative", "anthropic/claude-haiku-4-5"]
    assert cli.main(["advice", *arguments, "--prices", str(own), str(path)]) == 0
    shown = capsys.readouterr().out
    assert "the same traffic on anthropic/claude-haiku-4-5" in shown
    acme = shown[shown.index("the same traffic on acme/one") :]
    assert acme.splitlines()[1].strip() == "saves exactly $0.1320"


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "cannot read {file}: No such file or directory"),
        (b"", [], "{file}: not a langmeter snapshot"),
        (b"MZ\x90\x00 no snapshot", [], "{file}: not a langmeter snapshot"),
        (b"{}", [], "{file}: not a langmeter snapshot"),
        (b'{"format": 99}', [], "snapshot of format 99"),
        (b"LM\xff\xfe", [], "{file}: not a langmeter snapshot: not a JSON text"),
        (b"LMTR\xff\xfe", [], "{file}: snapshot format 65279"),
        ("snapshot", ["--alternative", "gpt-4o"], 'must be "provider/model"'),
        ("snapshot", ["--alternative", "acme/none"], "no price is known for the alternative"),
        ("snapshot", ["--prices", "none.toml"], "cannot read none.toml"),
        ("snapshot", ["--prices", "setup.cfg"], "cannot read setup.cfg"),
    ],
)
def test_advice_says_what_is_wrong(
    content: bytes | str | None,
    arguments: list[str],
    message: str,
    snapshot: Snapshot,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Bad input is exit code 2 and one clear line under the usage, never a traceback."""
    path = tmp_path / "file"
    if content == "snapshot":
        path.write_text(snapshot.to_json(), encoding="utf-8")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        cli.main(["advice", str(path), *arguments])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert message.format(file=path) in output.err
    assert output.out == ""


def _rates(shown: str) -> dict[str, Decimal]:
    lines = (line.split() for line in shown.splitlines() if line.startswith("  "))
    return {kind: Decimal(price) for kind, price, *_ in lines}


@pytest.mark.parametrize(
    ("arguments", "context"),
    [
        (["gpt-4o"], None),
        (["openai/gpt-4o"], None),
        (["gpt-4o", "--provider", "openai"], None),
        (["gpt-4o", "--provider", "openai", "--tier", "batch"], {"processing": "batch"}),
    ],
)
def test_prices_are_those_of_the_catalogue(
    arguments: list[str], context: dict[str, str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A million tokens cost what the line says, in genai-prices' own arithmetic."""
    assert cli.main(["prices", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "genai-prices" in shown.splitlines()[0]
    rates = _rates(shown)
    for kind, counts in (("input", {"input_tokens": 10**6}), ("output", {"output_tokens": 10**6})):
        answer = genai_prices.calc_price(
            genai_prices.Usage(**counts), "gpt-4o", provider_id="openai", price_context=context
        )
        assert rates[kind] == answer.total_price


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        ("2026-10-13", datetime(2026, 10, 13, tzinfo=UTC)),
        ("2026-10-14", datetime(2026, 10, 14, tzinfo=UTC)),
        ("2026-10-13T23:59:59", datetime(2026, 10, 13, 23, 59, 59, tzinfo=UTC)),
        ("2026-10-14T00:30+01:00", datetime(2026, 10, 13, 23, 30, tzinfo=UTC)),
        ("2026-10-13T23:30-01:00", datetime(2026, 10, 14, 0, 30, tzinfo=UTC)),
    ],
)
def test_prices_are_of_the_moment_asked_for(
    at: str, moment: datetime, capsys: pytest.CaptureFixture[str]
) -> None:
    """The catalogue dates gpt-4o's batch price 2026-10-14; a moment without a zone is UTC."""
    arguments = ["gpt-4o", "--provider", "openai", "--tier", "batch", "--at", at]
    assert cli.main(["prices", *arguments]) == 0
    answer = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=10**6),
        "gpt-4o",
        provider_id="openai",
        genai_request_timestamp=moment,
        price_context={"processing": "batch"},
    )
    assert _rates(capsys.readouterr().out)["input"] == answer.total_price


def test_own_prices_and_models_named_after_their_maker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Own prices come from a file; a slash may part provider from model or belong to the model."""
    own = tmp_path / "own.json"
    own.write_text('{"nvidia_nim/meta/llama": {"input": 0.9, "output": 1.8}}', encoding="utf-8")
    for arguments in (["nvidia_nim/meta/llama"], ["meta/llama", "--provider", "nvidia_nim"]):
        assert cli.main(["prices", *arguments, "--prices", str(own)]) == 0
        shown = capsys.readouterr().out
        assert "own (own.json)" in shown
        assert _rates(shown) == {"input": Decimal("0.9"), "output": Decimal("1.8")}


@pytest.mark.parametrize("name", ["nothing-like-it", "acme/nothing-like-it"])
def test_a_model_without_a_price_is_exit_code_1(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy is printed; a script can tell."""
    assert cli.main(["prices", name]) == 1
    assert "no price known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: MODEL"),
        ([" "], "MODEL must be the name of a model"),
        (["gpt-4o", "--at", "yesterday"], "argument --at: Invalid isoformat string"),
        (["gpt-4o", "--at", "9999-12-31T23:00-14:00"], "argument --at: date value out of range"),
        (["gpt-4o", "--prices", "none.toml"], "cannot read none.toml"),
        (["gpt-4o", "--prices", "{txt}"], "must end in .toml or .json"),
        (["gpt-4o", "--prices", "{toml}"], "is not valid TOML"),
    ],
)
def test_prices_says_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad input is exit code 2 and one clear line."""
    files = {"txt": tmp_path / "own.txt", "toml": tmp_path / "own.toml"}
    for path in files.values():
        path.write_text("no = = prices")
    with pytest.raises(SystemExit) as ended:
        cli.main(["prices", *(argument.format(**files) for argument in arguments)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.process
def test_the_command_loads_neither_langchain_nor_rich(snapshot: Snapshot, tmp_path: Path) -> None:
    """Questions about money need no handler and no live table."""
    path = tmp_path / "snapshot"
    path.write_text(snapshot.to_json(), encoding="utf-8")
    script = (
        "import sys; from langmeter.cli.main import main; main(sys.argv[1:])\n"
        "print({'langchain_core', 'rich'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", script, "advice", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"
