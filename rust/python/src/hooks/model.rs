//! Hooks of model calls.

use super::{Link, hook, plain_code};
use crate::collect::Streams;
use crate::output::Event;
use crate::services::Services;
use crate::{end, identity, start};
use langmeter_core::{Kind, Via};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

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

    #[pyo3(signature = (
        serialized, prompts, *, run_id, parent_run_id=None, tags=None, metadata=None, invocation_params=None,
        options=None, name=None, batch_size=None, **kwargs
    ))]
    fn __call__(
        &self,
        py: Python<'_>,
        serialized: &Bound<'_, PyAny>,
        prompts: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        invocation_params: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        batch_size: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = start::Start {
            serialized,
            prompts,
            run_id,
            parent_run_id,
            tags,
            metadata,
            invocation_params,
            name,
            batch_size,
        };
        self.0.begun(py, &given)
    }
}

hook! {
    /// A chat completion begins, unless a budget refuses it.
    ChatModelStart, "on_chat_model_start";

    #[pyo3(signature = (
        serialized, messages, *, run_id, parent_run_id=None, tags=None, metadata=None, invocation_params=None,
        options=None, name=None, batch_size=None, **kwargs
    ))]
    fn __call__(
        &self,
        py: Python<'_>,
        serialized: &Bound<'_, PyAny>,
        messages: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        invocation_params: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        batch_size: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = start::Start {
            serialized,
            prompts: messages,
            run_id,
            parent_run_id,
            tags,
            metadata,
            invocation_params,
            name,
            batch_size,
        };
        self.0.begun(py, &given)
    }
}

hook! {
    /// A model call gave its result.
    LlmEnd, "on_llm_end";

    #[pyo3(signature = (response, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    fn __call__(
        &self,
        py: Python<'_>,
        response: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.0.run(py, "on_llm_end", |services| {
            if end::common(services, run_id, response)? {
                return Ok(());
            }
            end::uncommon(services, run_id, response, Kind::Llm)
        })
    }
}

hook! {
    /// A token, or a chunk without one, arrived.
    NewToken, "on_llm_new_token";

    #[pyo3(signature = (token, *, chunk=None, run_id=None, parent_run_id=None, tags=None, **kwargs))]
    fn __call__(
        &self,
        py: Python<'_>,
        token: &Bound<'_, PyAny>,
        chunk: Option<&Bound<'_, PyAny>>,
        run_id: Option<&Bound<'_, PyAny>>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.0.run(py, "on_llm_new_token", |services| {
            count(services, run_id, Via::Token, &Event::Token(token, chunk))
        })
    }
}

hook! {
    /// An event of a v3 stream arrived.
    StreamEvent, "on_stream_event";

    #[pyo3(signature = (event, *, run_id=None, parent_run_id=None, tags=None, **kwargs))]
    fn __call__(
        &self,
        py: Python<'_>,
        event: &Bound<'_, PyAny>,
        run_id: Option<&Bound<'_, PyAny>>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.0.run(py, "on_stream_event", |services| {
            count(services, run_id, Via::StreamEvent, &Event::Stream(event))
        })
    }
}
