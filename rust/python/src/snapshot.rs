//! `Snapshot` and `SeriesStats`.

use crate::distribution::{Distribution, hashed};
use crate::error::raise;
use langmeter_core::defects::{TALLIES, tally_name};
use langmeter_core::histogram::Histogram;
use langmeter_core::{
    self as core, Anomaly, COUNTERS, Kind, LabelSet, MEASURES, Measure, Origin, SeriesData, WindowCounts,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::collections::BTreeMap;

/// (window in s, ns covered, requests, input tokens, output tokens, errors).
type Row = (u64, u64, u64, u64, u64, u64);
/// (kind, a, b, counters, measures, rates, in flight, peak, tallies: what entered and what left, by name).
type Part = (String, String, String, Vec<u64>, Vec<String>, Vec<Row>, i64, u64, BTreeMap<String, (u64, u64)>);
/// (at, detected at, provider, model, metric, before, after, calls before, calls after).
pub type Change = (u64, u64, String, String, String, u64, u64, u64, u64);

/// An anomaly from its parts.
pub fn anomaly(change: Change) -> Anomaly {
    let (at, detected_at, provider, model, metric, before, after, calls_before, calls_after) = change;
    Anomaly { at, detected_at, provider, model, metric, before, after, calls_before, calls_after }
}

fn row(w: &WindowCounts) -> Row {
    let [requests, input, output, errors] = w.counts;
    (w.seconds, w.covered, requests, input, output, errors)
}

fn counts((seconds, covered, requests, input, output, errors): Row) -> WindowCounts {
    WindowCounts { seconds, covered, counts: [requests, input, output, errors] }
}

/// Plain data: mergeable, immutable.
#[pyclass(frozen, module = "langmeter._core")]
pub struct Snapshot(pub core::Snapshot);

#[pymethods]
impl Snapshot {
    #[new]
    fn new() -> Self {
        Self(core::Snapshot::default())
    }

    #[staticmethod]
    #[pyo3(signature = (series, *, in_flight, peak, anomalies, started_at, taken_at, dropped, origin, labels=Vec::new()))]
    #[allow(clippy::too_many_arguments)] // what a snapshot has
    fn from_parts(
        series: Vec<Part>,
        in_flight: i64,
        peak: u64,
        anomalies: Vec<Change>,
        started_at: u64,
        taken_at: u64,
        dropped: BTreeMap<String, u64>,
        origin: Option<(u64, u64)>,
        labels: Vec<String>,
    ) -> PyResult<Self> {
        let series = series.into_iter().map(parsed).collect::<PyResult<BTreeMap<_, _>>>()?;
        let origin = match origin {
            Some((recorder, generation)) => Origin::One { recorder, generation },
            None if taken_at == 0 => Origin::None,
            None => Origin::Many,
        };
        let anomalies = anomalies.into_iter().map(anomaly).collect();
        let labels = labels.into_iter().collect();
        let snapshot =
            core::Snapshot { origin, started_at, taken_at, in_flight, peak, anomalies, dropped, series, labels };
        snapshot.validated().map(Self).map_err(raise)
    }

    fn series(&self) -> Vec<SeriesStats> {
        let both = self.0.series.iter();
        both.map(|(labels, data)| SeriesStats { labels: labels.clone(), data: data.clone() }).collect()
    }

    #[getter]
    fn in_flight(&self) -> i64 {
        self.0.in_flight
    }

    #[getter]
    fn peak(&self) -> u64 {
        self.0.peak
    }

    #[getter]
    fn anomalies(&self) -> Vec<Change> {
        let row = |a: &Anomaly| {
            let names = (a.provider.clone(), a.model.clone(), a.metric.clone());
            (a.at, a.detected_at, names.0, names.1, names.2, a.before, a.after, a.calls_before, a.calls_after)
        };
        self.0.anomalies.iter().map(row).collect()
    }

    #[getter]
    fn started_at(&self) -> u64 {
        self.0.started_at
    }

    #[getter]
    fn taken_at(&self) -> u64 {
        self.0.taken_at
    }

    #[getter]
    fn windows(&self) -> Vec<Row> {
        self.0.windows().iter().map(row).collect()
    }

    #[getter]
    fn dropped(&self) -> BTreeMap<String, u64> {
        self.0.dropped.clone()
    }

    #[getter]
    fn labels(&self) -> Vec<&str> {
        self.0.labels.iter().map(String::as_str).collect()
    }

    #[getter]
    fn origin(&self) -> Option<(u64, u64)> {
        match self.0.origin {
            Origin::One { recorder, generation } => Some((recorder, generation)),
            Origin::None | Origin::Many => None,
        }
    }

    fn counted(&self, py: Python<'_>) -> Self {
        Self(py.detach(|| self.0.counted()))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.to_bytes()).map_err(raise)?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        py.detach(|| core::Snapshot::from_bytes(data)).map(Self).map_err(raise)
    }

    fn __add__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> Self {
        let other = &other.get().0;
        Self(py.detach(|| self.0.plus(other)))
    }

    fn __sub__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<Self> {
        let other = &other.get().0;
        py.detach(|| self.0.minus(other)).map(Self).map_err(raise)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|o| o.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hashed(&self.0)
    }
}

