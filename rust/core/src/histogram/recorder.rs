//! A histogram in the arena: recording is wait-free, one relaxed add.

use super::{Histogram, Layout, MAX_MICROS, Pool};
use crate::arena::{Cells, LINE};

/// Cells of occupancy bits, one bit a block: one cache line for either precision.
const OCCUPANCY: usize = 8;
const _: () = assert!(Layout::THREE.buckets() <= OCCUPANCY * 64 * Layout::BLOCK);
/// Bits of what is known of a block, two in a cell: its number, and above it one bit for each of its cache lines that has a
/// value. A wide histogram has a value in one line of eight, and a snapshot reads no other.
const HALF: usize = 32;
const NUMBER: usize = 24;
const LOW: u64 = (1 << NUMBER) - 1;
const _: () = assert!(Pool::MOST as u64 <= LOW && NUMBER + Layout::BLOCK / LINE == HALF);
/// In a bucket: its last value is on the list of deferred durations too.
const FILED: u64 = 1 << 63;

/// Result of recording a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The value is in its bucket.
    Whole,
    /// The value exceeded [`MAX_MICROS`] and is in the last bucket.
    Clamped,
    /// The pool had no block left for the value.
    Lost,
}

/// Nanoseconds as microseconds, rounded.
#[inline]
pub const fn in_micros(nanos: u64) -> u64 {
    nanos.saturating_add(500) / 1000
}

/// Position of one histogram in the arena.
///
/// Its buckets lie in blocks of 64, each taken from a pool at its first value; the histogram itself has one bit and one
/// block number for each block.
///
/// Consistency: a snapshot taken beside recording threads contains each value whole or not at all. Two snapshots by one
/// thread never show a bucket falling. Count and sum are derived from the buckets, so they cannot disagree with them. (An
/// exact sum would cost a second atomic add for each value, for a mean that is 0.05 % more precise.)
#[derive(Debug, Clone, Copy)]
pub struct Recorder {
    layout: Layout,
    base: usize,
    pool: Pool,
}

impl Recorder {
    /// Cells a histogram takes: a bit for each block of 64 buckets, and their numbers.
    pub const fn cells(layout: Layout) -> usize {
        OCCUPANCY.saturating_add(layout.blocks().div_ceil(2))
    }

    /// The histogram whose cells begin at `base`.
    pub const fn at(layout: Layout, base: usize, pool: Pool) -> Self {
        Self { layout, base, pool }
    }

    /// Records a duration in nanoseconds, rounded to the microsecond. Durations below one microsecond are recorded as one.
    #[inline]
    pub fn record(self, cells: &Cells, nanos: u64) -> Kept {
        self.add(cells, nanos, 1)
    }

    /// Records a duration that waits elsewhere too, and marks its bucket by the same write. One thread does that, and one
    /// duration at a time; `filed` takes the mark away.
    pub fn file(self, cells: &Cells, nanos: u64) -> Kept {
        self.add(cells, nanos, FILED | 1)
    }

    /// Takes away the mark of `file`.
    pub fn filed(self, cells: &Cells, nanos: u64) {
        if let Some(bucket) = self.bucket(cells, nanos) {
            cells.and(bucket, !FILED);
        }
    }

    /// Whether the bucket of a duration has the mark of `file`.
    pub fn is_filed(self, cells: &Cells, nanos: u64) -> bool {
        self.bucket(cells, nanos).is_some_and(|bucket| cells.get(bucket) & FILED != 0)
    }

    fn bucket(self, cells: &Cells, nanos: u64) -> Option<usize> {
        let index = self.layout.index(in_micros(nanos).clamp(1, MAX_MICROS));
        let (cell, shift) = self.number(index / Layout::BLOCK);
        let number = cells.observe(cell) >> shift & LOW;
        (number != 0).then(|| self.pool.first(number).wrapping_add(index % Layout::BLOCK))
    }

    #[inline]
    fn add(self, cells: &Cells, nanos: u64, n: u64) -> Kept {
        let micros = in_micros(nanos);
        let clamped = micros.clamp(1, MAX_MICROS);
        let index = self.layout.index(clamped);
        let block = index / Layout::BLOCK;
        let (cell, shift) = self.number(block);
        let line = 1 << NUMBER << (index % Layout::BLOCK / LINE);
        // After the first value of a line this is a load from a warm line, never a write.
        let known = cells.observe(cell) >> shift;
        let mut number = known & LOW;
        if known & line == 0 {
            number = self.take(cells, block);
            if number == 0 {
                return Kept::Lost;
            }
            cells.or(cell, line << shift);
        }
        cells.add(self.pool.first(number).wrapping_add(index % Layout::BLOCK), n);
        if clamped < micros { Kept::Clamped } else { Kept::Whole }
    }

