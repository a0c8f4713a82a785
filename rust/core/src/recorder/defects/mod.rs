//! Attempts to fix defects: the calls under them, their rows, and the verdicts on them.
//!
//! Every method here is called by a thread that holds Python's global lock; see [`Book`].

mod receipt;

use super::batch::Batch;
use super::money::{Counters, Row};
use super::{End, FixPulse, Recorder, Repriced};
use crate::defects::{
    About, Book, FixOutcome, Judged, MAX_DURATIONS, Opening, Place, TALLIES, Totals, Verdict, Write, stable_hash, tally,
};
use crate::metrics::{Counter, Dropped, Measure, OUTCOMES, Outcome};
use crate::runs::{Left, Run, RunKey};
use crate::series::{Kind, LabelSet, SEPARATOR, SeriesId};
use crate::snapshot::Tallies;
pub use receipt::Receipt;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

impl Counters for Totals {
    fn add(&mut self, position: usize, n: u64) {
        if let Some(counter) = self.counters.get_mut(position) {
            *counter = counter.saturating_add(n);
        }
    }

    fn add_money(&mut self, counter: Counter, n: u64) {
        self.add(OUTCOMES.wrapping_add(counter as usize), n);
    }
}

/// Figures of attempts by row: what entered each, and what left it.
#[derive(Debug, Clone, Default)]
pub struct AttemptFigures(pub(super) Vec<(LabelSet, Tallies)>);

impl Recorder {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of an attempt: of the recorder and the process, and its number.
    pub fn attempt_id(&self, number: u64) -> String {
        format!("{:016x}-{number}", self.process())
    }

    /// What sets the recorder of this process apart from all others.
    fn process(&self) -> u64 {
        self.id ^ self.cells.get(super::layout::GENERATION)
    }

    /// The number of an attempt of this process; None for the id of another one.
    pub fn attempt_number(&self, id: &str) -> Option<u64> {
        let (process, number) = id.split_once('-')?;
        let own = u64::from_str_radix(process, 16).is_ok_and(|process| process == self.process());
        number.parse().ok().filter(|_| own)
    }

    /// Opens an attempt, and puts the run that it is, if any, into it.
    pub fn attempt_opened(&self, defect: &str, about: [&str; 4], number: Option<u32>, owner: Option<RunKey>) -> u64 {
        self.make_room();
        let now = self.unix_now();
        let mut book = self.book();
        let (attempt, oldest) = book.open(&Opening { defect, about, number, owner, now });
        drop(book);
        if let Some(oldest) = oldest {
            self.drop_one(Dropped::AttemptsCapped);
            self.attempt_closed(oldest, FixOutcome::Unverified);
        }
        if let Some(owner) = owner {
            self.attempt_joined(owner, Place::of(attempt));
        }
        attempt
    }

    /// Closes the attempt that is forgotten next, if it is open.
    fn make_room(&self) {
        let oldest = self.book().crowded_out();
        if let Some(oldest) = oldest {
            self.drop_one(Dropped::AttemptsCapped);
            self.attempt_closed(oldest, FixOutcome::Unverified);
        }
    }

    /// Puts a run that begins into an attempt.
    pub fn attempt_joined(&self, key: RunKey, place: Place) {
        self.tracked.store(true, Ordering::Relaxed);
        if !self.book().join(key, place) {
            self.drop_one(Dropped::AttemptRunsCapped);
        }
    }

    /// Where a run in flight belongs; None outside of attempts.
    #[inline]
    pub fn attempt_of(&self, key: RunKey) -> Option<Place> {
        if self.tracked.load(Ordering::Relaxed) { self.book().place(key) } else { None }
    }

    /// The open attempt that a run is; None for any other run.
    pub fn attempt_owned_by(&self, key: RunKey) -> Option<u64> {
        if !self.tracked.load(Ordering::Relaxed) {
            return None;
        }
        let book = self.book();
        let attempt = book.place(key)?.attempt;
        book.attempt(attempt).filter(|known| known.owner == key.get() && known.ended == 0).map(|_| attempt)
    }

