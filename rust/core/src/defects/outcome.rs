//! Outcomes of fixes, the stages that they reach, and how far a verdict is trusted.

use crate::metrics::named;

named! {
    /// How an attempt to fix a defect ended.
    FixOutcome {
        /// The defect is gone.
        Fixed = "fixed",
        /// The defect is gone in part.
        Partial = "partial",
        /// The defect is still there.
        Failed = "failed",
        /// The defect is gone, and the change broke something else.
        Regressed = "regressed",
        /// The model declined to answer.
        Refused = "refused",
        /// The answer holds no change.
        Empty = "empty",
        /// The answer could not be parsed.
        Unparsable = "unparsable",
        /// The change does not apply to the code.
        DoesNotApply = "does_not_apply",
        /// The changed code does not compile.
        DoesNotCompile = "does_not_compile",
        /// The provider, the pipeline or the checker failed.
        Infrastructure = "infrastructure",
        /// The check ended without a result.
        Unscored = "unscored",
        /// No verdict so far.
        Unverified = "unverified",
    }
}

impl FixOutcome {
    /// Whether it says something about the model: only then it counts in rates.
    pub const fn is_scored(self) -> bool {
        !matches!(self, Self::Infrastructure | Self::Unscored | Self::Unverified)
    }

    /// The outcome of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.name() == name)
    }
}

named! {
    /// Stages of an attempt, each of which includes those before it.
    Stage {
        /// The attempt began.
        Asked = "asked",
        /// A model answered.
        Answered = "answered",
        /// The answer has the form that was asked for.
        Parsed = "parsed",
        /// The change applies to the code.
        Applied = "applied",
        /// The changed code compiles.
        Compiled = "compiled",
        /// The tests pass, or the caller says that the fix works.
        TestsPassed = "tests_passed",
        /// A later analysis or a reviewer agrees.
        StillRight = "still_right",
    }
}

/// Strength of the weakest source of verdicts: the form of an answer.
pub const FORM: u8 = 1;
/// Strength of a compiler.
pub const COMPILE: u8 = 2;
/// Strength of tests, of callers, and of sources that have no rank of their own.
pub const CALLER: u8 = 3;
/// Strength of a second analysis.
pub const RESCAN: u8 = 4;
/// Strength of a reviewer.
pub const REVIEWER: u8 = 5;
/// Sources with a strength of their own; any other ranks as `CALLER`.
pub const SOURCES: [(&str, u8); 6] = [
    ("caller", CALLER),
    ("reviewer", REVIEWER),
    ("re-scan", RESCAN),
    ("tests", CALLER),
    ("compile", COMPILE),
    ("form", FORM),
];

impl Stage {
    /// The furthest stage that an outcome proves. `strength` is that of its source, `answered` whether a call of a
    /// model succeeded.
    pub const fn reached(outcome: FixOutcome, strength: u8, answered: bool) -> Self {
        match outcome {
            FixOutcome::Fixed => match strength {
                0 | FORM => Self::Parsed,
                COMPILE => Self::Compiled,
                CALLER => Self::TestsPassed,
                _ => Self::StillRight,
            },
            FixOutcome::Failed | FixOutcome::Partial | FixOutcome::Regressed => Self::Compiled,
            FixOutcome::DoesNotCompile => Self::Applied,
            FixOutcome::DoesNotApply => Self::Parsed,
            FixOutcome::Refused | FixOutcome::Empty | FixOutcome::Unparsable => Self::Answered,
            FixOutcome::Infrastructure | FixOutcome::Unscored | FixOutcome::Unverified => {
                if answered {
                    Self::Answered
                } else {
                    Self::Asked
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_reaches_the_stage_that_its_source_can_see() {
        let reached = SOURCES.map(|(_, strength)| Stage::reached(FixOutcome::Fixed, strength, false).name());
        let expected = ["tests_passed", "still_right", "still_right", "tests_passed", "compiled", "parsed"];
        assert_eq!(reached, expected);
    }

    #[test]
    fn each_outcome_that_is_not_a_fix_stops_before_the_tests_pass() {
        for outcome in FixOutcome::ALL.iter().copied().filter(|outcome| *outcome != FixOutcome::Fixed) {
            assert!((Stage::reached(outcome, REVIEWER, true) as usize) < Stage::TestsPassed as usize, "{outcome:?}");
        }
        assert_eq!(Stage::reached(FixOutcome::Infrastructure, 0, false), Stage::Asked);
        assert_eq!(Stage::reached(FixOutcome::Unverified, 0, true), Stage::Answered);
    }

    #[test]
    fn names_of_outcomes_are_read_back_and_others_are_refused() {
        for outcome in FixOutcome::ALL {
            assert_eq!(FixOutcome::from_name(outcome.name()), Some(*outcome));
        }
        assert_eq!(FixOutcome::from_name("almost"), None);
    }
}
