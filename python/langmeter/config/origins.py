"""Where settings come from besides keywords: the environment, and a TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from langmeter._base.check import Refusals, refusal
from langmeter._base.options import Rule, names_in, rules_of, unknown
from langmeter.errors import ConfigError, Problem

#: Source of a setting that is a keyword.
KEYWORD: Final = "keyword"
_PREFIX: Final = "LANGMETER_"
#: Variable with the path of the file.
FILE_VARIABLE: Final = "LANGMETER_CONFIG"
#: Variables that are read elsewhere, and are of the process, not of a meter: the folder for the
#: table of prices, the token that is sent to a page of snapshots, the key that signs alerts.
_CACHE_VARIABLE: Final = "LANGMETER_CACHE"
_OF_PROCESS: Final = (
    FILE_VARIABLE,
    _CACHE_VARIABLE,
    "LANGMETER_TOKEN",
    "LANGMETER_WEBHOOK_SECRET",
)
#: Files that are looked for in the working directory, where no other is named.
FILES: Final = ("langmeter.toml", "pyproject.toml")
#: Header of our table in a pyproject.toml. Whatever else is wrong with that file is not ours.
_OUR_TABLE: Final = re.compile(rb"^\s*\[{1,2}\s*tool\s*\.\s*[\"']?langmeter\b", re.MULTILINE)


class Origin(NamedTuple):
    """Where a setting comes from.

    Attributes:
        source: "keyword", the name of an environment variable, or the path of a file.
        line: line of the file, from 1; None where there is none.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


def given_outside(
    options: type,
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    refusals: Refusals,
) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Return the settings of file and environment, and where each of them and its parts comes from.

    What is wrong goes into `refusals` and is left out. pydantic is loaded only if there are any.
    """
    origins: dict[str, Origin] = {}
    folder = Path()
    tree: dict[str, Any] = {}
    with refusals.collect():
        file = find_file(path, environ)
        if file is not None:
            folder = file.parent
            tree, lines = _table_of(file, rules_of(options))
            origins = {key: Origin(str(file), line) for key, line in lines.items()}
    variables = _from_environment(options, environ, refusals)
    for keys, variable, value in variables:
        where = ".".join(keys)
        origins = {key: each for key, each in origins.items() if not is_inside(key, where)}
        origins |= dict.fromkeys(names_in(value, where), Origin(variable))
        tree = _with(tree, keys, value)
    if not tree:
        return {}, {}
    from langmeter.config.schema import read  # pydantic, only for those who need it

    values, problems = read(options, tree, folder)
    refusals.problems += [placed(problem, origins) for problem in problems]
    return values, origins


def find_file(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file that settings are read from; None if there is none."""
    named = environ.get(FILE_VARIABLE) if path is None else path
    if named is not None:
        return Path(named) if str(named).strip() else None
    return next((Path(name) for name in FILES if os.path.isfile(name) and _is_ours(name)), None)


def _is_ours(name: str) -> bool:
    """Whether a file of the working directory has settings of ours."""
    try:
        return name != "pyproject.toml" or bool(_OUR_TABLE.search(Path(name).read_bytes()))
    except OSError:
        return False


