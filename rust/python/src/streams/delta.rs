//! Which events of a stream are output, and what they say: text, reasoning and tool-call deltas are output;
//! role chunks, usage-only chunks, signatures and the end marker are not. `on_llm_new_token` and
//! `on_stream_event` tell the same answer in different words, which mean the same here.

use crate::fields::{Fields, dict_of};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use std::ops::ControlFlow;

/// What a piece of output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text of the answer.
    Text,
    /// Reasoning: output, and not a part of the answer.
    Reasoning,
    /// The beginning or the arguments of a tool call.
    ToolCall,
    /// Output with nothing to show, such as sound.
    Other,
}

impl Kind {
    /// Names of those that listeners are told of, in the order of their codes.
    pub const SHOWN: [&'static str; 3] = ["text", "reasoning", "tool_call"];

    /// Whether it is a part of the answer.
    pub const fn visible(self) -> bool {
        !matches!(self, Self::Reasoning)
    }
}

/// One piece of output.
pub struct Delta<'py> {
    pub kind: Kind,
    /// What was written; None where a tool call only begins.
    pub text: Option<Bound<'py, PyString>>,
    /// Of a tool call, whose piece it is.
    pub call: Call<'py>,
}

/// How a piece of a tool call names its call.
#[derive(Default)]
pub struct Call<'py> {
    /// Hash of the index, an int or a text: the same for every piece of a call.
    pub index: Option<isize>,
    pub id: Option<Bound<'py, PyString>>,
    pub name: Option<Bound<'py, PyString>>,
    /// Run by the provider: output, and no call that the caller is asked to make.
    pub server: bool,
    /// The text is the whole so far, not what is new in it.
    pub whole: bool,
}

/// A hook's argument.
pub enum Event<'a, 'py> {
    /// `on_llm_new_token`: the token and its chunk.
    Token(&'a Bound<'py, PyAny>, Option<&'a Bound<'py, PyAny>>),
    /// `on_stream_event`.
    Stream(&'a Bound<'py, PyAny>),
}

