//! Which events of a stream are output: text, reasoning and tool-call deltas are; role chunks, usage-only
//! chunks and the end marker are not.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Keys under which a content block, of LangChain's or of a provider's, carries what the model wrote.
const CARRIERS: [&str; 10] =
    ["text", "reasoning", "thinking", "partial_json", "args", "input", "summary", "data", "fields", "arguments"];

/// Whether a token event of `on_llm_new_token` is output.
#[inline]
pub fn in_token(token: &Bound<'_, PyAny>, chunk: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    if let Ok(text) = token.cast::<PyString>() {
        if !text.is_empty()? {
            return Ok(true);
        }
    } else if let Ok(blocks) = token.cast::<PyList>() {
        for block in blocks.iter() {
            if in_block(&block)? {
                return Ok(true);
            }
        }
    }
    // Tool-call deltas, and the reasoning of some providers, come beside an empty token.
    chunk.map_or(Ok(false), in_chunk)
}

fn in_chunk(chunk: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = chunk.py();
    let Some(message) = chunk.getattr_opt(intern!(py, "message"))? else { return Ok(false) };
    if let Some(calls) = message.getattr_opt(intern!(py, "tool_call_chunks"))?
        && calls.is_truthy()?
    {
        return Ok(true);
    }
    let Some(more) = message.getattr_opt(intern!(py, "additional_kwargs"))? else { return Ok(false) };
    let Ok(more) = more.cast_into::<PyDict>() else { return Ok(false) };
    if more.is_empty() {
        return Ok(false);
    }
    for key in [intern!(py, "reasoning_content"), intern!(py, "reasoning"), intern!(py, "function_call")] {
        if let Some(value) = more.get_item(key)?
            && value.is_truthy()?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn in_block(block: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Ok(block) = block.cast::<PyDict>() else { return block.is_truthy() };
    for key in CARRIERS {
        if let Some(value) = block.get_item(key)?
            && value.is_truthy()?
        {
            return Ok(true);
        }
    }
    // A tool call begins with its name.
    block.get_item(intern!(block.py(), "name"))?.map_or(Ok(false), |name| name.is_truthy())
}

/// Whether an event of `on_stream_event` is output.
#[inline]
pub fn in_event(event: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = event.py();
    let Ok(event) = event.cast::<PyDict>() else { return Ok(false) };
    let Some(kind) = event.get_item(intern!(py, "event"))? else { return Ok(false) };
    let Ok(kind) = kind.cast_into::<PyString>() else { return Ok(false) };
    let inside = match kind.to_cow()?.as_ref() {
        "content-block-delta" => intern!(py, "delta"),
        "content-block-start" => intern!(py, "content"),
        _ => return Ok(false),
    };
    event.get_item(inside)?.map_or(Ok(false), |block| in_block(&block))
}

/// The text of a token: a string as it is, of a list of blocks their texts joined.
pub fn text_of(token: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = token.extract::<String>() {
        return Ok(text);
    }
    let mut all = String::new();
    if let Ok(blocks) = token.cast::<PyList>() {
        for block in blocks.iter() {
            if let Ok(text) = block.extract::<String>() {
                all.push_str(&text);
            } else if let Ok(block) = block.cast::<PyDict>()
                && let Some(text) = block.get_item(intern!(token.py(), "text"))?
                && let Ok(text) = text.extract::<String>()
            {
                all.push_str(&text);
            }
        }
    }
    Ok(all)
}

/// The text of a v3 event: that of a text delta.
pub fn text_of_event(event: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = event.py();
    let Ok(event) = event.cast::<PyDict>() else { return Ok(String::new()) };
    let Some(delta) = event.get_item(intern!(py, "delta"))? else { return Ok(String::new()) };
    let Ok(delta) = delta.cast_into::<PyDict>() else { return Ok(String::new()) };
    delta.get_item(intern!(py, "text"))?.map_or(Ok(String::new()), |text| text.extract())
}
