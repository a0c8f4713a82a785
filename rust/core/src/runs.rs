//! Runs in flight: a set-associative table of atomic keys, bounded by capacity and age.

use crate::budget::Reservation;
use crate::cells::{Cells, Line};
use crate::error::Error;
use crate::series::{Kind, SeriesId};
use std::collections::BinaryHeap;

/// Keys of a set: one cache line.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };
const EMPTY: u64 = 0;
/// A slot that one thread owns for the moment.
const BUSY: u64 = 1;
/// Cells of a run: one cache line.
const RECORD: usize = 8;
/// Cells of what a run holds of budgets, and of its labels: apart, so that a run without either touches none
/// of them.
const HELD: usize = 4;
/// How many of the oldest runs one scan finds for eviction.
const VICTIMS: usize = if cfg!(loom) { 2 } else { 256 };
/// Ends and reapings remembered, each; a key is forgotten for the next that falls on its cell.
const LEFT: usize = if cfg!(loom) { 8 } else { 4096 };
/// Levels of the table.
const LEVELS: usize = 3;
/// Header: live runs | next victim | who refills | levels in use, each on a line of its own.
const LIVE: usize = 0;
const NEXT_VICTIM: usize = 8;
const REFILL: usize = 16;
const IN_USE: usize = 24;
const HEADER: usize = 32;

// Cells of a record. Model calls have tokens, every other run has children: they share four cells.
const START: usize = 0;
const PARENT: usize = 1;
/// Flags | kind | of a model call its longest gap in microseconds, of others the newest of the spans under it.
const WHO: usize = 2;
/// Series of the component | of the requested model | of its gaps; of others the root's slot, plus one.
const IDS: usize = 3;
/// The last token; of others when a model call under it failed.
const LAST: usize = 4;
/// First visible output | first output of any kind, as microseconds since the start, plus one; of others the
/// time that children cover: the sum of the moments when the last of them ended, less that of those when the
/// first of them began, wrapping.
const FIRST: usize = 5;
/// Token events; of others the model that failed, plus one.
const EVENTS: usize = 6;
const CHILDREN: usize = 7;

/// In `WHO`: it holds something of a budget.
const BUDGETED: u64 = 1 << 63;
/// In `WHO`: it carries labels.
const LABELED: u64 = 1 << 62;
/// In `WHO`: it or an ancestor is a second attempt or a later one.
const RETRIED: u64 = 1 << 61;
/// In `WHO`: it lives on the step before it in a sequence; see `Span::piped`.
const PIPED: u64 = 1 << 60;
/// Bits of a series in `IDS`: 1,000,000 and some.
const SERIES_BITS: u32 = 21;
const SERIES: u64 = (1 << SERIES_BITS) - 1;
/// In `LAST`: no token yet, the rest is the start. A recycled slot never shows the value a late token saw.
const NO_TOKEN: u64 = 1 << 63;
/// In `EVENTS`: this run reports its tokens by `on_llm_new_token`; 23 bits of its start, which tell it from
/// the slot's next run; 40 bits of count.
const BY_TOKEN: u64 = 1 << 63;
const COUNT: u64 = (1 << 40) - 1;
/// In a key cell: the run is on its way out, ended or reaped. Keys have 62 bits.
const ENDING: u64 = 1 << 62;
const REAPING: u64 = 1 << 63;
/// In `CHILDREN`: an ancestor has ended; the rest is when.
const ORPHAN: u64 = 1 << 63;
/// How long an orphan may still end by itself when orphans are looked for, nanoseconds.
const GRACE: u64 = 1_000_000_000;
const LOW: u64 = 0xFFFF_FFFF;

/// Who a run is: 64 bits of its 128-bit id, spread evenly (61 of them are random for a uuid7 folded modulo
/// 2^61 - 1; among 65,536 runs in flight two agree with a probability of 1e-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunKey(u64);

impl RunKey {
    /// From the folded id: 62 bits of it. 0 and 1 are the table's own and move elsewhere.
    pub const fn new(folded: u64) -> Self {
        let key = folded & (ENDING - 1);
        Self(if key <= BUSY { key | (1 << 61) } else { key })
    }

    /// As a cell.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Two independent halves of 32 bits.
    #[allow(clippy::cast_possible_truncation)] // both halves are taken
    const fn mixed(self) -> u64 {
        let wide = (self.0 as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (wide as u64) ^ ((wide >> 64) as u64)
    }
}

/// Which hook a token came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// `on_llm_new_token`.
    Token,
    /// `on_stream_event`, which most integrations fire after `on_llm_new_token` for the same token.
    StreamEvent,
}

/// How a run that is not in flight left, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It ended.
    Ended,
    /// It was reaped.
    Reaped,
}

/// What a token event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// No such run in flight.
    Unknown,
    /// The other hook's report of a token already counted.
    Echo,
    /// The first of its run.
    First,
    /// A later one.
    Next {
        /// The series its gap belongs to.
        series: SeriesId,
        /// Nanoseconds since the token before.
        gap: u64,
    },
    /// A later one whose gap another thread's token of the same run took.
    Counted,
}

/// A run as it starts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Its key.
    pub key: RunKey,
    /// Its parent's.
    pub parent: Option<RunKey>,
    /// Clock reading.
    pub now: u64,
    /// What it is.
    pub kind: Kind,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the requested model.
    pub model: SeriesId,
    /// Series that its gaps between tokens belong to.
    pub gaps: SeriesId,
    /// What it holds of budgets.
    pub held: Reservation,
    /// Its labels' series.
    pub labels: Labels,
    /// It says that it is a second attempt or a later one.
    pub retried: bool,
    /// It is a step of a sequence but its first.
    pub piped: bool,
}

/// Up to three series that count what carries a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Labels(u64);

impl Labels {
    /// How many a run carries at most.
    pub const MOST: usize = 3;

    /// From series; those beyond the third are left out.
    pub fn new(series: impl IntoIterator<Item = SeriesId>) -> Self {
        let packed = |bits: u64, (at, id): (u32, SeriesId)| bits | (id as u64).wrapping_add(1) << at;
        Self([0, SERIES_BITS, 2 * SERIES_BITS].into_iter().zip(series).fold(0, packed))
    }

    /// From `get`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As a cell.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The series.
    pub fn iter(self) -> impl Iterator<Item = SeriesId> {
        (0..3).filter_map(move |n| series_in(self.0, n).checked_sub(1))
    }
}

/// Where a run stands in its tree as it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// At the top; the newest of the spans under it, 0 when there is none.
    Root(u32),
    /// Under this root.
    Under(Root),
    /// Its ancestor has ended.
    Lost,
}

