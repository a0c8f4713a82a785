//! Label set → series, capped.

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use super::{Kind, LabelSet, OTHER, SEPARATOR};
use crate::arena::{Cells, Region};
use crate::error::Error;
use crate::stops::stop;

/// Longest `a` and `b` kept, bytes.
const LONGEST: (usize, usize) = (248, 256);
/// One cell of lengths, then the text.
const TEXT_CELLS: usize = 64;

/// Keys of a cache line, and keys that a look-up reads at most.
const LINE: usize = 8;
const PROBES: usize = if cfg!(loom) { 4 } else { 64 };
/// In a key: its series plus one; the bits above are of the hash of its text.
const ID_BITS: u32 = 21;
const ID: u64 = (1 << ID_BITS) - 1;
/// In the cell before a text: it is shown.
const SHOWN: u64 = 1 << 63;
// The header: series ever taken | the list of those that were given back, and a count against ABA above.
const TAKEN: usize = 0;
const SPARE: usize = 1;
const HEADER: usize = 8;
const LOW: u64 = 0xFFFF_FFFF;

/// The table of label sets in the arena.
///
/// Keys, twice as many as series, in lines of 8, and a text for each series. A label set that is not there takes a
/// series, writes its text, and then publishes both in the first free key of its line, or of the lines after it, by one
/// compare-and-swap: who finds a key finds its text. So no thread ever waits for another, and nothing can be left
/// half-locked by a fork. Label sets are the same when their texts are: the hash only says where to look. A series may
/// count the calls of one model alone: then that model's series is a part of what it is, in the head of its text.
///
/// A look-up reads 64 keys at most, whether the table is full or not. A name that finds no free key among them is
/// counted under `other`; at half of the keys taken that happens to no name of 100,000, unless names are chosen to meet.
///
/// Two threads that make the same series at once take two, of which one goes back to the spare ones. In between a
/// third thread may find the table full one series too soon.
#[derive(Debug, Clone, Copy)]
pub struct SeriesTable {
    base: usize,
    slots: usize,
    /// The blocks of the series, those of the `other` of each kind first.
    blocks: Option<Region>,
}

/// Index of a series; below `Kind::ALL.len()` it is that kind's `other`.
pub type SeriesId = usize;

impl SeriesTable {
    const fn keys(slots: usize) -> usize {
        slots.saturating_mul(2).next_multiple_of(LINE)
    }

    /// Cells of a table of `slots` label sets.
    pub const fn cells(slots: usize) -> usize {
        HEADER.saturating_add(Self::keys(slots)).saturating_add(slots.saturating_mul(TEXT_CELLS))
    }

    /// The table whose cells begin at `base`.
    pub const fn at(base: usize, slots: usize) -> Self {
        Self { base, slots, blocks: None }
    }

    /// The same table, whose series have their blocks in a region.
    #[must_use]
    pub const fn with_blocks(self, blocks: Region) -> Self {
        Self { blocks: Some(blocks), ..self }
    }

    /// Series that were taken, and with them the `other` of each kind.
    pub fn used(self, cells: &Cells) -> u64 {
        (self.taken(cells) as u64).saturating_add(Kind::ALL.len() as u64)
    }

    fn has_block(self, cells: &Cells, slot: u64) -> bool {
        self.blocks.is_none_or(|blocks| blocks.has(cells, slot.saturating_add(Kind::ALL.len() as u64)))
    }

    /// Label sets that it has room for.
    pub const fn slots(self) -> usize {
        self.slots
    }

    /// Refuses a cap outside 1 to 1,000,000.
    pub fn check(max_series: u64) -> Result<usize, Error> {
        usize::try_from(max_series).ok().filter(|n| (1..=1_000_000).contains(n)).ok_or_else(|| Error::OutOfRange {
            name: "max_series",
            value: max_series.to_string(),
            allowed: "1 to 1,000,000",
        })
    }

    const fn text(self, slot: usize) -> usize {
        let texts = self.base.wrapping_add(HEADER).wrapping_add(Self::keys(self.slots));
        texts.wrapping_add(slot.wrapping_mul(TEXT_CELLS))
    }

