"""Keywords, variables and files: who wins, what is found where, and what is said of each value."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import langmeter
from langmeter import Budget, ConfigError, MeterConfig, PriceBook
from langmeter._base.options import rules_of
from langmeter.config.origins import variables_of
from langmeter.defects import DefectOptions
from langmeter.streaming import Collect, Queued, StreamOptions

FILE = """\
[langmeter]
max_runs = 9
labels = ["team"]

[[langmeter.budgets]]
usd = 0.1
per = "day"
provider = "openai"
scope.team = ["a", "b"]
unpriced = "0.01"

[[langmeter.budgets]]
tokens = 5
at = [0.5]

[langmeter.budgets.scope]
"my key" = "x"

[langmeter.prices."acme/m"]
input = 0.1
output = "0.30000000000000000001"

[langmeter.streams]
delivery = { queue_size = 5 }
collect = { max_bytes = 7 }
stall_after = 0.5
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file above in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    (path := tmp_path / "langmeter.toml").write_text(FILE)
    return path


def test_a_file_says_all_that_keywords_say(file: Path) -> None:
    """Budgets, prices, labels and groups are those that keywords would have made."""
    config = MeterConfig.load(environ={})
    first, second = config.budgets
    scope = {"team": ("a", "b"), "provider": "openai"}
    for made, wanted in (
        (first, Budget(usd="0.1", per="day", scope=scope, unpriced=Decimal("0.01"))),
        (second, Budget(tokens=5, at=[0.5], scope={"my key": "x"})),
    ):
        assert made._setting() == wanted._setting()
    assert config.streams == StreamOptions(
        delivery=Queued(queue_size=5), collect=Collect(max_bytes=7), stall_after=0.5
    )
    assert (config.max_runs, config.labels) == (9, ("team",))
    own = PriceBook({"acme/m": {"input": "0.1", "output": "0.30000000000000000001"}})
    assert isinstance(config.prices, PriceBook)
    assert config.prices._setting() == own._setting()


@pytest.mark.parametrize("written", ["0.1", '"0.1"', "0.10", "1e-1"])
def test_money_has_no_float_error(written: str, tmp_path: Path) -> None:
    """A number and a text are the same exact amount."""
    (path := tmp_path / "x.toml").write_text(
        f'budgets = [{{ usd = {written} }}]\nprices."a/m" = {{ input = {written}, output = 0 }}'
    )
    config = MeterConfig.load(path, environ={})
    assert next(iter(config.budgets)).limit == Decimal("0.1")
    assert isinstance(config.prices, PriceBook)
    assert config.prices.cost("a", "m", input=10) == Decimal("0.000001")


def test_a_number_with_more_digits_than_a_float_is_exact(tmp_path: Path) -> None:
    """12345678.123456789012 cannot be told from its neighbours as a float."""
    (path := tmp_path / "x.toml").write_text("budgets = [{ usd = 2345678.123456789012 }]")
    (budget,) = MeterConfig.load(path, environ={}).budgets
    assert budget.limit == Decimal("2345678.123456789012")


def test_each_value_knows_where_it_comes_from(file: Path) -> None:
    """Line of the file, variable, keyword, or None for a default."""
    environ = {"LANGMETER_STREAMS_COLLECT": "true", "LANGMETER_MAX_SERIES": "5"}
    config = MeterConfig.load(environ=environ, labels="team", max_failures=3)
    origins = {name: str(config.origin(name)) for name in config.leaves()}
    assert {name: text for name, text in origins.items() if text != "None"} == {
        "max_series": "LANGMETER_MAX_SERIES",
        "max_runs": "langmeter.toml:2",
        "labels": "keyword",
        "prices": "langmeter.toml:19",
        "budgets": "langmeter.toml:5",
        "streams.collect": "LANGMETER_STREAMS_COLLECT",
        "streams.delivery": "langmeter.toml:24",
        "streams.max_failures": "keyword",
        "streams.stall_after": "langmeter.toml:26",
    }
    assert config.origin("budgets[1].scope") is not None
    assert str(config.origin("budgets[1].scope")) == "langmeter.toml:16"


def test_tables_merge_key_by_key(file: Path) -> None:
    """A variable and a keyword for one option of a group leave the others to the file."""
    environ = {"LANGMETER_STREAMS_STALL_AFTER": "3"}
    streams = MeterConfig.load(environ=environ, collect=True).streams
    assert streams == StreamOptions(collect=True, delivery=Queued(queue_size=5), stall_after=3)


def test_a_whole_group_takes_the_place_of_a_group(file: Path) -> None:
    """A keyword or a variable of the group leaves nothing of the file's."""
    config = MeterConfig.load(environ={"LANGMETER_STREAMS": "{ collect = false }"})
    assert config.streams == StreamOptions(collect=False)
    assert str(config.origin("streams.collect")) == "LANGMETER_STREAMS"
    assert config.origin("streams.stall_after") is None
    config = MeterConfig.load(environ={}, streams=StreamOptions(max_failures=2))
    assert config.streams == StreamOptions(max_failures=2)


