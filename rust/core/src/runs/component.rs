//! The record of a run that is not a model call: its children, and the model calls that failed under it.

use super::call::{add_echo, echoes_in};
use super::packing::{LOW_32, NOTHING, Tag, update};
use crate::arena::Line;
use crate::series::SeriesId;

/// When a model call under it failed, or `NOTHING` | tag | witness.
const FAILED_AT: usize = 4;
/// Short tag | 54 bits of the time that children cover: the sum of the moments when the last of them ended, less that
/// of the moments when the first of them began, in nanoseconds, wrapping.
const COVERED: usize = 5;
const COVERED_BITS: u64 = (1 << 54) - 1;
/// Tag | how often the start came again, 8 bits | series of the model that failed, plus one.
const FAILED_MODEL: usize = 6;

/// The cells of a run that is not a model call that change after its start.
#[derive(Clone, Copy)]
pub(super) struct ComponentRecord<'a> {
    line: Line<'a>,
    tag: Tag,
}

impl<'a> ComponentRecord<'a> {
    pub const fn new(line: Line<'a>, tag: Tag) -> Self {
        Self { line, tag }
    }

    /// Writes the cells of a run that starts.
    pub fn begin(self, witness: u64) {
        self.line.swap::<COVERED>(self.tag.short_cell());
        self.line.swap::<FAILED_MODEL>(self.tag.cell());
        // After the model: whoever sees this of the slot's next run sees the model's tag changed.
        self.line.swap::<FAILED_AT>(NOTHING | self.tag.cell() | witness);
    }

    /// Notes that a child runs from `now` on, where none did.
    pub fn covered_from(self, now: u64) {
        self.cover(now.wrapping_neg());
    }

    /// Notes that the last open child has ended at `now`.
    pub fn covered_until(self, now: u64) {
        self.cover(now);
    }

    fn cover(self, n: u64) {
        update::<COVERED>(self.line, |covered| {
            let sum = covered.wrapping_add(n) & COVERED_BITS;
            self.tag.is_short_in(covered).then_some(self.tag.short_cell() | sum)
        });
    }

    /// Returns the nanoseconds that children cover until `now`; `open`: a child still runs.
    pub fn covered(self, open: bool, now: u64) -> u64 {
        let sum = self.line.get::<COVERED>();
        (if open { sum.wrapping_add(now) } else { sum }) & COVERED_BITS
    }

    /// Notes that a call of a model failed under this run.
    pub fn failed(self, model: SeriesId, now: u64) {
        let before = self.line.observe::<FAILED_AT>();
        let noted = update::<FAILED_MODEL>(self.line, |cell| {
            self.tag.is_in(cell).then_some(cell & !LOW_32 | (model as u64).wrapping_add(1))
        });
        if noted.is_some() {
            // After the other, which has the tag. Where two fail at once, either may be the one that is noted.
            let _ = self.line.claim::<FAILED_AT>(before, now);
        }
    }

    /// Returns the model of a call that failed under this run and that none made good; None without one.
    #[allow(clippy::cast_possible_truncation)] // a series
    pub fn failed_model(self) -> Option<SeriesId> {
        let failed = self.line.get::<FAILED_AT>() & NOTHING == 0;
        failed.then(|| ((self.line.get::<FAILED_MODEL>() & LOW_32) as usize).checked_sub(1))?
    }

    /// Returns the model whose failed call the call that began at `start` made good, once.
    #[allow(clippy::cast_possible_truncation)] // a series
    pub fn recovered(self, start: u64) -> Option<SeriesId> {
        let failed = self.line.observe::<FAILED_AT>();
        if failed & NOTHING != 0 || failed > start {
            return None;
        }
        let model = Some(self.line.get::<FAILED_MODEL>()).filter(|model| self.tag.is_in(*model))?;
        self.line.exchange::<FAILED_AT>(failed, failed | NOTHING).ok()?;
        ((model & LOW_32) as usize).checked_sub(1)
    }

    /// Whether the start of this run with this witness is its last event; then counts that it came again.
    pub fn started_again(self, witness: u64) -> bool {
        let (failed, covered) = (self.line.get::<FAILED_AT>(), self.line.get::<COVERED>());
        let untouched = failed == NOTHING | self.tag.cell() | witness && covered == self.tag.short_cell();
        untouched && add_echo::<FAILED_MODEL>(self.line, self.tag)
    }

    /// Returns how often the start came again.
    pub fn echoes(self) -> u64 {
        echoes_in(self.line.get::<FAILED_MODEL>())
    }
}