    /// The first key of a hash, and how many there are.
    #[allow(clippy::cast_possible_truncation)] // below the number of lines
    const fn first(self, hash: u64) -> (usize, usize) {
        let keys = Self::keys(self.slots);
        // The high half of the product: even, and no division.
        let line = ((hash as u128).wrapping_mul((keys / LINE) as u128) >> 64) as usize;
        (line.wrapping_mul(LINE), keys)
    }

    /// The series of a label set, made at its first use; `other` of the kind when the table is full.
    /// The flags say whether it went to `other` and whether the text was cut.
    #[inline]
    pub fn resolve(self, cells: &Cells, kind: Kind, a: &str, b: &str) -> (SeriesId, bool, bool) {
        self.resolve_of(cells, kind, None, a, b)
    }

    /// The same for the calls of one model alone, by its series.
    #[inline]
    pub fn resolve_of(
        self,
        cells: &Cells,
        kind: Kind,
        model: Option<SeriesId>,
        a: &str,
        b: &str,
    ) -> (SeriesId, bool, bool) {
        let (a, cut_a) = cut(a, LONGEST.0);
        let (b, cut_b) = cut(b, LONGEST.1);
        let slot = self.look_up::<true>(cells, what(kind, model), a, b);
        let id = slot.map_or(kind as usize, |slot| slot.wrapping_add(Kind::ALL.len()));
        (id, slot.is_none(), cut_a || cut_b)
    }

