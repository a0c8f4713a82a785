//! What goes out: snapshots, and what is asked between them.

use super::defects::AttemptFigures;
use super::layout::{
    ALIAS, ALL_PEAK, CALLS_HOME, COUNTER_CELLS, DROPPED, GENERATION, HOME, IN_FLIGHT, MEASURED, PEAK, STARTED,
};
use super::{AskedSeries, Pulse, Recorder, Requested, Series};
use crate::arena::Phase;
use crate::histogram::{Histogram, Reader};
use crate::metrics::{COUNTERS, Counter, Dropped, Measure, OUTCOMES, Outcome};
use crate::runs::{RunKey, Streaming};
use crate::series::{Kind, LabelSet, SeriesId};
use crate::snapshot::{Origin, SeriesData, Snapshot, WindowCounts, add_windows, window_counts};
use crate::stops::stop;
use crate::window::{Counts, WINDOWS};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Counters of one phase, by series, ascending.
type Banks = [(SeriesId, [u64; COUNTERS])];

/// What a series has counted that another may show.
struct Part {
    gaps: Option<Histogram>,
    in_flight: i64,
    peak: u64,
}

/// What a reading of all series is of.
struct Reading<'a> {
    now: u64,
    started: u64,
    /// The counters of phase 1 before it began; None to read them as they are.
    second: Option<&'a Banks>,
    /// The process has ended: its calls in flight are abandoned, and its windows are over.
    dead: bool,
}

impl Reading<'_> {
    /// Adds calls in flight, and the most there were at once, to the series that shows them.
    fn add_calls(&self, row: &mut SeriesData, in_flight: i64, peak: u64) {
        row.peak = row.peak.max(peak);
        if !self.dead {
            row.in_flight = row.in_flight.saturating_add(in_flight);
        } else if let Some(abandoned) = row.counters.get_mut(Outcome::Abandoned as usize) {
            *abandoned = abandoned.saturating_add(u64::try_from(in_flight).unwrap_or(0));
        }
    }
}

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

    /// Adds everything in the file of another process to a sum, each figure read for itself; `dead` as of `read_file`.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    pub(super) fn add_shared(&self, sum: &mut Snapshot, dead: bool) {
        let now = self.clock.now();
        let figures = self.tallies_of_attempts();
        self.add_series(&mut sum.series, &Reading { now, started: self.cells.get(STARTED), second: None, dead });
        let in_flight = if dead { 0 } else { self.cells.get(super::layout::ALL_IN_FLIGHT) };
        sum.add(&self.whole(now, in_flight, BTreeMap::new(), figures));
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

    fn all_series(&self, now: u64, started: u64, second: Option<&Banks>) -> BTreeMap<LabelSet, SeriesData> {
        let mut series = BTreeMap::new();
        self.add_series(&mut series, &Reading { now, started, second, dead: false });
        series
    }

    /// Adds all series to a sum. Nothing is made for a series but its names: a directory has thousands of them.
    fn add_series(&self, sum: &mut BTreeMap<LabelSet, SeriesData>, reading: &Reading<'_>) {
        let mut reader = Reader::default();
        for id in self.series.ids(&self.cells) {
            let Some(labels) = self.series.labels(&self.cells, id) else {
                continue;
            };
            let noted = |what: usize| {
                let cell = self.cells.get(self.block(id).wrapping_add(what));
                usize::try_from(cell).ok().and_then(|n| n.checked_sub(1))
            };
            let kind = labels.kind;
            let row = sum.entry(labels).or_default();
            let home = noted(HOME);
            let Part { gaps, in_flight, peak } = self.add_one(row, id, (kind, home.is_some()), reading, &mut reader);
            stop!(SeriesRead);
            match noted(CALLS_HOME) {
                // Which model these calls are of is not known yet.
                None => reading.add_calls(row, in_flight, u64::try_from(in_flight).unwrap_or(0)),
                Some(home) if home != id => {
                    if let Some(home) = self.series.labels(&self.cells, home) {
                        reading.add_calls(sum.entry(home).or_default(), in_flight, peak);
                    }
                }
                Some(_) => reading.add_calls(row, in_flight, peak),
            }
            if let Some(gaps) = gaps
                && let Some(home) = home.and_then(|home| self.series.labels(&self.cells, home))
            {
                sum.entry(home).or_default().add_to(Measure::Gap, gaps);
            }
        }
        sum.retain(|_, data| !data.is_zero());
    }

    /// Adds all of a series but what another may show; `has_home`: it is known which one shows its gaps. Distributions first:
    /// then none is ever ahead of its counters, not even where a snapshot has not waited for a writer.
    fn add_one(
        &self,
        row: &mut SeriesData,
        id: SeriesId,
        (kind, has_home): (Kind, bool),
        reading: &Reading<'_>,
        reader: &mut Reader,
    ) -> Part {
        let block = self.block(id);
        let unread = if has_home { 0 } else { 1 << Measure::Gap as usize };
        let measured = self.cells.get(block.wrapping_add(MEASURED)) & !unread;
        let histograms = Measure::ALL.iter().filter(|measure| measured >> **measure as usize & 1 == 1);
        let histograms = histograms.map(|measure| (*measure, self.histogram(id, *measure)));
        let mut gaps = None;
        reader.read(&self.cells, histograms, |measure, histogram| match measure {
            Measure::Gap => gaps = Some(histogram),
            _ => row.add_to(measure, histogram),
        });
        let of_model = |what: usize| if kind == Kind::Model { self.cells.get(block.wrapping_add(what)) } else { 0 };
        let (in_flight, peak) = (of_model(IN_FLIGHT).cast_signed(), of_model(PEAK));
        let counters = match reading.second {
            None => self.counters(id),
            Some(second) => {
                let of = second.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|i| second.get(i));
                of.map_or_else(|| self.bank(id, 0), |(_, second)| added(&self.bank(id, 0), second))
            }
        };
        row.counters = added(&row.counters, &counters);
        // Those of a dead process are of the time before its end, which would last for ever in a sum.
        if kind.counts_calls() && !reading.dead {
            let lived = reading.now.saturating_sub(reading.started);
            let most = window_counts(&counters);
            let mut sums = self.window(id).sums(&self.cells, reading.now).into_iter();
            let windows = WINDOWS.map(|seconds| {
                let mut counts: Counts = sums.next().unwrap_or_default();
                // Counted while this was read.
                counts.iter_mut().zip(most).for_each(|(n, most)| *n = most.min(*n));
                WindowCounts { seconds, covered: lived.min(seconds.saturating_mul(1_000_000_000)), counts }
            });
            add_windows(&mut row.windows, &windows);
        }
        Part { gaps, in_flight, peak }
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
