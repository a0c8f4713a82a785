"""The native recorder.

Durations are integer nanoseconds at this boundary and seconds in `langmeter.snapshot`.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, Self, TypeAlias, final, type_check_only
from uuid import UUID

from typing_extensions import disjoint_base

__all__ = [
    "ADDRESS_KEYS",
    "BUDGET_PERIODS",
    "BUDGET_UNITS",
    "BUILD_PROFILE",
    "COUNTERS",
    "DEPLOYMENT_KEYS",
    "DROPPED",
    "FINISH_REASONS",
    "FIX_OUTCOMES",
    "FIX_SOURCES",
    "FIX_STAGES",
    "HOOKS",
    "HOOKS_TIMED",
    "INDEX_BITS",
    "KINDS",
    "MAX_CANDIDATES",
    "MAX_DEFECT_TEXT",
    "MAX_LABELS",
    "MAX_PROMPTS",
    "MEASURES",
    "MODEL_KEYS",
    "OUTCOMES",
    "PROVIDER_KEY",
    "RETRY_TAG",
    "SEARCH_TOOLS",
    "SEPARATOR",
    "SNAPSHOT_FORMAT",
    "STANDARD_TIERS",
    "STREAM_KINDS",
    "STREAM_WANTS",
    "TALLIES",
    "TIERS",
    "TIER_PARTS",
    "TOOL_TIMES",
    "TOO_LONG",
    "USAGE_KEYS",
    "USAGE_LIMIT",
    "USAGE_PARTS",
    "USAGE_PLACES",
    "USUAL_MODIFIERS",
    "WINDOWS",
    "Attempts",
    "Cards",
    "Demands",
    "Discrete",
    "Distribution",
    "ManualClock",
    "RateCard",
    "Recorder",
    "Sample",
    "SeriesStats",
    "ServicesBase",
    "Snapshot",
    "Streams",
    "__version__",
    "call_bounds",
    "chat_overhead",
    "count_tokens",
    "encoding_for_model",
    "input_bound",
    "is_held",
    "read_files",
    "read_response",
    "run_number",
    "text_of",
]

#: Build profile of the extension: "release" or "debug".
BUILD_PROFILE: Final[str]
#: Version of the workspace; the only version there is.
__version__: Final[str]
#: Names of the per-series counters, in the order of `SeriesStats.counters`.
COUNTERS: Final[tuple[str, ...]]
#: Names of the outcomes a run can end with; the position is the code `run_ended` takes.
OUTCOMES: Final[tuple[str, ...]]
#: Names of the kinds of component; the position is the code `run_started` takes.
KINDS: Final[tuple[str, ...]]
#: What a key of a usage mapping, and of details in it, means; what follows a tier in such keys.
USAGE_KEYS: Final[dict[str, str]]
USAGE_PARTS: Final[dict[str, str]]
TIER_PARTS: Final[dict[str, str]]
TIERS: Final[tuple[str, ...]]
STANDARD_TIERS: Final[tuple[str, ...]]
USUAL_MODIFIERS: Final[tuple[str, ...]]
#: Where metadata hold usage, and say why an answer ended; which reasons mean that it was too long.
USAGE_PLACES: Final[tuple[str, ...]]
#: Searches in the web among what providers count of their tools, in lower case.
SEARCH_TOOLS: Final[tuple[str, ...]]
#: Where the mapping of one tool says how often it was called.
TOOL_TIMES: Final[tuple[str, ...]]
FINISH_REASONS: Final[tuple[str, ...]]
TOO_LONG: Final[tuple[str, ...]]
USAGE_LIMIT: Final[int]
#: Names of the distributions of a series, in the order of `Snapshot.from_parts`.
MEASURES: Final[tuple[str, ...]]
#: Names of what can be dropped, capped, reaped or refused.
DROPPED: Final[tuple[str, ...]]

#: Where invocation parameters name the model, and where clients keep their address.
MODEL_KEYS: Final[tuple[str, ...]]
ADDRESS_KEYS: Final[tuple[str, ...]]
DEPLOYMENT_KEYS: Final[tuple[str, ...]]
#: The entry of a call's metadata that names its provider, whatever LangChain calls it.
PROVIDER_KEY: Final[str]
#: What a budget counts, and when it begins anew; the position is the code `open_budget` takes.
BUDGET_UNITS: Final[tuple[str, ...]]
BUDGET_PERIODS: Final[tuple[str, ...]]
#: One event in so many is timed.
HOOKS_TIMED: Final[int]
#: Prompts of runs in flight that are kept at most.
MAX_PROMPTS: Final[int]
#: Begins the tag of a second attempt or a later one.
RETRY_TAG: Final[str]
#: Kinds of pieces of output, by the code that `StreamSink.on_event` gets.
STREAM_KINDS: Final[tuple[str, ...]]
#: What may be wanted of streams; the position is the bit `Streams._want` takes.
STREAM_WANTS: Final[tuple[str, ...]]
#: Lengths of the sliding windows of a series, in seconds.
WINDOWS: Final[tuple[int, ...]]
#: Labels that a call carries at most.
MAX_LABELS: Final[int]

#: Outcomes of attempts at defects, and the stages that they reach.
FIX_OUTCOMES: Final[tuple[str, ...]]
FIX_STAGES: Final[tuple[str, ...]]
#: Sources of verdicts to their strength, 1 to 5; any other ranks as `caller`.
FIX_SOURCES: Final[dict[str, int]]
#: Names of the figures of attempts, in the order of their positions.
TALLIES: Final[tuple[str, ...]]
#: Candidates of an attempt that are counted, and characters of its texts that are kept.
INDEX_BITS: Final[int]
MAX_CANDIDATES: Final[int]
MAX_DEFECT_TEXT: Final[int]
#: Version of a snapshot's dict, JSON and binary forms.
SNAPSHOT_FORMAT: Final[int]
#: Joins the two parts of a name of a series.
SEPARATOR: Final[str]

#: An anomaly: at, detected at (Unix nanoseconds), provider, model, metric, before, after
#: (in 1e-12), calls before, calls after.
_Change: TypeAlias = tuple[int, int, str, str, str, int, int, int, int]

def read_files(
    paths: Sequence[str | PathLike[str]], *, dead: bool | None = None
) -> tuple[Snapshot, list[tuple[Path, bool, str]]]:
    """Return the sum of files of recorders, and those that could not be read.

    `dead`: whether their processes are gone, so that their calls in flight are abandoned ones; None
    to find out for each. Of a file that could not be read: its path, whether it is gone, and why.
    """

def is_held(path: str | PathLike[str]) -> bool:
    """Whether the process that made a file of a recorder lives; OSError where there is no file."""

def count_tokens(text: str, encoding: str) -> int:
    """Tokens of a text as PyPI tiktoken's `encode_ordinary` counts them; releases the GIL.

    `encoding`: cl100k_base, o200k_base, o200k_harmony or p50k_base; ValueError for any other.
    """

def encoding_for_model(model: str) -> str | None:
    """The encoding of an OpenAI model, as tiktoken maps names; None for other models."""

def text_of(value: object) -> str:
    """The text of a value in a call's metadata, as labels and budgets read it.

    Of a string, an enum's member too, its own characters, else what `str()` says, and raises.
    """

def run_number(run_id: object) -> Any:
    """Return what stands for a run in dicts: a UUID's int, any other id in a tuple."""

