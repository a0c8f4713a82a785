//! The events: where each one lands in the arena.

use crate::budget::{Budgets, Crossed, Refused, Reservation, Standing, Terms, Used};
use crate::cells::Cells;
use crate::clock::Clock;
use crate::error::Error;
use crate::histogram::{self, Layout};
use crate::runs::{Left, Run, RunKey, RunTable, Start, Token, Via};
use crate::series::{Kind, LabelSet, SeriesId, SeriesTable};
use crate::snapshot::{Origin, SeriesData, Snapshot, WindowCounts};
use crate::window::{WINDOWS, Window};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
    }
}

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
        /// Durations outside 1 µs to 1 h.
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
        /// Anything else.
        Other = "other",
    }
}

const OUTCOMES: usize = Outcome::ALL.len();
/// Counters of a series: outcomes, then `Counter`.
pub const COUNTERS: usize = OUTCOMES + Counter::ALL.len();
/// What a call used: the first counters, `Input` to `Estimated`.
pub type Usage = [u64; Counter::Estimated as usize + 1];

// A series: counters | alias | windows | three histograms.
const COUNTER_CELLS: usize = 32;
const HOME: usize = COUNTERS;
const ALIAS: usize = COUNTERS + 1;
const LARGEST: usize = COUNTERS + 2;
const _: () = assert!(LARGEST < COUNTER_CELLS, "a series' counters outgrew their cells");

// The header.
const GENERATION: usize = 0;
const STARTED: usize = 1;
const DROPPED: usize = 8;
const HEADER: usize = 32;
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
}

/// What a call can cost at its worst, for the budgets it belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand {
    /// The budgets, a bit each.
    pub budgets: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens; None: as many as the model was seen to give, 2,048 at least.
    pub output: Option<u64>,
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
    runs: RunTable,
    series: SeriesTable,
    budgets: Budgets,
    money: Window,
    blocks: usize,
    stride: usize,
}

