//! Where everything lies in the arena.

use super::{Recorder, Settings, identity};
use crate::arena::Cells;
use crate::arena::Phaser;
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

// A series: counters of phase 0 | what is known of it | counters of phase 1 | windows | histograms, without buckets |
// figures of attempts at defects, what entered and what left.
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
const _: () = assert!(CALLS_HOME < COUNTER_CELLS, "a series' counters outgrew their cells");

// The header.
pub(super) const GENERATION: usize = 0;
pub(super) const STARTED: usize = 1;
/// Model calls in flight, and the most there ever were: on a line of their own.
pub(super) const ALL_IN_FLIGHT: usize = 8;
pub(super) const ALL_PEAK: usize = 9;
/// The phases of writers: on the same line, which every end of a call writes anyway.
const PHASER: usize = 10;
const _: () = assert!(PHASER + Phaser::CELLS <= DROPPED);
pub(super) const DROPPED: usize = 16;
pub(super) const HEADER: usize = 64;
/// Durations that wait for the end of a snapshot: how many, on a line of its own, and room for them.
pub(super) const DEFERRED: usize = 8;
pub(super) const DEFERRED_CELLS: usize = 1 << 18;
const _: () = assert!(DROPPED + Dropped::ALL.len() <= HEADER, "the header is too small");

impl Recorder {
    /// Reserves the arena: 437 MB of address space at the defaults, of which 100 KB are resident at first.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, Error> {
        let slots = SeriesTable::check(settings.max_series)?;
        let max_runs = RunTable::check(settings.max_runs)?;
        let layout = Layout::new(settings.significant_digits)?;
        let max_age = u64::try_from(settings.max_run_age.as_nanos()).unwrap_or(u64::MAX);
        if max_age == 0 {
            return Err(Error::OutOfRange { name: "max_run_age", value: "0".into(), allowed: "more than 0 seconds" });
        }
        let coarse = Layout::new(2)?;
        let precise = histogram::Recorder::cells(layout).saturating_mul(PRECISE);
        let rest = histogram::Recorder::cells(coarse).saturating_mul(MEASURES - PRECISE);
        let stride = (COUNTER_CELLS * 2).saturating_add(Window::CELLS).saturating_add(precise).saturating_add(rest);
        let tallies = stride;
        let stride = stride.saturating_add(TALLIES * 2);
        let series = HEADER;
        let runs = series.saturating_add(SeriesTable::cells(slots));
        let budgets = runs.saturating_add(RunTable::cells(max_runs)).next_multiple_of(8);
        let spans = budgets.saturating_add(Budgets::CELLS).next_multiple_of(8);
        let money = spans.saturating_add(Spans::CELLS);
        let deferred = money.saturating_add(Window::CELLS);
        let blocks = deferred.saturating_add(DEFERRED + DEFERRED_CELLS);
        let stride = stride.next_multiple_of(8);
        let all = slots.saturating_add(Kind::ALL.len());
        let pool = blocks.saturating_add(all.saturating_mul(stride));
        let rooms = rooms(all, layout, coarse);
        let total = pool.saturating_add(Pool::cells(rooms));
        let recorder = Self {
            cells: Cells::zeroed(total)?,
            id: identity(),
            max_age,
            layout,
            coarse,
            runs: RunTable::at(runs, max_runs),
            series: SeriesTable::at(series, slots),
            budgets: Budgets::at(budgets),
            spans: Spans::at(spans),
            phaser: Phaser::at(PHASER),
            deferred,
            pool: Pool::at(pool, rooms),
            money: Window::at(money),
            blocks,
            stride,
            tallies,
            book: Mutex::default(),
            tracked: AtomicBool::new(false),
            clock,
        };
        recorder.cells.set(STARTED, recorder.clock.now());
        Ok(recorder)
    }

    pub(super) const fn block(&self, id: SeriesId) -> usize {
        self.blocks.wrapping_add(id.wrapping_mul(self.stride))
    }

    pub(super) const fn window(&self, id: SeriesId) -> Window {
        Window::at(self.block(id).wrapping_add(COUNTER_CELLS * 2))
    }

    /// Where what entered a figure of attempts is counted; what left it follows.
    pub(super) const fn tally(&self, id: SeriesId, tally: Tally) -> usize {
        self.block(id).wrapping_add(self.tallies).wrapping_add(tally.wrapping_mul(2))
    }

    pub(super) fn histogram(&self, id: SeriesId, measure: Measure) -> histogram::Recorder {
        let first = self.block(id).wrapping_add(COUNTER_CELLS * 2).wrapping_add(Window::CELLS);
        let (n, precise) = (measure as usize, histogram::Recorder::cells(self.layout));
        if n < PRECISE {
            return histogram::Recorder::at(self.layout, first.wrapping_add(n.wrapping_mul(precise)), self.pool);
        }
        let before = n.wrapping_sub(PRECISE).wrapping_mul(histogram::Recorder::cells(self.coarse));
        let coarse = first.wrapping_add(precise.wrapping_mul(PRECISE)).wrapping_add(before);
        histogram::Recorder::at(self.coarse, coarse, self.pool)
    }
}

/// Blocks of buckets for so many series: all that there can be for 64 of them, and 512 for each of the others. A
/// distribution over two octaves takes 32.
fn rooms(series: usize, precise: Layout, coarse: Layout) -> usize {
    let all =
        precise.blocks().saturating_mul(PRECISE).saturating_add(coarse.blocks().saturating_mul(MEASURES - PRECISE));
    let wide = series.min(64);
    wide.saturating_mul(all).saturating_add(series.saturating_sub(wide).saturating_mul(512))
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn at_the_defaults_the_arena_is_437_mb_of_address_space() {
        let settings = Settings::default();
        let recorder = Recorder::new(settings, Clock::Manual(ManualClock::default())).expect("the defaults");
        assert_eq!(recorder.cells.len() * 8, 437_269_248);
    }
}
