//! Upper bounds of what a call can use, from the arguments of its start hook.
//!
//! The prompt has not been counted at that time, and counting it would delay the call: the bound is one token a byte of
//! UTF-8. No byte-level vocabulary exceeds it: tiktoken's and `DeepSeek`'s have no exception in all of
//! Unicode. One that rewrites the text before it looks at it can: that of Claude 2 (NFKC) for 252 ligatures and their
//! like, U+FDFA the worst with 15 tokens for 3 bytes.

use crate::fields::dict_of;
use crate::response::keys::USUAL;
use crate::response::metadata::inside;
use crate::response::usage::{self, Modifiers};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Tokens that a chat adds to a message (3 or 4 at OpenAI), rounded up.
const PER_MESSAGE: u64 = 16;
/// Tokens taken for an image, a sound or a file: no bound, but above what most models charge.
const PER_MEDIUM: u64 = 2048;
/// What providers put before tools (Anthropic: up to 804 tokens), and bring with each of their own.
const FOR_TOOLS: u64 = 1024;
/// Values nested deeper than this are taken as one text.
const DEEPEST: u32 = 64;
/// Texts up to so many characters are measured in place, which keeps their UTF-8 beside them until they are freed.
const SHORT: usize = 4096;

/// What a parameter of a call says about the worst case.
enum Param {
    /// How many tokens an answer may have.
    MaxOutput,
    /// How many answers are asked for, each of them billed.
    Answers,
    /// Definitions of tools.
    Tools,
    /// What else is sent beside the messages and counts as input.
    Sent,
    /// What changes the price, named as in a response.
    Modifier(Modifier),
}

/// A modifier of the price that a request may name.
#[derive(Clone, Copy)]
enum Modifier {
    Tier,
    /// Bedrock's, a mapping.
    TierOfAws,
    Speed,
    Region,
    /// Bedrock's, a mapping with the latency.
    Performance,
    /// A mapping with the size of the search context.
    Search,
}

fn param(name: &str) -> Option<Param> {
    Some(match name {
        "max_tokens"
        | "max_completion_tokens"
        | "max_output_tokens"
        | "max_new_tokens"
        | "max_tokens_to_sample"
        | "num_predict"
        | "maxTokens"
        | "maxOutputTokens" => Param::MaxOutput,
        "n" | "best_of" | "candidate_count" | "num_generations" | "num_return_sequences" => Param::Answers,
        "tools" | "functions" | "toolConfig" => Param::Tools,
        "response_format"
        | "response_schema"
        | "response_json_schema"
        | "output_format"
        | "output_config"
        | "format"
        | "text"
        | "system"
        | "system_instruction"
        | "instructions"
        | "documents"
        | "nvext"
        | "extra_body"
        | "suffix" => Param::Sent,
        "service_tier" => Param::Modifier(Modifier::Tier),
        "serviceTier" => Param::Modifier(Modifier::TierOfAws),
        "speed" => Param::Modifier(Modifier::Speed),
        "inference_geo" => Param::Modifier(Modifier::Region),
        "performanceConfig" | "performance_config" => Param::Modifier(Modifier::Performance),
        "web_search_options" => Param::Modifier(Modifier::Search),
        _ => return None,
    })
}

/// What the parameters of a call say.
#[derive(Default)]
pub struct Params {
    /// Tokens of what goes with the messages, at most.
    pub beside: u64,
    /// The most tokens that one answer may have; None where nothing says so.
    pub output: Option<u64>,
    /// How many answers it asks for; 0 where it does not say.
    pub answers: u64,
    /// Modifiers of the price, as `Usage.tier` has them; empty for the standard price.
    pub tier: String,
}

impl Modifier {
    /// Adds the value of a parameter to the modifiers; one that is not a text changes nothing.
    fn add(self, value: &Bound<'_, PyAny>, to: &mut Modifiers) -> PyResult<()> {
        let part = match self {
            Self::TierOfAws => inside(Some(value), "type")?,
            Self::Performance => inside(Some(value), "latency")?,
            Self::Search => inside(Some(value), "search_context_size")?,
            Self::Tier | Self::Speed | Self::Region => Some(value.clone()),
        };
        let Some(part) = part else { return Ok(()) };
        let name = match self {
            Self::Tier | Self::TierOfAws => usage::tier(&part),
            _ => usage::modifier(&part, USUAL),
        };
        let name = name.unwrap_or_default();
        match self {
            Self::Tier | Self::TierOfAws => to.set(|named| &mut named.tier, name),
            Self::Speed => to.set(|named| &mut named.speed, name),
            Self::Region => to.set(|named| &mut named.region, name),
            Self::Performance => to.set(|named| &mut named.latency, name),
            Self::Search => to.set(|named| &mut named.context, name),
        }
        Ok(())
    }
}