def chat_overhead(model: str) -> tuple[int, int, int]:
    """Tokens a chat adds: (per message, per name, for the reply's beginning)."""

@final
class ManualClock:
    """A clock that moves only when told to; for tests."""

    def __new__(cls) -> ManualClock: ...
    def advance(self, seconds: float) -> None: ...

def input_bound(prompts: object) -> int:
    """Return at least the tokens of prompts or messages: a token a byte of UTF-8.

    16 more for each message, and 2,048 for an image, a sound or a file. Raises what messages of a
    foreign kind raise.
    """

def call_bounds(params: object, metadata: object = None) -> tuple[int, int | None, int, str]:
    """Return what the parameters of a call say of its worst case.

    At least the tokens of tools, schemas and instructions; the most tokens of an answer, None where
    nothing says so; how many answers, at least 1; the service tier as prices know it.
    """

#: An attempt as another process goes on with it: its id, the hash of its defect's id, six names
#: (type, severity, provider, model, strategy, language), three times in Unix nanoseconds (begin of
#: the first attempt, begin, end), five counts (number; of each of its rows fixed, with a verdict),
#: pico-dollars, the verdict (outcome, strength, source, score), whether a model answered and
#: whether the response cache did, the stated confidence, and the candidates (index, whether the
#: response cache gave it, whether it is recommended, whether it is right and by which strength).
_Receipt: TypeAlias = tuple[
    str,
    int,
    Sequence[str],
    Sequence[int],
    Sequence[int],
    int,
    tuple[str, int, int, float | None],
    Sequence[bool],
    float | None,
    Sequence[tuple[int, bool, bool, tuple[bool, int] | None]],
]

