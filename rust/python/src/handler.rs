//! `Handler`: the hooks that LangChain calls.

use crate::collect::Streams;
use crate::output::Event;
use crate::services::Services;
use crate::{components, end, identity, services, start};
use langmeter_core::{Kind, Outcome, Started, Via};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::OnceLockExt;
use pyo3::types::{PyDict, PyTuple};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Base of every callback: LangChain's hooks, without a Python frame.
#[pyclass(frozen, subclass, module = "langmeter._core")]
#[derive(Default)]
pub struct Handler {
    /// What it shares with the handlers of its recorder; fixed at its first event or question.
    services: OnceLock<Py<Services>>,
    /// The services of its own, as long as it is not joined to other handlers.
    own: OnceLock<Py<Services>>,
    /// Whether it counts chains, tools and retrievers.
    components: AtomicBool,
}

/// One event in so many is timed; a prime, so that no pattern of events always meets it.
pub const TIMED: u32 = 61;

thread_local! {
    static EVENTS: Cell<u32> = const { Cell::new(0) };
}

impl Handler {
    /// What it shares with the handlers of its recorder; from now on it cannot be joined to others.
    #[inline]
    fn services<'a, 'py>(&'a self, py: Python<'py>) -> Option<&'a Bound<'py, Services>> {
        if let Some(services) = self.services.get() {
            return Some(services.bind(py));
        }
        let own = self.own.get()?;
        Some(self.services.get_or_init_py_attached(py, || own.clone_ref(py)).bind(py))
    }

    /// Whatever goes wrong in a hook is counted and said once by `hook_failed`. What that raises is the host's
    /// (Ctrl-C, `SystemExit`) and goes on its way; a failure of `hook_failed` itself is counted.
    #[cold]
    fn failed(slf: &Bound<'_, Self>, services: &Bound<'_, Services>, hook: &str, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        let hook = format!("{}.{hook}", slf.get_type().name()?);
        services::failed(services, &hook, error.value(py))
    }

