//! The events: where each one lands in the arena.

use crate::budget::{Budgets, Crossed, Refused, Reservation, Standing, Terms, Used};
use crate::cells::Cells;
use crate::clock::Clock;
use crate::error::Error;
use crate::histogram::{self, Layout};
use crate::runs::{Branch, Labels, Left, Orphan, Root, Run, RunKey, RunTable, Start, Streaming, Token, Via};
use crate::series::{Kind, LabelSet, SeriesId, SeriesTable};
use crate::snapshot::{Origin, SeriesData, Snapshot, WindowCounts};
use crate::spans::{Span, Spans};
use crate::tree::Tree;
use crate::window::{WINDOWS, Window};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every one, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name users see.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

named! {
    /// How a run ended; also the first counters of a series.
    Outcome {
        /// It gave its result.
        Ok = "ok",
        /// It failed.
        Error = "error",
        /// The caller gave up.
        Cancelled = "cancelled",
        /// Nobody said how it ended: reaped by age, by capacity or with its ancestor.
        Abandoned = "abandoned",
        /// Control flow of a graph, not a failure.
        Interrupted = "interrupted",
        /// Answered from LangChain's response cache.
        CacheHit = "cache_hit",
    }
}

named! {
    /// The counters of a series that follow its outcomes.
    Counter {
        /// Input tokens, cached ones included.
        Input = "input",
        /// Output tokens, reasoning included.
        Output = "output",
        /// The provider's total, else input and output.
        Total = "total",
        /// Input read from the provider's prompt cache.
        CacheRead = "cache_read",
        /// Input written to it, every lifetime.
        CacheWrite = "cache_write",
        /// Input written to it for an hour.
        CacheWrite1h = "cache_write_1h",
        /// Output spent on reasoning.
        Reasoning = "reasoning",
        /// Audio in the input.
        AudioInput = "audio_input",
        /// Audio in the output.
        AudioOutput = "audio_output",
        /// Images in the input.
        ImageInput = "image_input",
        /// Web searches the provider ran.
        WebSearches = "web_searches",
        /// Tokens of `total` that are counted here, not told by the provider.
        Estimated = "estimated",
        /// Cost in pico-dollars.
        Cost = "cost",
        /// Calls that `cost` covers.
        PricedCalls = "priced_calls",
        /// Calls with tokens and no price.
        UnpricedCalls = "unpriced_calls",
        /// Calls that streamed.
        Streamed = "streamed",
        /// Token events of those.
        TokenEvents = "token_events",
        /// Tokens that a response-cache hit spared.
        SavedTotal = "saved_total",
        /// Tokens of calls without a price.
        UnpricedTotal = "unpriced_total",
        /// Calls among the unpriced that were priced later.
        RepricedCalls = "repriced_calls",
        /// Tokens of those.
        RepricedTotal = "repriced_total",
        /// What providers said that they bill, in pico-dollars.
        Billed = "billed",
        /// Calls that `billed` covers.
        BilledCalls = "billed_calls",
        /// The part of the cost that went to calls that failed.
        CostError = "cost_error",
        /// The part of the cost that went to calls that the caller gave up.
        CostCancelled = "cost_cancelled",
        /// Calls that were a second attempt or a later one.
        RetriedCalls = "retried_calls",
        /// The part of the cost that went to those.
        RetriedCost = "retried_cost",
        /// Failed calls that a later one under the same parent made good.
        Recovered = "recovered",
        /// Answers that ended at the limit of their length.
        Truncated = "truncated",
        /// Times that a stream stopped for long.
        Stalls = "stalls",
        /// Runs that ended with an outcome of their own, and their durations in nanoseconds.
        Duration = "duration",
        /// Nanoseconds during which none of a run's children ran.
        SelfTime = "self_time",
        /// Nanoseconds that the end of a whole pipeline waited for.
        CriticalTime = "critical_time",
        /// Nanoseconds by which pipelines would end sooner, were this twice as fast.
        SavedIfTwiceAsFast = "saved_if_twice_as_fast",
        /// Pipelines: runs at the top, in all that they called.
        Pipelines = "pipelines",
        /// Nanoseconds from the begin to the end of those.
        PipelineTime = "pipeline_time",
    }
}

named! {
    /// The distributions of a series. In seconds all of them.
    Measure {
        /// Start to end.
        Latency = "latency",
        /// Start to first output of a stream.
        FirstToken = "time_to_first_token",
        /// Between one output of a stream and the next.
        Gap = "inter_token_latency",
        /// Start to first output that is no reasoning.
        FirstVisibleToken = "time_to_first_visible_token",
        /// The longest of the gaps of a stream.
        LongestGap = "longest_gap",
        /// First output of a stream to its last.
        StreamDuration = "stream_duration",
        /// The same by output token, by the final usage.
        TimePerToken = "time_per_output_token",
        /// What the provider says that the call waited before it was worked on.
        Queue = "queue_time",
        /// The time during which none of a run's children ran.
        SelfTime = "self_time",
    }
}

/// Distributions with the digits of the settings; the others have 2.
const PRECISE: usize = Measure::LongestGap as usize;
/// Distributions of a series.
pub const MEASURES: usize = Measure::ALL.len();

