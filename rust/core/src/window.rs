//! Sliding windows: a ring of one-second slots, each cell tagged with the second it counts.

use crate::arena::Cells;
use std::ops::Range;

/// Slots in the ring: the longest window, 15 minutes, and room to spare.
const SLOTS: u64 = 1024;
/// Low bits of a cell, which count; the bits above hold the lap of the ring they count for.
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const SECOND: u64 = 1_000_000_000;

/// Counters of a window.
pub const METRICS: usize = 4;
/// The windows shown, in seconds.
pub const WINDOWS: [u64; 3] = [60, 300, 900];

/// Counts of one window: requests, input tokens, output tokens, errors.
pub type Counts = [u64; METRICS];

/// The windows of one series in the arena.
///
/// Tag and count share a cell, so one compare-and-swap both moves a slot to its second and takes the first count: an old
/// count is never read as new, and two threads that open the same slot lose nothing. The tag (24 bits of laps of
/// 1,024 s) repeats after 545 years.
///
/// Consistency: a sum over a window may miss at most what the current slot is still receiving. Time is the recorder's
/// monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    base: usize,
    used: usize,
}

impl Window {
    /// Cells of the slots of a series.
    #[allow(clippy::cast_possible_truncation)] // 1024
    pub const SLOTS: usize = SLOTS as usize * METRICS;
    /// Cells of the bits that say which slots were ever used.
    #[allow(clippy::cast_possible_truncation)] // 1024
    pub const USED: usize = SLOTS as usize / 64;
    /// Cells of both.
    pub const CELLS: usize = Self::SLOTS + Self::USED;

    /// The windows whose cells begin at `base`.
    pub const fn at(base: usize) -> Self {
        Self::apart(base, base.saturating_add(Self::SLOTS))
    }

    /// The windows whose slots begin at `base`, and the bits of those that were used at `used`.
    pub const fn apart(base: usize, used: usize) -> Self {
        Self { base, used }
    }

    #[allow(clippy::cast_possible_truncation)] // below 1024
    fn slot(self, second: u64) -> usize {
        self.base.wrapping_add(((second % SLOTS) as usize).wrapping_mul(METRICS))
    }

    /// Adds to the slot of `now`. Lock-free: a retry means another thread has counted.
    #[inline]
    pub fn add(self, cells: &Cells, now: u64, counts: Counts) {
        let second = now / SECOND;
        let tag = second / SLOTS;
        let first = self.slot(second);
        for (i, n) in counts.into_iter().enumerate() {
            if n == 0 {
                continue;
            }
            let cell = first.wrapping_add(i);
            let mut old = cells.get(cell);
            loop {
                let seen = old >> COUNT_BITS;
                if seen > tag {
                    break; // this thread slept for a whole lap; its slot has been reused
                }
                if seen != tag || old == 0 {
                    let (word, bit) = self.bits(second);
                    cells.or(word, bit); // before the slot: who finds the count finds the bit
                }
                let so_far = if seen == tag { old & COUNT_MASK } else { 0 };
                let sum = so_far.saturating_add(n).min(COUNT_MASK);
                match cells.exchange(cell, old, (tag << COUNT_BITS) | sum) {
                    Ok(()) => break,
                    Err(found) => old = found,
                }
            }
        }
    }

    /// The counts of the last 60, 300 and 900 seconds before `now`.
    pub fn sums(self, cells: &Cells, now: u64) -> [Counts; 3] {
        let second = now / SECOND;
        let mut sums = [Counts::default(); 3];
        let mut running = Counts::default();
        // Seconds from `end` on are summed already.
        let mut end = second.saturating_add(1);
        for (window, out) in WINDOWS.iter().zip(sums.iter_mut()) {
            let begin = second.saturating_add(1).saturating_sub(*window);
            while end > begin {
                // The slots of one word of the bitmap, or those of them that are wanted.
                let last = end.saturating_sub(1);
                let first = last.saturating_sub(last % 64).max(begin);
                self.add_slots(cells, first..end, &mut running);
                end = first;
            }
            *out = running;
        }
        sums
    }