    /// Where the number of a block and its lines are stored: cell and shift.
    #[inline]
    const fn number(self, block: usize) -> (usize, usize) {
        (self.base.wrapping_add(OCCUPANCY).wrapping_add(block / 2), (block % 2).wrapping_mul(HALF))
    }

    /// Takes a block from the pool unless that has been done; returns its number, 0 when the pool is empty.
    #[cold]
    fn take(self, cells: &Cells, block: usize) -> u64 {
        let (cell, shift) = self.number(block);
        let number = cells.observe(cell) >> shift & LOW;
        if number != 0 {
            return number;
        }
        let Some(taken) = self.pool.take(cells) else { return 0 };
        // Before the number: a reader that sees the number sees the bit.
        cells.or(self.base.wrapping_add(block / 64), 1 << (block % 64));
        let mut old = cells.observe(cell);
        loop {
            let number = old >> shift & LOW;
            if number != 0 {
                self.pool.give_back(cells, taken);
                return number;
            }
            match cells.claim(cell, old, old | taken << shift) {
                Ok(()) => return taken,
                Err(found) => old = found,
            }
        }
    }

    /// Returns what has been recorded.
    pub fn snapshot(self, cells: &Cells) -> Histogram {
        let mut histogram = Histogram::default();
        Reader::default().read(cells, std::iter::once(((), self)), |(), read| histogram = read);
        histogram
    }

    /// Returns the number of a block and its lines, as a reader sees them.
    fn known(self, cells: &Cells, block: usize) -> u64 {
        let (cell, shift) = self.number(block);
        cells.observe(cell) >> shift & ((1 << HALF) - 1)
    }

    /// Back to zero; call it only while no thread records, and together with the pool.
    pub fn clear(self, cells: &Cells) {
        for cell in self.base..self.base.wrapping_add(Self::cells(self.layout)) {
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
            }
        }
    }
}

/// A block that is being read.
#[derive(Debug)]
struct Block {
    /// Which of the histograms it is of.
    histogram: usize,
    /// Its first bucket.
    index: usize,
    /// Its first cell.
    first: usize,
    lines: u64,
}

/// Reads histograms, several at once: what a step needs is loaded for all of them before the next step, so that the misses of
/// the cache overlap. One after the other they take three times as long in a file that another process has written.
#[derive(Debug, Default)]
pub struct Reader {
    blocks: Vec<Block>,
}

