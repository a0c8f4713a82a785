"""Settings of a meter: one frozen configuration, composed of the option classes of its rooms."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final

from langmeter._base.check import Refusals, refusal, shown
from langmeter._base.options import (
    Rule,
    check_options,
    flag,
    real,
    ruled,
    rules_of,
    switchable,
    unknown,
    whole,
)
from langmeter._core import ManualClock
from langmeter.alerts.options import ALERTS, LINK, SINKS, Sink
from langmeter.alerts.options import Rule as AlertRule
from langmeter.budgets import BUDGETS, Budget
from langmeter.config.labels import LABELS, Label
from langmeter.config.origins import KEYWORD, Origin, given_outside, is_inside, placed
from langmeter.defects import DefectOptions
from langmeter.directory.options import DIRECTORY, DirectoryOptions
from langmeter.errors import ConfigError
from langmeter.history.options import HISTORY, HistoryOptions
from langmeter.prices import PRICES, PriceBook
from langmeter.streaming import StreamOptions
from langmeter.streaming.options import STREAM_OPTIONS
from langmeter.usage import Source
from langmeter.usage.token_counters import TOKEN_COUNTERS


def _checked_clock(name: str, value: object) -> object:
    if value is None or isinstance(value, ManualClock):
        return value
    raise refusal(name, "a ManualClock, or None for the real clock", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterConfig:
    """Settings of a meter.

    `MeterConfig(…)` takes what it is given; `MeterConfig.load(…)` also reads the environment and a
    file, as `Meter(…)` does. A group of options is its option class, True for its defaults, or
    False to switch it off.

    Attributes:
        max_series: label sets with figures of their own, 1 to 1,000,000.
        max_runs: runs in flight, 1 to 16,777,216.
        max_run_age: seconds after which a run without an end counts as abandoned, 0.001 to a year.
        significant_digits: precision of the distributions, 2 or 3.
        clock: a clock moved by hand, for tests; None for the real one.
        labels: keys of a call's metadata by whose values calls are also counted, up to three; a
            list of keys crosses them.
        token_counters: what counts tokens that a provider does not report, by the beginning of the
            model's name: a function, the path of a tokenizer.json, or "ctok".
        prices: own prices beside the catalogue: in a file a table or the path of one. True for the
            catalogue alone; False leaves calls unpriced.
        budgets: what calls may cost, up to 64.
        streams: what listens to streams.
        defects: how attempts at defects are found and judged.
        anomalies: whether changes that last are looked for, of latency, error rate, tokens, cost.
        directory: directory on this machine in which each process counts into a file, so that any
            of them can read all; None for memory. Its variable is `LANGMETER_DIR`.
        history: database that figures are written to, by its path or URL, or a table of options;
            None for none.
        alerts: rules about what is metered: in a file a list of tables with `text`, `for_` and
            so on.
        sinks: what gets alerts: functions, "logging", URLs of webhooks or of apprise.
        alert_link: address that each alert has, e.g. of a dashboard.

    Raises:
        ConfigError: values are of the wrong type, out of range, or contradict each other; it names
            all of them.
    """

    max_series: int = field(
        default=1024,
        metadata=whole(
            1,
            1_000_000,
            "it caps the label sets (models and components); what is over goes to `other`",
        ),
    )
    max_runs: int = field(
        default=65_536,
        metadata=whole(
            1,
            16_777_216,
            "it caps the runs in flight; the oldest is reaped as `abandoned`",
        ),
    )
    max_run_age: float = field(
        default=3600.0,
        metadata=real(
            0.001,
            31_536_000.0,
            remedy="it is the age in seconds at which a run without an end is `abandoned`",
        ),
    )
    significant_digits: int = field(
        default=3,
        metadata=whole(2, 3, "2 costs 27 KB a histogram and errs by 1 %, 3 costs 188 KB and 0.1 %"),
    )
    clock: ManualClock | None = field(
        default=None, compare=False, metadata=ruled(Rule(_checked_clock))
    )
    labels: tuple[Label, ...] = field(default=(), metadata=LABELS)
    token_counters: Mapping[str, Source] | None = field(
        default=None, hash=False, metadata=TOKEN_COUNTERS
    )
    prices: PriceBook | bool = field(default=True, metadata=PRICES)
    budgets: Iterable[Budget] = field(default=(), metadata=BUDGETS)
    streams: StreamOptions | bool = field(default=True, metadata=switchable(StreamOptions))
    defects: DefectOptions | bool = field(default=True, metadata=switchable(DefectOptions))
    anomalies: bool = field(default=True, metadata=flag("false switches the search off"))
    directory: DirectoryOptions | None = field(default=None, metadata=DIRECTORY)
    history: HistoryOptions | None = field(default=None, metadata=HISTORY)
    alerts: Iterable[AlertRule | str] = field(default=(), metadata=ALERTS)
    sinks: Iterable[Sink] | Sink = field(default=(), hash=False, metadata=SINKS)
    alert_link: str = field(default="", metadata=LINK)
    #: Where each setting comes from that is not a default, by its name.
    origins: Mapping[str, Origin] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        check_options(self)
        in_usd = [budget for budget in self.budgets if budget.unit == "usd"]
        if self.prices is False and in_usd:
            raise refusal(
                "prices",
                f"switched on for the budget {in_usd[0].name!r}, which is in USD",
                False,
                "leave out prices, or limit tokens or calls",
            )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        **keywords: Any,
    ) -> MeterConfig:
        """Merge the sources; the first that names a setting wins.

        Keywords, then `LANGMETER_MAX_RUNS` and its like in `environ` (default: `os.environ`, read
        now), then a TOML file, then the defaults. The file is `path`, or that of `LANGMETER_CONFIG`
        (none if it is empty), or `langmeter.toml` in the working directory, or the `pyproject.toml`
        there if it has `[tool.langmeter]`. Keywords are those of `Meter`: the attributes, and the
        options of streams by their own names; None leaves a setting to the other sources.

        Raises:
            ConfigError: settings are unknown, of the wrong type, out of range or contradict each
                other, in any of the sources, or the file cannot be read; it names all of them.
        """
        refusals = Refusals()
        environ = os.environ if environ is None else environ
        values, origins = given_outside(cls, path, environ, refusals)
        given = {name: value for name, value in keywords.items() if value is not None}
        for name in [name for name in given if name not in KEYWORDS]:
            with refusals.collect():
                raise unknown(name, given.pop(name), name, KEYWORDS)
        for name in given:
            is_stream_option = name in STREAM_OPTIONS
            where = f"streams.{name}" if is_stream_option else name
            origins = {key: each for key, each in origins.items() if not is_inside(key, where)}
            origins[where] = Origin(KEYWORD)
        options = {name: given.pop(name) for name in STREAM_OPTIONS if name in given}
        with refusals.collect():
            if options:
                given["streams"] = _streams(values, given, options)
        try:
            config = cls(**{**values, **given})
        except ConfigError as error:
            refusals.problems += [placed(each, origins) for each in error.problems]
        refusals.problems.sort(key=lambda each: (each.source, each.line or 0))
        refusals.raise_all()
        object.__setattr__(config, "origins", origins)
        return config

    @classmethod
    def chosen(
        cls, config: MeterConfig | None, keywords: Mapping[str, Any], *own: str
    ) -> MeterConfig:
        """Return `config` itself, or without one what the keywords make.

        Args:
            config: what the caller was given; None without.
            keywords: what the caller was given beside it; None stands for "not given".
            own: settings that the caller takes beside those of every handler.

        Raises:
            ConfigError: a keyword is unknown to the caller, or a value is refused.
            TypeError: `config` is not a MeterConfig, or is given beside keywords.
        """
        given = {name: value for name, value in keywords.items() if value is not None}
        if config is None:
            known = (*_OF_EVERY_HANDLER, *own)
            refusals = Refusals()
            for name in [name for name in given if name not in known]:
                with refusals.collect():
                    raise unknown(name, given[name], name, known)
            refusals.raise_all()
            return cls.load(**given)
        if not isinstance(config, MeterConfig):
            raise TypeError(
                f"config must be a langmeter.MeterConfig, got {shown(config)}; "
                "pass MeterConfig.load(path), or settings by keyword"
            )
        if given:
            raise TypeError(f"give either config or {', '.join(given)}, not both")
        return config

    def recorder_settings(self) -> dict[str, Any]:
        """Return the keywords for `_core.Recorder`."""
        return {name: getattr(self, name) for name in _OF_RECORDER}

    def origin(self, name: str) -> Origin | None:
        """Return where a setting comes from, by its name in `leaves`; None for a default."""
        within = [key for key in self.origins if is_inside(key, name)]
        if within:
            return self.origins[within[0]]
        # A whole table counts only where its parts are not known one by one.
        around = [key for key in self.origins if is_inside(name, key)]
        whole = [
            key for key in around if not any(part.startswith(f"{key}.") for part in self.origins)
        ]
        return self.origins[max(whole, key=len)] if whole else None

    def leaves(self) -> dict[str, object]:
        """Return every setting by its name, those in groups as `streams.collect`."""
        leaves: dict[str, object] = {}
        for name in (each.name for each in fields(self) if each.init):
            value = getattr(self, name)
            if is_dataclass(value) and not isinstance(value, type):
                leaves |= {f"{name}.{part}": getattr(value, part) for part in rules_of(type(value))}
            else:
                leaves[name] = value
        return leaves


_OF_RECORDER: Final = ("max_series", "max_runs", "max_run_age", "significant_digits", "clock")
_OF_EVERY_HANDLER: Final = (*_OF_RECORDER, "labels", "token_counters")
#: Keywords of `Meter` and of `MeterConfig.load`.
KEYWORDS: Final = (*(each.name for each in fields(MeterConfig) if each.init), *STREAM_OPTIONS)


def _streams(
    outside: Mapping[str, Any], given: Mapping[str, Any], options: Mapping[str, Any]
) -> StreamOptions:
    """Return the options of streams that are given one by one, over those of a file."""
    if "streams" in given:
        names = ", ".join(options)
        remedy = "put them into streams=StreamOptions(…), or leave out streams"
        raise refusal("streams", f"left out beside {names}", given["streams"], remedy)
    base = outside.get("streams", True)
    return replace(base, **options) if isinstance(base, StreamOptions) else StreamOptions(**options)