type Walk = PyResult<ControlFlow<()>>;
/// Is handed each piece, and says whether it wants another.
type Show<'s, 'py> = dyn FnMut(Delta<'py>) -> ControlFlow<()> + 's;

macro_rules! step {
    ($walk:expr) => {
        if $walk?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    };
}

impl<'py> Event<'_, 'py> {
    /// The kind of the event: the first visible kind in it, else reasoning; None when it has no output.
    #[inline]
    pub fn kind(&self) -> PyResult<Option<Kind>> {
        // By far the most common, and all there is to look at.
        if let Self::Token(token, _) = self
            && let Ok(text) = token.cast::<PyString>()
            && !text.is_empty()?
        {
            return Ok(Some(Kind::Text));
        }
        let mut kind = None;
        let _ = self.walk(&mut |delta| {
            kind = Some(delta.kind);
            if delta.kind.visible() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(kind)
    }

    /// The text of an event that is nothing but a text: by far the most common, and looked at first.
    #[inline]
    pub fn plain(&self) -> PyResult<Option<&Bound<'py, PyString>>> {
        let Self::Token(token, chunk) = self else { return Ok(None) };
        let Ok(text) = token.cast::<PyString>() else { return Ok(None) };
        let Some(chunk) = chunk else { return Ok(Some(text)) };
        let py = text.py();
        let Some(message) = Fields::of((*chunk).clone()).get(intern!(py, "message"))? else { return Ok(Some(text)) };
        let Some(fields) = dict_of(&message) else { return Ok(None) };
        let empty = |name| -> PyResult<bool> {
            fields.get_item(name)?.map_or(Ok(false), |value| value.is_truthy().map(|full| !full))
        };
        let alone = empty(intern!(py, "tool_call_chunks"))?
            && empty(intern!(py, "additional_kwargs"))?
            && fields.get_item(intern!(py, "content"))?.is_some_and(|content| content.is_instance_of::<PyString>());
        Ok(alone.then_some(text))
    }

    /// Shows every piece of output in the event, until told to stop.
    pub fn walk(&self, show: &mut Show<'_, 'py>) -> Walk {
        match self {
            Self::Token(token, chunk) => walk_token(token, *chunk, show),
            Self::Stream(event) => walk_event(event, show),
        }
    }
}

fn said(kind: Kind, text: Bound<'_, PyString>) -> Delta<'_> {
    Delta { kind, text: Some(text), call: Call::default() }
}

/// A text that is not empty.
fn filled<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    match value.cast::<PyString>() {
        Ok(text) if !text.is_empty()? => Ok(Some(text.clone())),
        _ => Ok(None),
    }
}

fn text_at<'py>(of: &Bound<'py, PyDict>, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyString>>> {
    of.get_item(key)?.map_or(Ok(None), |value| filled(&value))
}

fn walk_token<'py>(token: &Bound<'py, PyAny>, chunk: Option<&Bound<'py, PyAny>>, show: &mut Show<'_, 'py>) -> Walk {
    let py = token.py();
    let message = match chunk {
        Some(chunk) => Fields::of(chunk.clone()).get(intern!(py, "message"))?.filter(|m| !m.is_none()),
        None => None,
    };
    let message = message.map(Fields::of);
    // Clients hand in the text alone of a chunk whose content is blocks, "" where they are reasoning.
    let blocks = match &message {
        Some(message) => message.list(intern!(py, "content"))?,
        None => None,
    };
    if let Some(blocks) = blocks.as_ref().or_else(|| token.cast::<PyList>().ok()) {
        for block in blocks.iter() {
            if let Some(text) = filled(&block)? {
                if show(said(Kind::Text, text)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            } else if let Ok(block) = block.cast::<PyDict>() {
                // Of the tool calls in a message's blocks, `tool_call_chunks` below has the same pieces.
                step!(walk_block(block, index_of(block)?, message.is_some(), show));
            }
        }
    } else if let Some(text) = filled(token)?
        && show(said(Kind::Text, text)).is_break()
    {
        return Ok(ControlFlow::Break(()));
    }
    message.map_or(Ok(ControlFlow::Continue(())), |message| walk_message(&message, show))
}

/// Tool-call deltas, and the reasoning of some providers, come beside the content.
fn walk_message<'py>(message: &Fields<'py>, show: &mut Show<'_, 'py>) -> Walk {
    let py = message.py();
    if let Some(calls) = message.list(intern!(py, "tool_call_chunks"))? {
        for call in calls.iter() {
            if let Ok(call) = call.cast::<PyDict>() {
                step!(walk_block(call, index_of(call)?, false, show));
            }
        }
    }
    let Some(more) = message.get(intern!(py, "additional_kwargs"))? else {
        return Ok(ControlFlow::Continue(()));
    };
    let Ok(more) = more.cast::<PyDict>() else { return Ok(ControlFlow::Continue(())) };
    if more.is_empty() {
        return Ok(ControlFlow::Continue(()));
    }
    for key in [intern!(py, "reasoning_content"), intern!(py, "reasoning")] {
        if let Some(value) = more.get_item(key)? {
            step!(walk_thought(&value, show));
        }
    }
    if let Some(call) = more.get_item(intern!(py, "function_call"))?
        && let Ok(call) = call.cast::<PyDict>()
    {
        step!(walk_block(call, Some(-2), false, show)); // of the time before there were several
    }
    Ok(ControlFlow::Continue(()))
}

fn index_of(block: &Bound<'_, PyDict>) -> PyResult<Option<isize>> {
    let Some(index) = block.get_item(intern!(block.py(), "index"))? else { return Ok(None) };
    if index.is_none() { Ok(None) } else { index.hash().map(Some) }
}

