//! The end of a model call whose response is of the common kind.
//!
//! Natively, because in a running program Python code is cold by the end of a call, and costs three times what
//! a loop over it measures (31 µs over an empty handler with this hook in Python).

use crate::handler::Handler;
use crate::money::RateCard;
use crate::{convert, usage};
use langmeter_core::{End, Kind, OTHER, Requested};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyStringMethods};

/// Ends a call, priced by the card that the price book holds under (provider, model); false when the response
/// is of another kind, and nothing has been done.
pub fn common(slf: &Bound<'_, Handler>, run_id: &Bound<'_, PyAny>, response: &Bound<'_, PyAny>) -> PyResult<bool> {
    let this = slf.get();
    let Some(recorder) = this.recorder() else { return Ok(false) };
    let core = &recorder.get().core;
    let Some(common) = usage::read(response)? else { return Ok(false) };
    let number = convert::run_number(run_id)?;
    let key = convert::key_of(&number)?;
    let Some(asked) = core.requested(key) else { return Ok(false) };
    if asked.model.a.is_empty() || asked.model.a == OTHER {
        return Ok(false); // who answered is looked for in the response
    }
    let told = common.model.as_ref().map(PyStringMethods::to_cow).transpose()?;
    let model = told.as_deref().unwrap_or_default();
    let mut cost = None;
    if let Some(prices) = this.prices(slf)? {
        let Some(priced) = priced(prices, &asked, model, &common)? else { return Ok(false) };
        cost = Some(priced);
    } else if this.waits_for_prices(slf)? {
        return Ok(false); // the catalogue is not loaded yet
    }
    if let Some(texts) = this.texts(slf.py()) {
        // Gone already where too many were kept.
        let _ = texts.del_item(number);
    }
    let crossed = core.run_ended(&End {
        provider: &asked.model.a,
        model,
        usage: Some(common.usage),
        cost,
        queue: common.queue,
        truncated: common.truncated,
        ..End::new(key, Kind::Llm)
    });
    if !crossed.is_empty() {
        slf.call_method1(intern!(slf.py(), "_crossed"), (crossed,))?;
    }
    Ok(true)
}

/// What a call costs by the book's cards; None where they do not say.
fn priced(
    prices: &Bound<'_, PyAny>,
    asked: &Requested,
    model: &str,
    common: &usage::Common<'_>,
) -> PyResult<Option<u64>> {
    let cards = prices.getattr(intern!(prices.py(), "native"))?.cast_into::<PyDict>()?;
    let priced_as = if model.is_empty() { asked.model.b.as_str() } else { model };
    let Some(card) = cards.get_item((asked.model.a.as_str(), priced_as))? else { return Ok(None) };
    if card.is_none() {
        return Ok(None);
    }
    #[allow(clippy::cast_precision_loss)] // seconds to the microsecond
    let started = asked.at as f64 / 1e9;
    Ok(card.cast::<RateCard>()?.get().at(started, &common.usage))
}
