//! A histogram in the arena: recording is wait-free, one relaxed add.

use super::{Histogram, Layout, MAX_MICROS};
use crate::cells::Cells;

/// Cells of occupancy bits, a bit a block: a cache line does for either precision.
const OCCUPANCY: usize = 8;
const _: () = assert!(Layout::THREE.buckets() <= OCCUPANCY * 64 * Layout::BLOCK);

/// Nanoseconds as microseconds, rounded.
#[inline]
pub const fn in_micros(nanos: u64) -> u64 {
    nanos.saturating_add(500) / 1000
}

/// Where one histogram lives in the arena.
///
/// Consistency: a snapshot that runs beside recorders sees each value whole or not yet. Two snapshots by
/// one thread never show a bucket falling. There is no separate count or sum that could disagree with
/// the buckets: both are derived from them. (An exact sum would be a second locked add for each
/// value, for a mean that is 0.05 % better.)
#[derive(Debug, Clone, Copy)]
pub struct Recorder {
    layout: Layout,
    base: usize,
}

impl Recorder {
    /// Cells a histogram takes: an occupancy bit for each block of 64 buckets, and the buckets.
    pub const fn cells(layout: Layout) -> usize {
        OCCUPANCY.saturating_add(layout.buckets())
    }

    /// The histogram whose cells begin at `base`.
    pub const fn at(layout: Layout, base: usize) -> Self {
        Self { layout, base }
    }

    /// Records a duration in nanoseconds, rounded to the microsecond; true when it had to be clamped
    /// to an hour. What is shorter than a microsecond is recorded as one.
    #[inline]
    pub fn record(self, cells: &Cells, nanos: u64) -> bool {
        let micros = in_micros(nanos);
        let kept = micros.clamp(1, MAX_MICROS);
        let index = self.layout.index(kept);
        let block = index / Layout::BLOCK;
        let (word, bit) = (self.base.wrapping_add(block / 64), 1 << (block % 64));
        // After the first value of a block this is a load of a warm line, never a write. Before the
        // count: a child that is forked in between then finds the block when it clears.
        if cells.get(word) & bit == 0 {
            cells.or(word, bit);
        }
        cells.add(self.buckets().wrapping_add(index), 1);
        kept < micros
    }

    const fn buckets(self) -> usize {
        self.base.wrapping_add(OCCUPANCY)
    }

    /// Calls `f(index, cell, count)` for each occupied bucket, ascending.
    fn each(self, cells: &Cells, mut f: impl FnMut(usize, usize, u64)) {
        for word in 0..OCCUPANCY {
            let mut bits = cells.get(self.base.wrapping_add(word));
            while bits != 0 {
                let block = word.wrapping_mul(64).wrapping_add(bits.trailing_zeros() as usize);
                bits &= bits.wrapping_sub(1);
                let first = block.wrapping_mul(Layout::BLOCK);
                let base = self.buckets();
                cells.occupied(base.wrapping_add(first), Layout::BLOCK, |cell, count| {
                    f(cell.wrapping_sub(base), cell, count);
                });
            }
        }
    }

    /// What has been recorded so far.
    #[allow(clippy::cast_possible_truncation)] // at most 23,551
    pub fn snapshot(self, cells: &Cells) -> Histogram {
        let mut buckets = Vec::new();
        self.each(cells, |index, _, count| buckets.push((index as u32, count)));
        Histogram::from_buckets(self.layout, buckets)
    }

    /// Back to zero; only while nobody records.
    pub fn clear(self, cells: &Cells) {
        self.each(cells, |_, cell, _| cells.set(cell, 0));
        for word in 0..OCCUPANCY {
            cells.set(self.base.wrapping_add(word), 0);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arena(digits: u8) -> (Cells, Recorder) {
        let layout = Layout::new(digits).expect("digits");
        (Cells::zeroed(Recorder::cells(layout)).expect("cells"), Recorder::at(layout, 0))
    }

    proptest! {
        #[test]
        fn what_is_recorded_is_what_hdrhistogram_holds(
            values in prop::collection::vec(1..=MAX_MICROS, 0..200), digits in 2..=3_u8
        ) {
            let (cells, recorder) = arena(digits);
            let mut peer = hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_MICROS, digits).expect("bounds");
            for &v in &values {
                prop_assert!(!recorder.record(&cells, v * 1000));
                peer.record(v).expect("in range");
            }
            let ours: Vec<_> = recorder.snapshot(&cells).buckets().map(|b| (b.highest, b.count)).collect();
            let theirs: Vec<_> =
                peer.iter_recorded().map(|b| (peer.highest_equivalent(b.value_iterated_to()), b.count_at_value())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn what_is_too_short_is_a_microsecond_and_what_is_too_long_is_said() {
        let (cells, recorder) = arena(3);
        assert!(!recorder.record(&cells, 0));
        assert!(!recorder.record(&cells, 499));
        assert!(!recorder.record(&cells, 500));
        assert!(recorder.record(&cells, u64::MAX));
        let h = recorder.snapshot(&cells);
        assert_eq!(h.count(), 4);
        assert_eq!(h.buckets().next().map(|b| (b.lowest, b.count)), Some((1, 3)));
        assert!(h.quantile_micros(1.0).is_some_and(|v| v >= MAX_MICROS));
    }

    #[test]
    fn cleared_is_as_new() {
        let (cells, recorder) = arena(2);
        recorder.record(&cells, 5_000_000);
        recorder.clear(&cells);
        assert_eq!(recorder.snapshot(&cells).count(), 0);
        assert_eq!(cells.get(0), 0);
    }
}
