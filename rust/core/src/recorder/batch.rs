//! What one event writes: into a snapshot whole, or not at all.

use super::Recorder;
use super::layout::{COUNTER_CELLS, DEFERRED, DEFERRED_CELLS, FILING, MEASURED};
use crate::arena::Phase;
use crate::histogram::{Kept, MAX_MICROS, in_micros};
use crate::metrics::{Counter, Dropped, Measure, OUTCOMES, Outcome};
use crate::series::SeriesId;
use crate::stops::stop;
use std::ops::Deref;

/// In a deferred duration: it has been written.
const PRESENT: u64 = 1 << 63;
/// Bits of its microseconds, and of its measure above them.
const MICROS: u32 = 38;
const MEASURE: u32 = 4;
const _: () = assert!(MAX_MICROS >> MICROS == 0 && Measure::ALL.len() <= 1 << MEASURE);

/// The counters and durations of one event.
///
/// Each series has two banks of counters, one a phase: what is written while a snapshot reads goes to the second one,
/// and its durations to a list that the snapshot files when it is done. So a snapshot reads cells that stand still:
/// it has each event as a whole or not at all, and recording threads do not wait for it.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    recorder: &'a Recorder,
    phase: Phase,
}

impl Deref for Batch<'_> {
    type Target = Recorder;

    #[inline]
    fn deref(&self) -> &Recorder {
        self.recorder
    }
}

impl Drop for Batch<'_> {
    #[inline]
    fn drop(&mut self) {
        stop!(Counted);
        self.phaser.leave(&self.cells, self.phase);
    }
}

impl Batch<'_> {
    /// Where a counter of a series lies for this event.
    #[inline]
    pub(super) fn counter(&self, id: SeriesId, which: usize) -> usize {
        self.block(id).wrapping_add(self.phase.wrapping_mul(COUNTER_CELLS)).wrapping_add(which)
    }

    pub(super) fn bump(&self, id: SeriesId, counter: Counter, n: u64) {
        if n > 0 {
            self.cells.add(self.counter(id, OUTCOMES.wrapping_add(counter as usize)), n);
        }
    }

    /// As `bump`, for money: a counter of pico-dollars is full after 18.4 million USD, and stays there.
    pub(super) fn bump_money(&self, id: SeriesId, counter: Counter, n: u64) {
        let cell = self.counter(id, OUTCOMES.wrapping_add(counter as usize));
        if n > 0 && !self.cells.add_saturating(cell, n) {
            self.drop_one(Dropped::MoneySaturated);
        }
    }

    pub(super) fn outcome(&self, id: SeriesId, outcome: Outcome) {
        self.cells.add(self.counter(id, outcome as usize), 1);
    }

    /// Records a duration in nanoseconds.
    pub(super) fn record(&self, id: SeriesId, measure: Measure, nanos: u64) {
        if self.phase == 0 || !self.defer(id, measure, nanos) {
            self.record_at_once(id, measure, nanos);
        }
    }

    /// False where the list is full: then the snapshot that is being read is tried again.
    #[cold]
    fn defer(&self, id: SeriesId, measure: Measure, nanos: u64) -> bool {
        let micros = in_micros(nanos);
        if micros > MAX_MICROS {
            self.drop_one(Dropped::Clamped);
        }
        let place = self.cells.add(self.deferred, 1);
        stop!(PlaceTaken);
        let there = usize::try_from(place).ok().filter(|n| *n < DEFERRED_CELLS);
        let Some(there) = there else { return false };
        let what = (id as u64) << MEASURE | measure as u64;
        let cell = self.deferred.wrapping_add(DEFERRED).wrapping_add(there);
        self.cells.publish(cell, PRESENT | what << MICROS | micros.min(MAX_MICROS));
        stop!(Deferred);
        true
    }
}