fn parsed(
    (kind, a, b, counters, histograms, rates, in_flight, peak, tallies): Part,
) -> PyResult<(LabelSet, SeriesData)> {
    let refuse = |what: String| PyValueError::new_err(format!("not a langmeter snapshot: {what}"));
    let kind = Kind::from_name(&kind).ok_or_else(|| refuse(format!("kind {kind:?} is none of llm, model, …")))?;
    if counters.len() > COUNTERS {
        return Err(refuse(format!("{} counters of {a:?} where at most {COUNTERS} are known", counters.len())));
    }
    if histograms.len() > MEASURES {
        return Err(refuse(format!("{} histograms of {a:?} where at most {MEASURES} are known", histograms.len())));
    }
    let mut data = SeriesData { in_flight, peak, ..SeriesData::default() };
    for (to, text) in data.measures.iter_mut().zip(&histograms) {
        if !text.is_empty() {
            *to = Histogram::from_hdr(text).map_err(raise)?;
        }
    }
    data.counters.iter_mut().zip(counters).for_each(|(to, n)| *to = n);
    for (name, pair) in tallies {
        let tally = (0..TALLIES).find(|tally| tally_name(*tally) == name).and_then(|tally| u16::try_from(tally).ok());
        data.tallies.insert(tally.ok_or_else(|| refuse(format!("tally {name:?} is not known")))?, pair);
    }
    data.windows = rates.into_iter().map(counts).collect();
    Ok((LabelSet { kind, a, b }, data))
}

/// One label set.
#[pyclass(frozen, module = "langmeter._core")]
pub struct SeriesStats {
    labels: LabelSet,
    data: SeriesData,
}

#[pymethods]
impl SeriesStats {
    /// Returns the sum of series, under the names of the first.
    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
    fn merged(series: Vec<Bound<'_, Self>>) -> PyResult<Self> {
        let (first, rest) = series.split_first().ok_or_else(|| PyValueError::new_err("no series to merge"))?;
        let Self { labels, data } = first.get();
        let data = rest.iter().fold(data.clone(), |mut sum, other| {
            sum.add(&other.get().data);
            sum
        });
        Ok(Self { labels: labels.clone(), data })
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.labels.kind.name()
    }

    #[getter]
    fn a(&self) -> &str {
        &self.labels.a
    }

    #[getter]
    fn b(&self) -> &str {
        &self.labels.b
    }

    #[getter]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.data.counters)
    }

    #[getter]
    fn rates(&self) -> Vec<Row> {
        self.data.windows.iter().map(row).collect()
    }

    #[getter]
    fn in_flight(&self) -> i64 {
        self.data.in_flight
    }

    #[getter]
    fn peak(&self) -> u64 {
        self.data.peak
    }

    /// What entered each figure of attempts at defects and what left it, by name.
    #[getter]
    fn tallies(&self) -> BTreeMap<String, (u64, u64)> {
        self.data.tallies.iter().map(|(tally, pair)| (tally_name(usize::from(*tally)), *pair)).collect()
    }

    /// A distribution by its name.
    fn measure(&self, name: &str) -> PyResult<Distribution> {
        let measure = Measure::ALL.iter().zip(&self.data.measures).find(|(m, _)| m.name() == name);
        let (_, histogram) = measure.ok_or_else(|| PyValueError::new_err(format!("{name:?} is not a distribution")))?;
        Ok(Distribution(histogram.clone()))
    }
}
