//! The record of a run in flight: eight cells, one cache line, and how they are packed.
//!
//! Four cells mean the same for every run. The other four are those of a model call ([`super::call::CallRecord`]) or
//! those of any other run ([`super::component::ComponentRecord`]). Each cell that is written after the start
//! carries a tag, bits of the run's start, and is written by exchange: a write that comes after the run has left
//! finds the tag of the slot's next run, and changes nothing.

use crate::arena::Line;
use crate::series::{Kind, SeriesId};

/// Clock reading of the start.
pub(super) const START: usize = 0;
/// Key of the parent; 0 without one.
pub(super) const PARENT: usize = 1;
/// Flags | tag | kind | of a model call its longest gap (see [`gap_bits`]), of any other run the newest span below it.
pub(super) const WHO: usize = 2;
/// Series of the component | of a model call the series of the requested model and of its gaps, of any other run
/// the slot of its root, plus one, and 16 bits of the root's key.
pub(super) const IDS: usize = 3;
/// `ORPHAN` | tag | children that have started and not ended, or when an ancestor ended, in microseconds.
pub(super) const CHILDREN: usize = 7;

/// In `WHO`: the run holds a reservation.
pub(super) const BUDGETED: u64 = 1 << 63;
/// In `WHO`: the run carries labels.
pub(super) const LABELED: u64 = 1 << 62;
/// In `WHO`: the run or an ancestor is a second attempt or a later one.
pub(super) const RETRIED: u64 = 1 << 61;
/// In `WHO`: the run lives on the step before it in a sequence; see `Span::piped`.
pub(super) const PIPED: u64 = 1 << 60;
/// In `WHO`: the parent was in flight when the run started.
pub(super) const CHILD: u64 = 1 << 59;
/// In `WHO`: another run with the same id was in flight at the same time.
pub(super) const SHARED: u64 = 1 << 58;
/// In `LAST` and `FAILED_AT`: nothing yet. Below it are the tag and the witness of the start, until the first event.
pub(super) const NOTHING: u64 = 1 << 63;
/// In `CHILDREN`: an ancestor has ended.
pub(super) const ORPHAN: u64 = 1 << 63;
/// The low 40 bits of a cell with a tag.
pub(super) const LOW_40: u64 = (1 << 40) - 1;
pub(super) const LOW_32: u64 = 0xFFFF_FFFF;
/// Bits of a root's slot in `IDS`, plus one: at most 2^25 and some. Bits of its key above them.
const SLOT_BITS: u32 = 27;
/// Bits of a series in `IDS`: 1,000,000 and some.
pub(super) const SERIES_BITS: u32 = 21;
const SERIES: u64 = (1 << SERIES_BITS) - 1;
const TAG_IN_WHO: u32 = 36;

/// 22 bits of a run's start, which tell it from the next run of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

impl Tag {
    const MASK: u64 = (1 << 22) - 1;
    /// Bits of the short form.
    const SHORT: u64 = (1 << 10) - 1;

    /// The tag of a run that started at `start`.
    pub const fn of_start(start: u64) -> Self {
        Self(start & Self::MASK)
    }

    /// The tag in a `WHO` cell.
    pub const fn of_who(who: u64) -> Self {
        Self(who >> TAG_IN_WHO & Self::MASK)
    }

    /// A cell with this tag and nothing else, 40 bits below it.
    pub const fn cell(self) -> u64 {
        self.0 << 40
    }

    /// Whether a cell made by `cell` has this tag.
    pub const fn is_in(self, cell: u64) -> bool {
        cell >> 40 & Self::MASK == self.0
    }

    /// A cell with the short form of this tag and nothing else, 54 bits below it.
    pub const fn short_cell(self) -> u64 {
        (self.0 & Self::SHORT) << 54
    }

    /// Whether a cell made by `short_cell` has this tag.
    pub const fn is_short_in(self, cell: u64) -> bool {
        cell >> 54 == self.0 & Self::SHORT
    }
}

/// Returns the kind in a `WHO` cell.
pub(super) fn kind_of(who: u64) -> Kind {
    Kind::from_code(who >> 32 & 0xF).unwrap_or(Kind::Chain)
}

/// Whether a `WHO` cell is that of a model call.
pub(super) const fn is_model_call(who: u64) -> bool {
    who >> 32 & 0xF == Kind::Llm as u64
}

/// Returns the n-th series of an `IDS` cell.
#[allow(clippy::cast_possible_truncation)] // 21 bits
pub(super) const fn series_in(ids: u64, n: u32) -> SeriesId {
    (ids >> n.wrapping_mul(SERIES_BITS) & SERIES) as usize
}

/// Gaps below this many microseconds, 36 minutes, are exact in `WHO`; longer ones are to [`COARSE`] of them.
const FINE: u64 = 1 << 31;
/// Bits of a longer gap's microseconds that are left out: 2 ms, 1 part in a million, up to 50 days.
const COARSE: u32 = 11;

/// Returns a gap in the 32 bits that `WHO` has for it, rounded as the histograms round: of two gaps the longer one has
/// no smaller bits.
#[inline]
pub(super) const fn gap_bits(nanos: u64) -> u64 {
    let micros = nanos.saturating_add(500) / 1000;
    if micros < FINE { micros } else { coarse(micros) }
}

#[cold]
const fn coarse(micros: u64) -> u64 {
    let units = micros >> COARSE;
    FINE | if units < FINE { units } else { FINE - 1 }
}

/// Returns the nanoseconds of the gap in a `WHO` cell.
pub(super) const fn gap_in(who: u64) -> u64 {
    let bits = who & LOW_32;
    let micros = if bits < FINE { bits } else { (bits & !FINE) << COARSE };
    micros.saturating_mul(1000)
}

/// Returns a `WHO` cell at the start of a run.
pub(super) const fn who_cell(kind: Kind, start: u64, flags: u64) -> u64 {
    flags | Tag::of_start(start).0 << TAG_IN_WHO | (kind as u64) << 32
}

/// Returns the slot and the key of a root, in 43 bits.
pub(super) const fn root_bits(slot: usize, key: u64) -> u64 {
    (slot as u64).wrapping_add(1) | (key & 0xFFFF) << SLOT_BITS
}

/// Returns the slot of a root; None where there is no root.
#[allow(clippy::cast_possible_truncation)] // 27 bits
pub(super) fn root_slot(bits: u64) -> Option<usize> {
    ((bits & ((1 << SLOT_BITS) - 1)) as usize).checked_sub(1)
}

/// Changes a cell as long as `change` returns a new value for the value that is there; returns that value, or None
/// where `change` returned None.
#[inline]
pub(super) fn update<const CELL: usize>(line: Line<'_>, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let mut value = line.get::<CELL>();
    loop {
        match line.exchange::<CELL>(value, change(value)?) {
            Ok(()) => return Some(value),
            Err(other) => value = other,
        }
    }
}