named! {
    /// What was capped, reaped or refused.
    Dropped {
        /// Events of label sets beyond `max_series`: counted under `other`.
        SeriesCapped = "series_capped",
        /// Labels longer than 248 bytes.
        LabelsCut = "labels_cut",
        /// Runs reaped at `max_runs`.
        RunsCapped = "runs_capped",
        /// Runs reaped at `max_run_age`.
        RunsAged = "runs_aged",
        /// Runs reaped because an ancestor had ended.
        RunsOrphaned = "runs_orphaned",
        /// Starts of a run already in flight.
        DuplicateStart = "duplicate_start",
        /// Ends of a run that had ended.
        DuplicateEnd = "duplicate_end",
        /// Ends of a run that had been reaped; its tokens are counted all the same.
        LateEnd = "late_end",
        /// Ends of a run that never started here.
        EndWithoutStart = "end_without_start",
        /// Tokens of a run not in flight.
        StrayTokens = "stray_tokens",
        /// Durations beyond 1 h.
        Clamped = "clamped",
        /// Gaps between tokens that went to the model that answered the call before.
        GapsMislaid = "gaps_mislaid",
        /// Usage figures that were no number.
        UsageRefused = "usage_refused",
        /// Exceptions inside a hook.
        HookErrors = "hook_errors",
        /// Exceptions of a user's callback.
        CallbackErrors = "callback_errors",
        /// Calls that did not fit a budget, and never began.
        BudgetRefused = "budget_refused",
        /// Labels of a call beyond the third.
        LabelsOver = "labels_over",
        /// Calls without a price that will not be priced later: too many wait already.
        UnpricedForgotten = "unpriced_forgotten",
        /// Trees of runs too large, or too many at once, for their critical path.
        PathsLost = "paths_lost",
        /// Bytes of streamed text beyond what is collected.
        StreamTextCut = "stream_text_cut",
        /// Events of streams that a slow consumer did not get.
        StreamEventsDropped = "stream_events_dropped",
        /// Streams whose pieces do not make the message they ended with.
        StreamMismatch = "stream_mismatch",
        /// Changes of a model beyond those that are kept.
        AnomaliesForgotten = "anomalies_forgotten",
        /// Anything else.
        Other = "other",
    }
}

const OUTCOMES: usize = Outcome::ALL.len();
/// Counters of a series: outcomes, then `Counter`.
pub const COUNTERS: usize = OUTCOMES + Counter::ALL.len();
/// What a call used: the first counters, `Input` to `Estimated`.
pub type Usage = [u64; Counter::Estimated as usize + 1];

// A series: counters | what is known of it | windows | histograms.
const COUNTER_CELLS: usize = 64;
const HOME: usize = COUNTERS;
const ALIAS: usize = COUNTERS + 1;
const LARGEST: usize = COUNTERS + 2;
const IN_FLIGHT: usize = COUNTERS + 3;
const PEAK: usize = COUNTERS + 4;
const _: () = assert!(PEAK < COUNTER_CELLS, "a series' counters outgrew their cells");

// The header.
const GENERATION: usize = 0;
const STARTED: usize = 1;
/// Model calls in flight, and the most there ever were: on a line of their own.
const ALL_IN_FLIGHT: usize = 8;
const ALL_PEAK: usize = 9;
const DROPPED: usize = 16;
const HEADER: usize = 64;
const _: () = assert!(DROPPED + Dropped::ALL.len() <= HEADER, "the header is too small");

/// Sizes of a recorder.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Label sets, 1 to 1,000,000.
    pub max_series: u64,
    /// Runs in flight, 1 to 16,777,216.
    pub max_runs: u64,
    /// When a run in flight counts as abandoned; more than 0.
    pub max_run_age: Duration,
    /// Digits of the histograms, 2 or 3.
    pub significant_digits: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_series: 1024, max_runs: 65_536, max_run_age: Duration::from_secs(3600), significant_digits: 3 }
    }
}

/// Output tokens that a call is expected to give at most, where it sets no limit of its own and no call before
/// it gave more.
const USUAL_OUTPUT: u64 = 2048;

/// A run as it begins.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'a> {
    /// The run.
    pub key: RunKey,
    /// Its parent.
    pub parent: Option<RunKey>,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// Requested provider of an llm run.
    pub provider: &'a str,
    /// Requested model of an llm run.
    pub model: &'a str,
    /// What it asks of budgets.
    pub demand: Option<Demand>,
    /// Key and value of its labels, three at most.
    pub labels: &'a [(&'a str, &'a str)],
    /// Whether it is a second attempt or a later one.
    pub retried: bool,
    /// Whether it is a step of a sequence but its first; see [`Span::piped`].
    pub piped: bool,
}

/// What a call can cost at its worst, for the budgets it belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// The budgets, a bit each.
    pub budgets: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens of an answer; None: as many as the model was seen to give, 2,048 at least.
    pub output: Option<u64>,
    /// Answers asked for, each of them billed; 0 is 1.
    pub answers: u64,
    /// Pico-dollars for an input token, an output token, and the call.
    pub rates: [u64; 3],
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The run.
    pub key: RunKey,
    /// What it is.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// Provider as the response names it; empty: as requested.
    pub provider: &'a str,
    /// Model as the response names it; empty: as requested.
    pub model: &'a str,
    /// What it used, if known.
    pub usage: Option<Usage>,
    /// Its cost in pico-dollars, if priced.
    pub cost: Option<u64>,
    /// What the provider said that it bills, pico-dollars.
    pub billed: Option<u64>,
    /// What the provider said that it waited before it was worked on, nanoseconds.
    pub queue: Option<u64>,
    /// Its answer ended at the limit of its length.
    pub truncated: bool,
    /// How it failed: the exception's class, and the status of a server's answer.
    pub error: Option<&'a str>,
}

impl End<'_> {
    /// A run of this kind that gave its result, and nothing more is known.
    pub const fn new(key: RunKey, kind: Kind) -> Self {
        Self {
            key,
            kind,
            outcome: Outcome::Ok,
            provider: "",
            model: "",
            usage: None,
            cost: None,
            billed: None,
            queue: None,
            truncated: false,
            error: None,
        }
    }
}

/// A price that came later, for calls of one kind that ended without one.
#[derive(Debug, Clone, Copy)]
pub struct Repriced<'a> {
    /// Provider of the model's series.
    pub provider: &'a str,
    /// Its model.
    pub model: &'a str,
    /// How they ended.
    pub outcome: Outcome,
    /// Their budgets, a bit each.
    pub budgets: u64,
    /// Their labels' series.
    pub labels: Labels,
    /// How many they are.
    pub calls: u64,
    /// Their tokens.
    pub total: u64,
    /// Their cost, pico-dollars.
    pub cost: u64,
}

