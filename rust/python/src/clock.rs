//! `ManualClock`.

use crate::convert;
use langmeter_core as core;
use pyo3::prelude::*;

/// A clock that moves only when told to; for tests.
#[pyclass(frozen, module = "langmeter._core")]
pub struct ManualClock(pub core::ManualClock);

#[pymethods]
impl ManualClock {
    #[new]
    fn new() -> Self {
        Self(core::ManualClock::default())
    }

    fn advance(&self, seconds: f64) -> PyResult<()> {
        self.0.advance(convert::duration("seconds", seconds)?);
        Ok(())
    }
}
