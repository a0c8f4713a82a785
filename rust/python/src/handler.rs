//! `Handler`: the hooks that fire for each token.

use crate::collect::Streams;
use crate::output::Event;
use crate::recorder::Recorder;
use crate::start::Known;
use crate::{components, convert, end, start};
use langmeter_core::{Dropped, Kind, Outcome, Via};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::OnceLockExt;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Code of the outcome.
const OK: usize = Outcome::Ok as usize;

/// Base of every callback: the hooks that fire for each token, without a Python frame.
#[pyclass(frozen, subclass, module = "langmeter._core")]
#[derive(Default)]
pub struct Handler {
    recorder: OnceLock<Py<Recorder>>,
    streams: OnceLock<Py<Streams>>,
    /// Prompts of runs in flight.
    texts: OnceLock<Py<PyDict>>,
    /// The price book, once its catalogue is loaded.
    prices: OnceLock<Py<PyAny>>,
    /// What a call asks of budgets, where it is held to some.
    demand: OnceLock<Py<PyAny>>,
    /// Keys of the metadata that are labels.
    labels: OnceLock<Vec<Py<PyAny>>>,
    /// Who the clients seen last ask.
    known: Mutex<Vec<Known>>,
    /// A model call has begun in this process.
    awake: AtomicBool,
}

/// One event in so many is timed; a prime, so that no pattern of events always meets it.
const TIMED: u32 = 61;

thread_local! {
    static EVENTS: Cell<u32> = const { Cell::new(0) };
}

