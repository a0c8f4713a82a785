//! What goes out: snapshots, and what is asked between them.

use super::defects::AttemptFigures;
use super::layout::{ALIAS, ALL_PEAK, CALLS_HOME, COUNTER_CELLS, DROPPED, GENERATION, HOME, IN_FLIGHT, PEAK, STARTED};
use super::{AskedSeries, Pulse, Recorder, Requested, Series};
use crate::arena::Phase;
use crate::metrics::{COUNTERS, Counter, Dropped, Measure, OUTCOMES};
use crate::runs::{RunKey, Streaming};
use crate::series::{Kind, LabelSet, SeriesId};
use crate::snapshot::{Origin, SeriesData, Snapshot, WindowCounts};
use crate::stops::stop;
use crate::window::{Counts, WINDOWS};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Counters of one phase, by series, ascending.
type Banks = [(SeriesId, [u64; COUNTERS])];

/// Those that are full stay so.
fn added(a: &[u64; COUNTERS], b: &[u64; COUNTERS]) -> [u64; COUNTERS] {
    let mut sum = *a;
    sum.iter_mut().zip(b).for_each(|(to, n)| *to = to.saturating_add(*n));
    sum
}

impl Recorder {
    /// Everything so far, at one moment; recorders go on meanwhile. Reaps runs past `max_run_age`, and those whose
    /// ancestor has ended, first.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_with(self.attempt_figures())
    }

    /// The same with figures of attempts that were read by a thread which holds Python's global lock, as those do that
    /// write them: so each verdict is in them whole or not at all, and their costs are never ahead of the counters.
    pub fn snapshot_with(&self, figures: AttemptFigures) -> Snapshot {
        let now = self.clock.now();
        let (in_flight, _) = self.reap(now);
        let series = self.at_one_moment(now, self.cells.get(STARTED));
        self.whole(now, in_flight, series, figures)
    }

    /// Everything in the file of another process, each figure read for itself.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    pub(super) fn snapshot_of_file(&self) -> Snapshot {
        let now = self.clock.now();
        let figures = self.tallies_of_attempts();
        let series = self.all_series(now, self.cells.get(STARTED), None);
        self.whole(now, self.cells.get(super::layout::ALL_IN_FLIGHT), series, figures)
    }

    /// Which recorder this is, and how often its process was forked.
    pub fn origin(&self) -> (u64, u64) {
        (self.id, self.cells.get(GENERATION))
    }

    fn whole(
        &self,
        now: u64,
        in_flight: u64,
        mut series: BTreeMap<LabelSet, SeriesData>,
        figures: AttemptFigures,
    ) -> Snapshot {
        let started = self.cells.get(STARTED);
        for (labels, tallies) in figures.0 {
            series.entry(labels).or_default().tallies = tallies;
        }
        Snapshot {
            origin: Origin::One { recorder: self.id, generation: self.cells.get(GENERATION) },
            started_at: self.clock.unix(started),
            taken_at: self.clock.unix(now).max(self.clock.unix(started)),
            in_flight: i64::try_from(in_flight).unwrap_or(i64::MAX),
            peak: self.cells.get(ALL_PEAK),
            anomalies: BTreeSet::new(),
            labels: BTreeSet::new(),
            series,
            dropped: Dropped::ALL
                .iter()
                .map(|d| (d.name().to_owned(), self.cells.get(DROPPED.wrapping_add(*d as usize))))
                .filter(|(_, n)| *n > 0)
                .collect(),
        }
    }

    /// All series, each event in them whole or not at all: see [`Batch`](super::batch::Batch).
    fn at_one_moment(&self, now: u64, started: u64) -> BTreeMap<LabelSet, SeriesData> {
        let alone = self.phaser.begin(&self.cells);
        let mut tries = 0_u8;
        let series = loop {
            // Of phase 1 the writers of the last snapshot are left, if any.
            let closes = alone && self.phaser.drained(&self.cells, 1);
            if !closes {
                break self.all_series(now, started, None);
            }
            self.file_deferred();
            let second: Vec<_> = self.series.ids(&self.cells).map(|id| (id, self.bank(id, 1))).collect();
            self.phaser.flip(&self.cells);
            self.phaser.drained(&self.cells, 0);
            stop!(Reading);
            let series = self.all_series(now, started, Some(&second));
            let again = self.deferred_ran_over() && tries < 3;
            self.phaser.flip(&self.cells);
            if self.phaser.drained(&self.cells, 1) {
                self.file_deferred();
            }
            if !again {
                break series;
            }
            tries = tries.saturating_add(1);
        };
        if alone {
            self.phaser.finish(&self.cells);
        }
        series
    }

    /// All series. `second`: the counters of phase 1 before it began; None to read them as they are.
    fn all_series(&self, now: u64, started: u64, second: Option<&Banks>) -> BTreeMap<LabelSet, SeriesData> {
        let mut series: BTreeMap<_, SeriesData> = BTreeMap::new();
        for id in self.series.ids(&self.cells) {
            let Some(labels) = self.series.labels(&self.cells, id) else {
                continue;
            };
            let noted = |what: usize| {
                let cell = self.cells.get(self.block(id).wrapping_add(what));
                usize::try_from(cell).ok().and_then(|n| n.checked_sub(1))
            };
            if let Some(home) = noted(HOME).and_then(|home| self.series.labels(&self.cells, home))
                && let Some(gaps) = self.measured(id, Measure::Gap)
            {
                series.entry(home).or_default().add_to(Measure::Gap, gaps);
            }
            let mut data = self.read(id, labels.kind, now, started, second);
            match noted(CALLS_HOME) {
                // Which model these calls are of is not known yet.
                None => data.peak = u64::try_from(data.in_flight).unwrap_or(0),
                Some(home) if home != id => {
                    if let Some(home) = self.series.labels(&self.cells, home) {
                        let there = series.entry(home).or_default();
                        there.in_flight = there.in_flight.saturating_add(std::mem::take(&mut data.in_flight));
                        there.peak = there.peak.max(std::mem::take(&mut data.peak));
                    }
                }
                Some(_) => {}
            }
            stop!(SeriesRead);
            match series.entry(labels) {
                Entry::Vacant(free) => drop(free.insert(data)),
                // What is there is little, its gaps for one: it is added to the rest, which is not copied then.
                Entry::Occupied(mut there) => {
                    let little = std::mem::replace(there.get_mut(), data);
                    there.get_mut().add(&little);
                }
            }
        }
        series.retain(|_, data| !data.is_zero());
        series
    }

    /// All of a series but its gaps. Distributions first: then none is ever ahead of its counters, not even where a
    /// snapshot has not waited for a writer.
    fn read(&self, id: SeriesId, kind: Kind, now: u64, started: u64, second: Option<&Banks>) -> SeriesData {
        let mut data = SeriesData::default();
        for measure in Measure::ALL.iter().filter(|measure| **measure != Measure::Gap) {
            if let Some(histogram) = self.measured(id, *measure) {
                data.add_to(*measure, histogram);
            }
        }
        if kind == Kind::Model {
            let block = self.block(id);
            data.in_flight = self.cells.get(block.wrapping_add(IN_FLIGHT)).cast_signed();
            data.peak = self.cells.get(block.wrapping_add(PEAK));
        }
        data.counters = match second {
            None => self.counters(id),
            Some(second) => {
                let of = second.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|i| second.get(i));
                of.map_or_else(|| self.bank(id, 0), |(_, second)| added(&self.bank(id, 0), second))
            }
        };
        if kind.counts_calls() {
            let lived = now.saturating_sub(started);
            let most = data.window_counts();
            let row = |(seconds, mut counts): (&u64, Counts)| {
                // Counted while this was read.
                counts.iter_mut().zip(most).for_each(|(n, most)| *n = most.min(*n));
                let covered = lived.min(seconds.saturating_mul(1_000_000_000));
                WindowCounts { seconds: *seconds, covered, counts }
            };
            data.windows = WINDOWS.iter().zip(self.window(id).sums(&self.cells, now)).map(row).collect();
        }
        data
    }

    fn bank(&self, id: SeriesId, phase: Phase) -> [u64; COUNTERS] {
        let first = self.block(id).wrapping_add(phase.wrapping_mul(COUNTER_CELLS));
        std::array::from_fn(|i| self.cells.get(first.wrapping_add(i)))
    }

    /// The counters of a series, as they are: see `snapshot` for those of one moment.
    pub(super) fn counters(&self, id: SeriesId) -> [u64; COUNTERS] {
        added(&self.bank(id, 0), &self.bank(id, 1))
    }

    /// True until the first event.
    pub fn is_empty(&self) -> bool {
        self.series.ids(&self.cells).nth(Kind::ALL.len()).is_none()
            && Kind::ALL.iter().all(|k| self.counters(*k as usize).iter().all(|n| *n == 0))
            && Dropped::ALL.iter().all(|d| self.cells.get(DROPPED.wrapping_add(*d as usize)) == 0)
    }

    /// What a model run in flight asked for; None when it is not in flight.
    pub fn requested(&self, key: RunKey) -> Option<Requested> {
        let call = self.runs.asked(&self.cells, key)?;
        let model = self.series.labels(&self.cells, call.model)?;
        let (at, now) = (self.clock.unix(call.start), self.clock.unix(self.clock.now()));
        let (budgets, labels, unpriced) = (call.budgets, call.labels, call.unpriced);
        let attempt = self.attempt_of(key).map_or(0, |place| place.attempt);
        Some(Requested { model, at, now, budgets, labels, unpriced, attempt })
    }

    /// The same as a handle: its requested model, when it began (Unix nanoseconds), whether it has streamed.
    pub fn asked(&self, key: RunKey) -> Option<AskedSeries> {
        let call = self.runs.asked(&self.cells, key)?;
        Some(AskedSeries { model: call.model, at: self.clock.unix(call.start), streamed: call.streamed })
    }

    /// The model that answered the last call of a requested one; None while it has only answered to its own name.
    pub fn answered_last(&self, requested: SeriesId) -> Option<SeriesId> {
        let alias = self.cells.get(self.block(requested).wrapping_add(ALIAS));
        usize::try_from(alias).ok().and_then(|alias| alias.checked_sub(1))
    }

    /// The names of a series.
    pub fn names(&self, id: SeriesId) -> Option<LabelSet> {
        self.series.labels(&self.cells, id)
    }

    /// The series of these names, made at its first use.
    pub fn series(&self, kind: Kind, a: &str, b: &str) -> Series {
        let (id, other, cut) = self.series.resolve(&self.cells, kind, a, b);
        self.note(other, cut);
        Series { id, whole: !other && !cut }
    }

    /// Streams in flight without a token for `silence`: model, when it began and had its last token (Unix
    /// nanoseconds), and how it stands.
    pub fn silent(&self, silence: Duration) -> Vec<(LabelSet, u64, u64, Streaming)> {
        let silence = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
        let limit = self.clock.now().saturating_sub(silence);
        let mut silent = Vec::new();
        self.runs.silent(&self.cells, limit, |stream| {
            if let Some(labels) = self.series.labels(&self.cells, stream.model) {
                silent.push((labels, self.clock.unix(stream.start), self.clock.unix(stream.last), stream));
            }
        });
        silent
    }

    /// Cumulative figures of each model.
    pub fn pulse(&self) -> Vec<Pulse> {
        let models = self.series.ids(&self.cells).filter_map(|id| {
            let model = self.series.labels(&self.cells, id).filter(|l| l.kind == Kind::Model)?;
            let counters = self.counters(id);
            let [ok, errors, cancelled, abandoned, interrupted, ..] = counters;
            let of = |c: Counter| counters.get(OUTCOMES.wrapping_add(c as usize)).copied().unwrap_or(0);
            let calls = [ok, errors, cancelled, abandoned, interrupted].iter().fold(0_u64, |s, n| s.saturating_add(*n));
            let (tokens, cost, duration) = (of(Counter::Total), of(Counter::Cost), of(Counter::Duration));
            (calls > 0).then_some(Pulse { model, calls, errors, tokens, cost, duration })
        });
        models.collect()
    }
}
