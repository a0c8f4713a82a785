//! What calls used: tokens, money, budgets.

use super::batch::Batch;
use super::layout::STARTED;
use super::{End, Recorder, Repriced};
use crate::budget::{Crossed, Late, Standing, Terms, UNPRICED, Used};
use crate::error::Error;
use crate::metrics::{Counter, OUTCOMES, Outcome};
use crate::series::{Kind, SeriesId};
use crate::window::WINDOWS;

/// Where the counters of calls are added: a series, or an open attempt at a defect.
pub(super) trait Counters {
    /// Adds to a counter by its position in a series.
    fn add(&mut self, position: usize, n: u64);

    /// Adds pico-dollars.
    fn add_money(&mut self, counter: Counter, n: u64);

    fn bump(&mut self, counter: Counter, n: u64) {
        if n > 0 {
            self.add(OUTCOMES.wrapping_add(counter as usize), n);
        }
    }

    /// Counts a call: its outcome, its tokens, its money.
    fn call(&mut self, end: &End<'_>, retried: bool) {
        self.add(end.outcome as usize, 1);
        if end.outcome == Outcome::CacheHit {
            self.bump(Counter::SavedTotal, end.usage.map_or(0, |[_, _, total, ..]| total));
            return;
        }
        self.bump(Counter::RetriedCalls, u64::from(retried));
        self.bump(Counter::Truncated, u64::from(end.truncated));
        self.spending(end, retried);
    }

    /// Counts tokens and money of a call.
    fn spending(&mut self, end: &End<'_>, retried: bool) {
        let usage = end.usage.as_ref().unwrap_or(&[0; Counter::Estimated as usize + 1]);
        for (i, n) in usage.iter().enumerate() {
            if *n > 0 {
                self.add(OUTCOMES.wrapping_add(i), *n);
            }
        }
        let [_, _, total, ..] = usage;
        if let Some(cost) = end.cost {
            self.cost(cost, end.outcome, retried);
            self.bump(Counter::PricedCalls, 1);
        } else if usage.iter().any(|n| *n > 0) {
            self.bump(Counter::UnpricedCalls, 1);
            self.bump(Counter::UnpricedTotal, *total);
        }
        if let Some(billed) = end.billed {
            self.add_money(Counter::Billed, billed);
            self.bump(Counter::BilledCalls, 1);
        }
    }

    fn cost(&mut self, cost: u64, outcome: Outcome, retried: bool) {
        self.add_money(Counter::Cost, cost);
        match outcome {
            Outcome::Error => self.add_money(Counter::CostError, cost),
            Outcome::Cancelled => self.add_money(Counter::CostCancelled, cost),
            _ => {}
        }
        if retried {
            self.add_money(Counter::RetriedCost, cost);
        }
    }

    /// Counts a price that came late.
    fn repriced(&mut self, calls: &Repriced<'_>) {
        self.bump(Counter::PricedCalls, calls.calls);
        self.bump(Counter::RepricedCalls, calls.calls);
        self.bump(Counter::RepricedTotal, calls.total);
        self.cost(calls.cost, calls.outcome, false);
    }
}

/// The counters of a series, for one event.
pub(super) struct Row<'a, 'b>(pub &'a Batch<'b>, pub SeriesId);

impl Counters for Row<'_, '_> {
    #[inline]
    fn add(&mut self, position: usize, n: u64) {
        self.0.cells.add(self.0.counter(self.1, position), n);
    }

    fn add_money(&mut self, counter: Counter, n: u64) {
        self.0.bump_money(self.1, counter, n);
    }
}

impl Batch<'_> {
    pub(super) fn finish_model(&self, series: SeriesId, end: &End<'_>, retried: bool, now: u64) {
        Row(self, series).call(end, retried);
        self.in_window(series, end, now, 1);
    }

    /// Tokens and money of a call that was counted before.
    pub(super) fn spend(&self, series: SeriesId, end: &End<'_>, retried: bool, now: u64) {
        Row(self, series).spending(end, retried);
        self.in_window(series, end, now, 0);
    }

    fn in_window(&self, series: SeriesId, end: &End<'_>, now: u64, requests: u64) {
        let used = end.usage.filter(|_| end.outcome != Outcome::CacheHit);
        let [input, output] = used.map_or([0, 0], |[input, output, ..]| [input, output]);
        let errors = u64::from(end.outcome == Outcome::Error && requests > 0);
        self.window(series).add(&self.cells, now, [requests, input, output, errors]);
    }
}