impl Params {
    /// Reads the parameters, and LangChain's own word for the limit of an answer, which finds nested ones: it counts
    /// where no parameter names a limit.
    pub fn read(params: Option<&Bound<'_, PyAny>>, metadata: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (mut read, mut limited) = (Self::default(), false);
        let (mut sent, mut modifiers) = (Vec::new(), Modifiers::default());
        if let Some(Ok(params)) = params.map(|params| params.cast::<PyDict>()) {
            for (name, value) in params {
                let name = name.cast::<PyString>().ok().map(PyStringMethods::to_cow);
                match name.and_then(|name| param(name.ok()?.as_ref())) {
                    None => {}
                    Some(Param::MaxOutput) => {
                        limited = true;
                        read.output = read.output.max(count(&value));
                    }
                    Some(Param::Answers) => read.answers = read.answers.max(count(&value).unwrap_or(0)),
                    Some(Param::Modifier(modifier)) => modifier.add(&value, &mut modifiers)?,
                    Some(what @ (Param::Tools | Param::Sent)) => sent.push((what, value)),
                }
            }
        }
        read.tier = modifiers.into_text();
        // Only now: it may run code of the user's, and nothing may change the parameters while they are gone through.
        for (what, value) in sent {
            let bound = match what {
                Param::Tools if value.is_truthy()? => tools(&value)?,
                _ if !value.is_none() => written(&value)?,
                _ => 0,
            };
            read.beside = read.beside.saturating_add(bound);
        }
        if !limited && let Some(Ok(metadata)) = metadata.map(|metadata| metadata.cast::<PyDict>()) {
            read.output = metadata.get_item(intern!(metadata.py(), "ls_max_tokens"))?.as_ref().and_then(count);
        }
        Ok(read)
    }
}

/// A count above 0, not a bool; one beyond 64 bits is the most there is.
fn count(value: &Bound<'_, PyAny>) -> Option<u64> {
    if !value.is_exact_instance_of::<pyo3::types::PyInt>() || !value.gt(0).unwrap_or(false) {
        return None;
    }
    Some(value.extract().unwrap_or(u64::MAX))
}

/// At least the tokens of these prompts or messages, media apart; raises what they raise.
pub fn input(prompts: &Bound<'_, PyAny>) -> PyResult<u64> {
    let Ok(prompts) = prompts.cast_exact::<PyList>() else {
        return text(&prompts.str()?); // the inputs of a decision model
    };
    let mut total = 0_u64;
    for prompt in prompts {
        let bound = if let Ok(prompt) = prompt.cast_exact::<PyString>() {
            text(prompt)?.saturating_add(PER_MESSAGE)
        } else if let Ok(messages) = prompt.cast_exact::<PyList>() {
            messages.iter().try_fold(0_u64, |sum, one| message(&one).map(|n| sum.saturating_add(n)))?
        } else {
            message(&prompt)?
        };
        total = total.saturating_add(bound);
    }
    Ok(total)
}

/// The bound of a message, by its fields. Not by attribute: pydantic takes 6 µs to say that a message has no tool calls.
fn message<'py>(message: &Bound<'py, PyAny>) -> PyResult<u64> {
    let py = message.py();
    let fields = dict_of(message).ok_or_else(|| PyTypeError::new_err("a message without fields"))?;
    let field = |name: &Bound<'py, PyString>| fields.as_any().get_item(name);
    let content = field(intern!(py, "content"))?;
    let content = match content.cast_exact::<PyString>() {
        Ok(content) => text(content)?,
        Err(_) => sum(&content, block)?,
    };
    let kind = field(intern!(py, "type"))?;
    let plain = kind.cast::<PyString>().is_ok_and(|kind| matches!(kind.to_cow().as_deref(), Ok("human" | "system")));
    let more =
        !plain || field(intern!(py, "additional_kwargs"))?.is_truthy()? || field(intern!(py, "name"))?.is_truthy()?;
    let beside = if more { beside(&fields)? } else { 0 };
    Ok(content.saturating_add(beside).saturating_add(PER_MESSAGE))
}

/// What a message has beside its content.
fn beside(fields: &Bound<'_, PyDict>) -> PyResult<u64> {
    let py = fields.py();
    let mut total = 0_u64;
    for name in
        [intern!(py, "name"), intern!(py, "tool_call_id"), intern!(py, "tool_calls"), intern!(py, "invalid_tool_calls")]
    {
        if let Some(more) = fields.get_item(name)?
            && more.is_truthy()?
        {
            total = total.saturating_add(PER_MESSAGE).saturating_add(text(&more.str()?)?);
        }
    }
    let more = fields.as_any().get_item(intern!(py, "additional_kwargs"))?;
    Ok(if more.is_truthy()? { total.saturating_add(weight(&more, DEEPEST)?) } else { total })
}

fn block(block: &Bound<'_, PyAny>) -> PyResult<u64> {
    let kind = block.cast::<PyDict>().ok().map_or(Ok(None), |block| block.get_item(intern!(block.py(), "type")))?;
    let kind = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok()).map(PyStringMethods::to_cow);
    let kind = kind.as_ref().and_then(|kind| kind.as_deref().ok()).unwrap_or_default();
    let bound = match kind {
        // Text throughout, whatever its keys are called.
        "tool_use" | "tool_call" | "function_call" | "server_tool_use" | "thinking" | "reasoning" => {
            text(&block.str()?)?
        }
        "image" | "image_url" | "input_image" | "audio" | "input_audio" | "video" | "file" | "media" => {
            weight(block, DEEPEST)?.max(PER_MEDIUM)
        }
        _ => weight(block, DEEPEST)?,
    };
    Ok(bound.saturating_add(PER_MESSAGE))
}

