//! Verdicts on attempts and candidates: the strongest source counts.

use super::{Book, Judged, OTHER_SOURCE, Write};
use crate::defects::attempt::Verdict;
use crate::defects::outcome::{CALLER, FixOutcome, SOURCES};
use crate::defects::tally;

/// Names of sources that have no rank of their own.
const MAX_SOURCES: usize = 32;

impl Book {
    /// A verdict on an attempt: it counts unless a stronger one does.
    pub fn judge(&mut self, number: u64, verdict: Verdict) -> (Judged, Vec<Write>) {
        let Some(attempt) = self.attempt(number) else { return (Judged::Unknown, Vec::new()) };
        let standing = attempt.verdict;
        if verdict.strength < standing.strength {
            return (Judged::Weaker, Vec::new());
        }
        let source = if standing.source == OTHER_SOURCE { verdict.source } else { standing.source };
        if verdict == (Verdict { source, ..standing }) {
            return (Judged::Same, Vec::new());
        }
        let rows = attempt.rows;
        let mut writes = self.change(number, |attempt| {
            attempt.verdict = verdict;
            let right = attempt.fixed().map(|fixed| (fixed, verdict.strength));
            let recommended = attempt.candidates.iter_mut().find(|candidate| candidate.recommended);
            if let Some(candidate) = recommended
                && verdict.outcome != FixOutcome::Unverified
                && candidate.right.is_none_or(|(_, known)| verdict.strength >= known)
            {
                candidate.right = right;
            }
        });
        for row in rows.into_iter().flatten() {
            if standing.strength > 0 && standing.outcome != FixOutcome::Unverified {
                writes.push(Write::Enter(row, tally::REVISIONS, 1));
            }
            if let Some(score) = verdict.score {
                writes.push(Write::Score(row, score));
            }
        }
        (Judged::Counts, writes)
    }

    /// Records whether a candidate is right, unless a stronger source has.
    pub fn judge_candidate(&mut self, number: u64, index: i64, right: bool, strength: u8) -> Vec<Write> {
        self.change(number, |attempt| {
            let candidate = attempt.candidates.iter_mut().find(|candidate| candidate.index == index);
            if let Some(candidate) = candidate
                && candidate.right.is_none_or(|(_, known)| strength >= known)
            {
                candidate.right = Some((right, strength));
            }
        })
    }

    /// Strength of a source of verdicts, and its position among the known ones; the last for those beyond the 32nd.
    #[allow(clippy::cast_possible_truncation)] // below 64
    pub fn source(&mut self, name: &str) -> (u8, u8) {
        if let Some((at, (_, strength))) = SOURCES.iter().enumerate().find(|(_, (known, _))| *known == name) {
            return (*strength, at as u8);
        }
        let at = self.sources.iter().position(|known| **known == *name).unwrap_or_else(|| {
            if self.sources.len() < MAX_SOURCES {
                self.sources.push(name.into());
                self.sources.len().saturating_sub(1)
            } else {
                MAX_SOURCES
            }
        });
        (CALLER, SOURCES.len().wrapping_add(at) as u8)
    }
}