@final
class Discrete:
    """A one-peaked distribution of whole numbers; its tails are sums of exact masses."""

    @staticmethod
    def binomial(n: int, q: float) -> Discrete:
        """Return the law of successes among `n` trials, each with probability `q`, 0 < q < 1."""
    @staticmethod
    def hypergeometric(marked: int, n: int, m: int) -> Discrete:
        """Return the law of how many of `marked` among `n + m` fall into the `m`."""
    @property
    def low(self) -> int:
        """The least number."""

    @property
    def high(self) -> int:
        """The greatest number."""

    def at_most(self, k: int) -> float:
        """Return the probability of at most `k`."""

    def at_least(self, k: int) -> float:
        """Return the probability of at least `k`."""

    def largest(self, p: float) -> int:
        """Return the largest k of which P(X <= k) is at most `p`; -1 of a binomial without one."""

@final
class Sample:
    """Values in the buckets of a histogram, summed up once for all the tests of them.

    Args:
        buckets: (lowest, highest, count) of each, ascending, as `Distribution.buckets()` has them.
    """

    def __new__(cls, buckets: Sequence[tuple[float, float, int]]) -> Sample: ...
    @staticmethod
    def of(distribution: Distribution) -> Sample:
        """Return the values of a distribution, in microseconds."""

    @property
    def lows(self) -> list[float]:
        """Lowest value of each bucket."""

    @property
    def highs(self) -> list[float]:
        """Highest value of each bucket."""

    @property
    def before(self) -> list[int]:
        """Number of values below each bucket, and that of all values at the end."""

    @property
    def n(self) -> int:
        """Number of all values."""

    def up_to(self, value: float) -> int:
        """Return how many values are at most `value`, were each the lowest of its bucket."""

    def downsampled(self, n: int) -> Sample:
        """Return the same shape with only `n` values, at most as many as there are."""

    def risen(self, now: Sample, q: float, below: Discrete, above: Discrete) -> float:
        """Return the largest product of two tails over all values that could be the q-quantile.

        `below` is the law of how many of these values lie below it, `above` that of how many of
        `now` lie at or below it.
        """

    def lowest_ratio(self, now: Sample, most: float, below: Discrete, above: Discrete) -> float:
        """Return the greatest ratio below which each ratio of the quantiles is refused.

        That is, the product of the tails is at most `most`.
        """

    def apart(
        self, now: Sample, exact: int
    ) -> tuple[list[int], float, list[int], list[float] | None]:
        """Return how far the two distributions are apart (Kolmogorov-Smirnov).

        How far `now` lies above and below this one, in whole numbers of `n m`; the upper end of the
        bucket where they are furthest apart; how many values of both lie up to there; and, where
        the sizes multiply to at most `exact`, the parts of all orders in which they come as far
        apart, up and down.
        """

@final
class Attempts:
    """The attempts at defects of a recorder, by their numbers.

    Numbers of attempts that are not remembered change nothing.
    """

    def __new__(cls, recorder: Recorder) -> Attempts: ...
    def open(
        self,
        defect_id: str,
        defect_type: str = "",
        severity: str = "",
        language: str = "",
        strategy: str = "",
        number: int | None = None,
    ) -> int:
        """Open an attempt that is a block of code; returns its number."""

    def close(self, attempt: int, outcome: str) -> None:
        """Close an attempt; `outcome` counts where there is no verdict. Raises ValueError."""

    def join(self, run_id: object, attempt: int, *, embeds: bool = False) -> None:
        """Put a run in flight into an attempt; one that `embeds` counts and answers nothing."""

    def of_run(self, run_id: object) -> int | None:
        """Return the attempt that a run in flight is in."""

    def candidate(self, attempt: int, index: int, *, recommended: bool = False) -> None:
        """Add a candidate, or recommend it."""

    def state_confidence(self, attempt: int, confidence: float) -> None:
        """Note the confidence that the model states, 0 to 1."""

    def judge(self, attempt: int, outcome: str, source: str, score: float | None = None) -> str:
        """Record a verdict: returns counts, same, weaker, or unknown. Raises ValueError."""

    def judge_candidate(
        self, attempt: int, index: int, outcome: str, source: str, score: float | None = None
    ) -> bool:
        """Record a verdict on a candidate; returns whether it is one on its attempt too."""

    def id(self, attempt: int) -> str:
        """Return the id of an attempt."""

    def number(self, id: str) -> int | None:
        """Return the number of an id of this process; None for any other text."""

    def receipt(self, attempt: int) -> _Receipt | None:
        """Return what another process needs; None while the attempt is open, or forgotten."""

    def adopt(self, receipt: _Receipt) -> int:
        """Return the number of the attempt of a receipt, remembered from now on."""

