//! One stream, put together from the pieces received so far.

use crate::recorder::Recorder;
use crate::streams::delta::{Delta, Kind};
use langmeter_core::RunKey;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::borrow::Cow;

/// Tool calls of a stream; what belongs to further ones is told and not kept.
const MOST_CALLS: usize = 1024;

/// A tool call, from the pieces received so far.
#[derive(Default, Clone)]
pub struct ToolCall {
    pub index: Option<isize>,
    pub id: String,
    pub name: String,
    pub args: String,
    /// Run by the provider: not for the caller.
    pub server: bool,
}

/// A stream, from the pieces received so far.
pub struct Stream {
    pub run_id: Py<PyAny>,
    pub provider: String,
    pub model: Py<PyString>,
    /// Unix nanoseconds.
    pub started: u64,
    pub first: u64,
    /// Pieces so far.
    pub events: u64,
    /// When it last said something, on the clock of all streams.
    pub last: u64,
    /// Something is missing from here on.
    pub cut: bool,
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<ToolCall>,
}

/// A piece of output, taken out of its Python objects.
pub struct Said<'a> {
    pub kind: Kind,
    pub text: Cow<'a, str>,
    pub id: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub index: Option<isize>,
    pub server: bool,
    pub whole: bool,
}

impl<'a> Said<'a> {
    pub fn of(delta: &'a Delta<'_>) -> Self {
        let plain = |text: &'a Option<Bound<'_, PyString>>| {
            text.as_ref().map(PyStringMethods::to_string_lossy).unwrap_or_default()
        };
        let (text, call) = (plain(&delta.text), &delta.call);
        let (id, name) = (plain(&call.id), plain(&call.name));
        Self { kind: delta.kind, text, id, name, index: call.index, server: call.server, whole: call.whole }
    }
}

/// Where a piece went.
pub struct Placed {
    /// Its number in the stream; None if it is not reported.
    pub index: Option<u64>,
    /// Which of the tool calls it belongs to.
    pub call: Option<usize>,
    /// Bytes that were kept, and that found no room.
    pub kept: usize,
    pub cut: usize,
}

impl Stream {
    pub fn begun(py: Python<'_>, recorder: &Recorder, key: RunKey, run_id: &Bound<'_, PyAny>) -> Option<Self> {
        let call = recorder.core.requested(key)?;
        Some(Self {
            run_id: run_id.clone().unbind(),
            provider: call.model.a,
            model: PyString::new(py, &call.model.b).unbind(),
            started: call.at,
            first: recorder.core.unix_now(),
            events: 0,
            last: 0,
            cut: false,
            text: String::new(),
            reasoning: String::new(),
            calls: Vec::new(),
        })
    }

    pub fn bytes(&self) -> usize {
        let calls = self.calls.iter().map(|call| call.args.len() + call.id.len() + call.name.len());
        self.text.len() + self.reasoning.len() + calls.sum::<usize>()
    }

    /// The call that a piece belongs to, by LangChain's rule: the same index, and ids that do not differ.
    fn call_of(&mut self, said: &Said<'_>) -> Option<usize> {
        let agrees = |id: &str| id.is_empty() || said.id.is_empty() || id == said.id;
        let position = match said.index {
            Some(_) => self.calls.iter().rposition(|call| call.index == said.index && agrees(&call.id)),
            // Neither index nor id nor name: it goes on with the last one.
            None if said.id.is_empty() && said.name.is_empty() => self.calls.len().checked_sub(1),
            None => None,
        };
        if position.is_none() && self.calls.len() < MOST_CALLS {
            self.calls.push(ToolCall { index: said.index, ..ToolCall::default() });
            return Some(self.calls.len() - 1);
        }
        position
    }

    /// Appends a piece, within `most` bytes of the stream; returns None if nothing of it fits.
    pub fn add(&mut self, said: &Said<'_>, most: Option<usize>) -> Placed {
        let room = if self.cut { 0 } else { most.unwrap_or(0).saturating_sub(self.bytes()) };
        let mut placed = Placed { index: Some(self.events), call: None, kept: 0, cut: 0 };
        let mut keep = |to: &mut String, new: &str| {
            let room = room.saturating_sub(placed.kept);
            let fits = if new.len() <= room { new.len() } else { boundary(new, room) };
            to.push_str(new.get(..fits).unwrap_or_default());
            placed.kept += fits;
            placed.cut += new.len() - fits;
        };
        match said.kind {
            Kind::ToolCall => {
                let at = self.call_of(said).unwrap_or(self.calls.len());
                let (before, rest) = self.calls.split_at_mut(at);
                let Some(call) = rest.first_mut() else {
                    placed.cut = said.text.len();
                    self.events += 1;
                    self.cut |= most.is_some();
                    return placed;
                };
                call.server |= said.server;
                if call.server {
                    return Placed { index: None, ..placed };
                }
                for (to, new) in [(&mut call.id, &said.id), (&mut call.name, &said.name)] {
                    if to.is_empty() {
                        keep(to, new);
                    }
                }
                let new = said.text.as_ref();
                let new = if said.whole { new.strip_prefix(call.args.as_str()).unwrap_or(new) } else { new };
                keep(&mut call.args, new);
                placed.call = Some(before.iter().filter(|call| !call.server).count());
            }
            Kind::Reasoning => keep(&mut self.reasoning, &said.text),
            Kind::Text | Kind::Other => keep(&mut self.text, &said.text),
        }
        self.cut |= most.is_some() && placed.cut > 0;
        self.events += 1;
        placed
    }

    /// To be shown outside the lock: that makes Python objects, which may run code that comes back here.
    pub fn copy(&self, py: Python<'_>) -> Self {
        let (provider, text, reasoning) = (self.provider.clone(), self.text.clone(), self.reasoning.clone());
        let (run_id, model) = (self.run_id.clone_ref(py), self.model.clone_ref(py));
        Self { run_id, provider, model, text, reasoning, calls: self.calls.clone(), ..*self }
    }

    /// As Python sees it: (provider, model, text, reasoning, [(id, name, args)], pieces, seconds to the first
    /// of them, seconds since the call's start, cut).
    pub fn shown<'py>(&self, py: Python<'py>, now: u64) -> PyResult<Bound<'py, PyTuple>> {
        let own = self.calls.iter().filter(|call| !call.server);
        let calls: Vec<_> = own.map(|call| (&call.id, &call.name, &call.args)).collect();
        let (first, elapsed) = (Some(seconds(self.started, self.first)), seconds(self.started, now));
        let (provider, model) = (&self.provider, self.model.bind(py));
        (provider, model, &self.text, &self.reasoning, calls, self.events, first, elapsed, self.cut).into_pyobject(py)
    }
}

/// The most whole characters within so many bytes.
fn boundary(text: &str, room: usize) -> usize {
    (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)
}

#[allow(clippy::cast_precision_loss)] // seconds to the microsecond
pub fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