impl Recorder {
    /// Money of a call, for the pace of spending.
    pub(super) fn paid(&self, end: &End<'_>, now: u64) {
        if let Some(cost) = end.cost
            && end.outcome != Outcome::CacheHit
        {
            self.pay(cost, now);
        }
    }

    pub(super) fn pay(&self, cost: u64, now: u64) {
        self.money.add(&self.cells, now, [cost.saturating_add(500) / 1000, 0, 0, 0]);
    }

    /// A price has come for calls that ended without one. Returns the thresholds of budgets that it crossed.
    pub fn repriced(&self, calls: &Repriced<'_>) -> Crossed {
        let now = self.clock.now();
        let model = self.resolve(Kind::Model, calls.provider, calls.model);
        let batch = self.batch();
        let labels = calls.labels.iter().map(|label| self.label_of(label, model, calls.labels.len()));
        for series in std::iter::once(model).chain(labels) {
            Row(&batch, series).repriced(calls);
        }
        drop(batch);
        self.attempt_repriced(calls);
        self.pay(calls.cost, now);
        let charged = if calls.charged && calls.outcome != Outcome::Error { calls.calls } else { 0 };
        let late = Late { budgets: calls.budgets, cost: calls.cost, charged, ended: calls.ended };
        self.budgets.price(&self.cells, &late, self.clock.unix(now))
    }

    /// Opens a budget; its position is its bit in [`Demand::budgets`].
    pub fn open_budget(&self, terms: &Terms) -> Result<usize, Error> {
        self.budgets.open(&self.cells, terms, self.clock.unix(self.clock.now()))
    }

    /// Gives a budget another limit and thresholds; returns the thresholds that it has reached by that.
    pub fn set_limit(&self, budget: usize, limit: u64, thresholds: &[u64]) -> Result<Crossed, Error> {
        self.budgets.set_limit(&self.cells, budget, limit, thresholds, self.clock.unix(self.clock.now()))
    }

    /// Begins the period of a budget anew.
    pub fn reset_budget(&self, budget: usize) {
        self.budgets.reset(&self.cells, budget, self.clock.unix(self.clock.now()));
    }

    /// Sets the slice that this process leases of a budget; see [`Budgets::lease`](crate::budget::Budgets::lease).
    pub fn lease(&self, budget: usize, limit: u64, until: u64, began: u64) -> Option<(u64, u64)> {
        self.budgets.lease(&self.cells, budget, limit, until, began)
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
        let mut spend = [(0, 0, 0); 3];
        for ((to, seconds), [nanos, ..]) in spend.iter_mut().zip(WINDOWS).zip(sums) {
            *to = (seconds, lived.min(seconds.saturating_mul(1_000_000_000)), nanos);
        }
        spend
    }
}

/// What a call used beyond the pico-dollars and tokens that it was charged when it was given up.
pub(super) fn more([cost, tokens, calls]: Used, [charged, input]: [u64; 2]) -> Used {
    // What is charged for a call without a price is charged once.
    let cost = if cost == UNPRICED || charged == UNPRICED { 0 } else { cost.saturating_sub(charged) };
    [cost, tokens.saturating_sub(input), calls]
}

/// What a call used, for budgets: nothing if the response cache answered it. A failed call does not count as a call, and
/// is charged only what it is known to have used.
pub(super) fn used(end: &End<'_>) -> Used {
    if end.outcome == Outcome::CacheHit {
        return Used::default();
    }
    let tokens = end.usage.map_or(0, |[input, output, total, ..]| total.max(input.saturating_add(output)));
    // A failed call does not count as a call, so it is not charged for one without a price either.
    let unknown = if end.outcome == Outcome::Error { 0 } else { UNPRICED };
    [end.cost.unwrap_or(unknown), tokens, u64::from(end.outcome != Outcome::Error)]
}
