//! Figures of a row of defects: each a pair of counters that only grow, one for what entered and one for what left.

use super::outcome::{FixOutcome, Stage};

/// Bins of the confidence that models state.
pub const BINS: usize = 10;
/// Candidates of an attempt that count as samples.
pub const SAMPLES: usize = 16;

/// The position of a figure in a row.
pub type Tally = usize;

/// First of the stages, which follow the outcomes.
pub const STAGES: Tally = FixOutcome::ALL.len();
/// First of the figures named in `NAMES`.
const NAMED: Tally = STAGES + Stage::ALL.len();

macro_rules! tallies {
    ($($(#[$doc:meta])+ $name:ident = $text:literal),* $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)] // positions of the constants below
        #[repr(usize)]
        enum Position { $($name),*, End }
        $($(#[$doc])+ pub const $name: Tally = NAMED + Position::$name as usize;)*
        const NAMES: &[&str] = &[$($text),*];
        /// First of the bins of stated confidence.
        const BIN: Tally = NAMED + Position::End as usize;
    };
}

tallies! {
    /// Cost of attempts that fixed their defect, pico-dollars.
    COST_FIXED = "cost_fixed",
    /// Cost of attempts without a verdict, pico-dollars.
    COST_UNVERIFIED = "cost_unverified",
    /// Defects that were tried.
    DEFECTS = "defects",
    /// Defects with a verdict that says something about the model.
    CLOSED = "defects_closed",
    /// Defects that an attempt fixed.
    DEFECTS_FIXED = "defects_fixed",
    /// First attempts with such a verdict.
    FIRST = "first_attempts",
    /// First attempts that fixed their defect.
    FIRST_FIXED = "first_attempts_fixed",
    /// Sum over defects of the attempts that fixed them, k.
    SUM_K = "sum_k",
    /// Sum over defects of their attempts with a verdict, m.
    SUM_M = "sum_m",
    /// Sum of k squared.
    SUM_KK = "sum_kk",
    /// Sum of k times m.
    SUM_KM = "sum_km",
    /// Sum of m squared.
    SUM_MM = "sum_mm",
    /// Verdicts that took the place of another one.
    REVISIONS = "revisions",
    /// Candidates.
    CANDIDATES = "candidates",
    /// Candidates that the response cache gave: not independent samples.
    CACHED = "candidates_cached",
    /// Calls of tools.
    TOOLS = "tool_calls",
    /// Calls of retrievers.
    RETRIEVERS = "retriever_calls",
    /// Sum of the squared differences between the stated confidence and the result, in 1e-9.
    BRIER = "brier",
}

/// First of the samples: pairs of candidates and correct ones.
const SAMPLE: Tally = BIN + BINS * 3;
/// Figures of a row.
pub const TALLIES: usize = SAMPLE + sample_index(SAMPLES, SAMPLES) + 1;

const fn sample_index(n: usize, correct: usize) -> usize {
    // (1, 0) is the first; n candidates have n + 1 pairs, and those with fewer come before.
    (n.wrapping_mul(n.wrapping_add(1)) / 2).wrapping_sub(1).wrapping_add(correct)
}

/// Attempts with `n` judged candidates, 1 to 16, of which `correct` were right.
pub const fn sample(n: usize, correct: usize) -> Tally {
    SAMPLE.wrapping_add(sample_index(n, correct))
}

/// A stated confidence from 0 to 1: its bin's count, its fixed count, and the sum of confidences in 1e-6.
pub const fn bin(tenth: usize) -> [Tally; 3] {
    let first = BIN.wrapping_add(tenth.wrapping_mul(3));
    [first, first.wrapping_add(1), first.wrapping_add(2)]
}

/// The name of a figure.
pub fn name(tally: Tally) -> String {
    if let Some(outcome) = FixOutcome::ALL.get(tally) {
        return format!("outcome_{}", outcome.name());
    }
    if let Some(stage) = tally.checked_sub(STAGES).and_then(|at| Stage::ALL.get(at)) {
        return format!("stage_{}", stage.name());
    }
    if let Some(name) = tally.checked_sub(NAMED).and_then(|at| NAMES.get(at)) {
        return (*name).to_owned();
    }
    if tally < SAMPLE {
        let at = tally.wrapping_sub(BIN);
        let part = ["stated", "fixed", "sum"].get(at % 3).copied().unwrap_or_default();
        return format!("confidence_{}_{part}", at / 3);
    }
    let at = tally.wrapping_sub(SAMPLE);
    let n = (1..=SAMPLES).rev().find(|n| sample_index(*n, 0) <= at).unwrap_or(1);
    format!("samples_{n}_{}", at.wrapping_sub(sample_index(n, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_figure_has_a_position_and_a_name_of_its_own() {
        let names: HashSet<String> = (0..TALLIES).map(name).collect();
        assert_eq!(names.len(), TALLIES);
        let known =
            [FixOutcome::Fixed as usize, STAGES, COST_FIXED, BRIER, bin(0)[0], bin(9)[2], sample(1, 0), sample(16, 16)];
        let texts = known.map(name);
        let expected =
            ["outcome_fixed", "stage_asked", "cost_fixed", "brier", "confidence_0_stated", "confidence_9_sum"];
        assert_eq!(texts[..6], expected);
        assert_eq!(texts[6..], ["samples_1_0", "samples_16_16"]);
        assert_eq!(sample(16, 16) + 1, TALLIES);
    }

    #[test]
    fn samples_of_every_size_follow_one_another() {
        let pairs: Vec<Tally> = (1..=SAMPLES).flat_map(|n| (0..=n).map(move |c| sample(n, c))).collect();
        assert!(pairs.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
}
