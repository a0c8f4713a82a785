//! The end of a model call whose response is of the common kind.
//!
//! Natively, because in a running program Python code is cold by the end of a call, and costs three times what
//! a loop over it measures (31 µs over an empty handler with this hook in Python).

use crate::money::RateCard;
use crate::services::Services;
use crate::{convert, response};
use langmeter_core::{End, Kind, OTHER, Outcome, Requested, Usage};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyStringMethods};

/// Ends a call, priced by the card that the price book holds under (provider, model); false when the response
/// is of another kind or somebody waits for the end, and nothing has been done.
pub fn common(
    services: &Bound<'_, Services>,
    run_id: &Bound<'_, PyAny>,
    response: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let (py, this) = (services.py(), services.get());
    let Some(recorder) = this.recorder_if_mapped() else { return Ok(false) };
    let core = &recorder.get().core;
    let number = convert::run_number(run_id)?;
    let key = convert::key_of(&number)?;
    let streams = this.streams.as_ref().map(Py::get);
    if let Some(streams) = streams
        && !streams.settles(key, response)?
    {
        return Ok(false);
    }
    let Some(reading) = response::read(response)? else { return Ok(false) };
    let Some(usage) = reading.usage else { return Ok(false) };
    if usage[0] == 0 && usage[1] > 0 && !reading.cache_hit {
        return Ok(false); // the stream was cut, and what it had said of its input was lost
    }
    let Some(asked) = core.requested(key) else { return Ok(false) };
    if asked.model.a.is_empty() || asked.model.a == OTHER {
        return Ok(false); // who answered is looked for in the response
    }
    let billed = match &reading.billed {
        Some(billed) => match billed.pico() {
            Some(billed) => Some(billed),
            None => return Ok(false),
        },
        None => None,
    };
    let told = reading.model.as_ref().map(PyStringMethods::to_cow).transpose()?;
    let model = told.as_deref().unwrap_or_default();
    let mut cost = None;
    if let Some(prices) = &this.prices
        && !reading.cache_hit
    {
        let Some(priced) = priced(prices.bind(py), &asked, model, &reading.tier, &usage)? else { return Ok(false) };
        cost = Some(priced);
    }
    if let Some(streams) = streams {
        streams.forget(key);
    }
    // Gone already where too many were kept.
    let _ = this.prompts.bind(py).del_item(number);
    let crossed = core.run_ended(&End {
        outcome: if reading.cache_hit { Outcome::CacheHit } else { Outcome::Ok },
        provider: &asked.model.a,
        model,
        usage: Some(usage),
        cost,
        billed,
        queue: reading.queue,
        truncated: reading.truncated,
        ..End::new(key, Kind::Llm)
    });
    if !crossed.is_empty() {
        services.call_method1(intern!(py, "crossed"), (crossed,))?;
    }
    Ok(true)
}

/// Hands the end of a call that gave its result to the one method that takes whatever comes.
pub fn uncommon(
    services: &Bound<'_, Services>,
    run_id: &Bound<'_, PyAny>,
    response: &Bound<'_, PyAny>,
    kind: Kind,
) -> PyResult<()> {
    let outcome = Outcome::Ok as usize;
    services.call_method1(intern!(services.py(), "model_end"), (run_id, outcome, response, kind as u64)).map(drop)
}

/// What a call costs by the book's cards; None where they do not say.
fn priced(
    prices: &Bound<'_, PyAny>,
    asked: &Requested,
    model: &str,
    tier: &str,
    usage: &Usage,
) -> PyResult<Option<u64>> {
    if !tier.is_empty() {
        return Ok(None); // the cards are those of the standard tier
    }
    let cards = prices.getattr(intern!(prices.py(), "native"))?.cast_into::<PyDict>()?;
    let priced_as = if model.is_empty() { asked.model.b.as_str() } else { model };
    let Some(card) = cards.get_item((asked.model.a.as_str(), priced_as))? else { return Ok(None) };
    if card.is_none() {
        return Ok(None);
    }
    #[allow(clippy::cast_precision_loss)] // seconds to the microsecond
    let started = asked.at as f64 / 1e9;
    Ok(card.cast::<RateCard>()?.get().at(started, usage))
}