def _table_of(file: Path, names: Collection[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the settings in a file, and the line of each; raises ConfigError.

    Beside `[langmeter]` a file may have tables of others, but no setting of ours.
    """
    from langmeter.config import toml  # tomllib takes 5 ms

    source = str(file)
    try:
        tree, lines = toml.read(file)
    except OSError as error:
        what = "the path of a TOML file that can be read"
        remedy = f"{error.strerror or error}; name another, or unset {FILE_VARIABLE}"
        raise _of_file(refusal("the configuration", what, source, remedy), source) from error
    except toml.NotTomlError as error:
        message = f"cannot be read as TOML: {error}; correct it, or unset {FILE_VARIABLE}"
        raise ConfigError.of([Problem("", message, source=source, line=error.line)]) from error
    prefix = "tool.langmeter" if file.name == "pyproject.toml" else "langmeter"
    table: Any = tree
    for part in prefix.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    if table is None and file.name == "pyproject.toml":
        what, remedy = "a pyproject.toml with a table [tool.langmeter]", "add it"
        raise _of_file(refusal("the configuration", what, source, remedy), source)
    if table is None:
        return tree, lines
    if not isinstance(table, dict):
        raise _of_file(refusal(prefix, "a table of settings", table), source, lines.get(prefix))
    refusals = Refusals()
    for name in [name for name in tree if name in names and file.name != "pyproject.toml"]:
        with refusals.collect():
            what = "in [langmeter], where the other settings are"
            refused = refusal(name, what, tree[name], "move it below that line")
            raise _of_file(refused, source, lines.get(name))
    refusals.raise_all()
    start = f"{prefix}."
    ours = {key[len(start) :]: line for key, line in lines.items() if key.startswith(start)}
    return table, ours


def _of_file(error: ConfigError, source: str, line: int | None = None) -> ConfigError:
    return ConfigError.of([each._replace(source=source, line=line) for each in error.problems])


# --- environment ----------------------------------------------------------------------------------


def variables_of(options: type) -> dict[str, tuple[tuple[str, ...], Rule]]:
    """Return the setting and rule of each environment variable, those in groups too."""
    variables: dict[str, tuple[tuple[str, ...], Rule]] = {}
    for name, rule in rules_of(options).items():
        if rule.schema is None and rule.table is None:
            continue
        variable = f"{_PREFIX}{(rule.variable or name).upper()}"
        variables[variable] = ((name,), rule)
        if rule.table is not None and not rule.is_list:
            for part, inner in rules_of(rule.table).items():
                if inner.schema is not None or inner.table is not None:
                    variables[f"{variable}_{part.upper()}"] = ((name, part), inner)
    return variables


_variables = lru_cache(maxsize=8)(variables_of)


def _from_environment(
    options: type, environ: Mapping[str, str], refusals: Refusals
) -> list[tuple[tuple[str, ...], str, Any]]:
    """Return setting, variable and value of each variable that is set; groups before parts."""
    given = sorted([name for name in environ if name.startswith(_PREFIX)])
    if not given:
        return []
    known = _variables(options)
    settings: list[tuple[tuple[str, ...], str, Any]] = []
    for name in given:
        text = environ[name].strip()
        if name in _OF_PROCESS:
            with refusals.collect():
                _check_cache(name, text)
        elif name not in known:
            with refusals.collect():
                names = sorted([*known, *_OF_PROCESS])
                raise _of_file(unknown(name, text, name, names, prefix=_PREFIX), name)
        elif text:
            keys, rule = known[name]
            value = _value(text)
            if isinstance(value, str) and (rule.schema or {}).get("type") == "array":
                value = [part.strip() for part in value.split(",")]
            parents = [each for each in settings if each[0] == keys[:1] and each[0] != keys]
            if parents and not isinstance(parents[0][2], dict):
                with refusals.collect():
                    other = parents[0][1]
                    what = f"unset beside {other} = {environ[other].strip()}"
                    raise _of_file(refusal(name, what, text, "unset one of them"), name)
                continue
            settings.append((keys, name, value))
    return settings


def _value(text: str) -> Any:
    """Return a TOML value, or the text itself where it is not one: `0.5`, `true`, `[…]`, `{…}`."""
    from langmeter.config import toml

    return toml.value(text)


def _check_cache(name: str, text: str) -> None:
    if name == _CACHE_VARIABLE and text and not os.path.isabs(text):
        remedy = "write the whole path; empty keeps no table of prices"
        raise _of_file(refusal(name, "an absolute path, or empty", text, remedy), name)


def _with(tree: Mapping[str, Any], keys: Iterable[str], value: object) -> dict[str, Any]:
    """Return a tree with another value at a place; what is not a table on the way is replaced."""
    first, *rest = keys
    inner = tree.get(first)
    if rest:
        value = _with(inner if isinstance(inner, dict) else {}, rest, value)
    return {**tree, first: value}


def placed(problem: Problem, origins: Mapping[str, Origin]) -> Problem:
    """Return a problem with the source of its value: of the setting, or what it stands in."""
    around = [key for key in origins if is_inside(problem.key, key)]
    within = [key for key in origins if is_inside(key, problem.key)]
    if not (around or within):
        return problem
    source, line = origins[max(around, key=len) if around else within[0]]
    if source == KEYWORD:
        return problem
    message = problem.message
    if source.startswith(_PREFIX) and line is None and around:
        # A variable is what its user wrote: it takes the place of the setting in the message.
        whole = min((key for key in around if origins[key].source == source), key=len)
        message = message.replace(whole, source, 1)
    return problem._replace(source=source, line=line, message=message)


def is_inside(key: str, place: str) -> bool:
    """Whether a setting is another or a part of it, by their names."""
    return key == place or key.startswith((f"{place}.", f"{place}["))
