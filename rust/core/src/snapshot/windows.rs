//! Counts of sliding windows in a snapshot.

use crate::metrics::COUNTERS;
use crate::window::Counts;
use serde::{Deserialize, Serialize};

/// Counts of one sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WindowCounts {
    /// Its length in seconds.
    pub seconds: u64,
    /// Nanoseconds of it during which the recorder existed.
    pub covered: u64,
    /// Requests, input tokens, output tokens, errors.
    pub counts: Counts,
}

/// What a window counts of counters: requests (all outcomes), input, output, errors.
pub(crate) fn window_counts(counters: &[u64; COUNTERS]) -> Counts {
    let sum = |cells: &[u64]| cells.iter().fold(0_u64, |s, n| s.saturating_add(*n));
    let [ok, error, cancelled, abandoned, interrupted, cache_hit, input, output, ..] = *counters;
    [sum(&[ok, error, cancelled, abandoned, interrupted, cache_hit]), input, output, error]
}

/// Adds the counts; the time covered is the longer of the two.
pub(crate) fn add_windows(to: &mut Vec<WindowCounts>, others: &[WindowCounts]) {
    for other in others {
        let at = to.partition_point(|window| window.seconds < other.seconds);
        match to.get_mut(at) {
            Some(window) if window.seconds == other.seconds => {
                window.covered = window.covered.max(other.covered);
                for (sum, n) in window.counts.iter_mut().zip(other.counts) {
                    *sum = sum.saturating_add(n);
                }
            }
            _ => to.insert(at, *other),
        }
    }
}
