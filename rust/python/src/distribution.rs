//! `Distribution`.

use crate::error::raise;
use langmeter_core::histogram::Histogram;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::hash::{DefaultHasher, Hash, Hasher};

/// An HDR histogram of durations, recorded in microseconds from 1 µs to 38 h.
#[pyclass(frozen, module = "langmeter._core")]
pub struct Distribution(pub Histogram);

#[allow(clippy::cast_precision_loss)] // figures of 3 digits
fn seconds(micros: Option<u64>) -> f64 {
    micros.map_or(f64::NAN, |m| m as f64 / 1e6)
}

#[pymethods]
impl Distribution {
    #[new]
    fn new() -> Self {
        Self(Histogram::default())
    }

    #[getter]
    fn count(&self) -> u64 {
        self.0.count()
    }

    #[getter]
    #[allow(clippy::cast_precision_loss)] // a sum of 3 digits
    fn sum(&self) -> f64 {
        self.0.sum_micros() as f64 / 1e6
    }

    #[getter]
    fn mean(&self) -> f64 {
        self.0.mean_micros().map_or(f64::NAN, |m| m / 1e6)
    }

    #[getter]
    fn min(&self) -> f64 {
        seconds(self.0.min_micros())
    }

    #[getter]
    fn max(&self) -> f64 {
        seconds(self.0.max_micros())
    }

    fn quantile(&self, q: f64) -> PyResult<f64> {
        if !(0.0..=1.0).contains(&q) {
            return Err(PyValueError::new_err(format!(
                "q = {q} is out of range: allowed is 0 to 1, e.g. 0.95 for the 95th percentile"
            )));
        }
        Ok(seconds(self.0.quantile_micros(q)))
    }

    fn buckets(&self) -> Vec<(u64, u64, u64)> {
        self.0.buckets().map(|b| (b.lowest, b.highest, b.count)).collect()
    }

    fn to_hdr(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.0.to_hdr()).map_err(raise)
    }

    fn __add__(&self, other: &Bound<'_, Self>) -> Self {
        Self(self.0.merged(&other.get().0))
    }

    #[staticmethod]
    #[allow(clippy::needless_pass_by_value)] // the list is made for this call
    fn total(parts: Vec<Bound<'_, Self>>) -> Self {
        let parts: Vec<&Histogram> = parts.iter().map(|part| &part.get().0).collect();
        Self(Histogram::total(&parts))
    }

    fn __sub__(&self, other: &Bound<'_, Self>) -> PyResult<Self> {
        self.0.without(&other.get().0, || "a distribution".into()).map(Self).map_err(raise)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|o| o.get().0 == self.0)
    }

    fn __hash__(&self) -> u64 {
        hashed(&self.0)
    }
}

/// A hash that equal values share.
pub fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
