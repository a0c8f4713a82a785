//! Label set → series index, capped.

use crate::cells::Cells;
use crate::error::Error;
use serde::{Deserialize, Serialize};

/// What a series is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A language model run, by the name of its component.
    Llm,
    /// A chain or any other runnable.
    Chain,
    /// A tool.
    Tool,
    /// A retriever.
    Retriever,
    /// An LLM-made fix.
    Fix,
    /// A model by provider and name.
    Model,
    /// A node of a graph.
    Node,
    /// An agent.
    Agent,
    /// The calls that carry a label, by its key and value.
    Label,
    /// Failures: who failed, and how.
    Error,
    /// The time spent inside one of our own hooks.
    Hook,
}

impl Kind {
    /// Every kind, in the order of its code.
    pub const ALL: [Self; 11] = [
        Self::Llm,
        Self::Chain,
        Self::Tool,
        Self::Retriever,
        Self::Fix,
        Self::Model,
        Self::Node,
        Self::Agent,
        Self::Label,
        Self::Error,
        Self::Hook,
    ];

    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Chain => "chain",
            Self::Tool => "tool",
            Self::Retriever => "retriever",
            Self::Fix => "fix",
            Self::Model => "model",
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Label => "label",
            Self::Error => "error",
            Self::Hook => "hook",
        }
    }

    /// The kind of a code.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| *k as u64 == code)
    }

    /// Whether its series count calls of models: tokens, money, windows.
    pub const fn counts_calls(self) -> bool {
        matches!(self, Self::Model | Self::Label)
    }

    /// Whether its series have a second name beside the first.
    const fn has_two_names(self) -> bool {
        matches!(self, Self::Model | Self::Label | Self::Error)
    }

    /// The kind of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.name() == name)
    }
}

/// Who a series counts for. Models: `a` is the provider and `b` the model; labels: key and value; errors: who
/// failed, and how; all others: `a` is the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelSet {
    /// What it is about.
    pub kind: Kind,
    /// Provider, or name.
    pub a: String,
    /// Model, or empty.
    pub b: String,
}

/// Name of the series that takes what does not fit.
pub const OTHER: &str = "other";
/// Longest `a` and `b` kept, bytes.
const LONGEST: (usize, usize) = (248, 256);
/// One cell of lengths, then the text.
const TEXT_CELLS: usize = 64;

/// The table of label sets in the arena.
///
/// A series *is* its slot: claiming the slot's hash is one compare-and-swap, and whoever finds the hash
/// may record at once. The text follows; a snapshot leaves out a series until its text is published. So no
/// thread ever waits for another, and nothing can be left half-locked by a fork.
///
/// Two label sets are told apart by a 64-bit hash of their text: among 1,024 of them a collision has a
/// probability of 3e-14.
#[derive(Debug, Clone, Copy)]
pub struct SeriesTable {
    base: usize,
    slots: usize,
}

/// Index of a series; below `Kind::ALL.len()` it is that kind's `other`.
pub type SeriesId = usize;

impl SeriesTable {
    /// Cells of a table of `slots` label sets.
    pub const fn cells(slots: usize) -> usize {
        slots.saturating_mul(TEXT_CELLS.saturating_add(1)).saturating_add(7) & !7
    }

    /// The table whose cells begin at `base`.
    pub const fn at(base: usize, slots: usize) -> Self {
        Self { base, slots }
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
        self.base.saturating_add(self.slots).saturating_add(slot.saturating_mul(TEXT_CELLS))
    }

    /// The series of a label set, made at its first use; `other` of the kind when the table is full.
    /// The flags say whether it went to `other` and whether the text was cut.
    #[inline]
    pub fn resolve(self, cells: &Cells, kind: Kind, a: &str, b: &str) -> (SeriesId, bool, bool) {
        let (a, cut_a) = cut(a, LONGEST.0);
        let (b, cut_b) = cut(b, LONGEST.1);
        let cut = cut_a || cut_b;
        let others = Kind::ALL.len();
        let hash = hash(kind, a, b);
        // The high half of the product: even, and no division.
        #[allow(clippy::cast_possible_truncation)] // below `slots`
        let mut slot = (u128::from(hash).wrapping_mul(self.slots as u128) >> 64) as usize;
        for _ in 0..self.slots {
            let key = self.base.wrapping_add(slot);
            let mut found = cells.observe(key);
            if found == 0 {
                found = match cells.claim(key, 0, hash) {
                    Ok(()) => {
                        self.write(cells, slot, kind, a, b);
                        hash
                    }
                    Err(found) => found,
                };
            }
            if found == hash {
                return (slot.wrapping_add(others), false, cut);
            }
            slot = slot.wrapping_add(1);
            if slot >= self.slots {
                slot = 0;
            }
        }
        (kind as usize, true, cut)
    }