    /// Adds what seconds counted whose slots have their bits in one word.
    fn add_slots(self, cells: &Cells, seconds: Range<u64>, sums: &mut Counts) {
        let word = cells.get(self.bits(seconds.start).0);
        let mut used = word >> (seconds.start % 64) << (seconds.start % 64);
        while used != 0 {
            let second = seconds.start.saturating_sub(seconds.start % 64).saturating_add(used.trailing_zeros().into());
            used &= used.wrapping_sub(1);
            if second >= seconds.end {
                break;
            }
            let lap = second / SLOTS;
            for (sum, i) in sums.iter_mut().zip(self.slot(second)..) {
                let value = cells.get(i);
                if value >> COUNT_BITS == lap {
                    *sum = sum.saturating_add(value & COUNT_MASK);
                }
            }
        }
    }

    /// Cell and mask of the bit that says whether the slot of a second has ever been used: a reader of many windows, most
    /// of whose slots are empty, takes a tenth of the time.
    #[allow(clippy::cast_possible_truncation)] // below 16
    const fn bits(self, second: u64) -> (usize, u64) {
        let word = ((second % SLOTS) / 64) as usize;
        (self.used.wrapping_add(word), 1 << (second % 64))
    }

    /// Back to zero; call it only while no thread records.
    pub fn clear(self, cells: &Cells) {
        let slots = self.base..self.base.wrapping_add(Self::SLOTS);
        for cell in slots.chain(self.used..self.used.wrapping_add(Self::USED)) {
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arena() -> (Cells, Window) {
        (Cells::zeroed(Window::CELLS).expect("cells"), Window::at(0))
    }

    proptest! {
        #[test]
        fn a_window_is_off_by_at_most_one_slot(
            steps in prop::collection::vec((0..400_000_u64, 1..50_u64), 1..80)
        ) {
            let (cells, window) = arena();
            let (mut now, mut log) = (5 * SECOND, Vec::new());
            for (millis, n) in steps {
                now += millis * 1_000_000;
                window.add(&cells, now, [n, 0, 2 * n, 0]);
                log.push((now, n));
            }
            for (sums, seconds) in window.sums(&cells, now).iter().zip(WINDOWS) {
                let within = |span: u64| log.iter().filter(|(t, _)| now - t < span).map(|(_, n)| n).sum::<u64>();
                let (least, most) = (within((seconds - 1) * SECOND), within(seconds * SECOND));
                prop_assert!(sums[0] >= least && sums[0] <= most, "{} not in {least}..={most}", sums[0]);
                prop_assert_eq!(sums[2], 2 * sums[0]);
                prop_assert_eq!((sums[1], sums[3]), (0, 0));
            }
        }
    }

    #[test]
    fn an_old_lap_is_not_counted_and_a_late_thread_writes_nothing() {
        let (cells, window) = arena();
        let early = 10 * SECOND;
        window.add(&cells, early, [7, 0, 0, 0]);
        let late = early + SLOTS * SECOND;
        assert_eq!(window.sums(&cells, late)[2][0], 0);
        window.add(&cells, late, [1, 0, 0, 0]);
        window.add(&cells, early, [7, 0, 0, 0]);
        assert_eq!(window.sums(&cells, late)[0][0], 1);
    }

    #[test]
    fn a_slot_saturates_instead_of_running_into_its_tag() {
        let (cells, window) = arena();
        window.add(&cells, SECOND, [COUNT_MASK, 0, 0, 0]);
        window.add(&cells, SECOND, [u64::MAX, 0, 0, 0]);
        assert_eq!(window.sums(&cells, SECOND)[0][0], COUNT_MASK);
        window.clear(&cells);
        assert_eq!(window.sums(&cells, SECOND), [Counts::default(); 3]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn two_threads_that_open_a_slot_both_count() {
        loom::model(|| {
            let cells = Arc::new(Cells::zeroed(Window::CELLS).expect("cells"));
            let window = Window::at(0);
            // One lap later in the same slot: both find the old tag.
            cells.set(0, 9);
            let now = SLOTS * SECOND;
            let other = {
                let cells = Arc::clone(&cells);
                loom::thread::spawn(move || window.add(&cells, now, [2, 0, 0, 0]))
            };
            window.add(&cells, now, [3, 0, 0, 0]);
            other.join().expect("joins");
            assert_eq!(cells.get(0), (1 << COUNT_BITS) | 5);
        });
    }
}