@final
class Demands:
    """Demands of calls on the budgets of one meter: those they belong to, their worst case.

    Args:
        conditions: of each budget, the keys of its scope that look at the run, and their texts;
            None is the run's tags.
        bounded, priced: bits of the budgets that ask for the worst case in tokens, for its price.
        prices: the price book, for its `version`; None without prices.
        covers: of a provider, model and vendor, the bits of the budgets that cover all of its
            calls, and of those that look at the run. Its answers are kept.
        price: of a provider, model, deployment, vendor, tier, the models that have answered such
            calls and the bits that ask: version, Unix time of the end, and the rates at worst by
            band; None without a price, [] while prices are not loaded.
        unread: called with the exception of a value in the metadata that cannot be read.
        counted: called at the 100th call.
    """

    def __new__(
        cls,
        conditions: list[list[tuple[str | None, list[str]]]],
        *,
        bounded: int,
        priced: int,
        prices: Any,
        covers: Callable[[str, str, str], tuple[int, int]],
        price: Callable[
            [str, str, str, str, str, Sequence[str], int], tuple[int, float, list[Any] | None]
        ],
        unread: Callable[[Exception], None],
        counted: Callable[[], None] | None = None,
    ) -> Demands: ...
    def __call__(
        self,
        provider: str,
        model: str,
        prompts: object,
        metadata: object,
        tags: object,
        params: object,
        deployment: str = "",
        vendor: str = "",
    ) -> tuple[int, int, int | None, int, list[int] | None] | None:
        """Return what a call asks, as `Recorder.run_started` takes it; None if nothing."""

    def embedding(
        self, provider: str, model: str, tokens: int, deployment: str = ""
    ) -> tuple[int, int, int | None, int, list[int] | None] | None:
        """Return the same of a call that embeds so many tokens: nothing is written."""

