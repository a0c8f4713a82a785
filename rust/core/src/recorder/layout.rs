//! Where everything lies in the arena.

use super::{Recorder, Settings, identity};
use crate::arena::{Cells, PAGE, Phaser, Region};
use crate::budget::Budgets;
use crate::clock::Clock;
use crate::defects::{TALLIES, Tally};
use crate::error::Error;
use crate::histogram::{self, Layout, Pool};
use crate::metrics::{COUNTERS, Dropped, MEASURES, Measure, PRECISE};
use crate::pipeline::Spans;
use crate::runs::RunTable;
use crate::series::{Kind, SeriesId, SeriesTable};
use crate::window::Window;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

// A series: counters of phase 0 | what is known of it | counters of phase 1 | which slots of its windows were used |
// histograms, without buckets | figures of attempts at defects, what entered and what left. The slots of its windows lie
// apart, behind the blocks of all series: most of their pages are not read, and a reader of a file would map them with the
// rest.
pub(super) const COUNTER_CELLS: usize = 64;
pub(super) const HOME: usize = COUNTERS;
pub(super) const ALIAS: usize = COUNTERS + 1;
pub(super) const LARGEST: usize = COUNTERS + 2;
pub(super) const IN_FLIGHT: usize = COUNTERS + 3;
pub(super) const PEAK: usize = COUNTERS + 4;
/// Measures that have a value, a bit each: a snapshot looks at no other.
pub(super) const MEASURED: usize = COUNTERS + 5;
/// The model, plus one, that shows the calls in flight and the peak which were counted under this name.
pub(super) const CALLS_HOME: usize = COUNTERS + 6;
/// Of the row `other` of a label: the rows that this label has.
pub(super) const ROWS: usize = COUNTERS + 7;
const _: () = assert!(ROWS < COUNTER_CELLS, "a series' counters outgrew their cells");

/// Where the histograms of a series begin in its block.
const HISTOGRAMS: usize = COUNTER_CELLS * 2 + Window::USED;

// The header of the file, empty without one: see `file`. Then that of the arena.
pub(super) const FILE: usize = 64;
pub(super) const GENERATION: usize = FILE;
pub(super) const STARTED: usize = FILE + 1;
/// The region of the series' blocks.
const SERIES_REGION: usize = FILE + 2;
const _: () = assert!(SERIES_REGION + Region::CELLS <= ALL_IN_FLIGHT);
/// Model calls in flight, and the most there ever were: on a line of their own.
pub(super) const ALL_IN_FLIGHT: usize = FILE + 8;
pub(super) const ALL_PEAK: usize = FILE + 9;
/// The phases of writers: on the same line, which every end of a call writes anyway.
const PHASER: usize = FILE + 10;
const _: () = assert!(PHASER + Phaser::CELLS <= DROPPED);
pub(super) const DROPPED: usize = FILE + 16;
pub(super) const HEADER: usize = FILE + 64;
/// Durations that wait for the end of a snapshot: how many, and the cell of that which is being filed, on a line of their
/// own, and room for them.
pub(super) const DEFERRED: usize = 8;
pub(super) const FILING: usize = 1;
pub(super) const DEFERRED_CELLS: usize = 1 << 16;
const _: () = assert!(DROPPED + Dropped::ALL.len() <= HEADER, "the header is too small");
/// Series whose blocks a file gets at once: 1 MiB.
const PIECE: usize = 24;

/// Where each part of the arena begins. First what only adds, which a file may back; then what is claimed and given back:
/// runs, budgets, spans.
#[derive(Debug)]
pub(super) struct Places {
    slots: usize,
    series: usize,
    money: usize,
    deferred: usize,
    pool_header: usize,
    blocks: usize,
    windows: usize,
    stride: usize,
    tallies: usize,
    pool: usize,
    rooms: usize,
    /// The end of what a file may back.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    shared: usize,
    runs: usize,
    budgets: usize,
    spans: usize,
    all: usize,
}

impl Places {
    pub(super) fn new(slots: usize, max_runs: u64, layout: Layout, coarse: Layout) -> Self {
        let precise = histogram::Recorder::cells(layout).saturating_mul(PRECISE);
        let rest = histogram::Recorder::cells(coarse).saturating_mul(MEASURES - PRECISE);
        let tallies = HISTOGRAMS.saturating_add(precise).saturating_add(rest);
        let stride = tallies.saturating_add(TALLIES * 2).next_multiple_of(8);
        let series = HEADER;
        let money = series.saturating_add(SeriesTable::cells(slots)).next_multiple_of(8);
        let deferred = money.saturating_add(Window::CELLS);
        let pool_header = deferred.saturating_add(DEFERRED + DEFERRED_CELLS);
        let blocks = pool_header.saturating_add(Pool::HEADER).next_multiple_of(PAGE);
        let series_and_others = slots.saturating_add(Kind::ALL.len());
        let windows = blocks.saturating_add(series_and_others.saturating_mul(stride)).next_multiple_of(PAGE);
        let pool = windows.saturating_add(series_and_others.saturating_mul(Window::SLOTS)).next_multiple_of(PAGE);
        let rooms = rooms(series_and_others, layout, coarse);
        let shared = pool.saturating_add(Pool::block_cells(rooms)).next_multiple_of(PAGE);
        let runs = shared;
        let budgets = runs.saturating_add(RunTable::cells(max_runs)).next_multiple_of(8);
        let spans = budgets.saturating_add(Budgets::CELLS).next_multiple_of(8);
        let all = spans.saturating_add(Spans::CELLS);
        Self {
            slots,
            series,
            money,
            deferred,
            pool_header,
            blocks,
            windows,
            stride,
            tallies,
            pool,
            rooms,
            #[cfg(all(target_os = "linux", not(any(loom, miri))))]
            shared,
            runs,
            budgets,
            spans,
            all,
        }
    }