impl Reader {
    /// Calls `f(name, histogram)` for each histogram that is not empty.
    #[allow(clippy::cast_possible_truncation)] // at most 28,671
    pub fn read<N>(
        &mut self,
        cells: &Cells,
        histograms: impl Iterator<Item = (N, Recorder)> + Clone,
        mut f: impl FnMut(N, Histogram),
    ) {
        self.blocks.clear();
        for (histogram, (_, recorder)) in histograms.clone().enumerate() {
            cells.occupied(recorder.base, OCCUPANCY, |cell, mut bits| {
                let word = cell.wrapping_sub(recorder.base).wrapping_mul(64);
                while bits != 0 {
                    let block = word.wrapping_add(bits.trailing_zeros() as usize);
                    bits &= bits.wrapping_sub(1);
                    self.blocks.push(Block { histogram, index: block, first: 0, lines: 0 });
                }
            });
        }
        let mut blocks = self.blocks.iter_mut().peekable();
        for (histogram, (_, recorder)) in histograms.clone().enumerate() {
            let readable = recorder.pool.region.readable(cells) as u64;
            while let Some(block) = blocks.next_if(|block| block.histogram == histogram) {
                let known = recorder.known(cells, block.index);
                let number = known & LOW;
                // Otherwise the block is just being taken, or is not in the file.
                if number != 0 && number <= readable {
                    (block.first, block.lines) = (recorder.pool.first(number), known >> NUMBER);
                }
                block.index = block.index.wrapping_mul(Layout::BLOCK);
            }
        }
        let loaded = self.blocks.iter().fold(0, |sum, block| {
            let line = (block.lines.trailing_zeros() as usize & 7).wrapping_mul(LINE);
            sum ^ cells.get(block.first.wrapping_add(line))
        });
        std::hint::black_box(loaded);
        let mut blocks = self.blocks.iter().peekable();
        for (histogram, (name, recorder)) in histograms.enumerate() {
            let mut buckets = Vec::new();
            while let Some(block) = blocks.next_if(|block| block.histogram == histogram) {
                let mut lines = block.lines;
                while lines != 0 {
                    let line = (lines.trailing_zeros() as usize).wrapping_mul(LINE);
                    lines &= lines.wrapping_sub(1);
                    cells.occupied(block.first.wrapping_add(line), LINE, |cell, count| {
                        let index = block.index.wrapping_add(cell.wrapping_sub(block.first));
                        if buckets.is_empty() {
                            buckets.reserve(64);
                        }
                        buckets.push((index as u32, count & !FILED));
                    });
                }
            }
            if !buckets.is_empty() {
                f(name, Histogram::from_buckets(recorder.layout, buckets));
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A histogram and a pool of a few blocks.
    fn arena(digits: u8, blocks: usize) -> (Cells, Recorder) {
        let layout = Layout::new(digits).expect("digits");
        let own = Recorder::cells(layout).next_multiple_of(8);
        let cells = Cells::zeroed(own + Pool::cells(blocks)).expect("cells");
        (cells, Recorder::at(layout, 0, Pool::at(own, blocks)))
    }

    proptest! {
        #[test]
        fn what_is_recorded_is_what_hdrhistogram_holds(
            values in prop::collection::vec(prop_oneof![1..=MAX_MICROS, 1..10_000_000_u64], 0..200), digits in 2..=3_u8
        ) {
            let (cells, recorder) = arena(digits, 200);
            let mut peer = hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_MICROS, digits).expect("bounds");
            for &v in &values {
                prop_assert_eq!(recorder.record(&cells, v * 1000), Kept::Whole);
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
        let (cells, recorder) = arena(3, 4);
        assert_eq!([0, 499, 500].map(|nanos| recorder.record(&cells, nanos)), [Kept::Whole; 3]);
        assert_eq!(recorder.record(&cells, MAX_MICROS * 1000), Kept::Whole);
        assert_eq!(recorder.record(&cells, u64::MAX), Kept::Clamped);
        let h = recorder.snapshot(&cells);
        assert_eq!(h.count(), 5);
        assert_eq!(h.buckets().next().map(|b| (b.lowest, b.count)), Some((1, 3)));
        assert!(h.quantile_micros(1.0).is_some_and(|v| v >= MAX_MICROS));
    }

    #[test]
    fn a_run_of_a_day_is_told_to_three_digits() {
        let (cells, recorder) = arena(3, 4);
        let day = 86_400_000_000_u64;
        assert_eq!(recorder.record(&cells, day * 1000), Kept::Whole);
        let longest = recorder.snapshot(&cells).max_micros().expect("a value");
        assert!(day <= longest && longest - day < day / 1000, "{longest}");
    }

    #[test]
    fn a_value_that_no_block_is_left_for_is_said_and_the_others_stay() {
        let (cells, recorder) = arena(2, 1);
        assert_eq!(recorder.record(&cells, 5_000), Kept::Whole);
        assert_eq!(recorder.record(&cells, 5_000_000_000), Kept::Lost);
        assert_eq!(recorder.record(&cells, 6_000), Kept::Whole);
        assert_eq!(recorder.snapshot(&cells).count(), 2);
    }

    #[test]
    fn cleared_is_as_new() {
        let (cells, recorder) = arena(2, 2);
        recorder.record(&cells, 5_000_000);
        recorder.clear(&cells);
        recorder.pool.clear(&cells);
        assert_eq!(recorder.snapshot(&cells).count(), 0);
        assert_eq!((cells.get(0), recorder.pool.take(&cells)), (0, Some(1)));
        assert_eq!(recorder.record(&cells, 5_000_000), Kept::Whole);
        assert_eq!(recorder.snapshot(&cells).count(), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn two_threads_that_meet_a_block_first_both_count_and_it_is_taken_once() {
        loom::model(|| {
            let own = Recorder::cells(Layout::TWO).next_multiple_of(8);
            let cells = Arc::new(Cells::zeroed(own + Pool::cells(2)).expect("cells"));
            let recorder = Recorder::at(Layout::TWO, 0, Pool::at(own, 2));
            let other = {
                let cells = Arc::clone(&cells);
                loom::thread::spawn(move || recorder.record(&cells, 5_000))
            };
            assert_eq!(recorder.record(&cells, 5_000), Kept::Whole);
            assert_eq!(other.join().expect("joins"), Kept::Whole);
            assert_eq!(recorder.snapshot(&cells).count(), 2);
            // The other block is still there.
            assert_eq!(recorder.record(&cells, 5_000_000), Kept::Whole);
        });
    }
}
