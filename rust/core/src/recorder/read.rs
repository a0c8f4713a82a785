//! What goes out: snapshots, and what is asked between them.

use super::layout::{ALIAS, ALL_PEAK, DROPPED, GENERATION, HOME, IN_FLIGHT, PEAK, STARTED};
use super::{Pulse, Recorder, Requested};
use crate::figures::{COUNTERS, Counter, Dropped, Measure, OUTCOMES};
use crate::runs::{RunKey, Streaming};
use crate::series::{Kind, LabelSet, SeriesId};
use crate::snapshot::{Origin, SeriesData, Snapshot, WindowCounts};
use crate::window::WINDOWS;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Recorder {
    /// Everything so far; recorders go on meanwhile. Reaps runs past `max_run_age`, and those whose ancestor
    /// has ended, first.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.clock.now();
        let (in_flight, _) = self.reap(now);
        let started = self.cells.get(STARTED);
        let mut series: BTreeMap<_, SeriesData> = BTreeMap::new();
        for id in self.series.ids(&self.cells) {
            let Some(labels) = self.series.labels(&self.cells, id) else {
                continue;
            };
            let noted = |what: usize| {
                let cell = self.cells.get(self.block(id).wrapping_add(what));
                usize::try_from(cell).ok().and_then(|n| n.checked_sub(1))
            };
            let home = noted(HOME);
            if let Some(home) = home.and_then(|home| self.series.labels(&self.cells, home))
                && let Some(gaps) = self.measured(id, Measure::Gap)
                && let Some(to) = series.entry(home).or_default().measures.get_mut(Measure::Gap as usize)
            {
                *to = to.merged(&gaps);
            }
            let mut data = self.read(id, labels.kind, now, started);
            if let Some(answered) = noted(ALIAS).filter(|answered| *answered != id)
                && let Some(answered) = self.series.labels(&self.cells, answered)
            {
                let there = series.entry(answered).or_default();
                there.in_flight = there.in_flight.saturating_add(std::mem::take(&mut data.in_flight));
                there.peak = there.peak.max(std::mem::take(&mut data.peak));
            }
            match series.entry(labels) {
                // Not merged into nothing: that would copy every bucket once more.
                Entry::Vacant(free) => drop(free.insert(data)),
                Entry::Occupied(mut there) => there.get_mut().add(&data),
            }
        }
        series.retain(|_, data| !data.is_zero());
        Snapshot {
            origin: Origin::One { recorder: self.id, generation: self.cells.get(GENERATION) },
            started_at: self.clock.unix(started),
            taken_at: self.clock.unix(now),
            in_flight: i64::try_from(in_flight).unwrap_or(i64::MAX),
            peak: self.cells.get(ALL_PEAK),
            anomalies: BTreeSet::new(),
            dropped: Dropped::ALL
                .iter()
                .map(|d| (d.name().to_owned(), self.cells.get(DROPPED.wrapping_add(*d as usize))))
                .filter(|(_, n)| *n > 0)
                .collect(),
            series,
        }
    }

    /// All of a series but its gaps. Histograms first: a run that ends meanwhile has its outcome counted
    /// before its latency.
    pub(super) fn read(&self, id: SeriesId, kind: Kind, now: u64, started: u64) -> SeriesData {
        let mut data = SeriesData::default();
        for (to, measure) in data.measures.iter_mut().zip(Measure::ALL) {
            if *measure != Measure::Gap
                && let Some(histogram) = self.measured(id, *measure)
            {
                *to = histogram;
            }
        }
        if kind.counts_calls() {
            let lived = now.saturating_sub(started);
            let shown = |(seconds, counts): (&u64, _)| WindowCounts {
                seconds: *seconds,
                covered: lived.min(seconds.saturating_mul(1_000_000_000)),
                counts,
            };
            data.windows = WINDOWS.iter().zip(self.window(id).sums(&self.cells, now)).map(shown).collect();
        }
        if kind == Kind::Model {
            let block = self.block(id);
            data.in_flight = self.cells.get(block.wrapping_add(IN_FLIGHT)).cast_signed();
            data.peak = self.cells.get(block.wrapping_add(PEAK));
        }
        data.counters = self.counters(id);
        data
    }

    pub(super) fn counters(&self, id: SeriesId) -> [u64; COUNTERS] {
        let block = self.block(id);
        std::array::from_fn(|i| self.cells.get(block.wrapping_add(i)))
    }

    /// True until the first event.
    pub fn is_empty(&self) -> bool {
        self.series.ids(&self.cells).nth(Kind::ALL.len()).is_none()
            && Kind::ALL.iter().all(|k| self.counters(*k as usize).iter().all(|n| *n == 0))
            && Dropped::ALL.iter().all(|d| self.cells.get(DROPPED.wrapping_add(*d as usize)) == 0)
    }

    /// What a model run in flight asked for; None when it is not in flight.
    pub fn requested(&self, key: RunKey) -> Option<Requested> {
        let asked = self.runs.asked(&self.cells, key)?;
        let model = self.series.labels(&self.cells, asked.model)?;
        Some(Requested { model, at: self.clock.unix(asked.start), budgets: asked.budgets, labels: asked.labels })
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