    /// Hash of what a reader of the shared part has to know as its writer did.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    pub(super) fn hash(&self) -> u64 {
        use crate::arena::LINE;
        use crate::defects::stable_hash;
        use crate::metrics::{Counter, Outcome};

        let blocks = [
            self.slots,
            self.series,
            self.money,
            self.deferred,
            self.pool_header,
            self.blocks,
            self.windows,
            self.pool,
        ];
        let sizes = [self.stride, self.tallies, self.rooms, self.shared, COUNTER_CELLS, Window::CELLS, PAGE, LINE];
        let mut text = format!("{blocks:?} {sizes:?}");
        let names = Outcome::ALL.iter().map(|x| x.name()).chain(Counter::ALL.iter().map(|x| x.name()));
        let names = names.chain(Measure::ALL.iter().map(|x| x.name())).chain(Kind::ALL.iter().map(|x| x.name()));
        for name in names.chain(Dropped::ALL.iter().map(|x| x.name())) {
            text.push(' ');
            text.push_str(name);
        }
        stable_hash(&text)
    }

    /// The recorder over these cells.
    pub(super) fn recorder(
        &self,
        cells: Cells,
        settings: Settings,
        [layout, coarse]: [Layout; 2],
        clock: Clock,
    ) -> Recorder {
        let series = self.slots.saturating_add(Kind::ALL.len());
        let blocks = Region::at(SERIES_REGION, self.blocks, self.stride, series, PIECE);
        let blocks = blocks.beside(self.windows, Window::SLOTS);
        Recorder {
            cells,
            id: identity(),
            max_age: u64::try_from(settings.max_run_age.as_nanos()).unwrap_or(u64::MAX),
            layout,
            coarse,
            runs: RunTable::at(self.runs, settings.max_runs),
            series: SeriesTable::at(self.series, self.slots).with_blocks(blocks),
            budgets: Budgets::at(self.budgets),
            spans: Spans::at(self.spans),
            phaser: Phaser::at(PHASER),
            deferred: self.deferred,
            pool: Pool::apart(self.pool_header, self.pool, self.rooms),
            money: Window::at(self.money),
            blocks: self.blocks,
            windows: self.windows,
            #[cfg(all(target_os = "linux", not(any(loom, miri))))]
            series_blocks: blocks,
            stride: self.stride,
            tallies: self.tallies,
            #[cfg(all(target_os = "linux", not(any(loom, miri))))]
            shared: self.shared,
            #[cfg(all(target_os = "linux", not(any(loom, miri))))]
            settings,
            book: Mutex::default(),
            tracked: AtomicBool::new(false),
            clock,
        }
    }
}

impl Recorder {
    /// Reserves the arena: 128 MB of address space at the defaults, of which 100 KB are resident at first.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, Error> {
        let slots = SeriesTable::check(settings.max_series)?;
        let max_runs = RunTable::check(settings.max_runs)?;
        let layouts = [Layout::new(settings.significant_digits)?, Layout::new(2)?];
        if settings.max_run_age.is_zero() {
            return Err(Error::OutOfRange { name: "max_run_age", value: "0".into(), allowed: "more than 0 seconds" });
        }
        let [layout, coarse] = layouts;
        let places = Places::new(slots, max_runs, layout, coarse);
        let recorder = places.recorder(Cells::zeroed(places.all)?, settings, layouts, clock);
        recorder.cells.set(STARTED, recorder.clock.now());
        Ok(recorder)
    }

    pub(super) const fn block(&self, id: SeriesId) -> usize {
        self.blocks.wrapping_add(id.wrapping_mul(self.stride))
    }

    pub(super) const fn window(&self, id: SeriesId) -> Window {
        let slots = self.windows.wrapping_add(id.wrapping_mul(Window::SLOTS));
        Window::apart(slots, self.block(id).wrapping_add(COUNTER_CELLS * 2))
    }

    /// Where what entered a figure of attempts is counted; what left it follows.
    pub(super) const fn tally(&self, id: SeriesId, tally: Tally) -> usize {
        self.block(id).wrapping_add(self.tallies).wrapping_add(tally.wrapping_mul(2))
    }

    pub(super) fn histogram(&self, id: SeriesId, measure: Measure) -> histogram::Recorder {
        let first = self.block(id).wrapping_add(HISTOGRAMS);
        let precise = histogram::Recorder::cells(self.layout);
        if let Some(n) = measure.precise() {
            return histogram::Recorder::at(self.layout, first.wrapping_add(n.wrapping_mul(precise)), self.pool);
        }
        let before = measure.coarse().wrapping_mul(histogram::Recorder::cells(self.coarse));
        let coarse = first.wrapping_add(precise.wrapping_mul(PRECISE)).wrapping_add(before);
        histogram::Recorder::at(self.coarse, coarse, self.pool)
    }
}

/// Blocks of buckets for so many series: 88 for each, of which a distribution over two octaves takes 32; but always what the
/// widest distributions of six series take, and at most `Pool::MOST`.
fn rooms(series: usize, precise: Layout, coarse: Layout) -> usize {
    let most =
        precise.blocks().saturating_mul(PRECISE).saturating_add(coarse.blocks().saturating_mul(MEASURES - PRECISE));
    series.saturating_mul(88).max(series.min(6).saturating_mul(most)).min(Pool::MOST)
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn at_the_defaults_the_arena_is_128_mb_of_address_space() {
        let settings = Settings::default();
        let recorder = Recorder::new(settings, Clock::Manual(ManualClock::default())).expect("the defaults");
        assert_eq!(recorder.cells.len() * 8, 127_886_720);
    }
}
