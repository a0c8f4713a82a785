//! `RateCard`.

use crate::convert;
use langmeter_core::rate_card::{self, Band, RATES};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// What one model costs, and from when to when.
#[pyclass(frozen, module = "langmeter._core")]
pub struct RateCard {
    card: rate_card::RateCard,
    from: f64,
    until: f64,
}

impl RateCard {
    /// Pico-dollars of a call that began at a time (Unix seconds); None when this card does not hold then, or
    /// the recorder cannot count so much.
    pub fn at(&self, started: f64, usage: &langmeter_core::Usage) -> Option<u64> {
        if !(self.from <= started && started < self.until) {
            return None;
        }
        i64::try_from(self.card.cost(usage)).ok().map(i64::cast_unsigned)
    }
}

#[pymethods]
impl RateCard {
    #[new]
    fn new(bands: Vec<(i64, Vec<u128>)>, scale: u128, valid_from: f64, valid_until: f64) -> PyResult<Self> {
        let band = |(above, rates): (i64, Vec<u128>)| {
            let rates = <[u128; RATES]>::try_from(rates)
                .map_err(|r| PyValueError::new_err(format!("a band must have {RATES} rates, got {}", r.len())))?;
            Ok(Band { above, rates })
        };
        let bands = bands.into_iter().map(band).collect::<PyResult<_>>()?;
        Ok(Self { card: rate_card::RateCard { bands, scale }, from: valid_from, until: valid_until })
    }

    fn cost(&self, usage: &Bound<'_, PyTuple>) -> PyResult<u128> {
        Ok(self.card.cost(&convert::usage(usage)?))
    }

    #[staticmethod]
    fn is_contested(usage: &Bound<'_, PyTuple>) -> PyResult<bool> {
        Ok(rate_card::is_contested(&convert::usage(usage)?))
    }
}