/// Reasoning: a text, blocks with a text, or a summary of such.
fn walk_thought<'py>(value: &Bound<'py, PyAny>, show: &mut Show<'_, 'py>) -> Walk {
    let py = value.py();
    if let Some(text) = filled(value)? {
        return Ok(show(said(Kind::Reasoning, text)));
    }
    if let Ok(blocks) = value.cast::<PyList>() {
        for block in blocks.iter() {
            step!(walk_thought(&block, show));
        }
    } else if let Ok(block) = value.cast::<PyDict>() {
        for key in [intern!(py, "text"), intern!(py, "summary")] {
            if let Some(inner) = block.get_item(key)? {
                step!(walk_thought(&inner, show));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A content block, LangChain's or a provider's, by the keys under which it carries what the model wrote.
/// `silent`: what its tool calls say is shown elsewhere.
fn walk_block<'py>(block: &Bound<'py, PyDict>, index: Option<isize>, silent: bool, show: &mut Show<'_, 'py>) -> Walk {
    let py = block.py();
    let about = text_at(block, intern!(py, "type"))?;
    let about = about.as_ref().map(PyStringMethods::to_cow).transpose()?.unwrap_or_default();
    if about.starts_with("redacted") {
        return Ok(ControlFlow::Continue(())); // encrypted: not readable by the caller
    }
    for key in
        [intern!(py, "reasoning"), intern!(py, "thinking"), intern!(py, "reasoning_content"), intern!(py, "summary")]
    {
        if let Some(value) = block.get_item(key)? {
            step!(walk_thought(&value, show));
        }
    }
    if let Some(text) = text_at(block, intern!(py, "text"))? {
        let thought = about.starts_with("reasoning") || about.starts_with("thinking");
        return Ok(show(said(if thought { Kind::Reasoning } else { Kind::Text }, text)));
    }
    if let Some(fields) = block.get_item(intern!(py, "fields"))?
        && let Ok(fields) = fields.cast::<PyDict>()
    {
        return walk_block(fields, index, silent, &mut |mut delta| {
            delta.call.whole = true;
            show(delta)
        });
    }
    let id = match text_at(block, intern!(py, "id"))? {
        // A function call of OpenAI's Responses has an id of its own beside that of the call.
        Some(id) => text_at(block, intern!(py, "call_id"))?.or(Some(id)),
        None => text_at(block, intern!(py, "call_id"))?,
    };
    let name = text_at(block, intern!(py, "name"))?;
    let mut written = None;
    let mut carried = name.is_some();
    for key in [intern!(py, "args"), intern!(py, "partial_json"), intern!(py, "arguments"), intern!(py, "input")] {
        if let Some(value) = block.get_item(key)?
            && value.is_truthy()?
        {
            written = filled(&value)?;
            carried = true;
            break;
        }
    }
    if carried && !silent {
        let call = Call { index, id, name, server: about.starts_with("server"), whole: false };
        return Ok(show(Delta { kind: Kind::ToolCall, text: written, call }));
    }
    if carried || block.get_item(intern!(py, "data"))?.map_or(Ok(false), |data| data.is_truthy())? {
        return Ok(show(Delta { kind: Kind::Other, text: None, call: Call::default() }));
    }
    Ok(ControlFlow::Continue(()))
}

fn walk_event<'py>(event: &Bound<'py, PyAny>, show: &mut Show<'_, 'py>) -> Walk {
    let py = event.py();
    let Ok(event) = event.cast::<PyDict>() else { return Ok(ControlFlow::Continue(())) };
    let Some(about) = text_at(event, intern!(py, "event"))? else { return Ok(ControlFlow::Continue(())) };
    let inside = match about.to_cow()?.as_ref() {
        "content-block-delta" => intern!(py, "delta"),
        "content-block-start" => intern!(py, "content"),
        _ => return Ok(ControlFlow::Continue(())),
    };
    match event.get_item(inside)? {
        Some(block) => match block.cast::<PyDict>() {
            Ok(block) => walk_block(block, index_of(event)?, false, show),
            Err(_) => Ok(ControlFlow::Continue(())),
        },
        None => Ok(ControlFlow::Continue(())),
    }
}
