//! `Handler`: the hooks that fire for each token.

use crate::collect::Streams;
use crate::money::RateCard;
use crate::output::Event;
use crate::recorder::Recorder;
use crate::{convert, usage};
use langmeter_core::{Dropped, End, Kind, OTHER, Outcome, Via};
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::OnceLockExt;
use pyo3::types::{PyDict, PyStringMethods, PyTuple};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// Code of the outcome.
const OK: usize = Outcome::Ok as usize;

/// Base of every callback: the hooks that fire for each token, without a Python frame.
#[pyclass(frozen, subclass, module = "langmeter._core")]
#[derive(Default)]
pub struct Handler {
    recorder: OnceLock<Py<Recorder>>,
    streams: OnceLock<Py<Streams>>,
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
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Self::failed(slf, name, &error),
            Err(_) => Self::failed(slf, name, &PyRuntimeError::new_err("langmeter's core panicked: please report it")),
        }
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
        let Some(_kind) = event.kind()? else { return Ok(()) };
        let (recorder, key) = (recorder.get(), convert::run_key(run_id)?);
        if recorder.core.token(key, via)
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

    /// Ends a model call whose response is of the common kind, priced by the card that the price book holds
    /// under (provider, model); false when it is not, and nothing has been done.
    fn end_common(slf: &Bound<'_, Self>, run_id: &Bound<'_, PyAny>, response: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Some(recorder) = slf.get().recorder.get() else { return Ok(false) };
        let core = &recorder.get().core;
        let key = convert::run_key(run_id)?;
        let Some(common) = usage::read(response)? else { return Ok(false) };
        let Some((asked, started)) = core.requested(key) else { return Ok(false) };
        if asked.a.is_empty() || asked.a == OTHER {
            return Ok(false); // who answered is looked for in the response
        }
        let told = common.model.as_ref().map(PyStringMethods::to_cow).transpose()?;
        let model = told.as_deref().unwrap_or_default();
        let mut cost = None;
        if let Some(prices) = Self::prices(slf)? {
            let cards = prices.getattr(intern!(slf.py(), "native"))?.cast_into::<PyDict>()?;
            let priced_as = if model.is_empty() { asked.b.as_str() } else { model };
            let Some(card) = cards.get_item((asked.a.as_str(), priced_as))? else { return Ok(false) };
            if !card.is_none() {
                #[allow(clippy::cast_precision_loss)] // seconds to the microsecond
                let started = started as f64 / 1e9;
                cost = card.cast::<RateCard>()?.get().at(started, &common.usage);
                if cost.is_none() {
                    return Ok(false);
                }
            }
        }
        Self::forget_prompt(slf, run_id)?;
        let (kind, outcome, usage) = (Kind::Llm, Outcome::Ok, Some(common.usage));
        let crossed = core.run_ended(&End { key, kind, outcome, provider: &asked.a, model, usage, cost });
        if !crossed.is_empty() {
            slf.call_method1(intern!(slf.py(), "_crossed"), (crossed,))?;
        }
        Ok(true)
    }

    /// Lets go of the prompt that was kept in case the response should tell no usage.
    fn forget_prompt(slf: &Bound<'_, Self>, run_id: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let texts = slf.getattr(intern!(py, "_texts"))?.cast_into::<PyDict>()?;
        let key = run_id.getattr(intern!(py, "int"))?;
        if texts.contains(&key)? { texts.del_item(key) } else { Ok(()) }
    }

    /// The price book, once its catalogue is loaded.
    fn prices<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let now = slf.getattr(intern!(py, "_prices_now"))?;
        if !now.is_none() {
            return Ok(Some(now));
        }
        if slf.getattr(intern!(py, "_prices"))?.is_none() {
            return Ok(None);
        }
        Ok(Some(slf.call_method0(intern!(py, "_prices_if_ready"))?).filter(|p| !p.is_none()))
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

    fn _listen(&self, py: Python<'_>, streams: Py<Streams>) {
        self.streams.get_or_init_py_attached(py, || streams);
    }

    /// A model call gave its result. Natively for the common response: in a running program Python code is
    /// cold by the end of a call, and costs three times what a loop over it measures (31 µs over an empty
    /// handler with this hook in Python).
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
            if Self::settled(slf, run_id, response)? && Self::end_common(slf, run_id, response)? {
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