@final
class Recorder:
    """The arena. Every method may be called from any thread; none blocks."""

    def __new__(
        cls,
        *,
        max_series: int = 1024,
        max_runs: int = 65_536,
        max_run_age: float = 3600.0,
        significant_digits: int = 3,
        clock: ManualClock | None = None,
    ) -> Recorder: ...
    def run_started(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        kind: int,
        name: str,
        provider: str = "",
        model: str = "",
        demand: tuple[int, int, int | None, int, Sequence[int] | None] | None = None,
        labels: Sequence[tuple[str, str]] | None = None,
        retried: bool = False,
        piped: bool = False,
        make_room: Callable[[int, int], bool] | None = None,
    ) -> tuple[int, int, list[tuple[int, int]]] | None:
        """A run began. `provider` and `model` are the requested names, for kind llm only.

        `demand`: bits of the budgets it belongs to, input tokens and output tokens of an answer at
        worst (None: the most the model gave so far, at least 2,048), how many answers, and
        pico-dollars: an input token and an output token at worst, the call, an input token that no
        cache has seen; None where the model has no price, empty while prices are not loaded.
        `labels`: key and value, three at most, of a label that crosses keys joined by SEPARATOR.
        `make_room` is called before a refusal for want of room, with the budget's position and what
        the call reserves of it: when it returns true, the call is judged again, up to 16 times.
        Returns None, or when a budget refuses
        the call, which so did not begin: the budget's position, why (0: it does not fit, 1: it has
        no price, 2: prices are not loaded) and the thresholds crossed, as of `run_ended`.
        """

    def open_budget(
        self,
        unit: int,
        limit: int,
        period: int,
        blocking: bool,
        thresholds: list[int],
        unpriced: int,
    ) -> int:
        """Open a budget; returns its position, which is its bit. At most 64.

        `unit`: 0 pico-dollars, 1 tokens, 2 calls. `period`: 0 total, 1 minute, 2 hour, 3 day,
        4 month. `thresholds`: up to 8 amounts, ascending. `unpriced`: pico-dollars of a call
        without a price; 2**64 - 1 refuses it. Raises ValueError.
        """

    def set_limit(self, budget: int, limit: int, thresholds: list[int]) -> list[tuple[int, int]]:
        """Give a budget another limit and thresholds; returns the thresholds that this crosses."""

    def reset_budget(self, budget: int) -> None:
        """Begin the period of a budget anew: nothing spent."""

    def lease(self, budget: int, limit: int, until: int, began: int) -> tuple[int, int]:
        """Set the slice that this process leases of a budget, which was opened without a period.

        `limit`: the most that is spent and reserved since it was opened. `until`: end of the lease,
        Unix nanoseconds by the recorder's clock; 2**64 - 1 for none. `began`: begin of the period.
        Returns what is spent, and what is spent and reserved together, read after that.
        """

    def standing(self, budget: int) -> tuple[int, int, int, int | None, int, int]:
        """Spent, reserved; begin and end of the period, and now, in Unix nanoseconds; the limit."""

    def spent_lately(self) -> list[tuple[int, int, int]]:
        """Of 60, 300 and 900 seconds: (seconds, ns covered, nano-dollars)."""

    def requested(self, run_id: UUID) -> tuple[str, str, float, int, int, bool, float, int] | None:
        """Return the model, estimate and limits that a run in flight asked for.

        Provider, model, its start in Unix seconds, its budgets' bits, its labels as `repriced`
        takes them, whether budgets took it for a call without a price, now in Unix seconds, and the
        number of the attempt at a defect that it is made for, or 0.
        """

    def repriced(
        self,
        provider: str,
        model: str,
        outcome: int,
        budgets: int,
        labels: int,
        calls: int,
        total: int,
        cost: int,
        charged: bool,
        ended: tuple[float, float],
        attempt: int = 0,
    ) -> list[tuple[int, int]]:
        """A price has come for so many calls: their tokens, their cost in pico-dollars.

        `charged`: budgets took each for a call without a price, and now take that back. `ended`:
        when the first and the last of them ended, Unix seconds; those that ended before the period
        of a budget count no more in it.

        Returns the thresholds crossed, as of `run_ended`.
        """

    def silent(self, silence: float) -> list[tuple[int, str, str, int, int, int]]:
        """Streams in flight without a token for so many seconds.

        Each as the run's key (`hash(run_id.int)`), provider, model, begin and last token in Unix
        nanoseconds, token events.
        """

    @staticmethod
    def key(run_id: object) -> int:
        """Return the key of a run, 62 bits of its id."""

    def end_is_echo(self, run_id: object) -> bool:
        """Return whether an end of this run has come before; then it is counted as dropped."""

    def reserving(self) -> list[tuple[int, int, int | None, bool, int]]:
        """Return the model calls in flight that hold a reservation.

        Each as the run's key, when it started, when its last token came (else about when its first
        chunk did; None before both), both in Unix nanoseconds, whether an ancestor that was in
        flight when it started no longer is, and its budgets, a bit each.
        """

    def abandon(self, keys: list[int], *, unheard: bool = False) -> int:
        """Take out the runs of these keys as abandoned, and return how many were in flight.

        What they hold of budgets is released at once. `unheard`: only those that hold some and have
        had no event since their start.
        """

    def stalled(self, provider: str, model: str) -> None:
        """A stream of this model stopped for long."""

    def pulse(self) -> list[tuple[str, str, int, int, int, int, int]]:
        """Of each model: provider, model, calls, errors, tokens, pico-dollars, nanoseconds."""

    def fix_pulse(self) -> list[tuple[str, str, int, int, int, int]]:
        """Of each model: provider, model, closed defects, fixed, ever fixed, pico-dollars."""

    def in_hook(self, hook: str, nanos: int) -> None:
        """The time that one event spent in one of our hooks."""

    def token(self, run_id: UUID, *, visible: bool = True) -> None:
        """One token event of a streamed run; `Handler` calls this natively."""

    def run_ended(
        self,
        run_id: UUID,
        kind: int,
        outcome: int,
        provider: str = "",
        model: str = "",
        usage: tuple[Any, ...] | None = None,
        cost: int | None = None,
        billed: int | None = None,
        queue: int | None = None,
        truncated: bool = False,
        error: str | None = None,
        labels: Sequence[str] = ...,
    ) -> list[tuple[int, int]] | None:
        """A run ended. What it is was said at its start; `kind` counts only where there was none.

        Returns the thresholds that this crossed: (budget, position of the threshold).

        For kind llm: the names in the response ("" = as requested), the usage and the cost in
        pico-dollars. `usage` is a tuple that begins with ints in this order: input, output, total,
        cache_read, cache_write, cache_write_1h, reasoning, audio_input, audio_output, image_input,
        image_output, video_input, video_output, cached_audio, cached_image, citation, web_searches,
        file_searches, estimated (tokens of `total` that are not from the provider). What follows is
        ignored. `billed`: what the provider says it bills, pico-dollars; `queue`: how long it says
        that the call waited, nanoseconds; `error`: how the run failed; `labels`: keys in whose rows
        without a value a run counts that is not in flight.
        """

    def count(self, kind: int, name: str, outcome: int, duration: int | None = None) -> None:
        """Count finished work that was not a run, e.g. a fix; `duration` in nanoseconds."""

    def dropped(self, name: str, n: int = 1) -> None:
        """Add to a named count of what was lost; a name outside `DROPPED` is counted as "other"."""

    @property
    def origin(self) -> tuple[int, int]:
        """(recorder, fork generation), as of its snapshots."""

    def snapshot(
        self, anomalies: Sequence[_Change] | None = None, labels: Sequence[str] = ...
    ) -> Snapshot:
        """Everything so far, with the names of the declared labels: their keys, joined."""

    def attach(self, path: str | PathLike[str], mode: int) -> None:
        """Count into a new file; before the first event, or right after `reset_after_fork`.

        The file is locked for as long as the process lives, and appears under `path` once it is
        whole. Raises OSError where it cannot be made: the recorder then stays in memory.
        """

    @property
    def file(self) -> Path | None:
        """The file that the recorder counts into; None while it counts in memory."""

    def grow_file(self) -> bool:
        """Allocate more of the file ahead of need; True without a file.

        Returns False where it could not grow: what is new is then in memory only.
        """

    def reset_after_fork(self) -> None:
        """Forget everything; only for a child process that has just been forked."""

    @property
    def is_empty(self) -> bool:
        """True until the first event."""