impl Handler {
    /// Whatever goes wrong in a hook is counted and said once by `_failed`. What that raises is the host's
    /// (Ctrl-C, `SystemExit`) and goes on its way; a failure of `_failed` itself is counted.
    #[cold]
    fn failed(slf: &Bound<'_, Self>, hook: &str, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        match slf.call_method1(intern!(py, "_failed"), (hook, error.value(py))) {
            Err(raised) if raised.is_instance_of::<PyException>(py) => {
                if let Some(recorder) = slf.get().recorder.get() {
                    recorder.get().core.dropped(Dropped::HookErrors, 1);
                }
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Runs the body of a hook; neither an exception of ours nor a panic leaves it.
    #[inline]
    fn hook(slf: &Bound<'_, Self>, name: &str, body: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        let event = EVENTS.get().wrapping_add(1);
        EVENTS.set(event);
        let begun = event.is_multiple_of(TIMED).then(Instant::now);
        let done = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Self::failed(slf, name, &error),
            Err(_) => Self::failed(slf, name, &PyRuntimeError::new_err("langmeter's core panicked: please report it")),
        };
        if let Some(begun) = begun {
            slf.get().took(name, begun);
        }
        done
    }

    #[cold]
    fn took(&self, hook: &str, begun: Instant) {
        if let Some(recorder) = self.recorder.get() {
            recorder.get().core.in_hook(hook, u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// The recorder, if there is one yet.
    pub fn recorder(&self) -> Option<&Py<Recorder>> {
        self.recorder.get()
    }

    /// The recorder, made by need.
    pub fn recorder_or_new<'a>(&'a self, handler: &Bound<'_, Self>) -> PyResult<&'a Py<Recorder>> {
        if self.recorder.get().is_none() {
            handler.getattr(intern!(handler.py(), "_recorder"))?;
        }
        self.recorder.get().ok_or_else(|| PyRuntimeError::new_err("this handler has no recorder"))
    }

    /// What a call asks of budgets, where it is held to some.
    pub fn demand<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        self.demand.get().map(|demand| demand.bind(py))
    }

    /// The prompts of runs in flight, where they are kept.
    pub fn texts<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyDict>> {
        self.texts.get().map(|texts| texts.bind(py))
    }

    /// The price book, once its catalogue is loaded.
    pub fn prices<'a, 'py>(&'a self, handler: &Bound<'py, Self>) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
        let py = handler.py();
        if self.prices.get().is_none() && !handler.getattr(intern!(py, "_prices"))?.is_none() {
            handler.call_method0(intern!(py, "_prices_if_ready"))?;
        }
        Ok(self.prices.get().map(|prices| prices.bind(py)))
    }

    /// Calls are priced, but not yet.
    pub fn waits_for_prices(&self, handler: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(self.prices.get().is_none() && !handler.getattr(intern!(handler.py(), "_prices"))?.is_none())
    }

    /// Who the clients seen last ask. Nothing that runs Python code may happen while it is held.
    pub fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Key and value of the labels in the metadata of a call. A value that no text can be made of is reported,
    /// and the call goes without it.
    pub fn labels_in(
        slf: &Bound<'_, Self>,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<(PyBackedStr, PyBackedStr)>> {
        let mut found = Vec::new();
        let Some(labels) = slf.get().labels.get() else { return Ok(found) };
        let Some(Ok(metadata)) = metadata.map(|m| m.cast::<PyDict>()) else { return Ok(found) };
        for key in labels {
            let (py, key) = (slf.py(), key.bind(slf.py()));
            let Some(value) = metadata.get_item(key)?.filter(|value| !value.is_none()) else { continue };
            match value.str() {
                Ok(text) => {
                    let shown = text.extract().or_else(|_| PyString::new(py, &text.to_string_lossy()).extract())?;
                    found.push((key.extract()?, shown));
                }
                Err(error) => Self::failed(slf, "labels", &error)?,
            }
        }
        Ok(found)
    }

    /// A model call begins.
    fn begun(slf: &Bound<'_, Self>, given: &start::Start<'_, '_>) -> PyResult<()> {
        let py = slf.py();
        if !slf.get().awake.load(Ordering::Relaxed) {
            Self::hook(slf, "on_llm_start", || slf.call_method0(intern!(py, "_awake")).map(drop))?;
            // Not before: no call of another thread may pass budgets that are not open yet.
            slf.get().awake.store(true, Ordering::Relaxed);
        }
        // Calls that LangChain starts one by one and means as one are held to budgets as one.
        if slf.get().demand.get().is_some() && !start::alone(given) {
            let start::Start { serialized, prompts, run_id, parent_run_id, tags, .. } = given;
            let start::Start { metadata, invocation_params, name, batch_size, .. } = given;
            let (asked, of) = ((serialized, prompts, run_id, parent_run_id, tags), (metadata, name, batch_size));
            return slf
                .call_method1(
                    intern!(py, "_batch_start"),
                    (asked.0, asked.1, asked.2, asked.3, asked.4, of.0, invocation_params, of.1, of.2),
                )
                .map(drop);
        }
        let mut refused = None;
        Self::hook(slf, "on_llm_start", || {
            refused = start::begin(slf, given)?;
            Ok(())
        })?;
        // Outside of the guard: a budget that refuses the call has to reach it.
        refused.map_or(Ok(()), |refused| slf.call_method1(intern!(py, "_refuse"), refused).map(drop))
    }

    #[inline]
    fn count(
        slf: &Bound<'_, Self>,
        run_id: Option<&Bound<'_, PyAny>>,
        via: Via,
        event: &Event<'_, '_>,
    ) -> PyResult<()> {
        let this = slf.get();
        let (Some(recorder), Some(run_id)) = (this.recorder.get(), run_id) else { return Ok(()) };
        let (recorder, key) = (recorder.get(), convert::run_key(run_id)?);
        let Some(kind) = event.kind()? else {
            recorder.core.chunk(key);
            return Ok(());
        };
        if recorder.core.token(key, via, kind.visible())
            && let Some(streams) = this.streams.get()
            && streams.get().listening()
        {
            Streams::heard(streams.bind(slf.py()), recorder, key, run_id, event)?;
        }
        Ok(())
    }

    /// Whether nobody but the recorder has to be told that a model call gave its result.
    fn settled(slf: &Bound<'_, Self>, run_id: &Bound<'_, PyAny>, response: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Some(streams) = slf.get().streams.get() else { return Ok(true) };
        streams.get().settled(convert::run_key(run_id)?, response)
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
        // A callback may lead back to its handler: the cycle is collected through its other members.
        self.recorder.get().map_or(Ok(()), |r| visit.call(r))?;
        self.texts.get().map_or(Ok(()), |t| visit.call(t))?;
        self.prices.get().map_or(Ok(()), |p| visit.call(p))?;
        self.demand.get().map_or(Ok(()), |d| visit.call(d))?;
        self.streams.get().map_or(Ok(()), |s| visit.call(s))
    }

    fn _bind(slf: &Bound<'_, Self>, recorder: Py<Recorder>) -> PyResult<Py<Recorder>> {
        let py = slf.py();
        let bound = slf.get().recorder.get_or_init_py_attached(py, || recorder.clone_ref(py));
        if bound.is(&recorder) {
            return Ok(recorder);
        }
        Err(PyRuntimeError::new_err("this handler already records elsewhere; join handlers before their first event"))
    }

    fn _bound(&self, py: Python<'_>) -> Option<Py<Recorder>> {
        self.recorder.get().map(|r| r.clone_ref(py))
    }

    /// The next model call is the first of its process.
    fn _asleep(&self) {
        self.awake.store(false, Ordering::Relaxed);
    }

    /// Calls are held to budgets, of which they ask what this function says.
    fn _hold(&self, py: Python<'_>, demand: Py<PyAny>) {
        self.demand.get_or_init_py_attached(py, || demand);
    }

    /// Calls are priced by this book, whose catalogue is loaded.
    fn _priced_by(&self, py: Python<'_>, prices: Py<PyAny>) {
        self.prices.get_or_init_py_attached(py, || prices);
    }

    /// The prompts of runs in flight are kept in this dict, by the number of the run.
    fn _keep_prompts(&self, py: Python<'_>, texts: Py<PyDict>) {
        self.texts.get_or_init_py_attached(py, || texts);
    }

    /// These keys of a call's metadata are labels. Once; later calls change nothing.
    fn _label_by(&self, py: Python<'_>, keys: Vec<Py<PyAny>>) {
        self.labels.get_or_init_py_attached(py, || keys);
    }

    /// These streams hear each token event; once, before the first.
    fn _listen(&self, py: Python<'_>, streams: Py<Streams>) {
        self.streams.get_or_init_py_attached(py, || streams);
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
    fn _chain_started(
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
        let given = components::Start { serialized, run_id, parent_run_id, tags, metadata, name };
        Self::hook(slf, "on_chain_start", || components::begin(slf, Kind::Chain, &given))
    }

    #[pyo3(signature = (
        serialized, input_str, *, run_id, parent_run_id=None, tags=None, metadata=None, inputs=None, name=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn _tool_started(
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
        let given = components::Start { serialized, run_id, parent_run_id, tags, metadata, name };
        Self::hook(slf, "on_tool_start", || components::begin(slf, Kind::Tool, &given))
    }

    #[pyo3(signature = (
        serialized, query, *, run_id, parent_run_id=None, tags=None, metadata=None, name=None, **kwargs
    ))]
    #[allow(unused_variables, clippy::too_many_arguments)] // declared, so that no call pays for a dict
    fn _retriever_started(
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
        let given = components::Start { serialized, run_id, parent_run_id, tags, metadata, name };
        Self::hook(slf, "on_retriever_start", || components::begin(slf, Kind::Retriever, &given))
    }

