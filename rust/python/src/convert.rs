//! Python values to the core's.

use langmeter_core::{Kind, Outcome, Usage};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyString, PyTuple};
use std::time::Duration;

/// A kind by its code.
pub fn kind(code: u64) -> PyResult<Kind> {
    Kind::from_code(code).ok_or_else(|| out_of_range("kind", code, Kind::ALL.len()))
}

/// An outcome by its code.
pub fn outcome(code: u64) -> PyResult<Outcome> {
    let position = usize::try_from(code).ok();
    position.and_then(|i| Outcome::ALL.get(i)).copied().ok_or_else(|| out_of_range("outcome", code, Outcome::ALL.len()))
}

fn out_of_range(name: &str, code: u64, count: usize) -> PyErr {
    PyValueError::new_err(format!("{name} = {code} is out of range: allowed is 0 to {}", count.saturating_sub(1)))
}

/// Seconds as a duration; refuses what is negative, not finite or beyond 584 years.
pub fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|e| PyValueError::new_err(format!("{name} = {seconds} is out of range: allowed is 0 or more ({e})")))
}

/// The text of a value in a call's metadata: a string's own, whatever its class makes of it, else what `str()` says;
/// half a surrogate pair is replaced. Raises what `str()` raises.
pub fn text_of(value: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    let text = value.cast::<PyString>().cloned().or_else(|_| value.str())?;
    text.extract().or_else(|_| PyString::new(value.py(), &text.to_string_lossy()).extract())
}

/// The same for Python.
#[pyfunction]
#[pyo3(name = "text_of")]
pub fn plain_text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    text_of(value).map(|text| text.as_str().to_owned())
}

/// The first items of a usage tuple. A negative number (a correction below zero) counts as 0.
pub fn usage(tuple: &Bound<'_, PyTuple>) -> PyResult<Usage> {
    let mut usage = Usage::default();
    for (to, item) in usage.iter_mut().zip(tuple.iter_borrowed()) {
        *to = u64::try_from(item.extract::<i64>()?).unwrap_or(0);
    }
    Ok(usage)
}