@final
class Snapshot:
    """Plain data: mergeable, immutable."""

    def __new__(cls) -> Snapshot:
        """The empty snapshot, zero of the sum."""

    @staticmethod
    def from_parts(
        series: Sequence[
            tuple[
                str,
                str,
                str,
                Sequence[int],
                Sequence[str],
                Sequence[tuple[int, int, int, int, int, int]],
                int,
                int,
                dict[str, tuple[int, int]],
            ]
        ],
        *,
        in_flight: int,
        peak: int,
        anomalies: Sequence[_Change],
        started_at: int,
        taken_at: int,
        dropped: dict[str, int],
        origin: tuple[int, int] | None,
        labels: Sequence[str] = ...,
    ) -> Snapshot:
        """Rebuild from what `series` and the properties show.

        A series is (kind, a, b, counters, [each of MEASURES as `to_hdr`, or ""], rates, in flight,
        peak). Raises ValueError for other values.
        """

    def series(self) -> list[SeriesStats]: ...
    @property
    def in_flight(self) -> int:
        """Model calls in flight."""

    @property
    def peak(self) -> int:
        """The most model calls in flight at once."""

    @property
    def anomalies(self) -> list[_Change]: ...
    @property
    def started_at(self) -> int:
        """Begin of what is covered, Unix nanoseconds; 0 in the empty snapshot."""

    @property
    def taken_at(self) -> int:
        """End of what is covered, Unix nanoseconds."""

    @property
    def windows(self) -> list[tuple[int, int, int, int, int, int]]:
        """Of all models: (seconds, ns covered, requests, input tokens, output tokens, errors)."""

    @property
    def dropped(self) -> dict[str, int]:
        """Only the names that are not 0."""

    @property
    def labels(self) -> list[str]:
        """Names of the declared labels: the keys of each, joined by SEPARATOR."""

    @property
    def origin(self) -> tuple[int, int] | None:
        """(recorder, fork generation) of a snapshot of one recorder; None when merged or empty."""

    def counted(self) -> Snapshot:
        """Return what was counted, without windows, calls in flight and their peak."""

    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> Snapshot:
        """Raises ValueError on foreign, damaged or newer bytes."""

    def __add__(self, value: Snapshot, /) -> Snapshot: ...
    def __radd__(self, value: Snapshot, /) -> Snapshot: ...
    def __rsub__(self, value: Snapshot, /) -> Snapshot: ...
    def __sub__(self, value: Snapshot, /) -> Snapshot:
        """Raises ValueError when `other` is not an earlier snapshot of the same counts."""

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class SeriesStats:
    """One label set.

    Kind "model": a is the provider, b the model; "label": key, and value with
    provider and model, joined by SEPARATOR (of a label that crosses keys all of them); "error": who
    and how; "defect": type and severity, provider and model, each pair joined by SEPARATOR;
    "strategy": strategy and language; every other kind: a is the name, b empty.
    """

    @staticmethod
    def merged(series: Sequence[SeriesStats]) -> SeriesStats:
        """Return the sum of series, under the names of the first; ValueError for none."""

    @property
    def kind(self) -> str: ...
    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def counters(self) -> tuple[int, ...]:
        """In the order of `COUNTERS`."""

    @property
    def rates(self) -> list[tuple[int, int, int, int, int, int]]:
        """Windows of this model, in the form of `Snapshot.windows`; empty for components."""

    @property
    def in_flight(self) -> int:
        """Of models: calls in flight."""

    @property
    def peak(self) -> int:
        """Of models: the most of them at once."""

    @property
    def tallies(self) -> dict[str, tuple[int, int]]:
        """Of attempts at defects: what entered each figure, and what left it, by name."""

    def measure(self, name: str) -> Distribution:
        """A distribution by its name in MEASURES; ValueError for another."""

