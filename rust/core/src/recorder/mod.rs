//! The events: where each one lands in the arena.

mod batch;
mod defects;
mod end;
mod events;
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
mod file;
mod labels;
mod layout;
mod money;
mod pipeline;
mod read;
mod start;

pub use defects::{AttemptFigures, Receipt};
pub use events::{AskedSeries, Begin, Demand, End, FixPulse, Price, Pulse, Repriced, Requested, Series};

use crate::arena::{Cells, Phaser};
use crate::budget::Budgets;
use crate::clock::Clock;
use crate::defects::Book;
use crate::histogram::{Layout, Pool};
use crate::metrics::{Counter, Dropped, Measure, Outcome};
use crate::pipeline::Spans;
use crate::runs::RunTable;
use crate::series::{Kind, SeriesId, SeriesTable};
use crate::window::Window;
use layout::{ALL_IN_FLIGHT, COUNTER_CELLS, DROPPED, GENERATION, HEADER, STARTED};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Sizes of a recorder.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Label sets, 1 to 1,000,000.
    pub max_series: u64,
    /// Runs in flight, 1 to 16,777,216.
    pub max_runs: u64,
    /// When a run in flight counts as abandoned; more than 0.
    pub max_run_age: Duration,
    /// Digits of the histograms, 2 or 3.
    pub significant_digits: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_series: 1024, max_runs: 65_536, max_run_age: Duration::from_secs(3600), significant_digits: 3 }
    }
}

/// The arena and the events that land in it.
///
/// Every method may run in any number of threads at once; none blocks or panics, and none allocates except to
/// reap, to report a failure, and at the end of a pipeline.
///
/// Consistency of a snapshot beside recorders: there is one moment such that each event before it (the end of a run, a
/// price that came late, a run that was abandoned) is in every counter and every distribution that it belongs to, and
/// no later one is in any. So sums over labels, failures and components agree with the totals, a distribution never
/// counts more than the calls it is of, and the same holds for `b - a`. Counters, distributions, `dropped` and peaks
/// never fall from one snapshot to the next. Outside of this moment are: calls in flight and peaks, `dropped`, gaps
/// between tokens and the time inside hooks, which are recorded as they happen; windows, but that they never show more
/// than the counters. Where a thread is kept from running in the middle of an event for 0.1 s, a snapshot does not wait
/// any longer, and this event may be in some figures and not yet in others. Once the recording threads are joined,
/// everything is exact.
#[derive(Debug)]
pub struct Recorder {
    cells: Cells,
    clock: Clock,
    id: u64,
    max_age: u64,
    layout: Layout,
    coarse: Layout,
    runs: RunTable,
    series: SeriesTable,
    budgets: Budgets,
    spans: Spans,
    phaser: Phaser,
    /// Durations that wait for the end of a snapshot.
    deferred: usize,
    pool: Pool,
    money: Window,
    blocks: usize,
    windows: usize,
    stride: usize,
    /// Where figures of attempts lie in the block of a series.
    tallies: usize,
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    series_blocks: crate::arena::Region,
    /// The end of what a file may back.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    shared: usize,
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    settings: Settings,
    /// Attempts at defects; see `defects`.
    book: Mutex<Book>,
    /// Whether a run may be in an attempt.
    tracked: AtomicBool,
}

impl Recorder {
    fn resolve(&self, kind: Kind, a: &str, b: &str) -> SeriesId {
        self.series(kind, a, b).id
    }

    fn note(&self, other: bool, cut: bool) {
        if other {
            self.drop_one(Dropped::SeriesCapped);
        }
        if cut {
            self.drop_one(Dropped::LabelsCut);
        }
    }

    /// Adds to a count of what was lost.
    pub fn dropped(&self, what: Dropped, n: u64) {
        self.cells.add(DROPPED.wrapping_add(what as usize), n);
    }

    fn drop_one(&self, what: Dropped) {
        self.dropped(what, 1);
    }

    /// One finished piece of work that was not a run.
    pub fn count(&self, kind: Kind, name: &str, outcome: Outcome, nanos: Option<u64>) {
        let id = self.resolve(kind, name, "");
        let batch = self.batch();
        batch.outcome(id, outcome);
        if let Some(nanos) = nanos {
            batch.record(id, Measure::Latency, nanos);
            batch.bump(id, Counter::Duration, nanos);
        }
    }