    /// Whether an attempt is at the defect of this id.
    pub fn is_at_defect(&self, attempt: u64, defect: &str) -> bool {
        self.book().defect_of(attempt) == Some(stable_hash(defect))
    }

    /// Adds a candidate to an attempt, or recommends it.
    pub fn attempt_candidate(&self, attempt: u64, index: i64, recommended: bool) {
        let (writes, capped) = self.book().candidate(attempt, index, recommended);
        self.write(writes);
        if capped {
            self.drop_one(Dropped::CandidatesCapped);
        }
    }

    /// Notes the confidence that a model states, 0 to 1.
    pub fn attempt_confidence(&self, attempt: u64, confidence: f32) {
        let writes = self.book().state(attempt, confidence);
        self.write(writes);
    }

    /// Closes an attempt; without a verdict so far `outcome` is its outcome.
    pub fn attempt_closed(&self, attempt: u64, outcome: FixOutcome) {
        let now = self.unix_now();
        let (about, model) = {
            let book = self.book();
            let Some(attempt) = book.attempt(attempt).filter(|attempt| attempt.ended == 0) else { return };
            (attempt.about.clone().unwrap_or_default(), attempt.belongs_to())
        };
        let names = model.and_then(|model| self.names(model)).map(|labels| (labels.a, labels.b)).unwrap_or_default();
        let rows = self.attempt_rows(&about, &names.0, &names.1);
        let writes = self.book().close(attempt, rows, outcome, now);
        self.write(writes);
    }

    fn attempt_rows(&self, about: &About, provider: &str, model: &str) -> [Option<SeriesId>; 2] {
        let About { defect_type, severity, language, strategy } = about;
        // Without a second name there is no separator: the row `other` of a full table has none either.
        let pair = |a: &str, b: &str| {
            let a = a.replace(SEPARATOR, " ");
            if b.is_empty() { a } else { format!("{a}{SEPARATOR}{b}") }
        };
        let row = self.resolve(Kind::Defect, &pair(defect_type, severity), &pair(provider, model));
        let has_strategy = !(strategy.is_empty() && language.is_empty());
        [Some(row), has_strategy.then(|| self.resolve(Kind::Strategy, strategy, language))]
    }

    /// Records a verdict on an attempt; `source` says whose it is.
    pub fn attempt_judged(&self, attempt: u64, outcome: FixOutcome, source: &str, score: Option<f32>) -> Judged {
        let mut book = self.book();
        let (strength, source) = book.source(source);
        let (judged, writes) = book.judge(attempt, Verdict { outcome, strength, source, score });
        drop(book);
        self.write(writes);
        if judged == Judged::Unknown {
            self.drop_one(Dropped::VerdictsUnknown);
        }
        judged
    }

    /// Records whether a candidate is right, where the outcome says so. A verdict on the recommended one is one on its
    /// attempt too: then true.
    pub fn candidate_judged(
        &self,
        attempt: u64,
        index: i64,
        outcome: FixOutcome,
        source: &str,
        score: Option<f32>,
    ) -> bool {
        let mut book = self.book();
        let (strength, _) = book.source(source);
        let writes = if outcome.is_scored() {
            book.judge_candidate(attempt, index, outcome == FixOutcome::Fixed, strength)
        } else {
            Vec::new()
        };
        let known = book.attempt(attempt).and_then(|known| known.candidates.iter().find(|known| known.index == index));
        let recommended = known.is_some_and(|candidate| candidate.recommended);
        drop(book);
        self.write(writes);
        if recommended {
            self.attempt_judged(attempt, outcome, source, score);
        }
        recommended
    }

