//! Runs that begin, and those that must go for it.

use super::batch::Batch;
use super::layout::{ALL_IN_FLIGHT, ALL_PEAK, IN_FLIGHT, LARGEST, PEAK};
use super::{Begin, Demand, Price, Recorder};
use crate::budget::{MAX_COST, PRICES_MISSING, Refused, Reservation, UNPRICED, Why};
use crate::metrics::{Dropped, Outcome};
use crate::runs::{Labels, Reserving, Run, RunKey, Start, Started};
use crate::series::{Kind, SeriesId};
use crate::stops::stop;

/// Output tokens that a call is expected to give at most, where it sets no limit of its own and no call before
/// it gave more.
const USUAL_OUTPUT: u64 = 2048;
/// Bytes of a prompt that a token is taken to have where its input is estimated from its bound, one token a byte.
const BYTES_PER_TOKEN: u64 = 4;
/// How often a call is judged again, at most: each of its budgets may need room, and other threads may take it first.
const MOST_ATTEMPTS: usize = 16;

impl Recorder {
    /// Records the start of a run, unless the run does not fit its budgets: then only the refusal is counted. An echo,
    /// a start that is delivered twice, changes nothing.
    pub fn run_started(&self, begin: &Begin<'_>) -> Result<Started, Refused> {
        self.run_started_or(begin, |_, _| false)
    }

    /// The same; `make_room` as of `begin`.
    pub fn run_started_or(
        &self,
        begin: &Begin<'_>,
        make_room: impl FnMut(usize, u64) -> bool,
    ) -> Result<Started, Refused> {
        let component = self.resolve(begin.kind, begin.name, "");
        let requested = match begin.kind {
            Kind::Llm => self.resolve(Kind::Model, begin.provider, begin.model),
            _ => component,
        };
        self.begin(begin, component, requested, make_room)
    }

    /// Begins a run by handles instead of names; for a run that is not a model call both are that of its component. Before
    /// a call is refused for want of room, `make_room` gets the budget and what the call reserves of it: it may abandon dead
    /// runs that hold reservations, or lease more, and returns whether the call is to be judged again.
    pub fn begin(
        &self,
        begin: &Begin<'_>,
        component: SeriesId,
        requested: SeriesId,
        make_room: impl FnMut(usize, u64) -> bool,
    ) -> Result<Started, Refused> {
        let &Begin { key, parent, kind, retried, piped, witness, .. } = begin;
        // Before it asks the budgets: there may be no room for what it reserves already.
        if begin.demand.is_some() && self.runs.is_echo(&self.cells, key, witness) {
            self.drop_one(Dropped::DuplicateStart);
            return Ok(Started::Echo);
        }
        let now = self.clock.now();
        let (model, gaps) = if kind == Kind::Llm {
            // The gaps between tokens are recorded before the response names its model: they go to the
            // model that answered this request last time.
            (requested, self.answered_last(requested).unwrap_or(requested))
        } else {
            (component, component)
        };
        let held =
            begin.demand.map_or(Ok(Reservation::default()), |demand| self.reserve(model, &demand, now, make_room))?;
        // Like the gaps: rows of the model that will probably answer.
        let labels = begin.labels.iter().map(|(key, value)| self.label(key, value, gaps, begin.labels.len()));
        let labels = Labels::new(labels);
        let over = begin.labels.len().saturating_sub(Labels::MOST);
        if over > 0 {
            self.dropped(Dropped::LabelsOver, over as u64);
        }
        let start = Start { key, parent, now, kind, component, model, gaps, held, labels, retried, piped, witness };
        let started = self.runs.start(&self.cells, &start, |run| {
            self.batch().abandon(&run, Dropped::RunsCapped);
        });
        stop!(Started);
        if started == Started::Echo {
            self.budgets.release(&self.cells, &held);
            self.drop_one(Dropped::DuplicateStart);
        } else if kind == Kind::Llm {
            // Like the gaps: under the name of the model that will probably answer, if it is known.
            let block = self.block(gaps);
            self.one_more(block.wrapping_add(IN_FLIGHT), block.wrapping_add(PEAK));
            self.one_more(ALL_IN_FLIGHT, ALL_PEAK);
        }
        Ok(started)
    }

    pub(super) fn one_more(&self, count: usize, peak: usize) {
        let n = self.cells.add(count, 1).wrapping_add(1);
        // Below zero where another thread has put out a run that is not yet counted here.
        if n.cast_signed() > 0 && n > self.cells.get(peak) {
            self.cells.maximum(peak, n);
        }
    }