/// The top of a tree of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    slot: usize,
    key: u64,
}

impl Root {
    /// Its key.
    pub const fn key(self) -> RunKey {
        RunKey(self.key)
    }
}

/// A run that its ancestor's end left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Its key.
    pub key: RunKey,
    /// Its parent's.
    pub parent: RunKey,
    /// When it started.
    pub start: u64,
    /// What it is.
    pub kind: Kind,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the requested model.
    pub model: SeriesId,
    /// It is a step of a sequence but its first.
    pub piped: bool,
}

/// What a model run in flight asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Series of the requested model.
    pub model: SeriesId,
    /// When it started.
    pub start: u64,
    /// Its budgets, a bit each.
    pub budgets: u64,
    /// Its labels' series.
    pub labels: Labels,
}

/// A stream in flight, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streaming {
    /// The run.
    pub key: RunKey,
    /// Series of the requested model.
    pub model: SeriesId,
    /// Series that its gaps go to.
    pub gaps: SeriesId,
    /// When it started.
    pub start: u64,
    /// Its last token.
    pub last: u64,
    /// Token events.
    pub events: u64,
}

/// A run as it leaves the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its key.
    pub key: RunKey,
    /// Its parent's.
    pub parent: Option<RunKey>,
    /// When it started.
    pub start: u64,
    /// When its first token came: nanoseconds after the start, to the microsecond.
    pub first_token: Option<u64>,
    /// When the first came that is no reasoning, as `first_token`.
    pub first_visible: Option<u64>,
    /// When its last token came.
    pub last_token: Option<u64>,
    /// Its longest gap between tokens, nanoseconds, to the microsecond.
    pub longest_gap: u64,
    /// What it is.
    pub kind: Kind,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the requested model.
    pub model: SeriesId,
    /// Series that its gaps went to.
    pub gaps: SeriesId,
    /// Token events.
    pub events: u64,
    /// Children that had started and not ended.
    pub children: u64,
    /// What it held of budgets.
    pub held: Reservation,
    /// Its labels' series.
    pub labels: Labels,
    /// It or an ancestor is a second attempt or a later one.
    pub retried: bool,
    /// It is a step of a sequence but its first.
    pub piped: bool,
    /// Nanoseconds during which none of its children ran.
    pub own: u64,
    /// Where it stands.
    pub branch: Branch,
}

impl Run {
    /// Nanoseconds from its first token to its last; None where there were not two.
    pub fn streaming(&self) -> Option<u64> {
        let first = self.start.saturating_add(self.first_token?);
        (self.events > 1).then(|| self.last_token.map_or(0, |last| last.saturating_sub(first)))
    }
}

const fn kind_code(who: u64) -> u64 {
    who >> 32 & 0xF
}

const fn is_model_call(who: u64) -> bool {
    kind_code(who) == Kind::Llm as u64
}

/// The n-th series of an `IDS` cell.
#[allow(clippy::cast_possible_truncation)] // 21 bits
const fn series_in(ids: u64, n: u32) -> SeriesId {
    (ids >> n.wrapping_mul(SERIES_BITS) & SERIES) as usize
}

/// Microseconds, plus one, in 32 bits: rounded as the histograms round.
const fn in_micros(nanos: u64) -> u64 {
    let micros = nanos.saturating_add(500) / 1000;
    if micros < LOW { micros.wrapping_add(1) } else { LOW }
}

/// The inverse, nanoseconds; None for none.
fn from_micros(cell: u64) -> Option<u64> {
    (cell & LOW).checked_sub(1).map(|micros| micros.saturating_mul(1000))
}

