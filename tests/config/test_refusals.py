"""What is wrong with settings is said at once: key, value, range, remedy, source and line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from langmeter import Budget, ConfigError, Meter, MeterConfig, StreamingCallback, install
from langmeter.errors import Problem
from langmeter.streaming import StreamOptions

WRONG = """\
max_runs = 0
max_rnus = 3
max_run_age = "soon"
labels = ["a", "b", "c", "d"]
collect = true
clock = 1

[streams]
collect = "yes"
delivery = { queue_size = 0, when_full = "wait" }
stall_after = nan
on_event = "x"

[defects.keys]
typ = "x"

[[budgets]]
usd = "ten"
period = "day"
provider = 3

[[budgets]]
per = "week"
tokens = 1.5
at = [
  0.5,
  2,
]

[[budgets]]

[[budgets]]
calls = 5
unpriced = "block"

[[budgets]]
calls = 5
model = "a"
[budgets.scope]
model = "b"

[prices."openai/gpt-4o"]
input = -1
inptu = 3

[prices.foo]
input = 1
output = 1
"""
#: Line, key, and what the message says of the value, the range and the remedy.
PROBLEMS = [
    (1, "max_runs", "must be a whole number from 1 to 16,777,216, got 0; it caps"),
    (2, "max_rnus", "= 3; did you mean 'max_runs'? known are max_series, max_runs,"),
    (3, "max_run_age", "must be a number from 0.001 to 31,536,000.0, got 'soon'; it is the age"),
    (4, "labels", "must be up to 3 keys of a call's metadata, or lists of up to 3 to cross, got"),
    (5, "collect", "= True; write it in [streams]; known are"),
    (6, "clock", "= 1; it is given by keyword only; known are"),
    (9, "streams.collect", "must be True, False or a Collect (a table in a file), got 'yes'"),
    (10, "streams.delivery.queue_size", "must be a whole number from 1 to 1,000,000, got 0"),
    (10, "streams.delivery.when_full", "must be one of 'drop_oldest', 'drop_newest', 'block', got"),
    (11, "streams.stall_after", "must be seconds from 0.05 to 86,400.0, got nan; leave it out"),
    (12, "streams.on_event", "= 'x'; it is given by keyword only; known are collect,"),
    (14, "defects.keys", "must be a mapping of defect_id, type, severity, language, strategy"),
    (18, "budgets[0].usd", "must be an amount in USD above 0, up to 9 million, got 'ten'; pass"),
    (19, "budgets[0].period", "= 'day'; did you mean 'per'? known are usd, tokens, calls, per,"),
    (20, "budgets[0].provider", "must be a text or several, got 3; write e.g. 'openai'"),
    (23, "budgets[1].per", "must be one of total, minute, hour, day, month, got 'week'; pass"),
    (24, "budgets[1].tokens", "must be a whole number of tokens, 1 or more, got 1.5; pass e.g."),
    (25, "budgets[1].at", "must be up to 8 fractions above 0, up to 1.0, got [0.5, 2]; pass e.g."),
    (30, "budgets[2]", "exactly one of usd, tokens and calls, got none of them; pass e.g."),
    (34, "budgets[3].unpriced", "must be 'allow' for a budget of calls, got 'block'; leave it out"),
    (40, "budgets[4].scope.model", "must be given once, as a key of the budget or of scope, got"),
    (42, 'prices."openai/gpt-4o".output', "must be given, got None; give USD per million tokens"),
    (43, 'prices."openai/gpt-4o".input', "must be a number from 0 to 1,000,000 (USD per million"),
    (44, 'prices."openai/gpt-4o".inptu', "= 3; did you mean 'input'? known are"),
    (46, "prices.foo", 'must be named "provider/model", got \'foo\'; write e.g. "openai/gpt-4o"'),
]


def test_everything_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    """Each with its line, key, value, range and remedy, in the order of the file."""
    (path := tmp_path / "wrong.toml").write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        MeterConfig.load(path, environ={})
    problems = caught.value.problems
    assert [(each.line, each.key) for each in problems] == [each[:2] for each in PROBLEMS]
    for problem, (_, key, text) in zip(problems, PROBLEMS, strict=True):
        assert problem.source == str(path)
        assert text in problem.message, problem.message
        assert key in problem.message
    first, *lines = str(caught.value).split("\n")
    assert first == f"{len(PROBLEMS)} settings are refused:"
    assert lines[0].startswith(f"  {path}:1: max_runs must be ")
    assert len(lines) == len(PROBLEMS)


def test_sources_are_refused_together(tmp_path: Path) -> None:
    """A keyword, a variable and a line of a file are in one error."""
    (path := tmp_path / "wrong.toml").write_text("max_runs = 0")
    environ = {"LANGMETER_MAX_SERIES": "many", "LANGMETER_FOO": "1"}
    with pytest.raises(ConfigError) as caught:
        MeterConfig.load(path, environ=environ, max_run_age=-1, foo=2)
    assert {(each.source, each.line, each.key) for each in caught.value.problems} == {
        ("", None, "foo"),
        ("", None, "max_run_age"),
        (str(path), 1, "max_runs"),
        ("LANGMETER_FOO", None, "LANGMETER_FOO"),
        ("LANGMETER_MAX_SERIES", None, "max_series"),
    }


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LANGMETER_MAX_RUN": "3"}, r"unknown setting LANGMETER_MAX_RUN = '3'; did you mean "),
        (
            {"LANGMETER_max_runs": "3"},
            r"unknown setting LANGMETER_max_runs = '3'; .*known are LANG",
        ),
        ({"LANGMETER_CLOCK": "3"}, r"unknown setting LANGMETER_CLOCK"),
        ({"LANGMETER_MAX_RUNS": "5\nmax_series=3"}, r"LANGMETER_MAX_RUNS must be .* got '5\\nmax"),
        ({"LANGMETER_MAX_RUNS": "[" * 9999}, r"LANGMETER_MAX_RUNS must be .* got '\[{198}…;"),
        ({"LANGMETER_BUDGETS": "usd=5"}, r"LANGMETER_BUDGETS must be Budget objects, got 'usd=5'"),
        ({"LANGMETER_BUDGETS": "[{usd=5,x=1}]"}, r"unknown setting LANGMETER_BUDGETS\[0\].x = 1;"),
        ({"LANGMETER_BUDGETS": "[{usd=0}]"}, r"LANGMETER_BUDGETS\[0\].usd must be .*, got 0; pass"),
        (
            {"LANGMETER_STREAMS": "maybe"},
            r"LANGMETER_STREAMS must be True, False or .*, got 'maybe'",
        ),
        ({"LANGMETER_STREAMS_COLLECT": "1"}, r"LANGMETER_STREAMS_COLLECT must be .*, got 1"),
        (
            {"LANGMETER_PRICES": "off"},
            r"LANGMETER_PRICES must be true, false, a table .*, got 'off'",
        ),
        ({"LANGMETER_CACHE": "x"}, r"LANGMETER_CACHE must be an absolute path, or empty, got 'x';"),
        ({"LANGMETER_CONFIG": "none.toml"}, r"got 'none.toml'; No such file or directory; name an"),
        (
            {"LANGMETER_CONFIG": "/"},
            r"got '/'; Is a directory; name another, or unset LANGMETER_CON",
        ),
        (
            {"LANGMETER_DEFECTS": "false", "LANGMETER_DEFECTS_KEYS": "{}"},
            r"LANGMETER_DEFECTS_KEYS must be unset beside LANGMETER_DEFECTS = false, got",
        ),
    ],
)
def test_a_variable_is_refused_by_its_name(
    environ: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by that of the setting, which its user has not written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        MeterConfig.load(environ=environ)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", r"x.toml:1: cannot be read as TOML: not UTF-8"),
        (b"a = 1\n\nb = = 1\n", r"x.toml:3: cannot be read as TOML: Invalid value; correct it"),
        (b"a = 1\na = 2\n", r"x.toml:2: cannot be read as TOML: Cannot overwrite a value"),
        (b"a = [\n1,\n", r"x.toml:3: cannot be read as TOML: "),
        (b"max_runs = " + b"9" * 5000, r"x.toml: cannot be read as TOML: Exceeds the limit"),
        (b"a = " + b"[" * 9999, r"x.toml: cannot be read as TOML: "),
        (b"max_runs = " + b"9" * 4000, r"x.toml:1: max_runs must be .*, got 9{199}…; it caps"),
        (b"budgets = [{ usd = 1e999999999 }]", r"budgets\[0\].usd must be .* got 1E\+999999999"),
        (b"budgets = { usd = 1 }", r"x.toml:1: budgets must be Budget objects, got .*\[\[budgets"),
        (b"budgets = [5]", r"x.toml:1: budgets\[0\] must be a table, got 5"),
        (b"[[streams]]\ncollect = true", r"x.toml:1: streams must be True, False or a StreamOpt"),
        (b"labels = { a = 1 }", r"x.toml:1: labels must be up to 3 keys .*, got \{'a': 1\}"),
        (b'labels = [["a", 5]]', r"x.toml:1: labels must be up to 3 keys .*, got \[\['a', 5\]\]"),
        (b"prices = 5", r"x.toml:1: prices must be a mapping or the path of a .*, got 5; write"),
        (b'prices = "x.json"', r"x.toml:1: prices must be .*x.json'; No such file or directory"),
        (b"max_runs = 5\n[langmeter]\n", r"x.toml:1: max_runs must be in \[langmeter\], .*got 5"),
        (b"langmeter = 3", r"x.toml:1: langmeter must be a table of settings, got 3"),
        (b"prices = false\n[[budgets]]\nusd = 5", r"x.toml:1: prices must be switched on for the"),
        (b'token_counters.a = "no"', r"x.toml:1: token_counters.a must be the path of .*no'"),
        (b"budgets = [" + b"{ calls = 1 }," * 65 + b"]", r"x.toml:1: budgets must be at most 64"),
    ],
)
def test_a_file_is_refused_by_its_line(text: bytes, message: str, tmp_path: Path) -> None:
    """Whatever is in it, and never by another exception."""
    (path := tmp_path / "x.toml").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        MeterConfig.load(path, environ={})


class _Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"labels": 5}, "labels must be up to 3 keys of a call's metadata, or lists of up to 3 to"),
        ({"budgets": "x"}, "budgets must be Budget objects, got 'x'; pass"),
        ({"streams": 3}, r"streams must be True, False or a StreamOptions .*, got 3"),
        (
            {"prices": "x.toml"},
            r"prices must be a PriceBook, True .*'x.toml'; pass PriceBook\('x.t",
        ),
        ({"prices": _Hostile()}, "prices must be a PriceBook, True .*, got a _Hostile"),
        ({"defects": _Hostile()}, "defects must be True, False or a DefectOptions .*a _Hostile"),
        ({"anomalies": 1}, "anomalies must be true or false, got 1; false switches"),
        ({"clock": 5}, "clock must be a ManualClock, or None for the real clock, got 5"),
        ({"token_counters": {5: print}}, "token_counters.5 must be named by the beginning of"),
        ({"streams": False, "on_event": print}, "streams must be left out beside on_event, got F"),
        ({"streams": StreamOptions(), "collect": True}, "streams must be left out beside collect"),
        (
            {"prices": False, "budgets": [Budget(usd=5)]},
            "prices must be switched on for the budget",
        ),
        ({"budgets": [Budget(calls=1)] * 2}, r"budgets\[1\] must be another budget than those bef"),
    ],
)
def test_a_keyword_is_refused_by_its_name(keywords: dict[str, Any], message: str) -> None:
    """By `Meter` as by `MeterConfig.load` and `install`."""
    for make in (Meter, MeterConfig.load, install):
        with pytest.raises(ConfigError, match=message):
            make(**keywords)


def test_a_coroutine_cannot_be_called_inline(tmp_path: Path) -> None:
    """Also where the one is a keyword and the other stands in a file."""

    async def listener(event: object) -> None: ...

    (path := tmp_path / "x.toml").write_text('streams.delivery = "inline"')
    with pytest.raises(ConfigError, match="on_event must be a plain function with delivery"):
        MeterConfig.load(path, environ={}, on_event=listener)


def test_a_handler_refuses_what_it_does_not_take() -> None:
    """A setting of another handler is unknown to it."""
    with pytest.raises(ConfigError, match=r"unknown setting budgets = \[\]; known are max_series"):
        StreamingCallback(budgets=[])


def test_an_error_has_its_problems_wherever_it_goes() -> None:
    """Pickled, and for a ConfigError that was raised elsewhere by its message alone."""
    with pytest.raises(ConfigError) as caught:
        MeterConfig(max_runs=0, max_series=0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)
    assert [problem.key for problem in again.problems] == ["max_series", "max_runs"]
    assert again.problems[0][2:4] == ("0", "a whole number from 1 to 1,000,000")
    assert ConfigError("no").problems == (Problem("", "no"),)
