//! The common response, read natively: a single chat candidate with LangChain's own figures, all whole
//! numbers, nothing rare. `langmeter.usage.quick` is the same in words of Python, and a test holds the two
//! to each other; what is not common goes there.

use langmeter_core::Usage;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString};
use std::time::Duration;

/// Figures from here on are refused.
const LIMIT: u64 = 1 << 40;
/// A model's name shorter than this is not looked at for being there twice.
const SHORTEST: usize = 4;

/// What the common response says.
pub struct Common<'py> {
    pub usage: Usage,
    pub model: Option<Bound<'py, PyString>>,
    /// The answer ended at the limit of its length.
    pub truncated: bool,
    /// Nanoseconds that the call waited at the provider's, if it says so.
    pub queue: Option<u64>,
}

/// None when the response is of another kind, whatever the surprise.
pub fn read<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Common<'py>>> {
    // Not what is no `Exception`: Ctrl-C may arrive while a response's own code runs.
    look(response).or_else(|e| if e.is_instance_of::<PyException>(response.py()) { Ok(None) } else { Err(e) })
}

fn only<'py>(list: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let list = list.cast::<PyList>().ok()?;
    if list.len() == 1 { list.get_item(0).ok() } else { None }
}

fn whole(value: &Bound<'_, PyAny>) -> Option<u64> {
    // Not bool, and no subclass: those are looked at with care.
    let value = value.cast_exact::<PyInt>().ok()?.extract::<u64>().ok()?;
    (value < LIMIT).then_some(value)
}

fn figure(of: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<Option<u64>> {
    Ok(of.get_item(key)?.map_or(Some(0), |value| whole(&value)))
}

fn dict<'py>(of: &Bound<'py, PyDict>, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(value) = of.get_item(key)? else { return Ok(None) };
    Ok(value.cast_into::<PyDict>().ok().filter(|d| !d.is_empty()))
}

/// A copy: another thread may change the dict meanwhile.
fn items<'py>(of: &Bound<'py, PyDict>) -> impl Iterator<Item = (Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    of.items().into_iter().filter_map(|pair| pair.extract().ok())
}

