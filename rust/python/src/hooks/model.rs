//! Hooks of model calls.

use super::{Arguments, Link, hook, plain_code};
use crate::hooks::attempts::Attempts;
use crate::hooks::identity;
use crate::hooks::model_end;
use crate::hooks::model_start;
use crate::services::Services;
use crate::streams::Streams;
use crate::streams::delta::Event;
use langmeter_core::{Kind, Via};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

#[inline]
fn count(
    services: &Bound<'_, Services>,
    run_id: Option<&Bound<'_, PyAny>>,
    via: Via,
    event: &Event<'_, '_>,
) -> PyResult<()> {
    let this = services.get();
    let (Some(recorder), Some(run_id)) = (this.recorder_if_mapped(), run_id) else { return Ok(()) };
    let (recorder, key) = (recorder.get(), identity::run_key(run_id)?);
    let Some(kind) = event.kind()? else {
        recorder.core.chunk(key);
        return Ok(());
    };
    if recorder.core.token(key, via, kind.visible())
        && let Some(streams) = &this.streams
        && streams.get().listening()
    {
        Streams::heard(streams.bind(services.py()), recorder, key, run_id, event)?;
    }
    Ok(())
}

hook! {
    /// A text completion begins, unless a budget refuses it.
    LlmStart, "on_llm_start";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        self.0.begun(py, &model_start::Start::of(given, intern!(py, "prompts"))?)
    }
}

hook! {
    /// A chat completion begins, unless a budget refuses it.
    ChatModelStart, "on_chat_model_start";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        self.0.begun(py, &model_start::Start::of(given, intern!(py, "messages"))?)
    }
}

hook! {
    /// A model call gave its result.
    LlmEnd, "on_llm_end";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let (response, run_id) = (given.at(0, intern!(py, "response"))?, given.required(intern!(py, "run_id"))?);
        self.0.run(py, "on_llm_end", |services| {
            // Read once the call counts: which model answered, and whether the response cache did.
            let reads = Attempts::reads(services, &run_id)?;
            if !model_end::common(services, &run_id, &response)? {
                model_end::uncommon(services, &run_id, &response, Kind::Llm)?;
            }
            reads.map_or(Ok(()), |reads| reads.read(&response))
        })
    }
}

hook! {
    /// A token, or a chunk without one, arrived.
    NewToken, "on_llm_new_token";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let (token, chunk) = (given.at(0, intern!(py, "token"))?, given.get(intern!(py, "chunk"))?);
        let run_id = given.get(intern!(py, "run_id"))?;
        self.0.run(py, "on_llm_new_token", |services| {
            count(services, run_id.as_ref(), Via::Token, &Event::Token(&token, chunk.as_ref()))
        })
    }
}

hook! {
    /// An event of a v3 stream arrived.
    StreamEvent, "on_stream_event";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let (event, run_id) = (given.at(0, intern!(py, "event"))?, given.get(intern!(py, "run_id"))?);
        self.0.run(py, "on_stream_event", |services| {
            count(services, run_id.as_ref(), Via::StreamEvent, &Event::Stream(&event))
        })
    }
}
