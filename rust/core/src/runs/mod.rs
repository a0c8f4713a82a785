//! Runs in flight: a set-associative table of atomic keys, bounded by capacity and age.

mod flight;
mod left;
mod links;
#[cfg(all(test, loom))]
mod loom_tests;
mod record;
mod run;
#[cfg(all(test, not(loom)))]
mod tests;
mod victims;

pub use run::{Asked, Branch, Labels, Left, Newest, Orphan, Root, Run, RunKey, Start, Streaming, Token, Via};

use crate::cells::{Cells, Line};
use crate::error::Error;

/// Keys of a set: one cache line.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };
const EMPTY: u64 = 0;
/// A slot that one thread owns for the moment.
const BUSY: u64 = 1;
/// Cells of a run: one cache line.
const RECORD: usize = 8;
/// Cells of what a run holds of budgets, and of its labels: apart, so that a run without either touches none
/// of them.
const HELD: usize = 8;
/// How many of the oldest runs one scan finds for eviction.
const VICTIMS: usize = if cfg!(loom) { 2 } else { 256 };
/// Ends and reapings remembered, each; a key is forgotten for the next that falls on its cell.
const LEFT: usize = if cfg!(loom) { 8 } else { 4096 };
/// Cells of what a reaped run was charged.
const CHARGED: usize = 3;
/// Levels of the table.
const LEVELS: usize = 3;
/// Header: live runs | next victim | who refills | levels in use, each on a line of its own.
const LIVE: usize = 0;
const NEXT_VICTIM: usize = 8;
const REFILL: usize = 16;
const IN_USE: usize = 24;
const HEADER: usize = 32;
/// In a key cell: the run is on its way out, ended or reaped. Keys have 62 bits.
const ENDING: u64 = 1 << 62;
const REAPING: u64 = 1 << 63;

/// The table in the arena.
///
/// Levels of growing size, each of sets of 8 keys, one cache line: a run goes to the first level whose set
/// has room, so a program with a few hundred calls in flight lives in 74 KB of it (139 KB where they hold budgets or carry labels), whatever the capacity,
/// and a scan reads only the levels ever used. (One level of 131,072 slots was tried: the same run of 8
/// tokens took 3 times as long.) The last level alone has twice
/// as many slots as runs may be in flight, and two sets for a key, of which the emptier takes it.
///
/// A slot goes `EMPTY → BUSY → key → key, leaving → EMPTY`; leaving is one compare-and-swap, so every
/// run leaves exactly once, whoever ends, reaps or evicts it. A token is a compare-and-swap on the run's
/// last-token cell, checked against the key: a late token of a run that is gone never moves the figures of
/// the slot's next run.
///
/// Figures beside two maps are in docs/design/0001; the benchmark `core` prints them.
#[derive(Debug, Clone, Copy)]
pub struct RunTable {
    base: usize,
    /// Slots of each level, powers of two; 0 where there is no such level.
    levels: [usize; LEVELS],
    /// Where the records begin, after the keys.
    records: usize,
    /// Where what has left is remembered, after all else.
    left: usize,
    /// Where what they hold of budgets, and their labels, begin, after the records.
    held: usize,
    capacity: u64,
}

impl RunTable {
    /// Refuses a cap outside 1 to 16,777,216.
    pub fn check(max_runs: u64) -> Result<u64, Error> {
        (1..=16_777_216).contains(&max_runs).then_some(max_runs).ok_or_else(|| Error::OutOfRange {
            name: "max_runs",
            value: max_runs.to_string(),
            allowed: "1 to 16,777,216",
        })
    }

    #[allow(clippy::cast_possible_truncation)] // at most 2^25
    fn levels_for(capacity: u64) -> [usize; LEVELS] {
        let last = (capacity.saturating_mul(2) as usize).next_power_of_two().max(WAYS.saturating_mul(2));
        let before = |slots: usize| if last > slots.saturating_mul(4) { slots } else { 0 };
        [before(1024), before(16_384), last]
    }

    /// Cells for a capacity.
    pub fn cells(capacity: u64) -> usize {
        let slots = Self::slots(Self::levels_for(capacity));
        slots
            .saturating_mul(RECORD + HELD + 1)
            .saturating_add(HEADER)
            .saturating_add(VICTIMS * 2 + LEFT * (2 + CHARGED))
    }

