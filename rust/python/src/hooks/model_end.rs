//! The end of a model call whose response is of the common kind.
//!
//! Natively, because in a running program Python code is cold by the end of a call, and costs three times what
//! a loop over it measures (31 µs over an empty handler with this hook in Python).

use crate::hooks::clients;
use crate::hooks::identity;
use crate::hooks::prompts;
use crate::response;
use crate::services::Services;
use langmeter_core::{End, Kind, Outcome};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyDictMethods, PyStringMethods};

/// Ends a call, priced by the rate card that the price book holds for its names. Returns false, having changed nothing,
/// when the response is of another kind or a listener waits for the end.
pub fn common(
    services: &Bound<'_, Services>,
    run_id: &Bound<'_, PyAny>,
    response: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    let (py, this) = (services.py(), services.get());
    let Some(recorder) = this.recorder_if_mapped() else { return Ok(false) };
    let core = &recorder.get().core;
    let number = identity::run_number(run_id)?;
    let key = identity::key_of(&number)?;
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
    let billed = match &reading.billed {
        Some(billed) => match billed.pico() {
            Some(billed) => Some(billed),
            None => return Ok(false),
        },
        None => None,
    };
    let Some(call) = core.asked(key) else { return Ok(false) };
    let model = reading.model.as_ref().map(PyStringMethods::to_cow).transpose()?;
    let model = model.as_deref().filter(|model| !model.is_empty());
    let client = this.clients.model(call.model, py);
    let cards = this.cards.as_ref().filter(|_| !reading.cache_hit).map(|cards| cards.bind(py));
    let called = this.called.bind(py);
    let called = if called.is_empty() { None } else { prompts::find(called, &number)? };
    let names: Option<(PyBackedStr, PyBackedStr)> = called.as_ref().map(|[names, _]| names.extract()).transpose()?;
    let (deployment, vendor) = names.as_ref().map_or(("", ""), |(deployment, vendor)| (deployment, vendor));
    let tier = if cards.is_some() { reading.tier.as_str() } else { "" };
    let names = clients::Names { told: model, deployment, vendor, tier };
    let mut again = false;
    let (answered, cost) = loop {
        let answered = clients::answered(core, cards, call.model, client.as_deref(), names, py, again);
        let Some(answered) = answered else { return Ok(false) };
        let Some(card) = &answered.card else { break (answered, None) };
        #[allow(clippy::cast_precision_loss)] // seconds to the microsecond
        let cost = card.get().at(call.at as f64 / 1e9, &usage);
        if cost.is_some() {
            break (answered, cost);
        }
        if again {
            return Ok(false);
        }
        again = true; // the card of another time may have been given since
    };
    if let Some(streams) = streams {
        streams.forget(py, key);
    }
    if let Some([_, number]) = &called {
        let _ = this.called.bind(py).del_item(number); // another thread may have been faster
    }
    let stored = this.prompts.bind(py);
    if !stored.is_empty() {
        prompts::take(stored, &number)?;
    }
    if let Some(client) = client {
        client.ended(true, call.streamed);
    }
    let crossed = core.run_ended(&End {
        outcome: if reading.cache_hit { Outcome::CacheHit } else { Outcome::Ok },
        answered: answered.series,
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
    let (py, outcome) = (services.py(), Outcome::Ok as usize);
    let this = services.get();
    // The next call of this model may need its prompt.
    if let Some(recorder) = this.recorder_if_mapped()
        && let Some(asked) = recorder.get().core.asked(identity::run_key(run_id)?)
    {
        this.clients.ended(asked.model, false, asked.streamed, py);
    }
    services.call_method1(intern!(py, "model_end"), (run_id, outcome, response, kind as u64)).map(drop)
}