/// What a model run in flight asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Provider and model.
    pub model: LabelSet,
    /// When it began, Unix nanoseconds.
    pub at: u64,
    /// Its budgets, a bit each.
    pub budgets: u64,
    /// Its labels' series.
    pub labels: Labels,
}

/// Cumulative figures of a model, for who looks every few seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Provider and model.
    pub model: LabelSet,
    /// Calls that ended, however they did.
    pub calls: u64,
    /// Failed ones.
    pub errors: u64,
    /// Tokens.
    pub tokens: u64,
    /// Cost, pico-dollars.
    pub cost: u64,
    /// Durations, nanoseconds.
    pub duration: u64,
}

/// The arena and the events that land in it.
///
/// Every method may run in any number of threads at once; none blocks, allocates (but to reap) or panics.
///
/// Consistency of a snapshot beside recorders: each figure by itself is exact up to some moment during the
/// snapshot and never falls from one snapshot to the next; a run that ends meanwhile may be in some figures
/// and not yet in others. Figures that must agree are derived from the same cells (calls from outcomes,
/// counts of a histogram from its buckets). Once the recording threads are joined, everything is exact.
#[derive(Debug)]
pub struct Recorder {
    cells: Cells,
    clock: Clock,
    id: u64,
    max_age: u64,
    layout: Layout,
    coarse: Layout,
    runs: RunTable,
    series: SeriesTable,
    budgets: Budgets,
    spans: Spans,
    money: Window,
    blocks: usize,
    stride: usize,
}

