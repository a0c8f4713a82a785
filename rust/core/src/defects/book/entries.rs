//! What a book has: places of runs, attempts as they begin, defects and their rows, changes of figures.

use crate::defects::attempt::Totals;
use crate::defects::tally::{self, Tally};
use crate::runs::RunKey;
use crate::series::SeriesId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Spreads keys that are hashes or random already; `SipHash` costs a call in an attempt 300 instructions more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        // The table takes its group from the low bits and its tag from the high ones.
        let product = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ product.rotate_left(32);
    }
}

pub(super) type Hashed<V> = HashMap<u64, V, BuildHasherDefault<Spread>>;

/// Where a run belongs: its attempt, and the candidate that it works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the attempt.
    pub attempt: u64,
    /// Index of the candidate, if any.
    pub candidate: Option<i64>,
    /// The run is a call of an embedding model: it counts, and answers nothing.
    pub embeds: bool,
}

impl Place {
    /// In an attempt, and in none of its candidates.
    pub const fn of(attempt: u64) -> Self {
        Self { attempt, candidate: None, embeds: false }
    }
}

/// An attempt as it begins.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Id of the defect.
    pub defect: &'a str,
    /// Type, severity and language of the defect, strategy of the fix.
    pub about: [&'a str; 4],
    /// Number among the attempts at this defect; None for the next one of this recorder.
    pub number: Option<u32>,
    /// The run that it is; None for a block.
    pub owner: Option<RunKey>,
    /// Unix nanoseconds.
    pub now: u64,
}

/// Attempts at one defect in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cluster {
    /// Attempts that fixed it.
    pub fixed: u32,
    /// Attempts with a verdict that says something about the model.
    pub scored: u32,
    /// It was fixed before: its time and attempts to the first fix are recorded.
    pub timed: bool,
}

impl Cluster {
    pub(super) fn figures(self) -> [(Tally, u64); 7] {
        let (k, m) = (u64::from(self.fixed), u64::from(self.scored));
        [
            (tally::CLOSED, u64::from(m > 0)),
            (tally::DEFECTS_FIXED, u64::from(k > 0)),
            (tally::SUM_K, k),
            (tally::SUM_M, m),
            (tally::SUM_KK, k.saturating_mul(k)),
            (tally::SUM_KM, k.saturating_mul(m)),
            (tally::SUM_MM, m.saturating_mul(m)),
        ]
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Defect {
    pub(super) attempts: u32,
    /// Its first attempts were made in another recorder.
    pub(super) elsewhere: bool,
    /// When the first attempt began, Unix nanoseconds.
    pub(super) first: u64,
    pub(super) rows: Vec<(SeriesId, Cluster)>,
}

/// A change of the counters of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A figure grew.
    Enter(SeriesId, Tally, u64),
    /// A figure fell: what left it is counted.
    Leave(SeriesId, Tally, u64),
    /// A defect was fixed for the first time: nanoseconds since its first attempt began, and the number of attempts.
    FirstFix(SeriesId, u64, u32),
    /// A score from 0 to 1.
    Score(SeriesId, f32),
    /// Counters of the calls under an attempt.
    Calls(SeriesId, Box<Totals>),
}

/// What became of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It counts.
    Counts,
    /// It is the one that counts already.
    Same,
    /// A stronger one counts.
    Weaker,
    /// The attempt is not remembered.
    Unknown,
}