    /// A stream of a model stopped for long.
    pub fn stalled(&self, provider: &str, model: &str) {
        self.batch().bump(self.resolve(Kind::Model, provider, model), Counter::Stalls, 1);
    }

    /// The time spent inside one of our own hooks: one in some events is measured. Kept a thousandfold: a hook
    /// takes less than the microsecond that durations are counted in.
    pub fn in_hook(&self, hook: &str, nanos: u64) {
        self.record_at_once(self.resolve(Kind::Hook, hook, ""), Measure::Latency, nanos.saturating_mul(1000));
    }

    /// Now, Unix nanoseconds.
    pub fn unix_now(&self) -> u64 {
        self.clock.unix(self.clock.now())
    }

    /// Forgets everything but what budgets have spent: for a process that has just been forked and has one
    /// thread. The arena is the parent's, copied on write; the parent reports what it holds.
    pub fn reset_after_fork(&self) {
        // How many forks deep, and who of the siblings.
        let depth = (self.cells.get(GENERATION) >> 32).wrapping_add(1);
        // The file is the parent's: its pages are shared, not copied, and its lock would outlive it here.
        #[cfg(all(target_os = "linux", not(any(loom, miri))))]
        self.cells.detach(0..self.shared);
        if !self.cells.forget(self.budgets.range()) {
            self.clear();
        }
        self.forget_attempts();
        self.budgets.release_all(&self.cells);
        self.cells.set(GENERATION, depth << 32 | identity() >> 32);
        self.cells.set(STARTED, self.clock.now());
    }

    /// Everything but the budgets to zero, cell by cell: where memory cannot be given back at once.
    fn clear(&self) {
        for id in self.series.ids(&self.cells) {
            let block = self.block(id);
            for cell in block..block.wrapping_add(COUNTER_CELLS * 2) {
                self.cells.set(cell, 0);
            }
            self.window(id).clear(&self.cells);
            for measure in Measure::ALL {
                self.histogram(id, *measure).clear(&self.cells);
            }
            self.clear_tallies(id);
        }
        self.series.clear(&self.cells);
        self.runs.clear(&self.cells);
        self.spans.clear(&self.cells);
        self.money.clear(&self.cells);
        self.clear_deferred();
        self.pool.clear(&self.cells);
        for cell in ALL_IN_FLIGHT..HEADER {
            if self.cells.get(cell) != 0 {
                self.cells.set(cell, 0);
            }
        }
    }
}

/// A number that no other recorder has: the standard library's random keys, hashed with process and time. Keys alone are
/// the same in two children of one fork.
fn identity() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    hasher.write_u128(time.as_nanos());
    hasher.finish()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::runs::RunKey;

    /// Calls of each of so many models, and a run in flight.
    fn used(models: u64) -> Recorder {
        let settings = Settings { max_series: 32, max_runs: 16, ..Settings::default() };
        let recorder = Recorder::new(settings, Clock::Manual(ManualClock::default())).expect("recorder");
        for n in 0..models {
            let (key, model) = (RunKey::new(n + 2), format!("m{n}"));
            let begin = Begin {
                key,
                parent: None,
                kind: Kind::Llm,
                name: "chat",
                provider: "openai",
                model: &model,
                demand: None,
                labels: &[("team", "red")],
                retried: false,
                piped: false,
                witness: 0,
            };
            recorder.run_started(&begin).expect("no budget");
            recorder.run_ended(&End { cost: Some(5), ..End::new(key, Kind::Llm) });
            recorder.snapshot();
        }
        recorder
    }

    #[test]
    fn both_ways_to_forget_leave_an_arena_that_counts_from_zero() {
        for cell_by_cell in [false, true] {
            let recorder = used(9);
            if cell_by_cell {
                recorder.clear();
            } else {
                recorder.reset_after_fork();
            }
            assert!(recorder.is_empty());
            let empty = recorder.snapshot();
            assert_eq!((empty.series.len(), empty.dropped.len(), empty.peak, empty.in_flight), (0, 0, 0, 0));
            let left = (HEADER..recorder.cells.len()).filter(|cell| recorder.cells.get(*cell) != 0).count();
            // Cell by cell, what nothing names any more may stay: records of runs, spans, texts.
            let at_once = !cell_by_cell && cfg!(all(target_os = "linux", not(miri)));
            assert!(!at_once || left == 0, "{left} cells");
        }
    }
}