@final
class Distribution:
    """An HDR histogram of durations, recorded in microseconds from 1 µs to 38 h.

    Figures out are in seconds.
    """

    def __new__(cls) -> Distribution:
        """The empty distribution, zero of the sum."""

    @property
    def count(self) -> int: ...
    @property
    def sum(self) -> float:
        """Sum of the recorded durations in seconds, at the histogram's precision."""

    @property
    def mean(self) -> float:
        """Mean in seconds, at the histogram's precision; nan when empty."""

    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float:
        """Highest value at the histogram's precision, seconds; nan when empty."""

    def quantile(self, q: float) -> float:
        """Value at quantile q, seconds; nan when empty. Raises ValueError outside [0, 1]."""

    def buckets(self) -> list[tuple[int, int, int]]:
        """(lowest µs, highest µs, count) of the occupied buckets, ascending."""

    def to_hdr(self) -> str:
        """Base64 of the compressed HdrHistogram V2 encoding, values in microseconds."""

    def __add__(self, value: Distribution, /) -> Distribution: ...
    def __radd__(self, value: Distribution, /) -> Distribution: ...
    @staticmethod
    def total(parts: Sequence[Distribution]) -> Distribution:
        """Sum of many; faster than one `+` after another."""

    def __sub__(self, value: Distribution, /) -> Distribution:
        """Values that are not in `value`, a part of them. Raises ValueError when it is none."""

    def __rsub__(self, value: Distribution, /) -> Distribution: ...
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Cards:
    """Rate cards by what a price is looked up by; a change of prices lets all of them go.

    By provider, model, the model requested where another one answered, deployment, vendor and tier.
    """

    def __new__(cls) -> Cards: ...
    @property
    def version(self) -> int:
        """Grows when a price may have changed."""

    def set(self, names: Sequence[str], card: RateCard | None, version: int) -> None:
        """Keep a card, unless prices have changed since `version`; None takes one away."""

    def get(
        self,
        provider: str,
        model: str,
        requested: str = "",
        deployment: str = "",
        vendor: str = "",
        tier: str = "",
    ) -> RateCard | None:
        """Return the card that is kept."""

    def refresh(self) -> None:
        """Let all cards go."""

    def __len__(self) -> int: ...

@final
class RateCard:
    """The rates of one model in whole pico-dollars, and when they hold (Unix seconds)."""

    def __new__(
        cls,
        bands: Sequence[tuple[int, Sequence[int]]],
        scale: int,
        valid_from: float,
        valid_until: float,
    ) -> RateCard:
        """`bands`: (above, the 18 rates in the order of `langmeter.prices.card.KINDS`).

        Rates are counted in parts of a pico-dollar, of which `scale` make one.
        """

    def cost(self, usage: tuple[Any, ...]) -> int:
        """Return the pico-dollars of a call; counts that contradict each other are charged."""

    @staticmethod
    def is_contested(usage: tuple[Any, ...]) -> bool:
        """Return whether parts of a usage exceed their whole."""

@type_check_only
class Services(Protocol):
    """The methods of `langmeter.callbacks.services.Services` that Rust calls, and no others.

    With `StreamSink` ten methods; a test holds the names in the Rust sources to these.
    """

    def first_call(self) -> None:
        """The first model call of this process begins."""

    def requested(
        self, metadata: Any, invocation_params: Any, serialized: Any
    ) -> tuple[str, str, bool, str, str]:
        """Return the provider and the model that a client requests.

        And whether an address named by the call could change that, the deployment that is called,
        or "", and LangChain's name of the provider where the user has another, else ""; every other
        answer holds for the client and what the call says of provider, model and deployment.
        """

    def in_batch(self, run_id: Any, size: Any, params: Any, refused: bool) -> Sequence[Any]:
        """Return the ids of the runs to give up: one of those that begin together was started."""

    def refused(self, budget: int, why: int, crossed: list[tuple[int, int]]) -> NoReturn:
        """Raise `BudgetExceeded`; the arguments are what `Recorder.run_started` returns."""

    def crossed(self, crossed: list[tuple[int, int]]) -> None:
        """Report thresholds that a call crossed."""

    def model_end(
        self,
        run_id: Any,
        outcome: int,
        response: Any,
        kind: int,
        error: BaseException | None = None,
    ) -> None:
        """End a model call that the native way does not take; nothing has been changed yet."""

    def hook_failed(self, place: str, exc: BaseException) -> None:
        """Count a failure of ours; raise what is the host's, such as KeyboardInterrupt."""