    /// A chain gave its result; that of a decision model goes to `_model_ended`.
    #[pyo3(signature = (outputs, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn _chain_ended(
        slf: &Bound<'_, Self>,
        outputs: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_chain_end", || {
            if outputs.get_type().name()?.to_cow()? == "ClassifierResponse" {
                let kind = Kind::Chain as u64;
                return slf.call_method1(intern!(slf.py(), "_model_ended"), (run_id, OK, outputs, kind)).map(drop);
            }
            components::end(slf, Kind::Chain, run_id, Outcome::Ok)
        })
    }

    #[pyo3(signature = (output, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn _tool_ended(
        slf: &Bound<'_, Self>,
        output: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_tool_end", || components::end(slf, Kind::Tool, run_id, components::tool_outcome(output)?))
    }

    #[pyo3(signature = (documents, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    #[allow(unused_variables)] // declared, so that no call pays for a dict
    fn _retriever_ended(
        slf: &Bound<'_, Self>,
        documents: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        Self::hook(slf, "on_retriever_end", || components::end(slf, Kind::Retriever, run_id, Outcome::Ok))
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
        Self::hook(slf, "on_llm_end", || {
            if Self::settled(slf, run_id, response)? && end::common(slf, run_id, response)? {
                return Ok(());
            }
            slf.call_method1(intern!(slf.py(), "_model_ended"), (run_id, OK, response)).map(drop)
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
        Self::hook(slf, "on_llm_new_token", || Self::count(slf, run_id, Via::Token, &Event::Token(token, chunk)))
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
        Self::hook(slf, "on_stream_event", || Self::count(slf, run_id, Via::StreamEvent, &Event::Stream(event)))
    }
}