/// The table in the arena.
///
/// Levels of growing size, each of sets of 8 keys, one cache line: a run goes to the first level whose set
/// has room, so a program with a few hundred calls in flight lives in 74 KB of it, whatever the capacity,
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
    /// Where what they hold of budgets begins, after the records.
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
        slots.saturating_mul(RECORD + HELD + 1).saturating_add(HEADER).saturating_add(VICTIMS * 2 + LEFT * 3)
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

    const fn victim(self, i: usize) -> usize {
        self.base.wrapping_add(HEADER).wrapping_add(i.wrapping_mul(2))
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

    #[allow(clippy::cast_possible_truncation)] // a position
    const fn left_cell(self, key: RunKey, mark: u64) -> usize {
        let ring = if mark == ENDING { 0 } else { LEFT };
        self.left.wrapping_add(ring).wrapping_add(key.0 as usize % LEFT)
    }

    #[allow(clippy::cast_possible_truncation)] // a position
    const fn reaped_budgets(self, key: u64) -> usize {
        self.left.wrapping_add(LEFT * 2).wrapping_add(key as usize % LEFT)
    }

    /// The budgets that a reaped run belonged to, as far as it is remembered.
    pub fn budgets_of_reaped(self, cells: &Cells, key: RunKey) -> u64 {
        cells.get(self.reaped_budgets(key.0))
    }

    /// Remembers the end of a run that was not in flight.
    pub fn remember(self, cells: &Cells, key: RunKey) {
        cells.publish(self.left_cell(key, ENDING), key.0);
    }

    /// How a run that is not in flight left; None when it never was, or is forgotten: after some thousand
    /// later ends, or some thousand later reapings.
    pub fn left(self, cells: &Cells, key: RunKey) -> Option<Left> {
        let told = |(mark, left)| (cells.observe(self.left_cell(key, mark)) == key.0).then_some(left);
        let leaving = |(mark, left)| self.find_as(cells, key, key.0 | mark).map(|_| left);
        let ways = [(ENDING, Left::Ended), (REAPING, Left::Reaped)];
        let remembered = || ways.into_iter().find_map(told);
        // Remembered before the slot is empty: who finds it neither told nor leaving finds it told at last.
        remembered().or_else(|| ways.into_iter().find_map(leaving)).or_else(remembered)
    }

    /// Runs in the table.
    pub fn live(self, cells: &Cells) -> u64 {
        cells.get(self.base.wrapping_add(LIVE))
    }

    /// Puts a run in flight; false when it already is. Runs that had to make room go to `evicted`.
    #[inline]
    pub fn start(self, cells: &Cells, run: &Start, mut evicted: impl FnMut(Run)) -> bool {
        if self.find(cells, run.key).is_some() {
            return false;
        }
        let live = cells.add(self.base.wrapping_add(LIVE), 1);
        // Twice where an eviction has failed before, because another thread was looking for the oldest.
        for _ in 0..live.saturating_add(1).saturating_sub(self.capacity).min(2) {
            if let Some(oldest) = self.evict_oldest(cells, run.now) {
                evicted(oldest);
            }
        }
        let slot = self.claim_empty(cells, run.key, run.now, &mut evicted);
        let parent = run.parent.and_then(|p| self.find(cells, p)).and_then(|slot| self.run(cells, slot));
        let parent_who = parent.map_or(Kind::Llm as u64, Line::get::<WHO>);
        if let Some(record) = self.run(cells, slot) {
            record.set::<START>(run.now);
            record.set::<PARENT>(run.parent.map_or(EMPTY, RunKey::get));
            let flag = |on: bool, flag: u64| if on { flag } else { 0 };
            let (budgeted, labeled) = (run.held.budgets != 0, run.labels != Labels::default());
            let flags = flag(budgeted, BUDGETED) | flag(labeled, LABELED) | flag(run.piped, PIPED);
            let retried = flag(run.retried, RETRIED) | parent_who & RETRIED;
            record.set::<WHO>(((run.kind as u64) << 32) | flags | retried);
            if budgeted || labeled {
                let held = [run.held.budgets, run.held.cost, run.held.tokens, run.labels.get()];
                for (i, n) in held.into_iter().enumerate() {
                    cells.set(self.held(slot).wrapping_add(i), n);
                }
            }
            let more = if run.kind == Kind::Llm {
                run.model as u64 | (run.gaps as u64) << SERIES_BITS
            } else {
                let under = parent.filter(|_| !is_model_call(parent_who)).map(|p| p.get::<IDS>() >> SERIES_BITS);
                under.unwrap_or((slot as u64).wrapping_add(1))
            };
            record.set::<IDS>(run.component as u64 | more << SERIES_BITS);
            record.set::<FIRST>(0);
            record.set::<CHILDREN>(0);
            // Published: a late token of the slot's last run that sees either of these sees its key gone.
            record.publish::<LAST>(run.now | NO_TOKEN);
            record.publish::<EVENTS>((run.now << 40) & !BY_TOKEN);
        }
        cells.publish(self.key_cell(slot), run.key.0);
        if let Some(parent) = parent
            && parent.add::<CHILDREN>(1) == 0
            && !is_model_call(parent_who)
        {
            parent.add::<FIRST>(run.now.wrapping_neg());
        }
        true
    }

    /// A slot of one of the key's sets, owned: the shallowest with room. When there is none, the oldest run
    /// of the last level's two sets makes room.
    #[inline]
    fn claim_empty(self, cells: &Cells, key: RunKey, now: u64, evicted: &mut impl FnMut(Run)) -> usize {
        let [small, middle, mut a, mut b] = self.sets_of(key);
        for (level, set) in [small, middle] {
            if self.levels.get(level) != Some(&0)
                && let Some(slot) = self.claim_in(cells, level, set)
            {
                return slot;
            }
        }
        let free = |set: usize| {
            let slots = set..set.wrapping_add(WAYS);
            slots.filter(|s| cells.get(self.key_cell(*s)) == EMPTY).count()
        };
        if free(b.1) > free(a.1) {
            std::mem::swap(&mut a, &mut b);
        }
        loop {
            for (level, set) in [a, b] {
                if let Some(slot) = self.claim_in(cells, level, set) {
                    return slot;
                }
            }
            let slots = [a, b].into_iter().flat_map(|(_, set)| set..set.wrapping_add(WAYS));
            let runs = slots.map(|slot| (slot, cells.observe(self.key_cell(slot)))).filter(|(_, key)| is_run(*key));
            let oldest = runs.min_by_key(|(slot, _)| cells.get(self.record(*slot).wrapping_add(START)));
            if let Some((slot, key)) = oldest
                && let Some(run) = self.take_slot(cells, slot, key, REAPING, now)
            {
                evicted(run);
            }
        }
    }

    #[inline]
    fn claim_in(self, cells: &Cells, level: usize, set: usize) -> Option<usize> {
        for slot in set..set.wrapping_add(WAYS) {
            let cell = self.key_cell(slot);
            if cells.get(cell) != EMPTY {
                continue;
            }
            let (in_use, bit) = (self.base.wrapping_add(IN_USE), 1 << level);
            // Before the slot is claimed: whoever may know of the run, or clears up after a fork, finds its
            // level in use.
            if cells.get(in_use) & bit == 0 {
                cells.or(in_use, bit);
            }
            if cells.claim(cell, EMPTY, BUSY).is_ok() {
                return Some(slot);
            }
        }
        None
    }

    /// What a model run in flight asked for.
    pub fn asked(self, cells: &Cells, key: RunKey) -> Option<Asked> {
        let slot = self.find(cells, key)?;
        let record = self.run(cells, slot)?;
        let who = record.get::<WHO>();
        let held = |i: usize| cells.get(self.held(slot).wrapping_add(i));
        is_model_call(who).then(|| Asked {
            model: series_in(record.get::<IDS>(), 1),
            start: record.get::<START>(),
            budgets: if who & BUDGETED == 0 { 0 } else { held(0) },
            labels: Labels(if who & LABELED == 0 { 0 } else { held(3) }),
        })
    }

    /// Takes the run out of the table: exactly one caller gets it.
    #[inline]
    pub fn take(self, cells: &Cells, key: RunKey, now: u64) -> Option<Run> {
        let slot = self.find(cells, key)?;
        self.take_slot(cells, slot, key.0, ENDING, now)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // what `start` packed
    fn take_slot(self, cells: &Cells, slot: usize, key: u64, mark: u64, now: u64) -> Option<Run> {
        cells.claim(self.key_cell(slot), key, key | mark).ok()?;
        let record = self.run(cells, slot)?;
        let (who, ids, parent) = (record.get::<WHO>(), record.get::<IDS>(), record.get::<PARENT>());
        let (start, last, first, children) =
            (record.get::<START>(), record.get::<LAST>(), record.get::<FIRST>(), record.get::<CHILDREN>());
        let is_model_call = is_model_call(who);
        let component = series_in(ids, 0);
        let lasted = now.saturating_sub(start);
        let open = if children & ORPHAN == 0 { children } else { 0 };
        let covered = if is_model_call {
            0
        } else if open > 0 {
            first.wrapping_add(now)
        } else {
            first
        };
        let held = |i: usize| cells.get(self.held(slot).wrapping_add(i));
        let streamed = is_model_call && last & NO_TOKEN == 0;
        let mut run = Run {
            key: RunKey(key),
            parent: (parent != EMPTY).then_some(RunKey(parent)),
            start,
            first_token: from_micros(first).filter(|_| streamed),
            first_visible: from_micros(first >> 32).filter(|_| streamed),
            last_token: streamed.then_some(last),
            longest_gap: if streamed { (who & LOW).saturating_mul(1000) } else { 0 },
            kind: Kind::from_code(kind_code(who)).unwrap_or(Kind::Chain),
            component,
            model: if is_model_call { series_in(ids, 1) } else { component },
            gaps: if is_model_call { series_in(ids, 2) } else { component },
            events: if streamed { record.get::<EVENTS>() & COUNT } else { 0 },
            children: open,
            held: if who & BUDGETED == 0 {
                Reservation::default()
            } else {
                Reservation { budgets: held(0), cost: held(1), tokens: held(2) }
            },
            labels: Labels(if who & LABELED == 0 { 0 } else { held(3) }),
            retried: who & RETRIED != 0,
            piped: who & PIPED != 0,
            own: lasted.saturating_sub(covered),
            branch: Branch::Lost,
        };
        if mark == REAPING {
            let budgets = self.reaped_budgets(key);
            if cells.get(budgets) != run.held.budgets {
                cells.set(budgets, run.held.budgets);
            }
        }
        cells.publish(self.left_cell(run.key, mark), key);
        cells.publish(self.key_cell(slot), EMPTY);
        cells.sub(self.base.wrapping_add(LIVE), 1);
        let orphan = children & ORPHAN != 0;
        let parent = run.parent.and_then(|p| self.find(cells, p)).and_then(|slot| self.run(cells, slot));
        run.branch = match parent {
            _ if orphan => Branch::Lost,
            None => Branch::Root(if is_model_call { 0 } else { who as u32 }),
            Some(parent) => self.left_parent(cells, parent, now),
        };
        Some(run)
    }

    /// What the parent is told of a child that leaves, and the root above both.
    #[allow(clippy::cast_possible_truncation)] // a slot
    fn left_parent(self, cells: &Cells, parent: Line<'_>, now: u64) -> Branch {
        // Not below zero: the parent may have been reaped and its slot have a new run.
        let mut n = parent.get::<CHILDREN>();
        while n > 0 && n & ORPHAN == 0 {
            match parent.exchange::<CHILDREN>(n, n.wrapping_sub(1)) {
                Ok(()) if n == 1 && !is_model_call(parent.get::<WHO>()) => {
                    parent.add::<FIRST>(now);
                    break;
                }
                Ok(()) => break,
                Err(found) => n = found,
            }
        }
        if is_model_call(parent.get::<WHO>()) {
            return Branch::Lost;
        }
        let root = (parent.get::<IDS>() >> SERIES_BITS) as usize;
        let Some(slot) = root.checked_sub(1) else { return Branch::Lost };
        let key = cells.get(self.key_cell(slot));
        if is_run(key) { Branch::Under(Root { slot, key }) } else { Branch::Lost }
    }

    /// The newest of the spans under a root; None when it has ended.
    #[allow(clippy::cast_possible_truncation)] // 32 bits
    pub fn newest_span(self, cells: &Cells, root: Root) -> Option<u32> {
        let record = self.run(cells, root.slot)?;
        let who = record.observe::<WHO>();
        (cells.observe(self.key_cell(root.slot)) == root.key).then_some(who as u32)
    }

    /// Makes `newest` the newest span under a root, if that was `before`.
    pub fn hang(self, cells: &Cells, root: Root, before: u32, newest: u32) -> bool {
        let Some(record) = self.run(cells, root.slot) else { return false };
        let who = record.get::<WHO>();
        let (from, to) = (who & !LOW | u64::from(before), who & !LOW | u64::from(newest));
        record.claim::<WHO>(from, to).is_ok()
    }

    /// Notes with its parent, if that is in flight, that a call of a model has failed.
    pub fn failed(self, cells: &Cells, parent: Option<RunKey>, model: SeriesId, now: u64) {
        let record = parent.and_then(|p| self.find(cells, p)).and_then(|slot| self.run(cells, slot));
        if let Some(record) = record.filter(|r| !is_model_call(r.get::<WHO>())) {
            record.set::<EVENTS>(record.get::<EVENTS>() & !COUNT | (model as u64).wrapping_add(1));
            record.set::<LAST>(now);
        }
    }

    /// The model whose failed call the call that began at `start` made good: both under the same parent.
    #[allow(clippy::cast_possible_truncation)] // a series
    pub fn recovered(self, cells: &Cells, parent: Option<RunKey>, start: u64) -> Option<SeriesId> {
        let record = self.run(cells, self.find(cells, parent?)?)?;
        let failed = record.get::<LAST>();
        if is_model_call(record.get::<WHO>()) || failed & NO_TOKEN != 0 || failed > start {
            return None;
        }
        record.exchange::<LAST>(failed, failed | NO_TOKEN).ok()?;
        ((record.get::<EVENTS>() & COUNT) as usize).checked_sub(1)
    }

    /// A token of a run; `visible`: it is no reasoning.
    #[inline]
    pub fn token(self, cells: &Cells, key: RunKey, now: u64, via: Via, visible: bool) -> Token {
        let Some(slot) = self.find(cells, key) else {
            return Token::Unknown;
        };
        let Some(record) = self.run(cells, slot) else { return Token::Unknown };
        let mut events = record.observe::<EVENTS>();
        let before = record.observe::<LAST>();
        let (who, ids, start) = (record.get::<WHO>(), record.get::<IDS>(), record.get::<START>());
        // After these: if any was the next run's, this finds the key gone.
        if cells.observe(self.key_cell(slot)) != key.0 || !is_model_call(who) {
            return Token::Unknown;
        }
        if via == Via::StreamEvent && events & BY_TOKEN != 0 {
            return Token::Echo;
        }
        let by_token = if via == Via::Token { BY_TOKEN } else { 0 };
        while let Err(found) = record.exchange::<EVENTS>(events, events.wrapping_add(1) | by_token) {
            if (found ^ events) & !(COUNT | BY_TOKEN) != 0 {
                return Token::Unknown; // the slot's next run: its start says so
            }
            events = found;
        }
        if record.exchange::<LAST>(before, now).is_err() {
            return Token::Counted;
        }
        let first = record.get::<FIRST>();
        if before & NO_TOKEN != 0 || (visible && first >> 32 == 0) {
            let since = in_micros(now.saturating_sub(start));
            let any = if before & NO_TOKEN == 0 { first & LOW } else { since };
            record.set::<FIRST>(any | if visible { since << 32 } else { 0 });
        }
        if before & NO_TOKEN != 0 {
            return Token::First;
        }
        let gap = now.saturating_sub(before);
        let micros = in_micros(gap).saturating_sub(1);
        let mut longest = who;
        while micros > longest & LOW {
            match record.exchange::<WHO>(longest, longest & !LOW | micros) {
                Ok(()) => break,
                Err(found) => longest = found,
            }
        }
        Token::Next { series: series_in(ids, 2), gap }
    }

    /// Takes the oldest run of all. One scan finds the 256 oldest in order; later evictions pop them: a run
    /// that starts later is younger than all of them. Measured: 2.4 µs a start at 65,536 runs.
    fn evict_oldest(self, cells: &Cells, now: u64) -> Option<Run> {
        let next = self.base.wrapping_add(NEXT_VICTIM);
        let refill = self.base.wrapping_add(REFILL);
        for _ in 0..2 {
            loop {
                // The cursor counts down, so that zeroed cells are an empty list.
                let left = cells.observe(next);
                if left == 0 {
                    break;
                }
                if cells.claim(next, left, left.wrapping_sub(1)).is_err() {
                    continue;
                }
                #[allow(clippy::cast_possible_truncation)] // at most 256
                let victim = self.victim(left.wrapping_sub(1) as usize);
                let (key, start) = (RunKey(cells.observe(victim)), cells.get(victim.wrapping_add(1)));
                // The start too: somebody may use a run id again, for a run that is young.
                if is_run(key.0)
                    && let Some(slot) = self.find(cells, key)
                    && cells.get(self.record(slot).wrapping_add(START)) == start
                    && let Some(run) = self.take_slot(cells, slot, key.0, REAPING, now)
                {
                    return Some(run);
                }
            }
            if cells.claim(refill, 0, 1).is_err() {
                // Another thread scans: the table is over its cap by this one run until the next start.
                return None;
            }
            self.find_victims(cells);
            cells.publish(refill, 0);
        }
        None
    }

    fn find_victims(self, cells: &Cells) {
        let mut oldest: BinaryHeap<(u64, u64)> = BinaryHeap::with_capacity(VICTIMS.saturating_add(1));
        self.each(cells, |_, key, start| {
            if oldest.len() < VICTIMS || oldest.peek().is_some_and(|(t, _)| start < *t) {
                oldest.push((start, key));
                if oldest.len() > VICTIMS {
                    oldest.pop();
                }
            }
        });
        let found = oldest.into_sorted_vec();
        for (i, (start, key)) in found.iter().rev().enumerate() {
            cells.set(self.victim(i).wrapping_add(1), *start);
            cells.publish(self.victim(i), *key);
        }
        cells.publish(self.base.wrapping_add(NEXT_VICTIM), found.len() as u64);
    }

    /// Calls `f(slot, key, start)` for each run; the start is that of the key or of a later run.
    fn each(self, cells: &Cells, mut f: impl FnMut(usize, u64, u64)) {
        for slot in 0..self.slots_in_use(cells) {
            // Relaxed first: an empty slot, and most are, costs a plain load.
            if !is_run(cells.get(self.key_cell(slot))) {
                continue;
            }
            let key = cells.observe(self.key_cell(slot));
            if is_run(key) {
                f(slot, key, cells.get(self.record(slot).wrapping_add(START)));
            }
        }
    }

    /// Takes every run that started before `limit` and every orphan; the flag says which. Returns how many
    /// model runs stay in flight.
    pub fn reap(self, cells: &Cells, limit: u64, now: u64, mut reaped: impl FnMut(Run, bool)) -> u64 {
        let mut models = 0_u64;
        self.each(cells, |slot, key, start| {
            let orphan = self.run(cells, slot).is_some_and(|r| r.get::<CHILDREN>() & ORPHAN != 0);
            if start < limit || orphan {
                if let Some(run) = self.take_slot(cells, slot, key, REAPING, now) {
                    reaped(run, orphan);
                }
            } else if is_model_call(cells.get(self.record(slot).wrapping_add(WHO))) {
                models = models.saturating_add(1);
            }
        });
        models
    }

    /// Calls `f` for each model call in flight whose last token came before `limit`.
    pub fn silent(self, cells: &Cells, limit: u64, mut f: impl FnMut(Streaming)) {
        self.each(cells, |slot, key, start| {
            let Some(record) = self.run(cells, slot) else { return };
            let (last, ids, events) = (record.get::<LAST>(), record.get::<IDS>(), record.get::<EVENTS>());
            if last & NO_TOKEN == 0 && last < limit && is_model_call(record.get::<WHO>()) {
                let (model, gaps) = (series_in(ids, 1), series_in(ids, 2));
                f(Streaming { key: RunKey(key), model, gaps, start, last, events: events & COUNT });
            }
        });
    }

    /// Marks every descendant of a run that is gone as an orphan, and takes those marked a second ago and
    /// before. Not at once: a stream that its reader leaves ends its chain first and its model call, as
    /// cancelled, a moment later. Only for a run that left with open children: a scan of the keys in use for
    /// each generation, 0.4 ms with 65,536 runs in flight.
    pub fn orphan(
        self,
        cells: &Cells,
        of: RunKey,
        now: u64,
        mut left: impl FnMut(Orphan),
        mut reaped: impl FnMut(Run),
    ) {
        let mut parents = vec![of.0];
        while !parents.is_empty() {
            let mut found = Vec::new();
            self.each(cells, |slot, key, start| {
                let Some(record) = self.run(cells, slot) else { return };
                let (children, parent) = (record.get::<CHILDREN>(), record.get::<PARENT>());
                if children & ORPHAN != 0 {
                    if now.saturating_sub(children & !ORPHAN) > GRACE
                        && let Some(run) = self.take_slot(cells, slot, key, REAPING, now)
                    {
                        reaped(run);
                    }
                    return;
                }
                let (who, ids) = (record.get::<WHO>(), record.get::<IDS>());
                if parents.binary_search(&parent).is_err()
                    || record.exchange::<CHILDREN>(children, now | ORPHAN).is_err()
                {
                    return;
                }
                let component = series_in(ids, 0);
                left(Orphan {
                    key: RunKey(key),
                    parent: RunKey(parent),
                    start,
                    kind: Kind::from_code(kind_code(who)).unwrap_or(Kind::Chain),
                    component,
                    model: if is_model_call(who) { series_in(ids, 1) } else { component },
                    piped: who & PIPED != 0,
                });
                if children > 0 {
                    found.push(key);
                }
            });
            found.sort_unstable();
            parents = found;
        }
    }

    /// Back to empty; only while nobody records.
    pub fn clear(self, cells: &Cells) {
        for slot in 0..self.slots_in_use(cells) {
            if cells.get(self.key_cell(slot)) != EMPTY {
                cells.set(self.key_cell(slot), EMPTY);
            }
        }
        for cell in self.left..self.left.wrapping_add(LEFT * 3) {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NONE: Reservation = Reservation { budgets: 0, cost: 0, tokens: 0 };

    fn table(capacity: u64) -> (Cells, RunTable) {
        (Cells::zeroed(RunTable::cells(capacity)).expect("cells"), RunTable::at(0, capacity))
    }

    fn start(key: u64, now: u64) -> Start {
        let key = RunKey::new(key);
        let (parent, kind, held, labels, retried) = (None, Kind::Llm, NONE, Labels::default(), false);
        Start { key, parent, now, kind, component: 7, model: 8, gaps: 9, held, labels, retried, piped: false }
    }

    #[test]
    fn a_run_leaves_with_what_it_came_with() {
        let (cells, table) = table(4);
        let held = Reservation { budgets: 5, cost: 6, tokens: 7 };
        let labels = Labels::new([3, 1_000_010]);
        let s = Start { parent: Some(RunKey::new(99)), held, labels, retried: true, piped: true, ..start(5, 1000) };
        assert!(table.start(&cells, &s, |_| unreachable!()));
        let asked = Asked { model: 8, start: 1000, budgets: 5, labels };
        assert_eq!(table.asked(&cells, s.key), Some(asked));
        assert_eq!(table.token(&cells, s.key, 6_000, Via::Token, false), Token::First);
        assert_eq!(table.token(&cells, s.key, 26_000, Via::Token, true), Token::Next { series: 9, gap: 20_000 });
        assert_eq!(table.token(&cells, s.key, 36_000, Via::Token, true), Token::Next { series: 9, gap: 10_000 });
        let run = table.take(&cells, s.key, 50_000).expect("in flight");
        let want = Run {
            key: s.key,
            parent: s.parent,
            start: 1000,
            first_token: Some(5_000),
            first_visible: Some(25_000),
            last_token: Some(36_000),
            longest_gap: 20_000,
            kind: Kind::Llm,
            component: 7,
            model: 8,
            gaps: 9,
            events: 3,
            children: 0,
            held: s.held,
            labels,
            retried: true,
            piped: true,
            own: 49_000,
            branch: Branch::Root(0),
        };
        assert_eq!(run, want);
        assert_eq!(table.take(&cells, s.key, 50_000), None);
        assert_eq!(table.live(&cells), 0);
        // What the slot held before is not its next run's.
        table.start(&cells, &start(5, 1), |_| ());
        let next = table.take(&cells, s.key, 2).map(|r| (r.held, r.labels, r.retried, r.longest_gap, r.first_token));
        assert_eq!(next, Some((NONE, Labels::default(), false, 0, None)));
    }

    #[test]
    fn labels_are_up_to_three_series() {
        let all: Vec<_> = Labels::new([0, 1_000_010, 7, 9]).iter().collect();
        assert_eq!(all, [0, 1_000_010, 7]);
        assert_eq!(Labels::default().iter().count(), 0);
    }

    #[test]
    fn own_time_is_that_in_which_no_child_ran() {
        let (cells, table) = table(64);
        let run = |key, parent, now| Start { parent, kind: Kind::Chain, ..start(key, now) };
        let of = |key| Some(RunKey::new(key));
        table.start(&cells, &run(10, None, 100), |_| ());
        // Two that overlap, from 110 to 150; one after them; one still open at the end.
        table.start(&cells, &run(11, of(10), 110), |_| ());
        table.start(&cells, &run(12, of(10), 120), |_| ());
        table.start(&cells, &run(13, of(11), 122), |_| ());
        assert_eq!(table.take(&cells, RunKey::new(13), 128).map(|r| r.own), Some(6));
        assert_eq!(table.take(&cells, RunKey::new(11), 130).map(|r| r.own), Some(14));
        assert_eq!(table.take(&cells, RunKey::new(12), 150).map(|r| r.own), Some(30));
        table.start(&cells, &run(14, of(10), 160), |_| ());
        assert_eq!(table.take(&cells, RunKey::new(14), 165).map(|r| r.own), Some(5));
        table.start(&cells, &run(15, of(10), 180), |_| ());
        let root = table.take(&cells, RunKey::new(10), 200).expect("in flight");
        assert_eq!((root.own, root.children), (100 - 40 - 5 - 20, 1));
    }

    #[test]
    fn spans_hang_under_the_root_of_their_tree() {
        let (cells, table) = table(64);
        let run = |key, parent, kind| Start { parent, kind, ..start(key, 1) };
        let of = |key| Some(RunKey::new(key));
        table.start(&cells, &run(10, None, Kind::Chain), |_| ());
        table.start(&cells, &run(11, of(10), Kind::Chain), |_| ());
        table.start(&cells, &run(12, of(11), Kind::Llm), |_| ());
        let Some(Branch::Under(root)) = table.take(&cells, RunKey::new(12), 2).map(|r| r.branch) else {
            panic!("it has a root");
        };
        assert_eq!((root.key(), table.newest_span(&cells, root)), (RunKey::new(10), Some(0)));
        assert!(table.hang(&cells, root, 0, 77));
        assert!(!table.hang(&cells, root, 0, 78));
        assert_eq!(table.take(&cells, RunKey::new(11), 3).map(|r| r.branch), Some(Branch::Under(root)));
        assert_eq!(table.take(&cells, RunKey::new(10), 4).map(|r| r.branch), Some(Branch::Root(77)));
        assert_eq!(table.newest_span(&cells, root), None);
    }

    #[test]
    fn a_later_attempt_under_the_same_parent_makes_good_for_a_failed_one() {
        let (cells, table) = table(64);
        let parent = Some(RunKey::new(10));
        table.start(&cells, &Start { kind: Kind::Chain, ..start(10, 1) }, |_| ());
        assert_eq!(table.recovered(&cells, parent, 9), None);
        table.failed(&cells, parent, 8, 5);
        assert_eq!(table.recovered(&cells, parent, 4), None, "it had begun before the other failed");
        assert_eq!(table.recovered(&cells, parent, 6), Some(8));
        assert_eq!(table.recovered(&cells, parent, 7), None, "once");
        table.failed(&cells, Some(RunKey::new(11)), 8, 5);
        assert_eq!(table.recovered(&cells, None, 7), None);
    }

    #[test]
    fn what_is_below_a_second_attempt_is_one_too() {
        let (cells, table) = table(64);
        table.start(&cells, &Start { kind: Kind::Chain, retried: true, ..start(10, 1) }, |_| ());
        table.start(&cells, &Start { parent: Some(RunKey::new(10)), ..start(11, 1) }, |_| ());
        assert_eq!(table.take(&cells, RunKey::new(11), 2).map(|r| r.retried), Some(true));
    }

    #[test]
    fn a_stream_without_a_token_for_long_is_silent() {
        let (cells, table) = table(64);
        for (key, last) in [(5, 40), (6, 60)] {
            table.start(&cells, &start(key, 10), |_| ());
            table.token(&cells, RunKey::new(key), last, Via::Token, true);
        }
        table.start(&cells, &start(7, 10), |_| ());
        let mut silent = Vec::new();
        table.silent(&cells, 50, |s| silent.push(s));
        assert_eq!(silent, [Streaming { key: RunKey::new(5), model: 8, gaps: 9, start: 10, last: 40, events: 1 }]);
    }

    #[test]
    fn a_token_of_a_run_that_is_no_model_call_is_none() {
        let (cells, table) = table(64);
        table.start(&cells, &Start { kind: Kind::Chain, ..start(5, 1) }, |_| ());
        assert_eq!(table.token(&cells, RunKey::new(5), 2, Via::Token, true), Token::Unknown);
        assert_eq!(table.take(&cells, RunKey::new(5), 9).map(|r| (r.own, r.events)), Some((8, 0)));
    }

    #[test]
    fn a_reaped_run_leaves_its_budgets_behind() {
        let (cells, table) = table(64);
        let held = Reservation { budgets: 5, cost: 6, tokens: 7 };
        table.start(&cells, &Start { held, ..start(5, 1) }, |_| ());
        table.reap(&cells, 2, 20, |_, _| ());
        assert_eq!(table.budgets_of_reaped(&cells, RunKey::new(5)), 5);
        table.start(&cells, &start(5, 1), |_| ());
        table.reap(&cells, 2, 20, |_, _| ());
        assert_eq!(table.budgets_of_reaped(&cells, RunKey::new(5)), 0);
    }

    #[test]
    fn a_second_start_of_a_run_is_refused() {
        let (cells, table) = table(4);
        assert!(table.start(&cells, &start(5, 1), |_| ()));
        assert!(!table.start(&cells, &start(5, 2), |_| ()));
        assert_eq!((table.live(&cells), table.take(&cells, RunKey::new(5), 2000).map(|r| r.start)), (1, Some(1)));
    }

    #[test]
    fn a_token_reported_by_both_hooks_counts_once() {
        let (cells, table) = table(4);
        table.start(&cells, &start(5, 1), |_| ());
        let key = RunKey::new(5);
        assert_eq!(table.token(&cells, key, 2, Via::Token, true), Token::First);
        assert_eq!(table.token(&cells, key, 2, Via::StreamEvent, true), Token::Echo);
        assert_eq!(table.token(&cells, key, 3, Via::Token, true), Token::Next { series: 9, gap: 1 });
        assert_eq!(table.take(&cells, key, 9).map(|r| r.events), Some(2));
        table.start(&cells, &start(6, 1), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(6), 2, Via::StreamEvent, true), Token::First);
        assert_eq!(table.token(&cells, RunKey::new(6), 4, Via::StreamEvent, true), Token::Next { series: 9, gap: 2 });
        assert_eq!(table.token(&cells, RunKey::new(7), 4, Via::Token, true), Token::Unknown);
    }

    #[test]
    fn a_first_token_at_the_instant_of_the_start_is_a_first_token() {
        let (cells, table) = table(4);
        table.start(&cells, &start(5, 10), |_| ());
        assert_eq!(table.token(&cells, RunKey::new(5), 10, Via::Token, true), Token::First);
        assert_eq!(table.token(&cells, RunKey::new(5), 10, Via::Token, true), Token::Next { series: 9, gap: 0 });
        assert_eq!(table.take(&cells, RunKey::new(5), 2000).and_then(|r| r.first_token), Some(0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes, and nothing unsafe in it")]
    fn at_capacity_the_oldest_makes_room() {
        for capacity in [1, 5, 100, 1000, 10_000] {
            let (cells, table) = table(capacity);
            let mut gone = Vec::new();
            for i in 0..capacity + 700 {
                table.start(&cells, &start(i, 1000 + i), |run| gone.push(run.start));
            }
            let want: Vec<u64> = (1000..1700).collect();
            assert_eq!((gone, table.live(&cells)), (want, capacity));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes, and nothing unsafe in it")]
    fn a_full_pair_of_sets_gives_up_its_oldest() {
        let (cells, table) = table(1000);
        let home = table.sets_of(RunKey::new(3));
        let same: Vec<u64> = (3..2_000_000)
            .filter(|k| {
                let s = table.sets_of(RunKey::new(*k));
                s == home
            })
            .take(17)
            .collect();
        assert_eq!(same.len(), 17);
        let mut gone = Vec::new();
        for (t, key) in same.iter().enumerate() {
            table.start(&cells, &start(*key, 1 + t as u64), |run| gone.push(run.key));
        }
        assert_eq!((gone, table.live(&cells)), (vec![RunKey::new(same[0])], 16));
    }

    #[test]
    fn an_ancestor_orphans_its_descendants_of_every_generation() {
        let (cells, table) = table(64);
        let child = |key, parent| Start { parent: Some(RunKey::new(parent)), ..start(key, 1) };
        table.start(&cells, &start(10, 1), |_| ());
        for (key, parent) in [(11, 10), (12, 10), (13, 11), (14, 13), (15, 11), (20, 19)] {
            table.start(&cells, &child(key, parent), |_| ());
        }
        assert_eq!(table.take(&cells, RunKey::new(12), 2000).map(|r| r.children), Some(0));
        let root = table.take(&cells, RunKey::new(10), 2000).expect("in flight");
        assert_eq!(root.children, 1);
        table.orphan(&cells, root.key, 5, |_| (), |_| unreachable!());
        // One ends by itself after all; the others go with the next look that is a second later.
        assert!(table.take(&cells, RunKey::new(15), 2000).is_some());
        let mut gone = Vec::new();
        table.orphan(&cells, RunKey::new(77), 5 + GRACE, |_| (), |_| unreachable!());
        table.orphan(&cells, RunKey::new(77), 6 + GRACE, |_| (), |r| gone.push((r.key.get(), r.children)));
        gone.sort_unstable();
        assert_eq!((gone, table.live(&cells)), (vec![(11, 0), (13, 0), (14, 0)], 1));
    }

    #[test]
    fn orphans_are_reaped_whatever_their_age() {
        let (cells, table) = table(64);
        table.start(&cells, &start(10, 9), |_| ());
        table.start(&cells, &Start { parent: Some(RunKey::new(10)), ..start(11, 9) }, |_| ());
        table.start(&cells, &start(12, 1), |_| ());
        table.take(&cells, RunKey::new(10), 2000);
        table.orphan(&cells, RunKey::new(10), 10, |_| (), |_| unreachable!());
        let mut gone = Vec::new();
        assert_eq!(table.reap(&cells, 5, 20, |run, orphan| gone.push((run.key.get(), orphan))), 0);
        gone.sort_unstable();
        assert_eq!(gone, vec![(11, true), (12, false)]);
    }

    #[test]
    fn what_is_older_than_the_limit_is_reaped_and_the_rest_counted() {
        let (cells, table) = table(64);
        for i in 2..12 {
            let kind = if i % 2 == 0 { Kind::Llm } else { Kind::Chain };
            table.start(&cells, &Start { kind, ..start(i, i) }, |_| ());
        }
        let mut gone = Vec::new();
        assert_eq!(table.reap(&cells, 7, 20, |r, _| gone.push(r.start)), 2);
        gone.sort_unstable();
        assert_eq!(gone, vec![2, 3, 4, 5, 6]);
        table.clear(&cells);
        assert_eq!((table.live(&cells), table.reap(&cells, u64::MAX, 20, |_, _| unreachable!())), (0, 0));
    }

    #[test]
    fn keys_the_table_uses_itself_move_elsewhere_and_a_cap_outside_its_range_is_refused() {
        let (cells, table) = table(4);
        for key in [0, 1] {
            assert!(table.start(&cells, &start(key, 1), |_| ()));
            assert!(table.take(&cells, RunKey::new(key), 2000).is_some());
        }
        assert!(RunTable::check(0).is_err() && RunTable::check(1 << 25).is_err());
        assert_eq!(RunTable::check(9), Ok(9));
    }

    proptest! {
        /// Against a plain map with the same rules.
        #[test]
        fn the_table_is_a_bounded_map(steps in prop::collection::vec((0..4_u8, 2..40_u64), 1..300), capacity in 1..24_u64) {
            let (cells, table) = table(capacity);
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            for (now, (op, key)) in (1..).zip(steps) {
                match op {
                    0 | 1 => {
                        let mut gone = Vec::new();
                        let fresh = table.start(&cells, &start(key, now), |r| gone.push(r.key.get()));
                        prop_assert_eq!(fresh, !model.contains_key(&key));
                        if fresh {
                            if model.len() as u64 >= capacity {
                                let oldest = *model.iter().min_by_key(|(_, t)| **t).expect("not empty").0;
                                model.remove(&oldest);
                                prop_assert_eq!(gone, vec![oldest]);
                            }
                            model.insert(key, now);
                        }
                    }
                    2 => prop_assert_eq!(table.take(&cells, RunKey::new(key), 2000).map(|r| r.start), model.remove(&key)),
                    _ => prop_assert_eq!(
                        table.token(&cells, RunKey::new(key), now, Via::Token, true) != Token::Unknown, model.contains_key(&key)
                    ),
                }
                prop_assert_eq!(table.live(&cells), model.len() as u64);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    const NONE: Reservation = Reservation { budgets: 0, cost: 0, tokens: 0 };

    fn table() -> (Arc<Cells>, RunTable) {
        (Arc::new(Cells::zeroed(RunTable::cells(2)).expect("cells")), RunTable::at(0, 2))
    }

    fn start(key: u64, now: u64) -> Start {
        let key = RunKey::new(key);
        let (parent, kind, held, labels, retried) = (None, Kind::Llm, NONE, Labels::default(), false);
        Start { key, parent, now, kind, component: 7, model: 8, gaps: 9, held, labels, retried, piped: false }
    }

    #[test]
    fn a_run_leaves_exactly_once() {
        loom::model(|| {
            let (cells, table) = table();
            table.start(&cells, &start(5, 10), |_| ());
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || table.take(&cells, RunKey::new(5), 2000))
            };
            let mut reaped = 0;
            table.reap(&cells, u64::MAX, 20, |run, _| {
                assert_eq!(run.start, 10);
                reaped += 1;
            });
            let ended = there.join().expect("joins");
            assert_eq!(reaped + u32::from(ended.is_some()), 1);
            assert_eq!(table.live(&cells), 0);
        });
    }

    #[test]
    fn two_runs_that_start_together_are_both_in_flight() {
        loom::model(|| {
            let (cells, table) = table();
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || table.start(&cells, &start(5, 10), |_| panic!("room for two")))
            };
            assert!(table.start(&cells, &start(6, 11), |_| panic!("room for two")));
            assert!(there.join().expect("joins"));
            assert_eq!(table.take(&cells, RunKey::new(5), 2000).map(|r| r.start), Some(10));
            assert_eq!(table.take(&cells, RunKey::new(6), 2000).map(|r| r.start), Some(11));
        });
    }

    #[test]
    fn a_reaper_never_takes_a_fresh_run_for_the_old_one_of_its_slot() {
        loom::model(|| {
            let (cells, table) = table();
            table.start(&cells, &start(5, 10), |_| ());
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || {
                    table.take(&cells, RunKey::new(5), 2000);
                    table.start(&cells, &start(7, 100), |_| ());
                })
            };
            table.reap(&cells, 50, 60, |run, _| assert_eq!(run.start, 10));
            there.join().expect("joins");
            assert_eq!(table.take(&cells, RunKey::new(7), 2000).map(|r| r.start), Some(100));
        });
    }

    #[test]
    fn a_late_token_never_moves_the_figures_of_the_slots_next_run() {
        loom::model(|| {
            let (cells, table) = table();
            table.start(&cells, &start(5, 10), |_| ());
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || table.token(&cells, RunKey::new(5), 20, Via::StreamEvent, true))
            };
            table.take(&cells, RunKey::new(5), 2000);
            table.start(&cells, &start(7, 100), |_| ());
            let token = there.join().expect("joins");
            assert!(matches!(token, Token::Unknown | Token::First | Token::Counted), "{token:?}");
            let next = table.token(&cells, RunKey::new(7), 130, Via::StreamEvent, true);
            assert_eq!(next, Token::First, "after {token:?}");
        });
    }
}
