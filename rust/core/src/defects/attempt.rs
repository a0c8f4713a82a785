//! One attempt to fix a defect: what it used, what it proposed, what is thought of it.

use super::outcome::{FixOutcome, Stage};
use super::tally::{self, Tally};
use crate::metrics::COUNTERS;
use crate::series::SeriesId;

/// What an attempt is about, until its row is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Type of the defect.
    pub defect_type: Box<str>,
    /// Severity of the defect.
    pub severity: Box<str>,
    /// Language of the code.
    pub language: Box<str>,
    /// Strategy of the fix.
    pub strategy: Box<str>,
}

/// Counters of the calls under an open attempt, and the durations of the model calls in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// As of a series.
    pub counters: [u64; COUNTERS],
    /// At most `MAX_DURATIONS`.
    pub durations: Vec<u64>,
    /// Calls of tools.
    pub tools: u64,
    /// Calls of retrievers.
    pub retrievers: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self { counters: [0; COUNTERS], durations: Vec::new(), tools: 0, retrievers: 0 }
    }
}

/// A verdict on an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// What became of it.
    pub outcome: FixOutcome,
    /// Strength of the source; 0 where the attempt ended without a verdict.
    pub strength: u8,
    /// Position of the source among the known ones.
    pub source: u8,
    /// Quality from 0 to 1.
    pub score: Option<f32>,
}

impl Verdict {
    /// The outcome of an attempt that ended without a verdict.
    pub const fn without_source(outcome: FixOutcome) -> Self {
        Self { outcome, strength: 0, source: 0, score: None }
    }
}

/// A proposed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number, given by the caller.
    pub index: i64,
    /// The model that answered last before it, or in its block.
    pub model: Option<SeriesId>,
    /// The response cache gave that answer.
    pub cached: bool,
    /// The caller recommends it.
    pub recommended: bool,
    /// Whether it is right, and the strength of the source; None before a verdict.
    pub right: Option<(bool, u8)>,
}

/// An attempt: open, or remembered for verdicts that come later.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Hash of the id of the defect.
    pub defect: u64,
    /// Number among the attempts at this defect, from 1.
    pub number: u32,
    /// When it began, Unix nanoseconds.
    pub started: u64,
    /// When it ended; 0 while it is open.
    pub ended: u64,
    /// Key of the run that it is, 0 for a block.
    pub owner: u64,
    /// None once its rows are known.
    pub about: Option<Box<About>>,
    /// None once its rows are known.
    pub totals: Option<Box<Totals>>,
    /// The rows that count it, up to two.
    pub rows: [Option<SeriesId>; 2],
    /// The model of the last successful call.
    pub model: Option<SeriesId>,
    /// The model of the last call.
    pub called: Option<SeriesId>,
    /// A model call succeeded.
    pub answered: bool,
    /// The last successful call was answered by the response cache.
    pub cached: bool,
    /// What it proposed.
    pub candidates: Vec<Candidate>,
    /// The verdict that counts.
    pub verdict: Verdict,
    /// Confidence that the model stated, 0 to 1.
    pub confidence: Option<f32>,
    /// Its cost, pico-dollars.
    pub cost: u64,
}

impl Attempt {
    /// The model that the attempt belongs to: of the recommended candidate, of the last successful call, of the last.
    pub fn belongs_to(&self) -> Option<SeriesId> {
        let recommended = self.candidates.iter().find(|candidate| candidate.recommended);
        recommended.and_then(|candidate| candidate.model).or(self.model).or(self.called)
    }

    /// Whether it fixed its defect; None without a verdict that says something about the model.
    pub fn fixed(&self) -> Option<bool> {
        let outcome = self.verdict.outcome;
        outcome.is_scored().then_some(outcome == FixOutcome::Fixed)
    }

    /// Judged candidates that are independent samples, and the right ones among them.
    fn samples(&self) -> Option<(usize, usize)> {
        if self.candidates.is_empty() {
            return self.fixed().filter(|_| !self.cached).map(|fixed| (1, usize::from(fixed)));
        }
        let judged = self.candidates.iter().filter(|candidate| !candidate.cached).filter_map(|candidate| {
            let right = candidate.right.map(|(right, _)| right);
            if candidate.recommended { right.or_else(|| self.fixed()) } else { right }
        });
        let (n, right) = judged
            .fold((0_usize, 0_usize), |(n, sum), right| (n.wrapping_add(1), sum.wrapping_add(usize::from(right))));
        (n > 0).then_some((n, right))
    }

    /// What the attempt adds to each figure of its rows.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 1
    pub fn figures(&self) -> Vec<(Tally, u64)> {
        let Verdict { outcome, strength, .. } = self.verdict;
        let mut figures = vec![(outcome as Tally, 1)];
        let reached = Stage::reached(outcome, strength, self.answered) as usize;
        figures.extend((0..=reached).map(|stage| (tally::STAGES.wrapping_add(stage), 1)));
        match outcome {
            FixOutcome::Fixed => figures.push((tally::COST_FIXED, self.cost)),
            FixOutcome::Unverified => figures.push((tally::COST_UNVERIFIED, self.cost)),
            _ => {}
        }
        if let Some(fixed) = self.fixed() {
            if self.number == 1 {
                figures.extend([(tally::FIRST, 1), (tally::FIRST_FIXED, u64::from(fixed))]);
            }
            if let Some(confidence) = self.confidence {
                let error = f64::from(confidence) - f64::from(u8::from(fixed));
                let tenth = ((confidence * 10.0) as usize).min(tally::BINS - 1);
                let [stated, right, sum] = tally::bin(tenth);
                let millionths = (f64::from(confidence) * 1e6).round() as u64;
                figures.push((tally::BRIER, (error * error * 1e9).round() as u64));
                figures.extend([(stated, 1), (right, u64::from(fixed)), (sum, millionths)]);
            }
        }
        if let Some((n, right)) = self.samples() {
            figures.push((tally::sample(n, right), 1));
        }
        figures.retain(|(_, n)| *n > 0);
        figures
    }
}
