"""Rules and sinks as settings: `Meter(alerts=[…], sinks=[…])`, or tables of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from langmeter._base.check import refusal
from langmeter._base.options import Rule as Allowed
from langmeter._base.options import Ruled, check_options, real, ruled, whole
from langmeter._base.spans import Length, seconds_of
from langmeter._base.text import without_password, without_path

if TYPE_CHECKING:
    from langmeter.alerts.alert import Alert
    from langmeter.analysis.conditions import Condition
    from langmeter.analysis.metrics import Metric

#: How much better than its threshold a figure must be before its alert resolves, unless set.
_HYSTERESIS: Final = 0.1
#: Multiple of the even pace; its long and short window, and period, in parts of 30 days; severity.
_BURN_RATES: Final = (
    (14.4, 1 / 720, "critical"),
    (6.0, 1 / 120, "critical"),
    (1.0, 1 / 10, "warning"),
)
_SHORT: Final = 1 / 12
#: Seconds after which an alert that is not accepted is given up: a receiver may reboot meanwhile.
RETRY_FOR: Final = 900.0
_EXAMPLE: Final = "e.g. latency.p95 > 2s, error_rate[openai/*] > 5%, cost > 10 per 1h"


def _text(name: str, text: object) -> str:
    if isinstance(text, str):
        return text
    raise refusal(name, f"a condition, {_EXAMPLE}", text)


def _names(name: str, names: Any) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str) else tuple(names) if names is not None else ()
    if all(isinstance(each, str) and each for each in given) and not isinstance(names, Mapping):
        return given
    raise refusal(name, "a name or a list of names", names, 'write "model" or ["team"]')


def _length(*, or_zero: bool = False, optional: bool = False) -> Ruled:
    def check(name: str, length: Any) -> Any:
        if not (optional and length is None):
            seconds_of(name, length, or_zero=or_zero)
        return length

    return ruled(Allowed(check, {"anyOf": [{"type": "string"}, {"type": "number"}]}))


def _optional_text(name: str, text: object) -> object:
    if text is None or isinstance(text, str):
        return text
    raise refusal(name, "a text", text)


_TEXT: Final = ruled(Allowed(_text, {"type": "string", "minLength": 1}))
_NAMES: Final = ruled(
    Allowed(
        _names,
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
)
_WORD: Final = ruled(Allowed(_optional_text, {"type": "string"}))


@dataclass(frozen=True, slots=True)
class Rule:
    """When to alert.

    Attributes:
        text: what must not be: "latency.p95 > 2s", `error_rate[openai/*] > 5%`, "cost > 10 per 1h",
            "latency.p95 > +50%" (than in `baseline`), "anomalies > 0", "stalls > 3",
            "budget('team-a').used > 80%", "circuit('openai').open > 0".
        by: names for an alert of each of their values: model, provider, a label, component and so
            on, as of `History.query`.
        for_: how long it must last before the alert fires.
        window: span that the figure is of; a sum with `per` is taken over that.
        min_count: observations below which a quantile or a ratio is not judged, 1 up. A sum is
            exact, and needs none.
        resolve: value at which the alert resolves, e.g. "1.5s"; None for a tenth better than the
            threshold.
        keep_firing: how long the figure must have been better before the alert resolves.
        cool_down: how long after that it does not fire again.
        severity: any word: "warning", "critical".
        name: name of the alert; the text if it is empty.
        short: a shorter window in which it must hold, too; None for none. The alert then ends soon
            after its cause does.
        baseline: span before `window` that a change is counted from.

    Raises:
        ConfigError: the text is not a condition, or a value is refused; the message has the
            position of the mistake.
    """

    text: str = field(metadata=_TEXT)
    _: KW_ONLY
    by: str | Iterable[str] = field(default=(), metadata=_NAMES)
    for_: Length = field(default="0s", metadata=_length(or_zero=True))
    window: Length = field(default="5m", metadata=_length())
    min_count: int = field(default=20, metadata=whole(1))
    resolve: str | None = field(default=None, metadata=_WORD)
    keep_firing: Length = field(default="0s", metadata=_length(or_zero=True))
    cool_down: Length = field(default="0s", metadata=_length(or_zero=True))
    severity: str = field(default="warning", metadata=_WORD)
    name: str = field(default="", metadata=_WORD)
    short: Length | None = field(default=None, metadata=_length(optional=True))
    baseline: Length = field(default="24h", metadata=_length())
    #: The text as it was read.
    condition: Condition[Metric] = field(init=False, repr=False, compare=False)
    #: What the figure is held against, below 0 for a fall; and value at which the alert resolves.
    threshold: float = field(init=False, repr=False, compare=False)
    clear: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_options(self)
        from langmeter.analysis.conditions import ConditionError, Gauge, condition, read_amount
        from langmeter.analysis.metrics import Sum
        from langmeter.analysis.parts import Parts

        try:
            read = condition(self.text)
        except ConditionError as error:
            remedy = f"{error}, at character {error.position + 1}"
            raise refusal("text", f"a condition, {_EXAMPLE}", self.text, remedy) from None
        is_gauge = isinstance(read.metric, Gauge)
        if read.sign and (is_gauge or read.sign != ("+" if read.sense > 0 else "-")):
            remedy = f"write > +{read.number} for a rise, < -{read.number} for a fall"
            raise refusal("text", "about a value, or a change beyond it", self.text, remedy)
        if read.per is not None and not isinstance(read.metric, Sum):
            raise refusal("text", "about a sum, to have per", self.text, "set window instead")
        sign = read.sense if read.sign else 1
        threshold = sign * read.threshold
        clear = threshold - read.sense * _HYSTERESIS * abs(threshold)
        if self.resolve is not None:
            try:
                clear = sign * read_amount(read.metric, self.resolve)
            except ConditionError as error:
                raise refusal("resolve", "a value", self.resolve, str(error)) from None
            if read.beyond(clear, threshold):
                raise refusal("resolve", f"no worse than {read.number}", self.resolve)
        if is_gauge and self.names:
            remedy = "each budget has an alert of its own"
            raise refusal("by", "left out beside budget(…)", self.by, remedy)
        if not is_gauge:
            Parts(self.names, read.where, read.metric)  # refuses names
        if self.short is not None and seconds_of("short", self.short) >= self.seconds:
            raise refusal("short", "shorter than window", self.short)
        object.__setattr__(self, "condition", read)
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "clear", clear)

    @property
    def title(self) -> str:
        """Name of its alerts."""
        return self.name or self.text

    @property
    def names(self) -> tuple[str, ...]:
        """Names of `by`."""
        return _names("by", self.by)

    @property
    def seconds(self) -> float:
        """Length of the window."""
        per = self.condition.per if hasattr(self, "condition") else None
        return per or seconds_of("window", self.window)


def burn_rate(
    metric: str = "error_rate",
    *,
    objective: str | None = None,
    budget: float | None = None,
    per: Length = "30d",
    min_count: int = 20,
    name: str = "",
) -> list[Rule]:
    """Return rules about how fast an error budget or a sum of money is spent.

    Each holds over a long and a short window, as the SRE workbook has them: of 30 days 14.4 times
    the even pace over 1 h and 5 min, 6 times over 6 h and 30 min, once over 3 d and 6 h; of another
    period the same parts of it.

    Args:
        metric: a ratio for `objective`, a sum for `budget`; a place may follow: `cost[openai/*]`.
        objective: what the ratio may be, e.g. "0.1%".
        budget: what may be spent in the period, in the unit of the metric.
        per: the period.
        min_count: as of `Rule`.
        name: beginning of the names; the metric if it is empty.

    Raises:
        ConfigError: none or both of objective and budget are given, or a value is refused.
    """
    if (objective is None) is (budget is None):
        raise refusal("objective", "given, or budget is", objective, "give one of the two")
    period = seconds_of("per", per)
    rules = []
    for factor, part, severity in _BURN_RATES:
        seconds = period * part
        if objective is not None:
            base = Rule(f"{metric} > {objective}")
            text = f"{metric} > {100 * factor * base.threshold:.12g}%"
        else:
            text = f"{metric} > {factor * float(budget or 0) * part:.12g} per {seconds:g}s"
        rules.append(
            Rule(
                text,
                window=seconds,
                short=seconds * _SHORT,
                min_count=min_count,
                severity=severity,
                name=f"{name or metric}: {factor:g} times the pace of {per}",
            )
        )
    return rules


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Webhook:
    """A URL that gets each alert as JSON.

    Attributes:
        url: address, http or https.
        secret: key that the body is signed with, as of Standard Webhooks (`whsec_…` in base64, or
            any text); None for that of the variable LANGMETER_WEBHOOK_SECRET, "" for none.
        timeout: seconds that an answer may take, 0.1 to 300.
        retry_for: seconds after which an alert that was not accepted is given up, 0 to 86,400.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    url: str = field(metadata=_TEXT)
    secret: str | None = field(default=None, metadata=_WORD)
    timeout: float = field(default=10.0, metadata=real(0.1, 300, "seconds"))
    retry_for: float = field(default=RETRY_FOR, metadata=real(0, 86_400, "seconds"))

    def __post_init__(self) -> None:
        check_options(self)
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise refusal("url", "an http or https address", without_password(self.url))

    def __repr__(self) -> str:
        return f"Webhook(url='{without_path(self.url)}')"