    /// Holds the worst case of a call. Where it does not fit, runs past `max_run_age` and orphans give back what they hold,
    /// and it is tried again; and again as long as `make_room` says so, a bounded number of times.
    pub(super) fn reserve(
        &self,
        model: SeriesId,
        demand: &Demand,
        now: u64,
        mut make_room: impl FnMut(usize, u64) -> bool,
    ) -> Result<Reservation, Refused> {
        let output =
            demand.output.unwrap_or_else(|| self.cells.get(self.block(model).wrapping_add(LARGEST)).max(USUAL_OUTPUT));
        let output = output.saturating_mul(demand.answers.max(1));
        let estimate = demand.input.div_ceil(BYTES_PER_TOKEN);
        let (cost, input) = match demand.price {
            Price::Unpriced => (UNPRICED, UNPRICED),
            Price::Missing => (PRICES_MISSING, 0),
            Price::Rates { input, output: per_output, call, text } => {
                let worst = demand.input.saturating_mul(input).saturating_add(output.saturating_mul(per_output));
                let read = estimate.saturating_mul(text).saturating_add(call);
                (worst.saturating_add(call).min(MAX_COST), read.min(MAX_COST))
            }
        };
        let tokens = demand.input.saturating_add(output);
        let held = Reservation { budgets: demand.budgets, cost, tokens, input: [input, estimate] };
        let unix = self.clock.unix(now);
        let attempt = || {
            self.budgets.try_reserve(&self.cells, &held, unix)?;
            self.budgets.confirm(&self.cells, &held, || self.clock.unix(self.clock.now()))
        };
        let mut tried = attempt();
        if tried.is_err() && self.reap(now).1 > 0 {
            tried = attempt();
        }
        for _ in 0..MOST_ATTEMPTS {
            let Err((budget, Why::Full)) = tried else { break };
            if !make_room(budget, self.budgets.reserves(&self.cells, budget, &held)) {
                break;
            }
            tried = attempt();
        }
        tried.map(|()| held).map_err(|(budget, why)| {
            self.drop_one(Dropped::BudgetRefused);
            self.budgets.refused(&self.cells, budget, why)
        })
    }

    /// Takes out runs past `max_run_age` and those whose ancestor has ended; model runs that stay, and how
    /// many went.
    pub(super) fn reap(&self, now: u64) -> (u64, u64) {
        let mut gone = 0_u64;
        let stay = self.runs.reap(&self.cells, now.saturating_sub(self.max_age), now, |run, orphan| {
            gone = gone.saturating_add(1);
            self.batch().abandon(&run, if orphan { Dropped::RunsOrphaned } else { Dropped::RunsAged });
        });
        (stay, gone)
    }

    /// Returns the model calls in flight that hold a reservation, with when they started and were last heard of (Unix
    /// nanoseconds).
    pub fn reserving(&self) -> Vec<Reserving> {
        let mut calls = Vec::new();
        self.runs.reserving(&self.cells, |call| {
            let (start, heard) = (self.clock.unix(call.start), call.heard.map(|at| self.clock.unix(at)));
            calls.push(Reserving { start, heard, ..call });
        });
        calls
    }

    /// Takes out the runs of these keys that are in flight, as abandoned: their reservations are released at once. Returns
    /// the number of runs.
    pub fn abandon_runs(&self, keys: &[RunKey]) -> u64 {
        let mut gone = 0_u64;
        self.runs.abandon(&self.cells, keys, self.clock.now(), |run| {
            gone = gone.saturating_add(1);
            self.batch().abandon(&run, Dropped::RunsOrphaned);
        });
        gone
    }

    pub(super) fn one_less(&self, run: &Run) {
        if run.kind == Kind::Llm {
            self.cells.sub(self.block(run.gaps).wrapping_add(IN_FLIGHT), 1);
            self.cells.sub(ALL_IN_FLIGHT, 1);
        }
    }
}

impl Batch<'_> {
    /// What an abandoned call spent is not known: what it held is given back, and its input counts as estimated.
    pub(super) fn abandon(&self, run: &Run, why: Dropped) {
        self.one_less(run);
        let now = self.clock.now();
        self.budgets.abandon(&self.cells, &run.held, self.clock.unix(now));
        self.drop_one(why);
        self.outcome(run.component, Outcome::Abandoned);
        if run.kind == Kind::Llm {
            let labels = run.labels.iter().map(|label| self.label_of(label, run.model, run.labels.len()));
            for series in std::iter::once(run.model).chain(labels) {
                self.outcome(series, Outcome::Abandoned);
                self.window(series).add(&self.cells, now, [1, 0, 0, 0]);
            }
            self.settle_calls(run.model, run.model);
            self.streamed(run, run.model, None, false);
        }
    }
}
