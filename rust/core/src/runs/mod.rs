//! Runs in flight: a set-associative table of atomic keys, bounded by capacity and age.

mod call;
mod component;
mod departed;
mod lifecycle;
#[cfg(all(test, loom))]
mod loom_tests;
mod packing;
mod parents;
mod reaping;
mod run;
mod start;
#[cfg(all(test, not(loom)))]
mod tests;

pub use run::{
    Asked, Branch, Labels, Left, Newest, Orphan, Reserving, Root, Run, RunKey, Start, Started, Streaming, Token, Via,
};

use crate::arena::{Cells, Line};
use crate::error::Error;

/// Keys of a set: one cache line.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };
const EMPTY: u64 = 0;
/// A slot whose start gave way to another start of the same id.
const LOST: u64 = 1;
/// Cells of a record: one cache line.
const RECORD: usize = 8;
/// Cells of what a run holds of budgets, and of its labels: apart, so that a run without either touches none
/// of them.
const HELD: usize = 8;
/// How many of the oldest runs one scan finds for eviction.
const VICTIMS: usize = if cfg!(loom) { 2 } else { 256 };
/// Levels of the table.
const LEVELS: usize = 3;
/// Header: live runs | next victim | who refills | runs in the second and third level, 32 bits each, and whether a call
/// of a model has failed. Each has a line of its own, the last two have one together.
const LIVE: usize = 0;
const NEXT_VICTIM: usize = 8;
const REFILL: usize = 16;
const DEEP: usize = 24;
const ANY_FAILED: usize = 25;
const HEADER: usize = 32;
/// In a key cell: the run is on its way out, ended or reaped. Keys have 62 bits.
const ENDING: u64 = 1 << 62;
const REAPING: u64 = 1 << 63;
/// In a key cell: the run is on its way in.
const STARTING: u64 = ENDING | REAPING;

/// The table in the arena.
///
/// Levels of growing size, each of sets of 8 keys, one cache line: a run goes to the first level whose set
/// has room, so a program with a few hundred calls in flight lives in 74 KB of it (139 KB where they hold budgets or
/// carry labels), whatever the capacity, and a scan reads only the levels that hold a run. (One level of 131,072
/// slots was tried: the same run of 8 tokens took 3 times as long.) The last level alone has twice
/// as many slots as runs may be in flight, and two sets for a key, of which the emptier takes it.
///
/// A slot goes `EMPTY → key, starting → key → key, leaving → EMPTY`; leaving is one compare-and-swap, so every
/// run leaves exactly once, whoever ends, reaps or evicts it. Whatever is meant for a run in flight is an exchange
/// that finds the tag of its start, so that the slot's next run gets nothing meant for the last one.
///
/// Figures beside two maps are in docs/design/runs-in-flight.md; the benchmark `core` prints them.
#[derive(Debug, Clone, Copy)]
pub struct RunTable {
    base: usize,
    /// Slots of each level, powers of two; 0 where there is no such level.
    levels: [usize; LEVELS],
    /// Where the records begin, after the keys.
    records: usize,
    /// Where what runs hold of budgets, and their labels, begins, after the records.
    held: usize,
    /// Where what has left is remembered, after all else.
    left: usize,
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

    /// Returns the cells that a table of this capacity takes.
    pub fn cells(capacity: u64) -> usize {
        let slots = Self::slots(Self::levels_for(capacity));
        slots.saturating_mul(RECORD + HELD + 1).saturating_add(HEADER).saturating_add(VICTIMS * 2 + departed::CELLS)
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

    /// Slots of the levels that hold a run; the first level counts as one that does.
    fn slots_in_use(self, cells: &Cells) -> usize {
        let [small, middle, last] = self.levels;
        let deep = cells.get(self.base.wrapping_add(DEEP));
        if deep >> 32 != 0 || small == 0 {
            small.wrapping_add(middle).wrapping_add(last)
        } else if deep != 0 {
            small.wrapping_add(middle)
        } else {
            small
        }
    }

    /// One run in the level of a slot, as `DEEP` counts it: 0 for the first level, which is not counted.
    const fn counted(self, slot: usize) -> u64 {
        let [small, middle, _] = self.levels;
        if slot < small || small == 0 {
            0
        } else if slot < small.wrapping_add(middle) {
            1
        } else {
            1 << 32
        }
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

    /// The set of a key in the first level, if there is a smaller level than the last.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // a position
    const fn small_set(self, mixed: u64) -> Option<usize> {
        let [small, ..] = self.levels;
        if small == 0 { None } else { Some(mixed as usize & small.wrapping_sub(1) & !(WAYS - 1)) }
    }

    /// The other sets of a key: the second level's, if there is one, and the last level's two.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // positions
    const fn deep_sets(self, mixed: u64) -> (Option<usize>, [usize; 2]) {
        let [small, middle, last] = self.levels;
        let deep = small.wrapping_add(middle);
        let first = mixed as usize & last.wrapping_sub(1) & !(WAYS - 1);
        let second = (mixed >> 32) as usize & last.wrapping_sub(1) & !(WAYS - 1);
        // Always two different sets: there are at least two.
        let second = if first == second { second ^ WAYS } else { second };
        let in_middle = small.wrapping_add(mixed as usize & middle.wrapping_sub(1) & !(WAYS - 1));
        (if middle == 0 { None } else { Some(in_middle) }, [deep.wrapping_add(first), deep.wrapping_add(second)])
    }

    #[inline]
    fn find(self, cells: &Cells, key: RunKey) -> Option<usize> {
        self.find_as(cells, key, |value| value == key.0)
    }

    /// The first slot of a key whose key cell is as wanted.
    #[inline]
    fn find_as(self, cells: &Cells, key: RunKey, wanted: impl Fn(u64) -> bool) -> Option<usize> {
        let mixed = key.mixed();
        let in_set = |set: usize| {
            let way = cells.line(self.key_cell(set)).and_then(|keys| keys.find(WAYS, &wanted))?;
            Some(set.wrapping_add(way))
        };
        if let Some(set) = self.small_set(mixed) {
            let slot = in_set(set);
            if slot.is_some() || cells.get(self.base.wrapping_add(DEEP)) == 0 {
                return slot;
            }
        }
        let (middle, [first, second]) = self.deep_sets(mixed);
        middle.and_then(in_set).or_else(|| in_set(first)).or_else(|| in_set(second))
    }

    /// Returns the runs in the table.
    pub fn live(self, cells: &Cells) -> u64 {
        cells.get(self.base.wrapping_add(LIVE))
    }

    /// Empties the table; only while no other thread records.
    pub fn clear(self, cells: &Cells) {
        for slot in 0..self.slots_in_use(cells) {
            if cells.get(self.key_cell(slot)) != EMPTY {
                cells.set(self.key_cell(slot), EMPTY);
            }
        }
        for cell in self.left..self.left.wrapping_add(departed::CELLS) {
            if cells.get(cell) != EMPTY {
                cells.set(cell, EMPTY);
            }
        }
        for cell in [LIVE, NEXT_VICTIM, REFILL, DEEP, ANY_FAILED] {
            cells.set(self.base.wrapping_add(cell), 0);
        }
    }
}

/// Neither empty, nor on its way in or out.
const fn is_run(key: u64) -> bool {
    LOST < key && key < ENDING
}