/// Bytes of all texts in a value, and `PER_MEDIUM` for each medium, because base64 is not text.
fn weight(value: &Bound<'_, PyAny>, depth: u32) -> PyResult<u64> {
    if let Ok(value) = value.cast_exact::<PyString>() {
        return text(value);
    }
    let Some(depth) = depth.checked_sub(1) else { return text(&value.str()?) };
    if let Ok(value) = value.cast::<PyDict>() {
        let py = value.py();
        let is = |found: Option<Bound<'_, PyAny>>, wanted: &str| found.is_some_and(|v| v.eq(wanted).unwrap_or(false));
        let is_text = is(value.get_item(intern!(py, "type"))?, "text")
            || match value.get_item(intern!(py, "media_type"))? {
                Some(kind) => kind.str()?.to_string_lossy().starts_with("text/"),
                None => false,
            };
        let mut total = 0_u64;
        // Of a copy: what follows may run code of the user's.
        for (key, inner) in value.copy()? {
            let key = key.str()?;
            let carries = matches!(
                &*key.to_string_lossy(),
                "data" | "base64" | "bytes" | "url" | "image_url" | "file_data" | "file_url" | "file_uri" | "uri"
            );
            total = total.saturating_add(key.len()? as u64).saturating_add(1);
            let opaque = inner.is_instance_of::<PyString>() || inner.is_instance_of::<PyBytes>();
            if carries && !is_text && opaque {
                total = total.saturating_add(PER_MEDIUM);
            } else if !inner.is_none() {
                total = total.saturating_add(weight(&inner, depth)?);
            }
        }
        return Ok(total);
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return sum(value, |inner| weight(inner, depth));
    }
    text(&value.str()?)
}

fn sum(values: &Bound<'_, PyAny>, each: impl Fn(&Bound<'_, PyAny>) -> PyResult<u64>) -> PyResult<u64> {
    values.try_iter()?.try_fold(0_u64, |sum, value| each(&value?).map(|n| sum.saturating_add(n)))
}

fn tools(sent: &Bound<'_, PyAny>) -> PyResult<u64> {
    let many = sent.is_instance_of::<PyList>() || sent.is_instance_of::<PyTuple>();
    let bound = if many { sum(sent, tool)? } else { tool(sent)? };
    Ok(bound.saturating_add(FOR_TOOLS))
}

fn tool(tool: &Bound<'_, PyAny>) -> PyResult<u64> {
    // One that the provider runs is described by the provider: {"type": "web_search_20250305"}.
    let brought = match tool.cast::<PyDict>() {
        Ok(tool) => !(tool.contains("function")? || tool.contains("parameters")? || tool.contains("input_schema")?),
        Err(_) => false,
    };
    let brought = if brought { FOR_TOOLS } else { 0 };
    Ok(written(tool)?.saturating_add(PER_MESSAGE).saturating_add(brought))
}

/// Bytes of a schema or a value as text; of a class its JSON schema, which is what a client sends.
fn written(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = value.py();
    let schema_bytes = || match value.getattr_opt(intern!(py, "model_json_schema"))? {
        Some(schema) if schema.is_callable() => text(&schema.call0()?.str()?),
        _ => text(&value.str()?),
    };
    match schema_bytes() {
        // Of a class that has no schema: the client will say so.
        Err(error) if error.is_instance_of::<PyException>(py) => text(&value.get_type().repr()?),
        other => other,
    }
}

/// Bytes of a text in UTF-8; half a surrogate pair has three.
pub fn text(text: &Bound<'_, PyString>) -> PyResult<u64> {
    let py = text.py();
    if text.len()? <= SHORT
        && let Ok(text) = text.to_str()
    {
        return Ok(text.len() as u64);
    }
    if text.call_method0(intern!(py, "isascii"))?.is_truthy()? {
        return Ok(text.len()? as u64);
    }
    let bytes = text.call_method1(intern!(py, "encode"), (intern!(py, "utf-8"), intern!(py, "surrogatepass")))?;
    Ok(bytes.len()? as u64)
}

/// The same as `input` and `Params` for Python; see `_core.pyi`.
#[pyfunction]
pub fn input_bound(prompts: &Bound<'_, PyAny>) -> PyResult<u64> {
    input(prompts)
}

#[pyfunction]
#[pyo3(signature = (params, metadata=None))]
pub fn call_bounds(
    params: Option<&Bound<'_, PyAny>>,
    metadata: Option<&Bound<'_, PyAny>>,
) -> PyResult<(u64, Option<u64>, u64, String)> {
    let read = Params::read(params, metadata)?;
    Ok((read.beside, read.output, read.answers.max(1), read.tier))
}