    /// Runs the body of a hook; neither an exception of ours nor a panic leaves it.
    #[inline]
    fn hook(
        slf: &Bound<'_, Self>,
        name: &str,
        body: impl FnOnce(&Bound<'_, Services>) -> PyResult<()>,
    ) -> PyResult<()> {
        let Some(services) = slf.get().services(slf.py()) else { return Ok(()) };
        let event = EVENTS.get().wrapping_add(1);
        EVENTS.set(event);
        let begun = event.is_multiple_of(TIMED).then(Instant::now);
        let done = match catch_unwind(AssertUnwindSafe(|| body(services))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Self::failed(slf, services, name, &error),
            Err(_) => {
                let panic = PyRuntimeError::new_err("langmeter's core panicked: please report it");
                Self::failed(slf, services, name, &panic)
            }
        };
        if let Some(begun) = begun {
            took(services.get(), name, begun);
        }
        done
    }

    /// A model call begins.
    fn begun(slf: &Bound<'_, Self>, call: &start::Start<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        let Some(services) = slf.get().services(py) else { return Ok(()) };
        if !services.get().is_awake() {
            Self::hook(slf, "on_llm_start", |_| services.call_method0(intern!(py, "first_call")).map(drop))?;
            // Not before: no call of another thread may pass budgets that are not open yet.
            services.get().wake();
        }
        let (mut refused, mut echo) = (None, false);
        Self::hook(slf, "on_llm_start", |services| {
            match start::begin(services, call)? {
                Ok(started) => echo = started == Started::Echo,
                Err(no) => refused = Some(no),
            }
            Ok(())
        })?;
        // Calls that LangChain starts one by one and means as one are held to budgets as one.
        if services.get().demand.is_some() && !echo && !start::alone(call) {
            Self::hook(slf, "on_llm_start", |services| start::batched(services, call, refused.is_some()))?;
        }
        // Outside of the guard: a budget that refuses the call has to reach it.
        refused.map_or(Ok(()), |refused| services.call_method1(intern!(py, "refused"), refused).map(drop))
    }

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
}

#[cold]
fn took(services: &Services, hook: &str, begun: Instant) {
    if let Some(recorder) = services.recorder_if_mapped() {
        recorder.get().core.in_hook(hook, u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

#[pymethods]
impl Handler {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.services.get().map_or(Ok(()), |services| visit.call(services))?;
        self.own.get().map_or(Ok(()), |services| visit.call(services))
    }

    /// Gives it services of its own, and says whether it counts chains, tools and retrievers. Once.
    fn _set_up(&self, py: Python<'_>, services: Py<Services>, components: bool) {
        self.components.store(components, Ordering::Relaxed);
        self.own.get_or_init_py_attached(py, || services);
    }

    /// Joins it to the handlers that share these services; `RuntimeError` after its first event or question.
    fn _join(&self, services: &Bound<'_, Services>) -> PyResult<()> {
        if self.services.get_or_init_py_attached(services.py(), || services.clone().unbind()).is(services) {
            return Ok(());
        }
        Err(PyRuntimeError::new_err("this handler already records elsewhere; join handlers before their first event"))
    }

    /// What it shares with the handlers of its recorder, which is fixed from now on.
    fn _bind(&self, py: Python<'_>) -> PyResult<Py<Services>> {
        let services = self.services(py).ok_or_else(|| PyRuntimeError::new_err("this handler was not set up"))?;
        Ok(services.clone().unbind())
    }

    /// Whether it is fixed.
    #[getter]
    fn _is_bound(&self) -> bool {
        self.services.get().is_some()
    }

    /// The same, which may still change until then.
    #[getter]
    fn _services(&self, py: Python<'_>) -> PyResult<Py<Services>> {
        let services = self.services.get().or_else(|| self.own.get());
        let services = services.ok_or_else(|| PyRuntimeError::new_err("this handler was not set up"))?;
        Ok(services.clone_ref(py))
    }

    /// A text completion or, as `on_chat_model_start`, a chat completion begins, unless a budget refuses it.
    #[pyo3(signature = (
        serialized, prompts, *, run_id, parent_run_id=None, tags=None, metadata=None, invocation_params=None,
        options=None, name=None, batch_size=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn on_llm_start(
        slf: &Bound<'_, Self>,
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
        Self::begun(slf, &given)
    }

    #[pyo3(signature = (
        serialized, messages, *, run_id, parent_run_id=None, tags=None, metadata=None, invocation_params=None,
        options=None, name=None, batch_size=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn on_chat_model_start(
        slf: &Bound<'_, Self>,
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
        Self::begun(slf, &given)
    }

    /// A chain begins; for a decision model that is a model call.
    #[pyo3(signature = (
        serialized, inputs, *, run_id, parent_run_id=None, tags=None, metadata=None, run_type=None, name=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn on_chain_start(
        slf: &Bound<'_, Self>,
        serialized: &Bound<'_, PyAny>,
        inputs: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        run_type: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        if let Some(run_type) = run_type
            && run_type.eq(intern!(slf.py(), "llm")).unwrap_or(false)
        {
            let (prompts, invocation_params, batch_size) = (inputs, None, None);
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
            return Self::begun(slf, &given);
        }
        let given = components::Start { serialized, given: inputs, run_id, parent_run_id, tags, metadata, name };
        if !slf.get().components.load(Ordering::Relaxed) {
            return Ok(());
        }
        Self::hook(slf, "on_chain_start", |services| components::begin(services, Kind::Chain, &given))
    }

    #[pyo3(signature = (
        serialized, input_str, *, run_id, parent_run_id=None, tags=None, metadata=None, inputs=None, name=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn on_tool_start(
        slf: &Bound<'_, Self>,
        serialized: &Bound<'_, PyAny>,
        input_str: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        inputs: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = components::Start { serialized, given: input_str, run_id, parent_run_id, tags, metadata, name };
        Self::hook(slf, "on_tool_start", |services| components::begin(services, Kind::Tool, &given))
    }

    #[pyo3(signature = (
        serialized, query, *, run_id, parent_run_id=None, tags=None, metadata=None, name=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn on_retriever_start(
        slf: &Bound<'_, Self>,
        serialized: &Bound<'_, PyAny>,
        query: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = components::Start { serialized, given: query, run_id, parent_run_id, tags, metadata, name };
        Self::hook(slf, "on_retriever_start", |services| components::begin(services, Kind::Retriever, &given))
    }

    /// A chain gave its result; that of a decision model is a model call's.
    #[pyo3(signature = (outputs, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn on_chain_end(
        slf: &Bound<'_, Self>,
        outputs: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let components = slf.get().components.load(Ordering::Relaxed);
        Self::hook(slf, "on_chain_end", |services| {
            let decides = if components {
                outputs.get_type().name()?.to_cow()? == "ClassifierResponse"
            } else {
                let key = identity::run_key(run_id)?;
                services.get().recorder(slf.py())?.get().core.requested(key).is_some()
            };
            if decides {
                end::uncommon(services, run_id, outputs, Kind::Chain)
            } else if components {
                components::end(services, Kind::Chain, run_id, Outcome::Ok)
            } else {
                Ok(())
            }
        })
    }

    #[pyo3(signature = (output, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn on_tool_end(
        slf: &Bound<'_, Self>,
        output: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_tool_end", |services| {
            components::end(services, Kind::Tool, run_id, components::tool_outcome(output)?)
        })
    }

    #[pyo3(signature = (documents, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn on_retriever_end(
        slf: &Bound<'_, Self>,
        documents: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_retriever_end", |services| components::end(services, Kind::Retriever, run_id, Outcome::Ok))
    }

    /// A model call gave its result.
    #[pyo3(signature = (response, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn on_llm_end(
        slf: &Bound<'_, Self>,
        response: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_llm_end", |services| {
            if end::common(services, run_id, response)? {
                return Ok(());
            }
            end::uncommon(services, run_id, response, Kind::Llm)
        })
    }

    #[pyo3(signature = (token, *, chunk=None, run_id=None, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn on_llm_new_token(
        slf: &Bound<'_, Self>,
        token: &Bound<'_, PyAny>,
        chunk: Option<&Bound<'_, PyAny>>,
        run_id: Option<&Bound<'_, PyAny>>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_llm_new_token", |services| {
            Self::count(services, run_id, Via::Token, &Event::Token(token, chunk))
        })
    }

    #[pyo3(signature = (event, *, run_id=None, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn on_stream_event(
        slf: &Bound<'_, Self>,
        event: &Bound<'_, PyAny>,
        run_id: Option<&Bound<'_, PyAny>>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_stream_event", |services| {
            Self::count(services, run_id, Via::StreamEvent, &Event::Stream(event))
        })
    }
}
