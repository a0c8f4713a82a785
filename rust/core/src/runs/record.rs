//! What a run in flight keeps in the arena: the cells of its record, and how they are packed.

use crate::series::{Kind, SeriesId};

// Cells of a record. Model calls have tokens, every other run has children: they share four cells.
pub(super) const START: usize = 0;
pub(super) const PARENT: usize = 1;
/// Flags | 23 bits of the start | kind | of a model call its longest gap in microseconds, of others the newest of the spans under it.
pub(super) const WHO: usize = 2;
/// Series of the component | of the requested model | of its gaps; of others the root's slot, plus one, and 16
/// bits of its key.
pub(super) const IDS: usize = 3;
/// The last token; of others when a model call under it failed.
pub(super) const LAST: usize = 4;
/// First visible output | first output of any kind | first chunk of any kind, 21 bits each, see `in_brief`; of
/// others the time that children cover: the sum of the moments when the last of them ended, less that of those when the
/// first of them began, wrapping.
pub(super) const FIRST: usize = 5;
/// Token events; of others the model that failed, plus one.
pub(super) const EVENTS: usize = 6;
pub(super) const CHILDREN: usize = 7;

/// In `WHO`: it holds something of a budget.
pub(super) const BUDGETED: u64 = 1 << 63;
/// In `WHO`: it carries labels.
pub(super) const LABELED: u64 = 1 << 62;
/// In `WHO`: it or an ancestor is a second attempt or a later one.
pub(super) const RETRIED: u64 = 1 << 61;
/// In `WHO`: it lives on the step before it in a sequence; see `Span::piped`.
pub(super) const PIPED: u64 = 1 << 60;
/// In `WHO`: its parent was in flight when it started.
pub(super) const CHILD: u64 = 1 << 59;
/// In `WHO`: bits of its start, which tell it from the slot's next run.
pub(super) const SINCE: u64 = ((1 << 23) - 1) << 36;
/// Bits of a root's slot in `IDS`, plus one: at most 2^25 and some. Bits of its key above them.
const SLOT_BITS: u32 = 27;
/// Bits of a series in `IDS`: 1,000,000 and some.
pub(super) const SERIES_BITS: u32 = 21;
pub(super) const SERIES: u64 = (1 << SERIES_BITS) - 1;
/// In `LAST`: no token yet, the rest is the start. A recycled slot never shows the value a late token saw.
pub(super) const NO_TOKEN: u64 = 1 << 63;
/// In `EVENTS`: this run reports its tokens by `on_llm_new_token`; 23 bits of its start, which tell it from
/// the slot's next run; 40 bits of count.
pub(super) const BY_TOKEN: u64 = 1 << 63;
pub(super) const COUNT: u64 = (1 << 40) - 1;
/// In `CHILDREN`: an ancestor has ended; the rest is when.
pub(super) const ORPHAN: u64 = 1 << 63;
pub(super) const LOW: u64 = 0xFFFF_FFFF;

pub(super) const fn kind_code(who: u64) -> u64 {
    who >> 32 & 0xF
}

pub(super) const fn is_model_call(who: u64) -> bool {
    kind_code(who) == Kind::Llm as u64
}

/// The n-th series of an `IDS` cell.
#[allow(clippy::cast_possible_truncation)] // 21 bits
pub(super) const fn series_in(ids: u64, n: u32) -> SeriesId {
    (ids >> n.wrapping_mul(SERIES_BITS) & SERIES) as usize
}

/// Microseconds in 32 bits: rounded as the histograms round.
pub(super) const fn in_micros(nanos: u64) -> u64 {
    let micros = nanos.saturating_add(500) / 1000;
    if micros < LOW { micros } else { LOW }
}

/// Bits of one of the three times in `FIRST`.
pub(super) const BRIEF_BITS: u32 = 21;
const BRIEF: u64 = (1 << BRIEF_BITS) - 1;
/// Bits of its leading digits; the rest says how many digits follow.
const DIGITS: u32 = 16;

/// Microseconds to 1 part in 65,536, at least one, in 21 bits.
pub(super) const fn in_brief(nanos: u64) -> u64 {
    let micros = nanos.saturating_add(500) / 1000;
    let micros = if micros == 0 { 1 } else { micros };
    let more = u64::BITS.saturating_sub(micros.leading_zeros()).saturating_sub(DIGITS);
    if more >= 1 << (BRIEF_BITS - DIGITS) {
        return BRIEF;
    }
    let rounded = micros.saturating_add((1 << more) >> 1) >> more;
    // Rounded up to the next power of two: one digit more.
    let (digits, more) = if rounded >> DIGITS == 0 { (rounded, more) } else { (rounded >> 1, more.wrapping_add(1)) };
    digits | (more as u64) << DIGITS
}

/// The n-th of the three times in a `FIRST` cell, nanoseconds; None for none.
pub(super) fn brief_in(first: u64, n: u32) -> Option<u64> {
    let brief = first >> n.wrapping_mul(BRIEF_BITS) & BRIEF;
    let micros = (brief & ((1 << DIGITS) - 1)) << (brief >> DIGITS);
    (brief != 0).then(|| micros.saturating_mul(1000))
}

/// A `FIRST` cell with its n-th time set, unless it is.
pub(super) const fn with_brief(first: u64, n: u32, brief: u64) -> u64 {
    let at = n.wrapping_mul(BRIEF_BITS);
    if first >> at & BRIEF == 0 { first | brief << at } else { first }
}

/// What a `WHO` cell begins as.
pub(super) const fn who_cell(kind: Kind, start: u64, flags: u64) -> u64 {
    flags | start << 36 & SINCE | (kind as u64) << 32
}

/// The slot and the key of a root, in 43 bits.
pub(super) const fn root_bits(slot: usize, key: u64) -> u64 {
    (slot as u64).wrapping_add(1) | (key & 0xFFFF) << SLOT_BITS
}

/// The slot; None where there is no root.
#[allow(clippy::cast_possible_truncation)] // 27 bits
pub(super) fn root_slot(bits: u64) -> Option<usize> {
    ((bits & ((1 << SLOT_BITS) - 1)) as usize).checked_sub(1)
}

/// Whether a `WHO` and an `EVENTS` cell are of one run.
pub(super) const fn same_start(who: u64, events: u64) -> bool {
    (who << 4 ^ events) & !(COUNT | BY_TOKEN) == 0
}