    /// The table whose cells begin at `base`.
    pub fn at(base: usize, capacity: u64) -> Self {
        let levels = Self::levels_for(capacity);
        let table = Self { base, levels, records: 0, held: 0, left: 0, capacity };
        let table = Self { records: table.key_cell(Self::slots(levels)), ..table };
        let held = table.record(Self::slots(levels));
        Self { held, left: held.saturating_add(Self::slots(levels).saturating_mul(HELD)), ..table }
    }

    fn slots(levels: [usize; LEVELS]) -> usize {
        levels.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Slots of the levels that ever held a run.
    fn slots_in_use(self, cells: &Cells) -> usize {
        let in_use = cells.get(self.base.wrapping_add(IN_USE));
        let deepest = (0..LEVELS).rev().find(|level| in_use >> level & 1 == 1);
        self.levels.iter().take(deepest.map_or(0, |d| d.wrapping_add(1))).fold(0, |sum, n| sum.wrapping_add(*n))
    }

    const fn key_cell(self, slot: usize) -> usize {
        self.base.wrapping_add(HEADER).wrapping_add(VICTIMS * 2).wrapping_add(slot)
    }

    const fn record(self, slot: usize) -> usize {
        self.records.wrapping_add(slot.wrapping_mul(RECORD))
    }

    const fn held(self, slot: usize) -> usize {
        self.held.wrapping_add(slot.wrapping_mul(HELD))
    }

    #[inline]
    fn run(self, cells: &Cells, slot: usize) -> Option<Line<'_>> {
        cells.line(self.record(slot))
    }

    /// The sets of a key: level and first slot. Only the last level has two.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // positions
    fn sets_of(self, key: RunKey) -> [(usize, usize); LEVELS + 1] {
        let mixed = key.mixed();
        let [small, middle, last] = self.levels;
        let set = |slots: usize, hash: u64| hash as usize & slots.wrapping_sub(1) & !(WAYS - 1);
        let deep = small.wrapping_add(middle);
        let first = set(last, mixed);
        let second = set(last, mixed >> 32);
        // Always two different sets: there are at least two.
        let second = if first == second { second ^ WAYS } else { second };
        [
            (0, if small == 0 { 0 } else { set(small, mixed) }),
            (1, small.wrapping_add(if middle == 0 { 0 } else { set(middle, mixed) })),
            (2, deep.wrapping_add(first)),
            (2, deep.wrapping_add(second)),
        ]
    }

    #[inline]
    fn find(self, cells: &Cells, key: RunKey) -> Option<usize> {
        self.find_as(cells, key, key.0)
    }

    /// The slot of a run whose key cell holds `value`.
    #[inline]
    fn find_as(self, cells: &Cells, key: RunKey, value: u64) -> Option<usize> {
        let in_use = cells.get(self.base.wrapping_add(IN_USE));
        for (level, set) in self.sets_of(key) {
            if in_use >> level & 1 == 0 {
                continue;
            }
            let way = cells.line(self.key_cell(set)).and_then(|keys| keys.find(WAYS, value));
            if let Some(way) = way {
                return Some(set.wrapping_add(way));
            }
        }
        None
    }

    /// Runs in the table.
    pub fn live(self, cells: &Cells) -> u64 {
        cells.get(self.base.wrapping_add(LIVE))
    }

    /// Back to empty; only while nobody records.
    pub fn clear(self, cells: &Cells) {
        for slot in 0..self.slots_in_use(cells) {
            if cells.get(self.key_cell(slot)) != EMPTY {
                cells.set(self.key_cell(slot), EMPTY);
            }
        }
        for cell in self.left..self.left.wrapping_add(LEFT * (2 + CHARGED)) {
            if cells.get(cell) != EMPTY {
                cells.set(cell, EMPTY);
            }
        }
        for cell in [LIVE, NEXT_VICTIM, REFILL, IN_USE] {
            cells.set(self.base.wrapping_add(cell), 0);
        }
    }
}

/// Neither empty, nor busy, nor leaving.
const fn is_run(key: u64) -> bool {
    BUSY < key && key < ENDING
}