@type_check_only
class StreamSink(Protocol):
    """The methods of `langmeter.streaming.Streams` that Rust calls."""

    def on_text(self, text: str) -> None:
        """A piece of an answer's text came."""

    def on_event(
        self,
        run_id: Any,
        model: str,
        text: str,
        index: int,
        elapsed: float,
        kind: int,
        call: int | None,
        name: str,
    ) -> None:
        """A piece of output came."""

    def on_gone(self, run_id: Any, shown: tuple[Any, ...]) -> None:
        """The recorder gave up a stream that never ended; `shown` as of `Streams._take`."""

#: The type of each native hook, by its name: made of services, the name of the handler's class,
#: and whether that counts chains, tools and retrievers. A hook lets only through what
#: `Services.refused` raises; every failure goes to `Services.hook_failed`.
HOOKS: dict[str, Callable[[ServicesBase, str, bool], Callable[..., None]]]

@disjoint_base
class ServicesBase:
    """Base of what the handlers of a recorder share; the slots that a call needs."""

    def __new__(
        cls,
        new_recorder: Callable[[], Recorder],
        *,
        streams: Streams | None = None,
        cards: Cards | None = None,
        demand: Demands | None = None,
        make_room: Callable[[int, int], bool] | None = None,
        origins: dict[int, Any] | None = None,
        labels: Sequence[Sequence[str]] = ...,
        keep_prompts: bool = False,
        attempts: tuple[
            Sequence[str],
            Callable[[], int],
            Callable[[int, Any], None] | None,
        ]
        | None = None,
    ) -> Self:
        """Take what never changes.

        `new_recorder` is called at the first use of `recorder`. `cards` price calls. `make_room`
        is called as of `Recorder.run_started`; `origins` gets,
        by the key of each run that holds budgets and began in an asyncio task, weak references to
        the task, its loop and the run's id. `labels`: the keys of each. `keep_prompts`:
        those of clients that report usage too. `attempts`: keys of a run's metadata (id, type and
        severity of a defect, language, strategy, number of the attempt); what returns the attempt
        and the candidate of the block around a run; what is called with the number of an attempt
        that is a run, and what the run returned.
        """

    @property
    def recorder(self) -> Recorder: ...
    @property
    def is_mapped(self) -> bool:
        """Whether an event or a question has mapped the recorder."""

    @property
    def prompts(self) -> dict[Any, Any]:
        """Prompts of runs in flight, by `run_number(run_id)`; with others in a tuple.

        The prompts; if others went with them, in a tuple; with tools (prompts, tools, whether they
        went alone).
        """

    def take_prompt(self, run_id: object) -> Any:
        """Return what the call of a run that ends was asked, and keep it no longer.

        An empty tuple where it is not kept.
        """

    def take_called(self, run_id: object) -> tuple[str, str]:
        """Return the deployment and the vendor that a run that ends has called; "" for none.

        They are kept no longer.
        """

    def block_entered(self) -> None:
        """Look for the block that runs begin in, from now on."""

    def reset_after_fork(self) -> None:
        """Forget the parent's calls; only for a child process that has just been forked."""

@disjoint_base
class Streams:
    """Base of `langmeter.streaming.Streams`, which is a `StreamSink`."""

    def __new__(cls, max_stream_bytes: int, max_bytes: int) -> Streams: ...
    @property
    def max_stream_bytes(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    def _raise_limits(self, other: Streams) -> None:
        """Take the larger of each limit."""

    def _want(self, what: int) -> None:
        """Bits: 1 keep the texts, 2 tell each event, 4 tell each text, 8 wait for each end."""

    def _take(self, recorder: Recorder, run_id: UUID) -> tuple[Any, ...] | None:
        """Take what a run that ends has said; None when it is not in flight.

        (provider, model, text, reasoning, [(id, name, args)], pieces, seconds to the first of them,
        seconds since the start, cut).
        """

    def _peek(self, recorder: Recorder, run_id: UUID) -> tuple[Any, ...] | None:
        """The same without forgetting; None when it has said nothing."""

    def _give_up(self, recorder: Recorder) -> None:
        """Take out the streams that the recorder no longer has, and call `_gone` for each."""

    def _clear(self) -> None: ...
    @property
    def _open(self) -> tuple[int, int]:
        """Streams in flight, and the bytes kept of them."""

_Read: TypeAlias = tuple[
    tuple[int, ...] | None, str, str, str, bool, str | None, bool, bool, int | None, int, int
]

def read_response(response: Any) -> _Read | None:
    """Return the reading of a response; None where the careful reader has to look.

    Counts of the usage, tier, LangChain's name of the provider, model, cache hit, billed (a decimal
    number in USD), shared, truncated, queue (nanoseconds), web searches, file searches: see
    `langmeter.usage.Reading`.
    """