    fn write(self, cells: &Cells, slot: usize, kind: Kind, a: &str, b: &str) {
        let text = self.text(slot);
        let mut cell = text;
        for part in [a, b] {
            for bytes in part.as_bytes().chunks(8) {
                let mut word = [0_u8; 8];
                word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                cell = cell.wrapping_add(1);
                cells.set(cell, u64::from_le_bytes(word));
            }
        }
        let lengths = ((a.len() as u64) << 16) | b.len() as u64;
        cells.publish(text, ((kind as u64).wrapping_add(1) << 32) | lengths);
    }

    /// The label set of a series; None while it is being written or when there is none.
    #[allow(clippy::cast_possible_truncation)] // lengths of at most 256
    pub fn labels(self, cells: &Cells, id: SeriesId) -> Option<LabelSet> {
        let others = Kind::ALL.len();
        let Some(slot) = id.checked_sub(others) else {
            let kind = *Kind::ALL.get(id)?;
            let b = if kind.has_two_names() { OTHER } else { "" };
            return Some(LabelSet { kind, a: OTHER.into(), b: b.into() });
        };
        if slot >= self.slots {
            return None;
        }
        let text = self.text(slot);
        let head = cells.observe(text);
        let kind = Kind::from_code((head >> 32).checked_sub(1)?)?;
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
        Some(LabelSet { kind, a: read(len_a), b: read(len_b) })
    }

    /// Every series there is, the `other` of each kind first.
    pub fn ids(self, cells: &Cells) -> impl Iterator<Item = SeriesId> + '_ {
        let others = Kind::ALL.len();
        let claimed = (0..self.slots).filter(move |slot| cells.observe(self.base.wrapping_add(*slot)) != 0);
        (0..others).chain(claimed.map(move |slot| slot.wrapping_add(others)))
    }

    /// Back to empty; only while nobody records.
    pub fn clear(self, cells: &Cells) {
        for slot in 0..self.slots {
            if cells.get(self.base.wrapping_add(slot)) != 0 {
                cells.set(self.text(slot), 0);
                cells.set(self.base.wrapping_add(slot), 0);
            }
        }
    }
}

/// At most `longest` bytes, whole characters.
fn cut(text: &str, longest: usize) -> (&str, bool) {
    if text.len() <= longest {
        return (text, false);
    }
    let end = (0..=longest).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    (text.get(..end).unwrap_or_default(), true)
}

