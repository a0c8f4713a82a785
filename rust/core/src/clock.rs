//! Time: monotonic, or by hand.

use crate::cells::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds of the first reading of every clock: 0 stays free for "never".
const ORIGIN: u64 = 1_000_000_000;

/// A source of nanoseconds that never runs backwards.
///
/// The wall clock is read once, at construction: when somebody sets it, nothing here moves.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's monotonic clock.
    Monotonic {
        /// When the clock was made.
        anchor: Instant,
        /// The wall clock at that moment, Unix nanoseconds.
        unix: u64,
    },
    /// Moved by hand, for tests.
    Manual(ManualClock),
}

/// A clock that stands still until it is advanced; clones share the time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<Cell>);

impl ManualClock {
    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.0.add(nanos(by));
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Clock {
    /// The machine's monotonic clock, from now.
    pub fn monotonic() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos);
        Self::Monotonic { anchor: Instant::now(), unix }
    }

    /// Nanoseconds on this clock, never 0.
    #[inline]
    pub fn now(&self) -> u64 {
        match self {
            Self::Monotonic { anchor, .. } => {
                let d = anchor.elapsed();
                // 500 years fit; `as_nanos` would go through 128 bits.
                d.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(d.subsec_nanos())).wrapping_add(ORIGIN)
            }
            Self::Manual(clock) => clock.0.get().wrapping_add(ORIGIN),
        }
    }

    /// A reading of this clock as Unix nanoseconds. The manual clock began in 1970.
    pub fn unix(&self, now: u64) -> u64 {
        let since = now.saturating_sub(ORIGIN);
        match self {
            Self::Monotonic { unix, .. } => unix.saturating_add(since),
            Self::Manual(_) => now,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let hand = ManualClock::default();
        let clock = Clock::Manual(hand.clone());
        let t = clock.now();
        assert_eq!(clock.now(), t);
        hand.advance(Duration::from_millis(5));
        assert_eq!(clock.now(), t + 5_000_000);
        assert!(clock.unix(t) > 0);
    }

    #[test]
    fn the_monotonic_clock_never_runs_backwards_and_knows_the_date() {
        let clock = Clock::monotonic();
        let (a, b) = (clock.now(), clock.now());
        assert!(b >= a && a >= ORIGIN);
        let here = nanos(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
        assert!(here.abs_diff(clock.unix(clock.now())) < 1_000_000_000);
    }
}