    /// As `resolve_of`, but makes none: the series, and whether the text was cut.
    pub fn find(self, cells: &Cells, kind: Kind, model: SeriesId, a: &str, b: &str) -> Option<(SeriesId, bool)> {
        let (a, cut_a) = cut(a, LONGEST.0);
        let (b, cut_b) = cut(b, LONGEST.1);
        let slot = self.look_up::<false>(cells, what(kind, Some(model)), a, b)?;
        Some((slot.wrapping_add(Kind::ALL.len()), cut_a || cut_b))
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // 21 bits
    fn look_up<const MAKE: bool>(self, cells: &Cells, what: u64, a: &str, b: &str) -> Option<usize> {
        let hash = hash(what, a, b);
        let (mut at, keys) = self.first(hash);
        // A series that was taken for it, its text written.
        let mut own = None;
        let mut slot = None;
        for _ in 0..PROBES.min(keys) {
            let key = self.base.wrapping_add(HEADER).wrapping_add(at);
            let mut entry = cells.observe(key);
            if entry == 0 {
                if !MAKE {
                    return None;
                }
                own = own.or_else(|| self.take(cells, what, a, b));
                let made = own?;
                match cells.claim(key, 0, hash << ID_BITS | (made as u64).wrapping_add(1)) {
                    Ok(()) => {
                        stop!(KeyWritten);
                        self.show(cells, made, what, a, b);
                        return own;
                    }
                    Err(other) => entry = other,
                }
            }
            let series = (entry & ID).wrapping_sub(1) as usize;
            if entry >> ID_BITS == hash << ID_BITS >> ID_BITS && self.is(cells, series, what, a, b) {
                slot = Some(series);
                break;
            }
            at = at.wrapping_add(1);
            if at == keys {
                at = 0;
            }
        }
        if let Some(own) = own {
            self.give_back(cells, own);
        }
        slot
    }

    /// Whether a series that was found has this text.
    #[inline]
    fn is(self, cells: &Cells, slot: usize, what: u64, a: &str, b: &str) -> bool {
        let (text, head) = (self.text(slot), head(what, a, b));
        let there = cells.get(text);
        let mut cell = text;
        let mut same = |word| {
            cell = cell.wrapping_add(1);
            cells.get(cell) == word
        };
        let alike = there & !SHOWN == head && words(a).all(&mut same) && words(b).all(same);
        if alike && there & SHOWN == 0 {
            // Whoever made it has not come so far.
            cells.publish(text, head | SHOWN);
        }
        alike
    }

    /// Takes a series and writes its text; None when all are taken.
    #[cold]
    #[allow(clippy::cast_possible_truncation)] // below `slots`
    fn take(self, cells: &Cells, what: u64, a: &str, b: &str) -> Option<usize> {
        let slot = self.pop_spare(cells).or_else(|| {
            let taken = self.base.wrapping_add(TAKEN);
            let mut n = cells.get(taken);
            while n < self.slots as u64 && self.has_block(cells, n) {
                match cells.exchange(taken, n, n.wrapping_add(1)) {
                    Ok(()) => return Some(n as usize),
                    Err(found) => n = found,
                }
            }
            None
        })?;
        stop!(SeriesTaken);
        let text = self.text(slot);
        cells.set(text, head(what, a, b));
        for (cell, word) in (text.wrapping_add(1)..).zip(words(a).chain(words(b))) {
            cells.set(cell, word);
        }
        stop!(TextWritten);
        Some(slot)
    }

    fn show(self, cells: &Cells, slot: usize, what: u64, a: &str, b: &str) {
        cells.publish(self.text(slot), head(what, a, b) | SHOWN);
    }

    /// Puts a series that was never published on the list of the spare ones.
    #[cold]
    fn give_back(self, cells: &Cells, slot: usize) {
        let spare = self.base.wrapping_add(SPARE);
        let mut old = cells.observe(spare);
        loop {
            cells.set(self.text(slot), old & LOW);
            let new = (old & !LOW).wrapping_add(1 << 32) | (slot as u64).wrapping_add(1);
            match cells.claim(spare, old, new) {
                Ok(()) => return,
                Err(found) => old = found,
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)] // a half
    fn pop_spare(self, cells: &Cells) -> Option<usize> {
        let spare = self.base.wrapping_add(SPARE);
        let mut old = cells.observe(spare);
        loop {
            let slot = (old & LOW).checked_sub(1)? as usize;
            let next = cells.get(self.text(slot)) & LOW;
            match cells.claim(spare, old, (old & !LOW).wrapping_add(1 << 32) | next) {
                Ok(()) => return Some(slot),
                Err(found) => old = found,
            }
        }
    }

    /// The label set of a series; None while it is being written or when there is none. That of a series of one model
    /// alone ends with the provider and the model.
    pub fn labels(self, cells: &Cells, id: SeriesId) -> Option<LabelSet> {
        let (mut labels, model) = self.own_labels(cells, id)?;
        if let Some(model) = model {
            let (model, _) = self.own_labels(cells, model)?;
            for name in [model.a, model.b] {
                labels.b.push(SEPARATOR);
                labels.b.push_str(&name);
            }
        }
        Some(labels)
    }

    /// The text of a series, and the model whose calls it counts where it counts those of one alone.
    #[allow(clippy::cast_possible_truncation)] // lengths of at most 256
    pub fn own_labels(self, cells: &Cells, id: SeriesId) -> Option<(LabelSet, Option<SeriesId>)> {
        let others = Kind::ALL.len();
        let Some(slot) = id.checked_sub(others) else {
            let kind = *Kind::ALL.get(id)?;
            let b = if kind.has_two_names() { OTHER } else { "" };
            return Some((LabelSet { kind, a: OTHER.into(), b: b.into() }, None));
        };
        if slot >= self.slots {
            return None;
        }
        let text = self.text(slot);
        let head = cells.observe(text);
        if head & SHOWN == 0 {
            return None;
        }
        let kind = kind_of(head)?;
        let (len_a, len_b) = ((head >> 16) as usize & 0xFFFF, head as usize & 0xFFFF);
        let mut cell = text;
        let mut read = |len: usize| {
            let mut bytes = Vec::with_capacity(len.saturating_add(8));
            while bytes.len() < len {
                cell = cell.wrapping_add(1);
                bytes.extend_from_slice(&cells.get(cell).to_le_bytes());
            }
            bytes.truncate(len);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Some((LabelSet { kind, a: read(len_a), b: read(len_b) }, model_of(head)))
    }

    /// The model whose calls a series counts; None where it does not count those of one alone.
    pub fn model_of(self, cells: &Cells, id: SeriesId) -> Option<SeriesId> {
        model_of(cells.observe(self.text(id.checked_sub(Kind::ALL.len())?)))
    }

    /// As `labels`, for series of some kinds only.
    pub fn labels_of(self, cells: &Cells, id: SeriesId, is_wanted: impl Fn(Kind) -> bool) -> Option<LabelSet> {
        let kind = match id.checked_sub(Kind::ALL.len()) {
            None => *Kind::ALL.get(id)?,
            Some(slot) => kind_of(cells.observe(self.text(slot)))?,
        };
        if is_wanted(kind) { self.labels(cells, id) } else { None }
    }

    fn taken(self, cells: &Cells) -> usize {
        let blocks = self.blocks.map_or(usize::MAX, |blocks| blocks.readable(cells));
        let slots = self.slots.min(blocks.saturating_sub(Kind::ALL.len()));
        usize::try_from(cells.observe(self.base.wrapping_add(TAKEN))).map_or(slots, |n| n.min(slots))
    }

    /// Every series there is, ascending, the `other` of each kind first.
    pub fn ids(self, cells: &Cells) -> impl Iterator<Item = SeriesId> + '_ {
        let others = Kind::ALL.len();
        let published = (0..self.taken(cells)).filter(move |slot| cells.observe(self.text(*slot)) & SHOWN != 0);
        (0..others).chain(published.map(move |slot| slot.wrapping_add(others)))
    }

    /// Back to empty; call it only while no thread records.
    pub fn clear(self, cells: &Cells) {
        for slot in 0..self.taken(cells) {
            cells.set(self.text(slot), 0);
        }
        for cell in self.base..self.base.wrapping_add(HEADER).wrapping_add(Self::keys(self.slots)) {
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
            }
        }
    }
}

/// What a series is beside its text: its kind plus one, and above it the model plus one whose calls it counts where it
/// counts those of one alone.
#[inline]
const fn what(kind: Kind, model: Option<SeriesId>) -> u64 {
    let model = if let Some(model) = model { (model as u64).wrapping_add(1) } else { 0 };
    model << MODEL | (kind as u64).wrapping_add(1)
}

/// Bits of a kind in what a series is.
const MODEL: u32 = 8;

/// What stands before a text: what its series is, and its lengths.
const fn head(what: u64, a: &str, b: &str) -> u64 {
    what << 32 | (a.len() as u64) << 16 | b.len() as u64
}

fn kind_of(head: u64) -> Option<Kind> {
    Kind::from_code((head >> 32 & ((1 << MODEL) - 1)).checked_sub(1)?)
}

#[allow(clippy::cast_possible_truncation)] // 21 bits
fn model_of(head: u64) -> Option<SeriesId> {
    ((head & !SHOWN) >> 32 >> MODEL).checked_sub(1).map(|model| model as SeriesId)
}

/// A text, 8 bytes a cell.
fn words(text: &str) -> impl Iterator<Item = u64> {
    text.as_bytes().chunks(8).map(|bytes| {
        bytes.first_chunk().map_or_else(
            || bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
            |whole| u64::from_le_bytes(*whole),
        )
    })
}

/// The beginning of a text, at most `longest` bytes in whole characters, and whether there is more of it.
pub fn cut(text: &str, longest: usize) -> (&str, bool) {
    if text.len() <= longest {
        return (text, false);
    }
    let end = (0..=longest).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    (text.get(..end).unwrap_or_default(), true)
}

/// 64 bits over what a series is and its text. Not keyed: it has to be the same in every process that shares an
/// arena. A folded multiply, 8 bytes a step.
#[inline]
fn hash(what: u64, a: &str, b: &str) -> u64 {
    let mut h = 0x9E37_79B9_7F4A_7C15_u64 ^ what;
    for part in [a.as_bytes(), b.as_bytes()] {
        let word = |at: usize| part.get(at..).and_then(|p| p.first_chunk()).map_or(0, |w| u64::from_le_bytes(*w));
        h = fold(h ^ part.len() as u64, 0xA076_1D64_78BD_642F);
        if part.len() < 8 {
            let short = part.iter().fold(0_u64, |w, byte| (w << 8) | u64::from(*byte));
            h = fold(h ^ short, 0x8EBC_6AF0_9C88_C6E3);
            continue;
        }
        // Whole words, and the last eight bytes once more where they do not end on one.
        let mut at = 0_usize;
        while at.wrapping_add(8) < part.len() {
            h = fold(h ^ word(at), 0xE703_7ED1_A0B4_28DB);
            at = at.wrapping_add(8);
        }
        h = fold(h ^ word(part.len().wrapping_sub(8)), 0x8EBC_6AF0_9C88_C6E3);
    }
    h
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // both halves are taken
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}