    /// A run has ended: it counts to its attempt, which ends if the run was that.
    pub(super) fn attempt_run_ended(&self, end: &End<'_>, run: Option<&Run>, now: u64) {
        if !self.tracked.load(Ordering::Relaxed) {
            return;
        }
        let mut book = self.book();
        let Some((place, owns)) = book.leave(end.key) else {
            self.tracked.store(book.has_runs(), Ordering::Relaxed);
            return;
        };
        let writes = match run.map_or(end.kind, |run| run.kind) {
            Kind::Llm => {
                if !place.embeds
                    && let Some(model) = self.model_of(end, run)
                {
                    book.called(place, model);
                    if matches!(end.outcome, Outcome::Ok | Outcome::CacheHit) {
                        book.answered(place, model, end.outcome == Outcome::CacheHit);
                    }
                }
                let (retried, lasted) = run.map_or((false, 0), |run| (run.retried, now.saturating_sub(run.start)));
                let rows = book.totals(place.attempt).map(|totals| {
                    totals.call(end, retried);
                    if lasted > 0 && end.outcome != Outcome::CacheHit && totals.durations.len() < MAX_DURATIONS {
                        totals.durations.push(lasted);
                    }
                });
                for row in rows.err().into_iter().flatten().flatten() {
                    let batch = self.batch();
                    Row(&batch, row).call(end, retried);
                    if lasted > 0 && end.outcome != Outcome::CacheHit {
                        batch.record(row, Measure::Latency, lasted);
                    }
                }
                let cost = end.cost.filter(|_| end.outcome != Outcome::CacheHit);
                cost.map_or_else(Vec::new, |cost| book.spent(place.attempt, cost))
            }
            kind @ (Kind::Tool | Kind::Retriever) => {
                if let Ok(totals) = book.totals(place.attempt) {
                    let calls = if kind == Kind::Tool { &mut totals.tools } else { &mut totals.retrievers };
                    *calls = calls.saturating_add(1);
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        drop(book);
        self.write(writes);
        if owns {
            self.attempt_closed(place.attempt, left_with(end));
        }
    }

    fn model_of(&self, end: &End<'_>, run: Option<&Run>) -> Option<SeriesId> {
        if end.answered.is_some() || (end.model.is_empty() && end.provider.is_empty()) {
            return end.answered.or_else(|| run.map(|run| run.model));
        }
        let requested = run.and_then(|run| self.names(run.model));
        let given = |name: &str, requested: Option<&String>| {
            if name.is_empty() { requested.cloned().unwrap_or_default() } else { name.to_owned() }
        };
        let provider = given(end.provider, requested.as_ref().map(|labels| &labels.a));
        let model = given(end.model, requested.as_ref().map(|labels| &labels.b));
        Some(self.resolve(Kind::Model, &provider, &model))
    }

    /// A price came late for calls of an attempt.
    pub(super) fn attempt_repriced(&self, calls: &Repriced<'_>) {
        if calls.attempt == 0 {
            return;
        }
        let mut book = self.book();
        let rows = book.totals(calls.attempt).map(|totals| totals.repriced(calls));
        let writes = book.spent(calls.attempt, calls.cost);
        drop(book);
        for row in rows.err().into_iter().flatten().flatten() {
            Row(&self.batch(), row).repriced(calls);
        }
        self.write(writes);
    }

    /// Applies changes to rows.
    fn write(&self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let batch = self.batch();
        for write in writes {
            match write {
                Write::Enter(row, tally, n) => batch.moved(self.tally(row, tally), n),
                Write::Leave(row, tally, n) => batch.moved(self.tally(row, tally).wrapping_add(1), n),
                Write::FirstFix(row, nanos, attempts) => {
                    batch.record(row, Measure::TimeToFix, nanos);
                    batch.record(row, Measure::AttemptsToFix, u64::from(attempts).saturating_mul(1000));
                }
                Write::Score(row, score) => batch.record(row, Measure::Quality, nanos_of(score)),
                Write::Calls(row, totals) => {
                    let mut to = Row(&batch, row);
                    for (position, n) in totals.counters.iter().enumerate().filter(|(_, n)| **n > 0) {
                        to.add(position, *n);
                    }
                    for nanos in totals.durations {
                        batch.record(row, Measure::Latency, nanos);
                    }
                }
            }
        }
    }

    /// Closes attempts whose run was given up: LangChain sends no end of a task that a timeout cancelled.
    fn close_abandoned(&self) {
        self.reap(self.clock.now());
        let open = self.book().open_runs();
        for (attempt, owner) in open {
            if self.runs.left(&self.cells, RunKey::new(owner)) == Some(Left::Reaped) {
                self.attempt_closed(attempt, FixOutcome::Infrastructure);
            }
        }
    }

    /// The figures of every row of attempts.
    pub fn attempt_figures(&self) -> AttemptFigures {
        if self.tracked.load(Ordering::Relaxed) {
            self.close_abandoned();
        }
        self.tallies_of_attempts()
    }

    /// Figures of attempts as they stand.
    pub(super) fn tallies_of_attempts(&self) -> AttemptFigures {
        let rows = self.series.ids(&self.cells).filter_map(|id| {
            let labels = self.series.labels_of(&self.cells, id, Kind::counts_attempts)?;
            let tallies = self.tallies(id);
            (!tallies.is_empty()).then_some((labels, tallies))
        });
        AttemptFigures(rows.collect())
    }

    /// Cumulative figures of each model's fixes, over the types and severities of defects.
    pub fn fix_pulse(&self) -> Vec<FixPulse> {
        let mut models: BTreeMap<String, FixPulse> = BTreeMap::new();
        for id in self.series.ids(&self.cells) {
            let Some(labels) = self.series.labels_of(&self.cells, id, |kind| kind == Kind::Defect) else { continue };
            let closed = self.cells.get(self.tally(id, tally::CLOSED));
            if closed == 0 {
                continue;
            }
            let (provider, model) = labels.b.split_once(SEPARATOR).unwrap_or((&labels.b, ""));
            let new = || FixPulse { provider: provider.into(), model: model.into(), ..FixPulse::default() };
            let sums = models.entry(labels.b.clone()).or_insert_with(new);
            let fixed = self.tally(id, tally::DEFECTS_FIXED);
            let (ever_fixed, left) = (self.cells.get(fixed), self.cells.get(fixed.wrapping_add(1)));
            let cost = self.counters(id).get(OUTCOMES.wrapping_add(Counter::Cost as usize)).copied().unwrap_or(0);
            for (sum, n) in [
                (&mut sums.closed, closed),
                (&mut sums.fixed, ever_fixed.saturating_sub(left)),
                (&mut sums.ever_fixed, ever_fixed),
                (&mut sums.cost, cost),
            ] {
                *sum = sum.saturating_add(n);
            }
        }
        models.into_values().collect()
    }

    /// What entered and what left each figure of a row; no zeros.
    fn tallies(&self, id: SeriesId) -> Tallies {
        let pair = |tally: usize| {
            let cell = self.tally(id, tally);
            (self.cells.get(cell), self.cells.get(cell.wrapping_add(1)))
        };
        let pairs = (0..TALLIES).filter_map(|tally| Some((u16::try_from(tally).ok()?, pair(tally))));
        pairs.filter(|(_, pair)| *pair != (0, 0)).collect()
    }

    pub(super) fn clear_tallies(&self, id: SeriesId) {
        for cell in self.tally(id, 0)..self.tally(id, TALLIES) {
            if self.cells.get(cell) != 0 {
                self.cells.set(cell, 0);
            }
        }
    }

    /// Forgets the attempts of the parent in a process that has just been forked.
    pub(super) fn forget_attempts(&self) {
        if let Ok(mut book) = self.book.try_lock() {
            book.clear();
        }
        self.tracked.store(false, Ordering::Relaxed);
    }
}

impl Batch<'_> {
    fn moved(&self, cell: usize, n: u64) {
        self.cells.add_saturating(cell, n);
    }
}

/// The outcome of an attempt that ends with its run and has no verdict.
fn left_with(end: &End<'_>) -> FixOutcome {
    match end.outcome {
        Outcome::Error if end.error.is_some_and(|error| error.starts_with("OutputParserException")) => {
            FixOutcome::Unparsable
        }
        Outcome::Error | Outcome::Cancelled | Outcome::Abandoned => FixOutcome::Infrastructure,
        Outcome::Ok | Outcome::CacheHit | Outcome::Interrupted => FixOutcome::Unverified,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 1
fn nanos_of(score: f32) -> u64 {
    (f64::from(score) * 1e9).round() as u64
}