impl Recorder {
    /// Begins the writes of one event, which end when it is dropped. It must not run foreign code: a snapshot waits for
    /// it.
    #[inline]
    pub(super) fn batch(&self) -> Batch<'_> {
        let phase = self.phaser.enter(&self.cells);
        stop!(Entered);
        Batch { recorder: self, phase }
    }

    /// Records a duration in nanoseconds, whatever a snapshot is doing: for what no counter has to agree with.
    pub(super) fn record_at_once(&self, id: SeriesId, measure: Measure, nanos: u64) {
        self.measures(id, measure);
        self.note_kept(self.histogram(id, measure).record(&self.cells, nanos));
    }

    #[inline]
    fn measures(&self, id: SeriesId, measure: Measure) {
        let (measured, bit) = (self.block(id).wrapping_add(MEASURED), 1 << measure as usize);
        if self.cells.get(measured) & bit == 0 {
            self.cells.or(measured, bit);
        }
    }

    #[inline]
    fn note_kept(&self, kept: Kept) {
        match kept {
            Kept::Whole => {}
            Kept::Clamped => self.drop_one(Dropped::Clamped),
            Kept::Lost => self.drop_one(Dropped::DurationsLost),
        }
    }

    /// Back to none; call it only while no thread records.
    pub(super) fn clear_deferred(&self) {
        let places = usize::try_from(self.cells.get(self.deferred)).map_or(DEFERRED_CELLS, |n| n.min(DEFERRED_CELLS));
        for cell in self.deferred..self.deferred.wrapping_add(DEFERRED).wrapping_add(places) {
            self.cells.set(cell, 0);
        }
    }

    /// Whether the list of deferred durations has run over.
    pub(super) fn deferred_ran_over(&self) -> bool {
        self.cells.get(self.deferred) > DEFERRED_CELLS as u64
    }

    /// The durations that wait in the file of a dead process, each with its series, in microseconds.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    pub(super) fn deferred_durations(&self) -> Vec<(SeriesId, Measure, u64)> {
        let places = usize::try_from(self.cells.get(self.deferred)).map_or(DEFERRED_CELLS, |n| n.min(DEFERRED_CELLS));
        let (first, filing) =
            (self.deferred.wrapping_add(DEFERRED), self.cells.get(self.deferred.wrapping_add(FILING)));
        let waiting = (first..first.wrapping_add(places)).filter_map(|cell| {
            let (id, measure, micros) = duration(self.cells.observe(cell))?;
            let is_filed =
                filing == cell as u64 && self.histogram(id, measure).is_filed(&self.cells, micros.saturating_mul(1000));
            (!is_filed).then_some((id, measure, micros))
        });
        waiting.collect()
    }

    /// Records the durations that were deferred. Only for the one reader, and only where no writer is left in phase 1.
    ///
    /// A process that is killed has each of them once, in its histogram or in the list: the bucket to which one is added is
    /// marked by the same add, until it is off the list.
    #[allow(clippy::cast_possible_truncation)] // at most DEFERRED_CELLS
    pub(super) fn file_deferred(&self) {
        let places = self.cells.get(self.deferred).min(DEFERRED_CELLS as u64) as usize;
        let first = self.deferred.wrapping_add(DEFERRED);
        for cell in first..first.wrapping_add(places) {
            if let Some((id, measure, micros)) = duration(self.cells.observe(cell)) {
                self.measures(id, measure);
                let (histogram, nanos) = (self.histogram(id, measure), micros.saturating_mul(1000));
                self.cells.publish(self.deferred.wrapping_add(FILING), cell as u64);
                let result = histogram.file(&self.cells, nanos);
                stop!(Filed);
                self.cells.publish(cell, 0);
                histogram.filed(&self.cells, nanos);
                self.note_kept(result);
            }
        }
        self.cells.set(self.deferred, 0);
    }
}

/// The parts of a deferred duration; None where it has not been written.
#[allow(clippy::cast_possible_truncation)] // parts of a cell
fn duration(cell: u64) -> Option<(SeriesId, Measure, u64)> {
    let measure = Measure::ALL.get((cell >> MICROS) as usize & ((1 << MEASURE) - 1))?;
    let id = ((cell & !PRESENT) >> MICROS >> MEASURE) as SeriesId;
    (cell & PRESENT != 0).then_some((id, *measure, cell & ((1 << MICROS) - 1)))
}