def test_what_a_file_switches_off_a_variable_can_switch_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option of a group is reason enough for the group."""
    monkeypatch.chdir(tmp_path)
    Path("langmeter.toml").write_text("streams = false\ndefects = false\nprices = false\n")
    config = MeterConfig.load(environ={"LANGMETER_STREAMS_COLLECT": "true"}, defects=True)
    assert config.streams == StreamOptions(collect=True)
    assert config.defects == DefectOptions()
    assert config.prices is False


def test_pyproject_has_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`[tool.langmeter]` of the working directory, after a langmeter.toml."""
    monkeypatch.chdir(tmp_path)
    path = Path("pyproject.toml")
    path.write_text("[project]\nname = 'x'\n")
    assert MeterConfig.load(environ={}) == MeterConfig()
    path.write_text("[project\n")
    assert MeterConfig.load(environ={}) == MeterConfig()
    path.write_text("[project]\nname = 'x'\n\n[ tool . 'langmeter' ]\nmax_runs = 3\n")
    config = MeterConfig.load(environ={})
    assert (config.max_runs, str(config.origin("max_runs"))) == (3, "pyproject.toml:5")
    Path("langmeter.toml").write_text("max_runs = 4")
    assert MeterConfig.load(environ={}).max_runs == 4
    assert MeterConfig.load(environ={"LANGMETER_CONFIG": "pyproject.toml"}).max_runs == 3
    assert MeterConfig.load(environ={"LANGMETER_CONFIG": " "}) == MeterConfig()
    path.write_text("[project]\nname = 'x'\n")
    with pytest.raises(ConfigError, match=r"pyproject.toml with a table \[tool.langmeter\]"):
        MeterConfig.load("pyproject.toml", environ={})


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to the working directory."""
    (folder := tmp_path / "etc").mkdir()
    (folder / "own.toml").write_text('["acme/m"]\ninput = 1\noutput = 1\n')
    (folder / "tokenizer.json").write_text("{}")
    (path := folder / "x.toml").write_text(
        'prices = "own.toml"\ntoken_counters = { acme = "tokenizer.json", claude = "ctok" }\n'
    )
    monkeypatch.chdir(tmp_path)
    config = MeterConfig.load(path, environ={})
    assert isinstance(config.prices, PriceBook)
    assert config.prices.cost("acme", "m", input=1_000_000) == 1
    assert config.token_counters == {"acme": folder / "tokenizer.json", "claude": "ctok"}


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("LANGMETER_MAX_RUN_AGE", "0.5", "max_run_age", 0.5),
        ("LANGMETER_MAX_RUNS", "1_000", "max_runs", 1000),
        ("LANGMETER_LABELS", "team, user", "labels", ("team", "user")),
        ("LANGMETER_LABELS", "team", "labels", ("team",)),
        ("LANGMETER_LABELS", '["a,b"]', "labels", ("a,b",)),
        ("LANGMETER_LABELS", "[]", "labels", ()),
        ("LANGMETER_LABELS", '["a", ["a", "b"]]', "labels", ("a", ("a", "b"))),
        ("LANGMETER_PRICES", "false", "prices", False),
        ("LANGMETER_DEFECTS", "false", "defects", False),
        ("LANGMETER_DEFECTS_KEYS", '{ type = "checker" }', "defects.keys", {"type": "checker"}),
        ("LANGMETER_STREAMS_DELIVERY", "queued", "streams.delivery", "queued"),
        ("LANGMETER_STREAMS_DELIVERY", '"queued"', "streams.delivery", "queued"),
        ("LANGMETER_ANOMALIES", "false", "anomalies", False),
        ("LANGMETER_BUDGETS", "false", "budgets", ()),
    ],
)
def test_a_variable_is_written_as_in_toml(
    variable: str, text: str, name: str, value: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Or it is a text, and texts with commas between them make a list."""
    monkeypatch.chdir(tmp_path)
    config = MeterConfig.load(environ={variable: text})
    assert config.leaves()[name] == value
    assert str(config.origin(name)) == variable


def test_every_setting_that_a_file_has_is_a_variable() -> None:
    """By its name, and the options of each group by theirs."""
    names = {"_".join(keys) for keys, _ in variables_of(MeterConfig).values()}
    ruled = rules_of(MeterConfig)
    assert names >= {name for name, rule in ruled.items() if rule.schema is not None}
    assert {"streams_collect", "streams_stall_after", "defects_keys"} <= names
    assert not {name for name in names if name.startswith(("streams_on_", "clock"))}


def test_every_variable_in_the_sources_is_known() -> None:
    """A module that reads a variable of its own has it in the list of known ones."""
    pattern = re.compile(r"[\"'](LANGMETER_[A-Z_]*[A-Z])[\"']")
    root = Path(langmeter.__file__).parent
    names = {name for path in root.rglob("*.py") for name in pattern.findall(path.read_text())}
    assert {"LANGMETER_CONFIG", "LANGMETER_CACHE", "LANGMETER_TOKEN"} <= names
    with pytest.raises(ConfigError) as caught:
        MeterConfig.load(environ={**dict.fromkeys(names, ""), "LANGMETER_ZZZ": "1"})
    assert [problem.key for problem in caught.value.problems] == ["LANGMETER_ZZZ"]


@pytest.mark.process
def test_pydantic_is_loaded_for_files_and_variables_alone(tmp_path: Path) -> None:
    """Neither importing langmeter nor a meter without either loads the room that needs it."""
    code = (
        "import sys, os\n"
        "from langmeter import MeterConfig\n"
        "MeterConfig.load(max_runs=3)\n"
        "assert 'pydantic' not in sys.modules and 'tomllib' not in sys.modules\n"
        "from langmeter import Meter\n"
        "Meter(labels='team')\n"
        "assert 'langmeter.config.schema' not in sys.modules\n"
        "os.environ['LANGMETER_MAX_RUNS'] = '5'\n"
        "assert Meter().config.max_runs == 5\n"
        "assert 'langmeter.config.schema' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
