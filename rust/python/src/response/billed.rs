//! What providers say that they bill.

use crate::response::keys::LIMIT;
use crate::response::usage::{self, Read, Stop};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt};

/// What a provider says that it bills: a decimal number.
pub struct Billed(String);

impl Billed {
    /// A cost in USD, or in ticks of 10^-10 USD; None where it is not a plain number.
    fn of(value: &Bound<'_, PyAny>, ticks: bool) -> Read<Self> {
        let text = if value.cast_exact::<PyInt>().is_ok() {
            usage::number(value)?.to_string()
        } else {
            let amount = value.cast_exact::<PyFloat>().map_err(|_| Stop::Careful)?.value();
            #[allow(clippy::cast_precision_loss)] // 2^40
            if !(0.0..LIMIT as f64).contains(&amount) {
                return Err(Stop::Careful);
            }
            amount.to_string()
        };
        Ok(Self(if ticks { format!("{text}E-10") } else { text }))
    }

    /// The decimal number, as Python's `Decimal` takes it.
    pub fn into_text(self) -> String {
        self.0
    }

    /// In pico-dollars, half to even; None above 10,000 USD.
    pub fn pico(&self) -> Option<u64> {
        let (text, scale) = self.0.strip_suffix("E-10").map_or((self.0.as_str(), 12), |text| (text, 2));
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{rest:0<scale$}");
        let (kept, cut) = digits.split_at_checked(whole.len() + scale)?;
        let pico = kept.parse::<u64>().ok()?;
        let half = cut.strip_prefix('5').is_some_and(|more| more.bytes().all(|digit| digit == b'0'));
        let up = if half { pico % 2 == 1 } else { cut.as_bytes().first().is_some_and(|digit| *digit >= b'5') };
        Some(pico + u64::from(up)).filter(|pico| *pico <= 10_000_000_000_000_000)
    }
}

/// The first of a cost and of one in ticks.
pub fn billed(cost: Option<&Bound<'_, PyAny>>, ticks: Option<&Bound<'_, PyAny>>) -> Read<Option<Billed>> {
    let inner = match cost.map(|cost| cost.cast::<PyDict>()) {
        Some(Ok(costs)) => costs.get_item(intern!(costs.py(), "total_cost"))?,
        _ => cost.cloned(),
    };
    if let Some(cost) = inner.filter(|cost| !cost.is_none()) {
        return Billed::of(&cost, false).map(Some);
    }
    ticks.filter(|ticks| !ticks.is_none()).map(|ticks| Billed::of(ticks, true)).transpose()
}