impl Recorder {
    /// Reserves the arena: 640 MB of address space at the defaults, of which 100 KB are resident at first.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, Error> {
        let slots = SeriesTable::check(settings.max_series)?;
        let max_runs = RunTable::check(settings.max_runs)?;
        let layout = Layout::new(settings.significant_digits)?;
        let max_age = u64::try_from(settings.max_run_age.as_nanos()).unwrap_or(u64::MAX);
        if max_age == 0 {
            return Err(Error::OutOfRange { name: "max_run_age", value: "0".into(), allowed: "more than 0 seconds" });
        }
        let histogram = histogram::Recorder::cells(layout);
        let stride = COUNTER_CELLS.saturating_add(Window::CELLS).saturating_add(histogram.saturating_mul(3));
        let series = HEADER;
        let runs = series.saturating_add(SeriesTable::cells(slots));
        let budgets = runs.saturating_add(RunTable::cells(max_runs)).next_multiple_of(8);
        let money = budgets.saturating_add(Budgets::CELLS);
        let blocks = money.saturating_add(Window::CELLS);
        let total = blocks.saturating_add(slots.saturating_add(Kind::ALL.len()).saturating_mul(stride));
        let recorder = Self {
            cells: Cells::zeroed(total)?,
            id: identity(),
            max_age,
            layout,
            runs: RunTable::at(runs, max_runs),
            series: SeriesTable::at(series, slots),
            budgets: Budgets::at(budgets),
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

    /// Histogram 0 is latency, 1 time to first token, 2 the gaps.
    fn histogram(&self, id: SeriesId, which: usize) -> histogram::Recorder {
        let first = self.block(id).wrapping_add(COUNTER_CELLS).wrapping_add(Window::CELLS);
        histogram::Recorder::at(
            self.layout,
            first.wrapping_add(which.wrapping_mul(histogram::Recorder::cells(self.layout))),
        )
    }

    fn record(&self, id: SeriesId, which: usize, nanos: u64) {
        if self.histogram(id, which).record(&self.cells, nanos) {
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
        let &Begin { key, parent, kind, .. } = begin;
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
        let start = Start { key, parent, now, kind, component, model, gaps, held };
        let fresh = self.runs.start(&self.cells, &start, |run| {
            self.abandon(&run, Dropped::RunsCapped);
        });
        if !fresh {
            self.budgets.release(&self.cells, &held);
            self.drop_one(Dropped::DuplicateStart);
        }
        Ok(())
    }

    /// Holds the worst case of a call. Where it does not fit, runs past `max_run_age` and orphans give back
    /// what they hold, and it is tried once more.
    fn reserve(&self, model: SeriesId, demand: &Demand, now: u64) -> Result<Reservation, Refused> {
        let output =
            demand.output.unwrap_or_else(|| self.cells.get(self.block(model).wrapping_add(LARGEST)).max(USUAL_OUTPUT));
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
        let stay = self.runs.reap(&self.cells, now.saturating_sub(self.max_age), |run, orphan| {
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

    /// A token of a streamed run; false when the other hook has reported it or the run is not in flight.
    #[inline]
    pub fn token(&self, key: RunKey, via: Via) -> bool {
        match self.runs.token(&self.cells, key, self.clock.now(), via) {
            Token::Next { series, gap } => self.record(series, 2, gap),
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
        let Some(run) = self.runs.take(&self.cells, end.key) else {
            self.ended_unknown(end, now);
            return Crossed::new();
        };
        let crossed = if run.held.budgets == 0 {
            Crossed::new()
        } else {
            self.budgets.settle(&self.cells, &run.held, &used(end), self.clock.unix(now))
        };
        if run.children > 0 {
            self.runs.orphan(&self.cells, run.key, now, |orphan| self.abandon(&orphan, Dropped::RunsOrphaned));
        }
        let lasted = now.saturating_sub(run.start);
        self.outcome(run.component, end.outcome);
        self.record(run.component, 0, lasted);
        if run.kind != Kind::Llm {
            return crossed;
        }
        if let Some([_, output, ..]) = end.usage {
            let largest = self.block(run.model).wrapping_add(LARGEST);
            if output > self.cells.get(largest) {
                self.cells.raise(largest, output);
            }
        }
        let answered = self.answered_by(&run, end);
        let model = answered.unwrap_or(run.model);
        self.finish_model(model, end, now);
        if end.outcome != Outcome::CacheHit {
            self.record(model, 0, lasted);
        }
        self.streamed(&run, model, answered, end.outcome == Outcome::Ok);
        crossed
    }

    /// What a model run in flight asked for, and when (Unix nanoseconds); None when it is not in flight.
    pub fn requested(&self, key: RunKey) -> Option<(LabelSet, u64)> {
        let (model, start) = self.runs.model_of(&self.cells, key)?;
        Some((self.series.labels(&self.cells, model)?, self.clock.unix(start)))
    }

    /// The recorder's clock, Unix nanoseconds.
    pub fn now(&self) -> u64 {
        self.clock.unix(self.clock.now())
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
                self.record(model, 1, first.saturating_sub(run.start));
            }
        }
    }

    fn outcome(&self, id: SeriesId, outcome: Outcome) {
        self.cells.add(self.block(id).wrapping_add(outcome as usize), 1);
    }

    fn finish_model(&self, model: SeriesId, end: &End<'_>, now: u64) {
        self.outcome(model, end.outcome);
        if end.outcome == Outcome::CacheHit {
            self.window(model).add(&self.cells, now, [1, 0, 0, 0]);
            self.bump(model, Counter::SavedTotal, end.usage.map_or(0, |[_, _, total, ..]| total));
            return;
        }
        self.spend(model, end, now, 1);
    }

    /// Tokens and money of a call.
    fn spend(&self, model: SeriesId, end: &End<'_>, now: u64, requests: u64) {
        let usage = end.usage.as_ref().unwrap_or(&[0; Counter::Estimated as usize + 1]);
        let first = self.block(model).wrapping_add(OUTCOMES);
        for (i, n) in usage.iter().enumerate() {
            if *n > 0 {
                self.cells.add(first.wrapping_add(i), *n);
            }
        }
        if let Some(cost) = end.cost {
            self.bump(model, Counter::Cost, cost);
            self.money.add(&self.cells, now, [cost.saturating_add(500) / 1000, 0, 0, 0]);
            self.bump(model, Counter::PricedCalls, 1);
        } else if usage.iter().any(|n| *n > 0) {
            self.bump(model, Counter::UnpricedCalls, 1);
        }
        let errors = u64::from(end.outcome == Outcome::Error && requests > 0);
        let [input, output, ..] = usage;
        self.window(model).add(&self.cells, now, [requests, *input, *output, errors]);
    }

    /// The end of a run that is not in flight: a second end, an end after the run was reaped, or an end
    /// whose start went to somebody else. What was spent is counted once in every case.
    fn ended_unknown(&self, end: &End<'_>, now: u64) {
        let left = self.runs.left(&self.cells, end.key);
        if left == Some(Left::Ended) {
            return self.drop_one(Dropped::DuplicateEnd);
        }
        let late = left == Some(Left::Reaped);
        self.drop_one(if late { Dropped::LateEnd } else { Dropped::EndWithoutStart });
        self.runs.remember(&self.cells, end.key);
        if end.kind != Kind::Llm || (end.model.is_empty() && end.provider.is_empty()) {
            return;
        }
        let model = self.resolve(Kind::Model, end.provider, end.model);
        if !late {
            self.finish_model(model, end, now);
        } else if end.outcome != Outcome::CacheHit {
            self.spend(model, end, now, 0);
        }
    }

    /// What an abandoned call spent is not known: what it held is given back.
    fn abandon(&self, run: &Run, why: Dropped) {
        self.budgets.release(&self.cells, &run.held);
        self.drop_one(why);
        self.outcome(run.component, Outcome::Abandoned);
        if run.kind == Kind::Llm {
            self.outcome(run.model, Outcome::Abandoned);
            self.window(run.model).add(&self.cells, self.clock.now(), [1, 0, 0, 0]);
            self.streamed(run, run.model, None, false);
        }
    }

    /// One finished piece of work that was no run.
    pub fn count(&self, kind: Kind, name: &str, outcome: Outcome, nanos: Option<u64>) {
        let id = self.resolve(kind, name, "");
        self.outcome(id, outcome);
        if let Some(nanos) = nanos {
            self.record(id, 0, nanos);
        }
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
            let home =
                usize::try_from(self.cells.get(self.block(id).wrapping_add(HOME))).ok().and_then(|h| h.checked_sub(1));
            if let Some(home) = home.and_then(|home| self.series.labels(&self.cells, home)) {
                let gaps = self.histogram(id, 2).snapshot(&self.cells);
                let there = series.entry(home).or_default();
                there.inter_token_latency = there.inter_token_latency.merged(&gaps);
            }
            let data = self.read(id, labels.kind, now, started);
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
        let histogram = |which: usize| self.histogram(id, which).snapshot(&self.cells);
        let mut data = SeriesData { latency: histogram(0), ..SeriesData::default() };
        if kind == Kind::Model {
            data.time_to_first_token = histogram(1);
            let lived = now.saturating_sub(started);
            let shown = |(seconds, counts): (&u64, _)| WindowCounts {
                seconds: *seconds,
                covered: lived.min(seconds.saturating_mul(1_000_000_000)),
                counts,
            };
            data.windows = WINDOWS.iter().zip(self.window(id).sums(&self.cells, now)).map(shown).collect();
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
            for which in 0..3 {
                self.histogram(id, which).clear(&self.cells);
            }
        }
        self.series.clear(&self.cells);
        self.runs.clear(&self.cells);
        self.budgets.release_all(&self.cells);
        self.money.clear(&self.cells);
        for cell in DROPPED..HEADER {
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