/// 64 bits over kind and text, never 0. Not keyed: it has to be the same in every process that shares an
/// arena. A folded multiply, 8 bytes a step.
#[inline]
fn hash(kind: Kind, a: &str, b: &str) -> u64 {
    let mut h = 0x9E37_79B9_7F4A_7C15_u64 ^ (kind as u64);
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
    h.max(1)
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // both halves are taken
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn table(slots: usize) -> (Cells, SeriesTable) {
        (Cells::zeroed(SeriesTable::cells(slots)).expect("cells"), SeriesTable::at(0, slots))
    }

    proptest! {
        #[test]
        fn a_label_set_reads_back_as_written(kind in 0..Kind::ALL.len(), a in "\\PC{0,40}", b in "\\PC{0,40}") {
            let (cells, table) = table(8);
            let kind = Kind::ALL[kind];
            let (id, other, cut) = table.resolve(&cells, kind, &a, &b);
            prop_assert!(!other && !cut);
            prop_assert_eq!(table.labels(&cells, id), Some(LabelSet { kind, a: a.clone(), b: b.clone() }));
            prop_assert_eq!(table.resolve(&cells, kind, &a, &b).0, id);
        }

        #[test]
        fn different_label_sets_are_different_series(names in prop::collection::btree_set(("[a-c]{0,9}", "[a-c]{0,9}"), 0..60)) {
            let (cells, table) = table(64);
            let ids: BTreeSet<_> = names.iter().map(|(a, b)| table.resolve(&cells, Kind::Model, a, b).0).collect();
            prop_assert_eq!(ids.len(), names.len());
            prop_assert_eq!(table.ids(&cells).count(), names.len() + Kind::ALL.len());
        }
    }

    #[test]
    fn a_full_table_sends_the_rest_to_the_other_of_their_kind() {
        let (cells, table) = table(2);
        let seen: BTreeMap<_, _> = ["x", "y", "z"].map(|n| (n, table.resolve(&cells, Kind::Tool, n, ""))).into();
        assert!(!seen["x"].1 && !seen["y"].1 && seen["z"].1);
        assert_eq!(seen["z"].0, Kind::Tool as usize);
        assert_eq!(table.labels(&cells, seen["z"].0).map(|l| (l.kind, l.a)), Some((Kind::Tool, OTHER.into())));
        assert_eq!(table.labels(&cells, Kind::Model as usize).map(|l| l.b), Some(OTHER.into()));
        assert_eq!(table.labels(&cells, 99), None);
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let (cells, table) = table(2);
        let (id, _, was_cut) = table.resolve(&cells, Kind::Chain, &"é".repeat(200), "");
        assert!(was_cut);
        assert_eq!(table.labels(&cells, id).map(|l| l.a), Some("é".repeat(124)));
        assert_eq!(cut("ééé", 3), ("é", true));
    }

    #[test]
    fn a_series_without_text_yet_is_left_out_and_a_cleared_table_is_empty() {
        let (cells, table) = table(4);
        let (id, ..) = table.resolve(&cells, Kind::Tool, "x", "");
        cells.set(table.text(id - Kind::ALL.len()), 0);
        assert_eq!(table.labels(&cells, id), None);
        table.clear(&cells);
        assert_eq!(table.ids(&cells).count(), Kind::ALL.len());
    }

    #[test]
    fn names_and_codes_of_kinds_agree() {
        for (code, kind) in (0..).zip(Kind::ALL) {
            assert_eq!((Kind::from_code(code), Kind::from_name(kind.name())), (Some(kind), Some(kind)));
        }
        assert_eq!((Kind::from_code(11), Kind::from_name("x")), (None, None));
    }

    #[test]
    fn a_cap_outside_its_range_is_refused() {
        assert_eq!(SeriesTable::check(7), Ok(7));
        for bad in [0, 1_000_001, u64::MAX] {
            assert!(SeriesTable::check(bad).is_err());
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn a_label_set_that_two_threads_meet_first_is_one_series() {
        loom::model(|| {
            let cells = Arc::new(Cells::zeroed(SeriesTable::cells(2)).expect("cells"));
            let table = SeriesTable::at(0, 2);
            let other = {
                let cells = Arc::clone(&cells);
                loom::thread::spawn(move || table.resolve(&cells, Kind::Tool, "x", "").0)
            };
            let here = table.resolve(&cells, Kind::Tool, "x", "").0;
            // Published whole or not at all.
            if let Some(labels) = table.labels(&cells, here) {
                assert_eq!(labels.a, "x");
            }
            assert_eq!(other.join().expect("joins"), here);
            assert_eq!(table.labels(&cells, here).map(|l| l.a), Some("x".into()));
        });
    }

    #[test]
    fn two_label_sets_that_race_for_a_slot_get_one_each() {
        loom::model(|| {
            let cells = Arc::new(Cells::zeroed(SeriesTable::cells(2)).expect("cells"));
            let table = SeriesTable::at(0, 2);
            let other = {
                let cells = Arc::clone(&cells);
                loom::thread::spawn(move || table.resolve(&cells, Kind::Tool, "x", ""))
            };
            let (here, full, _) = table.resolve(&cells, Kind::Tool, "y", "");
            let (there, full_there, _) = other.join().expect("joins");
            assert!(!full && !full_there && here != there);
            assert_eq!(table.labels(&cells, here).map(|l| l.a), Some("y".into()));
            assert_eq!(table.labels(&cells, there).map(|l| l.a), Some("x".into()));
        });
    }
}
