//! What comes in: a run as it begins and as it ends, and what may be asked about it.

use crate::metrics::{Outcome, Usage};
use crate::runs::{Labels, RunKey};
use crate::series::{Kind, LabelSet, SeriesId};

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
    /// Key and value of its labels, three at most; those of a label that crosses keys are joined by
    /// [`SEPARATOR`](crate::SEPARATOR).
    pub labels: &'a [(&'a str, &'a str)],
    /// Whether it is a second attempt or a later one.
    pub retried: bool,
    /// Whether it is a step of a sequence but its first; see [`Span::piped`].
    pub piped: bool,
    /// 40 bits of the thread and the objects that the start came with; 0 where they are not known. The same again
    /// for a live id is one start delivered twice, another value is another run with this id.
    pub witness: u64,
}

impl<'a> Begin<'a> {
    /// A run of this kind and name at the top, of which nothing more is known.
    pub const fn new(key: RunKey, kind: Kind, name: &'a str) -> Self {
        let (provider, model) = ("", "");
        let (parent, demand, retried, piped) = (None, None, false, false);
        Self { key, parent, kind, name, provider, model, demand, labels: &[], retried, piped, witness: 0 }
    }
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
    /// What it costs.
    pub price: Price,
}

/// The price of a call, for budgets in money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// Pico-dollars.
    Rates {
        /// The most for an input token.
        input: u64,
        /// The most for an output token.
        output: u64,
        /// For the call.
        call: u64,
        /// For an input token that no cache has seen.
        text: u64,
    },
    /// The model has none.
    Unpriced,
    /// Prices are not loaded, so the cost is unknown.
    Missing,
}

impl Default for Price {
    fn default() -> Self {
        Self::Rates { input: 0, output: 0, call: 0, text: 0 }
    }
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
    /// The series of the model that the response names, in the place of both names.
    pub answered: Option<SeriesId>,
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
    /// Keys of the labels that calls carry. What a run that is not in flight used counts as that of a call without a
    /// value of each.
    pub labels: &'a [&'a str],
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
            answered: None,
            usage: None,
            cost: None,
            billed: None,
            queue: None,
            truncated: false,
            error: None,
            labels: &[],
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
    /// Whether budgets were charged for each of them what a call without a price counts as.
    pub charged: bool,
    /// When the first and the last of them ended, Unix nanoseconds.
    pub ended: [u64; 2],
    /// The attempt at a defect that they were made for; 0 for none.
    pub attempt: u64,
}

/// What a model run in flight asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Provider and model.
    pub model: LabelSet,
    /// When it began, Unix nanoseconds.
    pub at: u64,
    /// Now, Unix nanoseconds.
    pub now: u64,
    /// Its budgets, a bit each.
    pub budgets: u64,
    /// Its labels' series.
    pub labels: Labels,
    /// Budgets took it for a call without a price when it began.
    pub unpriced: bool,
    /// The attempt at a defect that it is made for; 0 for none.
    pub attempt: u64,
}

/// What a model run in flight asked for, as a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedSeries {
    /// Series of the requested model.
    pub model: SeriesId,
    /// When it began, Unix nanoseconds.
    pub at: u64,
    /// Whether a token has come.
    pub streamed: bool,
}

/// A series by its handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series {
    /// The handle.
    pub id: SeriesId,
    /// Whether it is the series of just these names: neither `other` nor of a name that was cut.
    pub whole: bool,
}

impl Series {
    /// The handle, where it may be kept in the place of the names: each use of the others is counted as dropped.
    pub fn lasting(self) -> Option<SeriesId> {
        self.whole.then_some(self.id)
    }
}

/// Cumulative figures of a model's fixes, for observers that poll the recorder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FixPulse {
    /// Provider.
    pub provider: String,
    /// Model.
    pub model: String,
    /// Defects with a verdict.
    pub closed: u64,
    /// Those that are fixed now.
    pub fixed: u64,
    /// Fixes that were ever recorded: revised ones stay.
    pub ever_fixed: u64,
    /// Cost of all attempts, pico-dollars.
    pub cost: u64,
}

/// Cumulative figures of a model, for observers that poll the recorder.
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
