//! Clocks: the machine's, and one that tests advance by hand.

use crate::arena::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// First reading of every clock, nanoseconds: 0 stays free for "never".
const ORIGIN: u64 = 1_000_000_000;

/// A source of nanoseconds that never runs backwards.
///
/// On Linux it counts suspension (`CLOCK_BOOTTIME`), so that midnight is on time and the age of a run includes a night
/// of sleep; on other systems it stops while the machine is suspended.
///
/// The wall clock is read once, at construction: setting the system time later moves nothing here.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    Monotonic {
        /// When the clock was made.
        anchor: Anchor,
        /// The wall clock at that moment, Unix nanoseconds.
        unix: u64,
    },
    /// A clock for tests, moved by hand.
    Manual(ManualClock),
}

/// A moment of the machine's clock.
#[derive(Debug, Clone, Copy)]
#[cfg(all(target_os = "linux", not(miri)))]
pub struct Anchor(u64);

#[cfg(all(target_os = "linux", not(miri)))]
impl Anchor {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self(t.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec.cast_unsigned()))
    }

    /// Nanoseconds since then.
    #[inline]
    pub fn elapsed(self) -> u64 {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A moment of the machine's clock.
#[derive(Debug, Clone, Copy)]
#[cfg(not(all(target_os = "linux", not(miri))))]
pub struct Anchor(std::time::Instant);

#[cfg(not(all(target_os = "linux", not(miri))))]
impl Anchor {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        Self(std::time::Instant::now())
    }

    /// Nanoseconds since then.
    #[inline]
    pub fn elapsed(self) -> u64 {
        let d = self.0.elapsed();
        // 500 years fit; `as_nanos` would go through 128 bits.
        d.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(d.subsec_nanos()))
    }
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
        Self::Monotonic { anchor: Anchor::now(), unix }
    }

    /// The time since boot at which the clock was made, and the wall clock at that moment, nanoseconds: with both, another
    /// process of the same boot reads the same clock. None for a manual one.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub const fn origin(&self) -> Option<(u64, u64)> {
        match self {
            Self::Monotonic { anchor, unix } => Some((anchor.0, *unix)),
            Self::Manual(_) => None,
        }
    }

    /// The clock of this origin.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub const fn of_origin((anchor, unix): (u64, u64)) -> Self {
        Self::Monotonic { anchor: Anchor(anchor), unix }
    }

    /// Nanoseconds on this clock, never 0.
    #[inline]
    pub fn now(&self) -> u64 {
        match self {
            Self::Monotonic { anchor, .. } => anchor.elapsed().wrapping_add(ORIGIN),
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
    fn the_clock_of_the_machine_never_runs_backwards_and_knows_the_date() {
        let clock = Clock::monotonic();
        let (a, b) = (clock.now(), clock.now());
        assert!(b >= a && a >= ORIGIN);
        let here = nanos(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970"));
        assert!(here.abs_diff(clock.unix(clock.now())) < 1_000_000_000);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn on_linux_the_clock_counts_the_time_since_boot_suspended_or_not() {
        // The kernel's documentation: uptime counts suspension, `CLOCK_MONOTONIC` does not.
        let uptime = std::fs::read_to_string("/proc/uptime").expect("uptime");
        let seconds: f64 = uptime.split(' ').next().and_then(|s| s.parse().ok()).expect("seconds");
        let here = Duration::from_nanos(Anchor::now().0).as_secs_f64();
        assert!((here - seconds).abs() < 1.0, "{here} where the machine has been up for {seconds} s");
    }
}