#: What gets alerts: a function, "logging", a URL, or a Webhook.
Sink: TypeAlias = "Callable[[Alert], Any] | str | Webhook"


def _rules(name: str, rules: Any) -> tuple[Rule, ...]:
    if isinstance(rules, str | Rule):
        raise refusal(name, "a list of rules", rules, f"write [{rules!r}]")
    if rules is None or rules is False:
        return ()
    if not isinstance(rules, Iterable) or isinstance(rules, Mapping):
        raise refusal(name, "a list of rules", rules, 'write ["latency.p95 > 2s"]')
    made = []
    for number, rule in enumerate(rules):
        if not isinstance(rule, str | Rule):
            raise refusal(f"{name}[{number}]", f"a Rule or its text, {_EXAMPLE}", rule)
        made.append(Rule(rule) if isinstance(rule, str) else rule)
    titles = [rule.title for rule in made]
    for number, title in enumerate(titles):
        if title in titles[:number]:
            raise refusal(f"{name}[{number}]", "another name than the others", title, "set name")
    return tuple(made)


def _sinks(name: str, sinks: Any) -> tuple[Sink, ...]:
    if isinstance(sinks, str | Webhook) or callable(sinks):
        sinks = (sinks,)
    if sinks is None or sinks is False:
        return ()
    allowed = 'a function of one Alert, "logging", a URL, or a Webhook'
    if not isinstance(sinks, Iterable) or isinstance(sinks, Mapping):
        raise refusal(name, f"a list of sinks, each {allowed}", sinks)
    made = tuple(sinks)
    for number, sink in enumerate(made):
        is_text = isinstance(sink, str) and (sink == "logging" or "://" in sink)
        if not (is_text or callable(sink) or isinstance(sink, Webhook)):
            raise refusal(f"{name}[{number}]", allowed, sink, 'write "https://…"')
    return made


def _link(name: str, link: object) -> object:
    if isinstance(link, str) and (not link or urlsplit(link).scheme in ("http", "https")):
        return link
    raise refusal(name, "an http or https address", link)


#: Rules of the options `alerts`, `sinks` and `alert_link`.
ALERTS: Final = ruled(Allowed(_rules, table=Rule, is_list=True))
SINKS: Final = ruled(
    Allowed(_sinks, {"type": "array", "items": {"type": "string", "pattern": "^logging$|://"}})
)
LINK: Final = ruled(Allowed(_link, {"type": "string", "pattern": "^(https?://|$)"}))
