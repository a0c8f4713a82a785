//! Attempts to fix defects, and the verdicts on them.
//!
//! Open attempts, remembered ones, the runs under them and the defects that they are about stay in the memory of the
//! process ([`Book`]); what only grows, the figures of a row, lies in the arena. A book changes only while its caller
//! holds Python's global lock, so a fork never finds it half changed.

mod attempt;
mod book;
mod outcome;
pub mod tally;
#[cfg(all(test, not(loom)))]
mod tests;

pub use attempt::{About, Attempt, Candidate, Totals, Verdict};
pub use book::{Book, Cluster, Judged, MAX_DURATIONS, OTHER_SOURCE, Opening, Place, Write, stable_hash};
pub use outcome::{FixOutcome, SOURCES, Stage};
pub use tally::{SAMPLES, TALLIES, Tally, name as tally_name};