impl Recorder {
    /// Reserves the arena: 770 MB of address space at the defaults, of which 100 KB are resident at first.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, Error> {
        let slots = SeriesTable::check(settings.max_series)?;
        let max_runs = RunTable::check(settings.max_runs)?;
        let layout = Layout::new(settings.significant_digits)?;
        let max_age = u64::try_from(settings.max_run_age.as_nanos()).unwrap_or(u64::MAX);
        if max_age == 0 {
            return Err(Error::OutOfRange { name: "max_run_age", value: "0".into(), allowed: "more than 0 seconds" });
        }
        let coarse = Layout::new(2)?;
        let precise = histogram::Recorder::cells(layout).saturating_mul(PRECISE);
        let rest = histogram::Recorder::cells(coarse).saturating_mul(MEASURES - PRECISE);
        let stride = COUNTER_CELLS.saturating_add(Window::CELLS).saturating_add(precise).saturating_add(rest);
        let series = HEADER;
        let runs = series.saturating_add(SeriesTable::cells(slots));
        let budgets = runs.saturating_add(RunTable::cells(max_runs)).next_multiple_of(8);
        let spans = budgets.saturating_add(Budgets::CELLS).next_multiple_of(8);
        let money = spans.saturating_add(Spans::CELLS);
        let blocks = money.saturating_add(Window::CELLS);
        let total = blocks.saturating_add(slots.saturating_add(Kind::ALL.len()).saturating_mul(stride));
        let recorder = Self {
            cells: Cells::zeroed(total)?,
            id: identity(),
            max_age,
            layout,
            coarse,
            runs: RunTable::at(runs, max_runs),
            series: SeriesTable::at(series, slots),
            budgets: Budgets::at(budgets),
            spans: Spans::at(spans),
            money: Window::at(money),
            blocks,
            stride,
            clock,
        };
        recorder.cells.set(STARTED, recorder.clock.now());
        Ok(recorder)
    }

    const fn block(&self, id: SeriesId) -> usize {
        self.blocks.wrapping_add(id.wrapping_mul(self.stride))
    }

    const fn window(&self, id: SeriesId) -> Window {
        Window::at(self.block(id).wrapping_add(COUNTER_CELLS))
    }

    fn histogram(&self, id: SeriesId, measure: Measure) -> histogram::Recorder {
        let first = self.block(id).wrapping_add(COUNTER_CELLS).wrapping_add(Window::CELLS);
        let (n, precise) = (measure as usize, histogram::Recorder::cells(self.layout));
        if n < PRECISE {
            return histogram::Recorder::at(self.layout, first.wrapping_add(n.wrapping_mul(precise)));
        }
        let before = n.wrapping_sub(PRECISE).wrapping_mul(histogram::Recorder::cells(self.coarse));
        histogram::Recorder::at(self.coarse, first.wrapping_add(precise.wrapping_mul(PRECISE)).wrapping_add(before))
    }

    fn record(&self, id: SeriesId, measure: Measure, nanos: u64) {
        if self.histogram(id, measure).record(&self.cells, nanos) {
            self.drop_one(Dropped::Clamped);
        }
    }

    fn bump(&self, id: SeriesId, counter: Counter, n: u64) {
        if n > 0 {
            self.cells.add(self.block(id).wrapping_add(OUTCOMES).wrapping_add(counter as usize), n);
        }
    }

    fn resolve(&self, kind: Kind, a: &str, b: &str) -> SeriesId {
        let (id, other, cut) = self.series.resolve(&self.cells, kind, a, b);
        if other {
            self.drop_one(Dropped::SeriesCapped);
        }
        if cut {
            self.drop_one(Dropped::LabelsCut);
        }
        id
    }

    /// Adds to a count of what was lost.
    pub fn dropped(&self, what: Dropped, n: u64) {
        self.cells.add(DROPPED.wrapping_add(what as usize), n);
    }

    fn drop_one(&self, what: Dropped) {
        self.dropped(what, 1);
    }

    /// True until the first event.
    pub fn is_empty(&self) -> bool {
        self.series.ids(&self.cells).nth(Kind::ALL.len()).is_none()
            && Kind::ALL.iter().all(|k| self.counters(*k as usize).iter().all(|n| *n == 0))
            && Dropped::ALL.iter().all(|d| self.cells.get(DROPPED.wrapping_add(*d as usize)) == 0)
    }

    /// A run began, unless it does not fit its budgets: then nothing has happened but the refusal.
    pub fn run_started(&self, begin: &Begin<'_>) -> Result<(), Refused> {
        let &Begin { key, parent, kind, retried, piped, .. } = begin;
        let now = self.clock.now();
        let component = self.resolve(kind, begin.name, "");
        let (model, gaps) = if kind == Kind::Llm {
            let requested = self.resolve(Kind::Model, begin.provider, begin.model);
            // The gaps between tokens are recorded before the response names its model: they go to the
            // model that answered this request last time.
            let alias = self.cells.get(self.block(requested).wrapping_add(ALIAS));
            (requested, usize::try_from(alias).ok().and_then(|a| a.checked_sub(1)).unwrap_or(requested))
        } else {
            (component, component)
        };
        let held = begin.demand.map_or(Ok(Reservation::default()), |demand| self.reserve(model, &demand, now))?;
        let labels = Labels::new(begin.labels.iter().map(|(key, value)| self.resolve(Kind::Label, key, value)));
        let over = begin.labels.len().saturating_sub(Labels::MOST);
        if over > 0 {
            self.dropped(Dropped::LabelsOver, over as u64);
        }
        let start = Start { key, parent, now, kind, component, model, gaps, held, labels, retried, piped };
        let fresh = self.runs.start(&self.cells, &start, |run| {
            self.abandon(&run, Dropped::RunsCapped);
        });
        if !fresh {
            self.budgets.release(&self.cells, &held);
            self.drop_one(Dropped::DuplicateStart);
        } else if kind == Kind::Llm {
            // As for the gaps: under the name that will answer, as far as that can be known.
            let block = self.block(gaps);
            self.one_more(block.wrapping_add(IN_FLIGHT), block.wrapping_add(PEAK));
            self.one_more(ALL_IN_FLIGHT, ALL_PEAK);
        }
        Ok(())
    }

    fn one_more(&self, count: usize, peak: usize) {
        let n = self.cells.add(count, 1).wrapping_add(1);
        if n > self.cells.get(peak) {
            self.cells.raise(peak, n);
        }
    }

    fn one_less(&self, run: &Run) {
        if run.kind == Kind::Llm {
            self.cells.sub(self.block(run.gaps).wrapping_add(IN_FLIGHT), 1);
            self.cells.sub(ALL_IN_FLIGHT, 1);
        }
    }

    /// Holds the worst case of a call. Where it does not fit, runs past `max_run_age` and orphans give back
    /// what they hold, and it is tried once more.
    fn reserve(&self, model: SeriesId, demand: &Demand, now: u64) -> Result<Reservation, Refused> {
        let output =
            demand.output.unwrap_or_else(|| self.cells.get(self.block(model).wrapping_add(LARGEST)).max(USUAL_OUTPUT));
        let output = output.saturating_mul(demand.answers.max(1));
        let [per_input, per_output, fixed] = demand.rates;
        let (input, out) = (demand.input.saturating_mul(per_input), output.saturating_mul(per_output));
        let held = Reservation {
            budgets: demand.budgets,
            cost: fixed.saturating_add(input).saturating_add(out),
            tokens: demand.input.saturating_add(output),
        };
        let unix = self.clock.unix(now);
        let mut tried = self.budgets.reserve(&self.cells, &held, unix);
        if tried.is_err() && self.reap(now).1 > 0 {
            tried = self.budgets.reserve(&self.cells, &held, unix);
        }
        tried.inspect_err(|_| self.drop_one(Dropped::BudgetRefused)).map(|()| held)
    }

    /// Takes out runs past `max_run_age` and those whose ancestor has ended; model runs that stay, and how
    /// many went.
    fn reap(&self, now: u64) -> (u64, u64) {
        let mut gone = 0_u64;
        let stay = self.runs.reap(&self.cells, now.saturating_sub(self.max_age), now, |run, orphan| {
            gone = gone.saturating_add(1);
            self.abandon(&run, if orphan { Dropped::RunsOrphaned } else { Dropped::RunsAged });
        });
        (stay, gone)
    }

    /// Opens a budget; its position is its bit in [`Demand::budgets`].
    pub fn open_budget(&self, terms: &Terms) -> Result<usize, Error> {
        self.budgets.open(&self.cells, terms, self.clock.unix(self.clock.now()))
    }

    /// What a budget stands at, and now (Unix nanoseconds); None when there is no such budget.
    pub fn standing(&self, budget: usize) -> Option<(Standing, u64)> {
        let now = self.clock.unix(self.clock.now());
        Some((self.budgets.standing(&self.cells, budget, now)?, now))
    }

    /// Money of the last 60, 300 and 900 seconds: seconds, nanoseconds covered, nano-dollars. Calls are
    /// rounded to a nano-dollar; a second holds 1,099 USD at most.
    pub fn spent_lately(&self) -> [(u64, u64, u64); 3] {
        let now = self.clock.now();
        let lived = now.saturating_sub(self.cells.get(STARTED));
        let sums = self.money.sums(&self.cells, now);
        let mut shown = [(0, 0, 0); 3];
        for ((to, seconds), [nanos, ..]) in shown.iter_mut().zip(WINDOWS).zip(sums) {
            *to = (seconds, lived.min(seconds.saturating_mul(1_000_000_000)), nanos);
        }
        shown
    }

    /// A token of a streamed run, visible or reasoning; false when the other hook has reported it or the run is
    /// not in flight.
    #[inline]
    pub fn token(&self, key: RunKey, via: Via, visible: bool) -> bool {
        match self.runs.token(&self.cells, key, self.clock.now(), via, visible) {
            Token::Next { series, gap } => self.record(series, Measure::Gap, gap),
            Token::First | Token::Counted => {}
            Token::Echo => return false,
            Token::Unknown => {
                self.drop_one(Dropped::StrayTokens);
                return false;
            }
        }
        true
    }

    /// A run ended. Returns the thresholds of budgets that its spending crossed.
    pub fn run_ended(&self, end: &End<'_>) -> Crossed {
        let now = self.clock.now();
        let Some(run) = self.runs.take(&self.cells, end.key, now) else {
            return self.ended_unknown(end, now);
        };
        self.one_less(&run);
        let crossed = if run.held.budgets == 0 {
            Crossed::new()
        } else {
            self.budgets.settle(&self.cells, &run.held, &used(end), self.clock.unix(now))
        };
        let lasted = now.saturating_sub(run.start);
        self.outcome(run.component, end.outcome);
        self.record(run.component, Measure::Latency, lasted);
        let mut timed = run.component;
        if run.kind == Kind::Llm {
            if let Some([_, output, ..]) = end.usage {
                let largest = self.block(run.model).wrapping_add(LARGEST);
                if output > self.cells.get(largest) {
                    self.cells.raise(largest, output);
                }
            }
            let answered = self.answered_by(&run, end);
            timed = answered.unwrap_or(run.model);
            self.model_call(&run, end, timed, answered, now);
            for label in run.labels.iter() {
                self.finish_model(label, end, run.retried, now);
                if end.outcome != Outcome::CacheHit {
                    self.record(label, Measure::Latency, lasted);
                }
            }
        } else if run.branch != Branch::Lost {
            self.record(run.component, Measure::SelfTime, run.own);
        }
        self.failed(timed, end);
        self.path(&run, timed, now);
        crossed
    }

    /// Who failed, and how.
    fn failed(&self, series: SeriesId, end: &End<'_>) {
        if let Some(how) = end.error
            && let Some(who) = self.series.labels(&self.cells, series)
        {
            let who = match who.kind {
                Kind::Model => format!("{}/{}", who.a, who.b),
                kind => format!("{} {}", kind.name(), who.a),
            };
            self.outcome(self.resolve(Kind::Error, &who, how), end.outcome);
        }
    }

    /// What the end of a model call tells of its model.
    fn model_call(&self, run: &Run, end: &End<'_>, model: SeriesId, answered: Option<SeriesId>, now: u64) {
        self.finish_model(model, end, run.retried, now);
        self.paid(end, now);
        match end.outcome {
            Outcome::Error => self.runs.failed(&self.cells, run.parent, model, now),
            Outcome::Ok => {
                if let Some(failed) = self.runs.recovered(&self.cells, run.parent, run.start) {
                    self.bump(failed, Counter::Recovered, 1);
                }
            }
            _ => {}
        }
        if end.outcome != Outcome::CacheHit {
            self.record(model, Measure::Latency, now.saturating_sub(run.start));
        }
        if let Some(queue) = end.queue {
            self.record(model, Measure::Queue, queue);
        }
        self.streamed(run, model, answered, end.outcome == Outcome::Ok);
        if let Some([_, output, ..]) = end.usage
            && end.outcome == Outcome::Ok
            && let Some(streaming) = run.streaming()
            // The first token came with the first output event: the time is that of the others.
            && let Some(each) = streaming.checked_div(output.saturating_sub(1))
        {
            self.record(model, Measure::TimePerToken, each);
        }
    }

    /// Durations, own time, and the run's place on the critical path of its pipeline. `timed`: its model if it
    /// is a call of one, else its component.
    fn path(&self, run: &Run, timed: SeriesId, now: u64) {
        let lasted = now.saturating_sub(run.start);
        let model = (timed != run.component).then_some(timed);
        let both = || std::iter::once(run.component).chain(model);
        for series in both() {
            self.bump(series, Counter::Duration, lasted);
            if run.branch != Branch::Lost {
                self.bump(series, Counter::SelfTime, run.own);
            }
        }
        let mut left = Vec::new();
        if run.children > 0 {
            let orphaned = |o: Orphan| {
                let model = (o.kind == Kind::Llm).then_some(o.model);
                let (key, parent, component, start, end) = (o.key.get(), o.parent.get(), o.component, o.start, now);
                left.push(Span { key, parent, root: 0, component, model, piped: o.piped, start, end });
            };
            self.runs.orphan(&self.cells, run.key, now, orphaned, |run| self.abandon(&run, Dropped::RunsOrphaned));
        }
        let parent = run.parent.map_or(0, RunKey::get);
        let (key, component, start, piped) = (run.key.get(), run.component, run.start, run.piped);
        let span = Span { key, parent, root: 0, component, model, piped, start, end: now };
        match run.branch {
            Branch::Lost => {}
            Branch::Under(root) => {
                for span in left.iter().chain([&span]) {
                    self.hang(root, span);
                }
            }
            Branch::Root(newest) => {
                self.bump(run.component, Counter::Pipelines, 1);
                self.bump(run.component, Counter::PipelineTime, lasted);
                if newest == 0 && left.is_empty() {
                    for series in both() {
                        self.bump(series, Counter::CriticalTime, lasted);
                        self.bump(series, Counter::SavedIfTwiceAsFast, lasted / 2);
                    }
                } else if let Some(spans) = self.spans.of_root(&self.cells, newest, key) {
                    left.extend(spans);
                    self.critical(&Tree::new(&span, &left));
                } else {
                    self.drop_one(Dropped::PathsLost);
                }
            }
        }
    }

    /// Keeps a span for the end of its root.
    fn hang(&self, root: Root, span: &Span) {
        let Some(mut newest) = self.runs.newest_span(&self.cells, root) else { return };
        let handle = self.spans.push(&self.cells, &Span { root: root.key().get(), ..*span }, newest);
        while !self.runs.hang(&self.cells, root, newest, handle) {
            let Some(found) = self.runs.newest_span(&self.cells, root) else { return };
            newest = found;
            self.spans.relink(&self.cells, handle, newest);
        }
    }

    fn critical(&self, tree: &Tree) {
        tree.critical_path(|component, model, nanos| {
            for series in std::iter::once(component).chain(model) {
                self.bump(series, Counter::CriticalTime, nanos);
            }
        });
        tree.saved_if_twice_as_fast(|series, nanos| self.bump(series, Counter::SavedIfTwiceAsFast, nanos));
    }

    /// What a model run in flight asked for; None when it is not in flight.
    pub fn requested(&self, key: RunKey) -> Option<Requested> {
        let asked = self.runs.asked(&self.cells, key)?;
        let model = self.series.labels(&self.cells, asked.model)?;
        Some(Requested { model, at: self.clock.unix(asked.start), budgets: asked.budgets, labels: asked.labels })
    }

    /// Now, Unix nanoseconds.
    pub fn unix_now(&self) -> u64 {
        self.clock.unix(self.clock.now())
    }

    /// A price has come for calls that ended without one. Returns the thresholds of budgets that it crossed.
    pub fn repriced(&self, calls: &Repriced<'_>) -> Crossed {
        let now = self.clock.now();
        let model = self.resolve(Kind::Model, calls.provider, calls.model);
        for series in std::iter::once(model).chain(calls.labels.iter()) {
            self.bump(series, Counter::PricedCalls, calls.calls);
            self.bump(series, Counter::RepricedCalls, calls.calls);
            self.bump(series, Counter::RepricedTotal, calls.total);
            self.cost(series, calls.cost, calls.outcome, false);
        }
        self.pay(calls.cost, now);
        let held = Reservation { budgets: calls.budgets, ..Reservation::default() };
        self.budgets.settle(&self.cells, &held, &[calls.cost, 0, 0], self.clock.unix(now))
    }

    /// A stream of a model stopped for long.
    pub fn stalled(&self, provider: &str, model: &str) {
        self.bump(self.resolve(Kind::Model, provider, model), Counter::Stalls, 1);
    }

    /// Streams in flight without a token for `silence`: model, when it began and had its last token (Unix
    /// nanoseconds), and how it stands.
    pub fn silent(&self, silence: Duration) -> Vec<(LabelSet, u64, u64, Streaming)> {
        let silence = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
        let limit = self.clock.now().saturating_sub(silence);
        let mut silent = Vec::new();
        self.runs.silent(&self.cells, limit, |stream| {
            if let Some(labels) = self.series.labels(&self.cells, stream.model) {
                silent.push((labels, self.clock.unix(stream.start), self.clock.unix(stream.last), stream));
            }
        });
        silent
    }

    /// Cumulative figures of each model.
    pub fn pulse(&self) -> Vec<Pulse> {
        let models = self.series.ids(&self.cells).filter_map(|id| {
            let model = self.series.labels(&self.cells, id).filter(|l| l.kind == Kind::Model)?;
            let counters = self.counters(id);
            let [ok, errors, cancelled, abandoned, interrupted, ..] = counters;
            let of = |c: Counter| counters.get(OUTCOMES.wrapping_add(c as usize)).copied().unwrap_or(0);
            let calls = [ok, errors, cancelled, abandoned, interrupted].iter().fold(0_u64, |s, n| s.saturating_add(*n));
            let (tokens, cost, duration) = (of(Counter::Total), of(Counter::Cost), of(Counter::Duration));
            (calls > 0).then_some(Pulse { model, calls, errors, tokens, cost, duration })
        });
        models.collect()
    }

    /// The series of the model that answered, and what is learned from it about the requested name.
    fn answered_by(&self, run: &Run, end: &End<'_>) -> Option<SeriesId> {
        if end.model.is_empty() && end.provider.is_empty() {
            return None;
        }
        let model = if end.model.is_empty() || end.provider.is_empty() {
            let asked = self.series.labels(&self.cells, run.model);
            let (provider, name) = asked.map_or_else(Default::default, |l| (l.a, l.b));
            let told = |told: &str, asked: String| if told.is_empty() { asked } else { told.to_owned() };
            self.resolve(Kind::Model, &told(end.provider, provider), &told(end.model, name))
        } else {
            self.resolve(Kind::Model, end.provider, end.model)
        };
        if model == run.model && end.model.is_empty() {
            return None; // only the provider was named: which model answered is not known
        }
        // Who answered last; nothing to note while a model has only ever answered to its own name.
        let (alias, last) = (self.block(run.model).wrapping_add(ALIAS), model.saturating_add(1) as u64);
        let before = self.cells.get(alias);
        if before != last && (before != 0 || model != run.model) {
            self.cells.set(alias, last);
        }
        Some(model)
    }

    /// Where the gaps of a run that streamed are shown. Those recorded under the requested name stay hidden
    /// until its first stream ends with its model named or else whole, and then belong, for good, to the
    /// model that answered that one. A stream that breaks sooner tells nothing.
    fn settle_gaps(&self, run: &Run, answered: Option<SeriesId>, whole: bool) {
        if run.events < 2 || (answered.is_none() && !whole) {
            return;
        }
        let settle = |series: SeriesId, home: SeriesId| {
            let home = home.saturating_add(1) as u64;
            self.cells.exchange(self.block(series).wrapping_add(HOME), 0, home).map_or_else(|there| there, |()| home)
        };
        // From here on the gaps of this request go to the model that answered, which is its own home.
        let model = answered.unwrap_or(run.model);
        settle(model, model);
        if settle(run.gaps, model) != model.saturating_add(1) as u64 {
            self.dropped(Dropped::GapsMislaid, run.events.saturating_sub(1));
        }
    }

    fn streamed(&self, run: &Run, model: SeriesId, answered: Option<SeriesId>, whole: bool) {
        if run.events > 0 {
            self.settle_gaps(run, answered, whole);
            self.bump(model, Counter::Streamed, 1);
            self.bump(model, Counter::TokenEvents, run.events);
            if let Some(first) = run.first_token {
                self.record(model, Measure::FirstToken, first);
            }
            if let Some(first) = run.first_visible {
                self.record(model, Measure::FirstVisibleToken, first);
            }
            if run.events > 1 {
                self.record(model, Measure::LongestGap, run.longest_gap);
            }
            if let Some(streaming) = run.streaming() {
                self.record(model, Measure::StreamDuration, streaming);
            }
        }
    }

    fn outcome(&self, id: SeriesId, outcome: Outcome) {
        self.cells.add(self.block(id).wrapping_add(outcome as usize), 1);
    }

    fn finish_model(&self, series: SeriesId, end: &End<'_>, retried: bool, now: u64) {
        self.outcome(series, end.outcome);
        if end.outcome == Outcome::CacheHit {
            self.window(series).add(&self.cells, now, [1, 0, 0, 0]);
            self.bump(series, Counter::SavedTotal, end.usage.map_or(0, |[_, _, total, ..]| total));
            return;
        }
        self.bump(series, Counter::RetriedCalls, u64::from(retried));
        self.bump(series, Counter::Truncated, u64::from(end.truncated));
        self.spend(series, end, retried, now, 1);
    }

    /// Tokens and money of a call.
    fn spend(&self, series: SeriesId, end: &End<'_>, retried: bool, now: u64, requests: u64) {
        let usage = end.usage.as_ref().unwrap_or(&[0; Counter::Estimated as usize + 1]);
        let first = self.block(series).wrapping_add(OUTCOMES);
        for (i, n) in usage.iter().enumerate() {
            if *n > 0 {
                self.cells.add(first.wrapping_add(i), *n);
            }
        }
        let [input, output, total, ..] = usage;
        if let Some(cost) = end.cost {
            self.cost(series, cost, end.outcome, retried);
            self.bump(series, Counter::PricedCalls, 1);
        } else if usage.iter().any(|n| *n > 0) {
            self.bump(series, Counter::UnpricedCalls, 1);
            self.bump(series, Counter::UnpricedTotal, *total);
        }
        if let Some(billed) = end.billed {
            self.bump(series, Counter::Billed, billed);
            self.bump(series, Counter::BilledCalls, 1);
        }
        let errors = u64::from(end.outcome == Outcome::Error && requests > 0);
        self.window(series).add(&self.cells, now, [requests, *input, *output, errors]);
    }

    /// Money of a call, for the pace of spending.
    fn paid(&self, end: &End<'_>, now: u64) {
        if let Some(cost) = end.cost
            && end.outcome != Outcome::CacheHit
        {
            self.pay(cost, now);
        }
    }

    fn pay(&self, cost: u64, now: u64) {
        self.money.add(&self.cells, now, [cost.saturating_add(500) / 1000, 0, 0, 0]);
    }

    fn cost(&self, series: SeriesId, cost: u64, outcome: Outcome, retried: bool) {
        self.bump(series, Counter::Cost, cost);
        match outcome {
            Outcome::Error => self.bump(series, Counter::CostError, cost),
            Outcome::Cancelled => self.bump(series, Counter::CostCancelled, cost),
            _ => {}
        }
        if retried {
            self.bump(series, Counter::RetriedCost, cost);
        }
    }

    /// The end of a run that is not in flight: a second end, an end after the run was reaped, or an end
    /// whose start went to somebody else. What was spent is counted once in every case.
    fn ended_unknown(&self, end: &End<'_>, now: u64) -> Crossed {
        let left = self.runs.left(&self.cells, end.key);
        if left == Some(Left::Ended) {
            self.drop_one(Dropped::DuplicateEnd);
            return Crossed::new();
        }
        let late = left == Some(Left::Reaped);
        self.drop_one(if late { Dropped::LateEnd } else { Dropped::EndWithoutStart });
        self.runs.remember(&self.cells, end.key);
        let budgets = if late { self.runs.budgets_of_reaped(&self.cells, end.key) } else { 0 };
        let crossed = if budgets == 0 {
            Crossed::new()
        } else {
            // What it held was given back when it was reaped; what it spent is spent.
            let held = Reservation { budgets, ..Reservation::default() };
            self.budgets.settle(&self.cells, &held, &used(end), self.clock.unix(now))
        };
        if end.kind == Kind::Llm && !(end.model.is_empty() && end.provider.is_empty()) {
            let model = self.resolve(Kind::Model, end.provider, end.model);
            self.paid(end, now);
            self.failed(model, end);
            if !late {
                self.finish_model(model, end, false, now);
            } else if end.outcome != Outcome::CacheHit {
                self.spend(model, end, false, now, 0);
            }
        }
        crossed
    }

    /// What an abandoned call spent is not known: what it held is given back.
    fn abandon(&self, run: &Run, why: Dropped) {
        self.one_less(run);
        self.budgets.release(&self.cells, &run.held);
        self.drop_one(why);
        self.outcome(run.component, Outcome::Abandoned);
        if run.kind == Kind::Llm {
            for series in std::iter::once(run.model).chain(run.labels.iter()) {
                self.outcome(series, Outcome::Abandoned);
                self.window(series).add(&self.cells, self.clock.now(), [1, 0, 0, 0]);
            }
            self.streamed(run, run.model, None, false);
        }
    }

    /// One finished piece of work that was no run.
    pub fn count(&self, kind: Kind, name: &str, outcome: Outcome, nanos: Option<u64>) {
        let id = self.resolve(kind, name, "");
        self.outcome(id, outcome);
        if let Some(nanos) = nanos {
            self.record(id, Measure::Latency, nanos);
            self.bump(id, Counter::Duration, nanos);
        }
    }

    /// The time spent inside one of our own hooks: one in some events is measured. Kept a thousandfold: a hook
    /// takes less than the microsecond that durations are counted in.
    pub fn in_hook(&self, hook: &str, nanos: u64) {
        self.record(self.resolve(Kind::Hook, hook, ""), Measure::Latency, nanos.saturating_mul(1000));
    }

    /// Nanoseconds of this recorder's clock.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    fn counters(&self, id: SeriesId) -> [u64; COUNTERS] {
        let block = self.block(id);
        std::array::from_fn(|i| self.cells.get(block.wrapping_add(i)))
    }

    /// Everything so far; recorders go on meanwhile. Reaps runs past `max_run_age`, and those whose ancestor
    /// has ended, first.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let (in_flight, _) = self.reap(now);
        let started = self.cells.get(STARTED);
        let mut series: BTreeMap<_, SeriesData> = BTreeMap::new();
        for id in self.series.ids(&self.cells) {
            let Some(labels) = self.series.labels(&self.cells, id) else {
                continue;
            };
            let noted = |what: usize| {
                let cell = self.cells.get(self.block(id).wrapping_add(what));
                usize::try_from(cell).ok().and_then(|n| n.checked_sub(1))
            };
            let home = noted(HOME);
            if let Some(home) = home.and_then(|home| self.series.labels(&self.cells, home)) {
                let gaps = self.histogram(id, Measure::Gap).snapshot(&self.cells);
                if let Some(to) = series.entry(home).or_default().measures.get_mut(Measure::Gap as usize) {
                    *to = to.merged(&gaps);
                }
            }
            let mut data = self.read(id, labels.kind, now, started);
            if let Some(answered) = noted(ALIAS).filter(|answered| *answered != id)
                && let Some(answered) = self.series.labels(&self.cells, answered)
            {
                let there = series.entry(answered).or_default();
                there.in_flight = there.in_flight.saturating_add(std::mem::take(&mut data.in_flight));
                there.peak = there.peak.max(std::mem::take(&mut data.peak));
            }
            match series.entry(labels) {
                // Not merged into nothing: that would copy every bucket once more.
                Entry::Vacant(free) => drop(free.insert(data)),
                Entry::Occupied(mut there) => there.get_mut().add(&data),
            }
        }
        series.retain(|_, data| !data.is_zero());
        Snapshot {
            origin: Origin::One { recorder: self.id, generation: self.cells.get(GENERATION) },
            started_at: self.clock.unix(started),
            taken_at: self.clock.unix(now),
            in_flight: i64::try_from(in_flight).unwrap_or(i64::MAX),
            peak: self.cells.get(ALL_PEAK),
            anomalies: BTreeSet::new(),
            dropped: Dropped::ALL
                .iter()
                .map(|d| (d.name().to_owned(), self.cells.get(DROPPED.wrapping_add(*d as usize))))
                .filter(|(_, n)| *n > 0)
                .collect(),
            series,
        }
    }

    /// All of a series but its gaps. Histograms first: a run that ends meanwhile has its outcome counted
    /// before its latency.
    fn read(&self, id: SeriesId, kind: Kind, now: u64, started: u64) -> SeriesData {
        let mut data = SeriesData::default();
        for (to, measure) in data.measures.iter_mut().zip(Measure::ALL) {
            if *measure != Measure::Gap {
                *to = self.histogram(id, *measure).snapshot(&self.cells);
            }
        }
        if kind.counts_calls() {
            let lived = now.saturating_sub(started);
            let shown = |(seconds, counts): (&u64, _)| WindowCounts {
                seconds: *seconds,
                covered: lived.min(seconds.saturating_mul(1_000_000_000)),
                counts,
            };
            data.windows = WINDOWS.iter().zip(self.window(id).sums(&self.cells, now)).map(shown).collect();
        }
        if kind == Kind::Model {
            let block = self.block(id);
            data.in_flight = self.cells.get(block.wrapping_add(IN_FLIGHT)).cast_signed();
            data.peak = self.cells.get(block.wrapping_add(PEAK));
        }
        data.counters = self.counters(id);
        data
    }

    /// Forgets everything but what budgets have spent: for a process that has just been forked and has one
    /// thread. The arena is the parent's, copied on write; the parent reports what it holds.
    pub fn reset_after_fork(&self) {
        for id in self.series.ids(&self.cells) {
            let block = self.block(id);
            for cell in block..block.wrapping_add(COUNTER_CELLS) {
                self.cells.set(cell, 0);
            }
            self.window(id).clear(&self.cells);
            for measure in Measure::ALL {
                self.histogram(id, *measure).clear(&self.cells);
            }
        }
        self.series.clear(&self.cells);
        self.runs.clear(&self.cells);
        self.spans.clear(&self.cells);
        self.budgets.release_all(&self.cells);
        self.money.clear(&self.cells);
        for cell in ALL_IN_FLIGHT..HEADER {
            if self.cells.get(cell) != 0 {
                self.cells.set(cell, 0);
            }
        }
        // How many forks deep, and who of the siblings.
        let depth = (self.cells.get(GENERATION) >> 32).wrapping_add(1);
        self.cells.set(GENERATION, depth << 32 | identity() >> 32);
        self.cells.set(STARTED, self.clock.now());
    }
}

/// What a call used, for budgets: nothing when the response cache gave it; a failed one is no call, and costs
/// only what it is known to have used.
fn used(end: &End<'_>) -> Used {
    if end.outcome == Outcome::CacheHit {
        return Used::default();
    }
    let tokens = end.usage.map_or(0, |[input, output, total, ..]| total.max(input.saturating_add(output)));
    [end.cost.unwrap_or(0), tokens, u64::from(end.outcome != Outcome::Error)]
}

/// A number that no other recorder has: the standard library's random keys, hashed.
fn identity() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