macro_rules! ask {
    ($value:expr) => {
        match $value {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

#[allow(clippy::too_many_lines)] // one decision after the other, as in `langmeter.usage.quick`
fn look<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Common<'py>>> {
    let py = response.py();
    let prompt = ask!(only(&response.getattr(intern!(py, "generations"))?));
    let message = ask!(only(&prompt)).getattr(intern!(py, "message"))?;
    let figures = message.getattr(intern!(py, "usage_metadata"))?;
    let figures = ask!(figures.cast::<PyDict>().ok());
    let told = |key| -> PyResult<Option<u64>> { Ok(figures.get_item(key)?.and_then(|v| whole(&v))) };
    let input = ask!(told(intern!(py, "input_tokens"))?);
    let output = ask!(told(intern!(py, "output_tokens"))?);
    let total = ask!(told(intern!(py, "total_tokens"))?);
    // An answer to nothing: the stream was cut, and what it had said of its input was lost.
    if input == 0 && output > 0 {
        return Ok(None);
    }
    // LangChain's own five: `total_cost` is the mark of its response cache.
    if total != input.wrapping_add(output) || figures.len() > 5 || figures.contains(intern!(py, "total_cost"))? {
        return Ok(None);
    }
    let (mut read, mut write, mut hour, mut audio_in, mut audio_out, mut reasoning) = (0, 0, 0, 0, 0, 0);
    let into = dict(figures, intern!(py, "input_token_details"))?;
    if let Some(into) = &into {
        let mut five = 0;
        for (key, value) in items(into) {
            let value = ask!(whole(&value));
            match key.cast::<PyString>()?.to_cow()?.as_ref() {
                "cache_read" => read = value,
                "cache_creation" => write = value,
                "audio" => audio_in = value,
                "ephemeral_5m_input_tokens" => five = value,
                "ephemeral_1h_input_tokens" => hour = value,
                _ => return Ok(None),
            }
        }
        // One total or its two parts, never both.
        if write == 0 {
            write = five.wrapping_add(hour);
        }
    }
    let out_of = dict(figures, intern!(py, "output_token_details"))?;
    if let Some(out_of) = &out_of {
        for (key, value) in items(out_of) {
            let value = ask!(whole(&value));
            match key.cast::<PyString>()?.to_cow()?.as_ref() {
                "reasoning" => reasoning = value,
                "audio" => audio_out = value,
                _ => return Ok(None),
            }
        }
    }
    let meta = message.getattr(intern!(py, "response_metadata"))?;
    let meta = ask!(meta.cast::<PyDict>().ok());
    if meta.contains(intern!(py, "cost"))? || !standard(meta)? {
        return Ok(None);
    }
    let raw = match dict(meta, intern!(py, "token_usage"))? {
        Some(raw) => Some(raw),
        None => dict(meta, intern!(py, "usage"))?,
    };
    let (mut searches, mut queue) = (0, None);
    if let Some(raw) = &raw {
        if !standard(raw)? || !plain(raw, into.is_some(), out_of.is_some())? {
            return Ok(None);
        }
        queue = waited(raw)?;
        if let Some(tools) = dict(raw, intern!(py, "server_tool_use"))? {
            searches = ask!(figure(&tools, intern!(py, "web_search_requests"))?);
        }
    }
    let model = match meta.get_item(intern!(py, "model_name"))? {
        Some(name) => Some(ask!(name.cast_into::<PyString>().ok())),
        None => None,
    };
    if model.is_none() && meta.contains(intern!(py, "serviceTier"))? {
        return Ok(None);
    }
    if let Some(dialect) = meta.get_item(intern!(py, "model_provider"))?
        && dialect.cast::<PyString>()?.to_cow()?.contains("bedrock")
    {
        return Ok(None); // its model is an echo of the request
    }
    let model = match model {
        Some(model) if repeats(model.to_cow()?.as_bytes()) => return Ok(None),
        other => other,
    };
    let usage =
        [input, output, total, read, write, hour, reasoning, audio_in, audio_out, 0, 0, 0, 0, 0, 0, 0, searches, 0, 0];
    Ok(Some(Common { usage, model, truncated: truncated(meta)?, queue }))
}

/// Whether an answer's metadata says that it ended at the limit of its length.
pub fn truncated(meta: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = meta.py();
    for key in [intern!(py, "finish_reason"), intern!(py, "stop_reason"), intern!(py, "done_reason")] {
        if let Some(reason) = meta.get_item(key)?
            && let Ok(reason) = reason.cast::<PyString>()
            && matches!(
                reason.to_cow()?.as_ref(),
                "length" | "model_length" | "max_tokens" | "MAX_TOKENS" | "max_output_tokens"
            )
        {
            return Ok(true);
        }
    }
    let Some(details) = dict(meta, intern!(py, "incomplete_details"))? else { return Ok(false) };
    let Some(reason) = details.get_item(intern!(py, "reason"))? else { return Ok(false) };
    reason.eq(intern!(py, "max_output_tokens"))
}

/// `queue_time`, as Groq gives it, in nanoseconds.
pub fn waited(usage: &Bound<'_, PyDict>) -> PyResult<Option<u64>> {
    let Some(seconds) = usage.get_item(intern!(usage.py(), "queue_time"))? else { return Ok(None) };
    let Ok(seconds) = seconds.extract::<f64>() else { return Ok(None) };
    let waited = Duration::try_from_secs_f64(seconds).ok().filter(|waited| waited.as_secs() < 1_000_000_000);
    Ok(waited.and_then(|waited| u64::try_from(waited.as_nanos()).ok()))
}

/// No tier, or the standard one.
fn standard(of: &Bound<'_, PyDict>) -> PyResult<bool> {
    let Some(tier) = of.get_item(intern!(of.py(), "service_tier"))? else { return Ok(true) };
    if tier.is_none() {
        return Ok(true);
    }
    let Ok(tier) = tier.cast_into::<PyString>() else { return Ok(false) };
    Ok(matches!(tier.to_cow()?.as_ref(), "" | "default" | "standard" | "auto" | "on_demand" | "standard_only"))
}

/// The provider's own figures hold nothing beside what LangChain has read from them.
fn plain(raw: &Bound<'_, PyDict>, into: bool, out_of: bool) -> PyResult<bool> {
    let py = raw.py();
    let filled = |key| -> PyResult<bool> { raw.get_item(key)?.map_or(Ok(false), |v| v.is_truthy()) };
    if into {
        for key in [intern!(py, "cost"), intern!(py, "num_search_queries"), intern!(py, "cost_in_usd_ticks")] {
            if raw.contains(key)? {
                return Ok(false);
            }
        }
        if let Some(parts) = dict(raw, intern!(py, "prompt_tokens_details"))?
            && let Some(images) = parts.get_item(intern!(py, "image_tokens"))?
            && images.is_truthy()?
        {
            return Ok(false);
        }
    } else {
        if filled(intern!(py, "prompt_tokens_details"))? {
            return Ok(false);
        }
        for key in raw.keys() {
            match key.cast::<PyString>()?.to_cow()?.as_ref() {
                "prompt_tokens"
                | "completion_tokens"
                | "total_tokens"
                | "prompt_tokens_details"
                | "completion_tokens_details"
                | "queue_time"
                | "prompt_time"
                | "completion_time"
                | "total_time" => {}
                _ => return Ok(false),
            }
        }
    }
    if !out_of
        && (filled(intern!(py, "completion_tokens_details"))?
            || filled(intern!(py, "output_tokens_details"))?
            || raw.contains(intern!(py, "reasoning_tokens"))?)
    {
        return Ok(false);
    }
    Ok(true)
}

/// A name that stands there more than once: where chunks each carry it, merging them strings it together.
fn repeats(name: &[u8]) -> bool {
    (SHORTEST..=name.len() / 2)
        .any(|period| name.len().is_multiple_of(period) && name.get(period..) == name.get(..name.len() - period))
}
