//! `Handler`: the hooks that fire for each token.

use crate::recorder::Recorder;
use crate::{convert, output};
use langmeter_core::{Dropped, Via};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::OnceLockExt;
use pyo3::types::{PyDict, PyTuple};
use std::sync::OnceLock;

/// Base of every callback: the hooks that fire for each token, without a Python frame.
#[pyclass(frozen, subclass, module = "langmeter._core")]
#[derive(Default)]
pub struct Handler {
    recorder: OnceLock<Py<Recorder>>,
    on_token: OnceLock<Py<PyAny>>,
}

impl Handler {
    /// Whatever goes wrong in a hook is counted and said once by `_failed`; nothing leaves.
    #[cold]
    fn failed(slf: &Bound<'_, Self>, hook: &str, error: &PyErr) {
        let py = slf.py();
        let told = slf.call_method1(intern!(py, "_failed"), (hook, error.value(py)));
        if told.is_err()
            && let Some(recorder) = slf.get().recorder.get()
        {
            recorder.get().core.dropped(Dropped::HookErrors, 1);
        }
    }

    #[inline]
    fn count(
        slf: &Bound<'_, Self>,
        run_id: Option<&Bound<'_, PyAny>>,
        via: Via,
        is_output: impl FnOnce() -> PyResult<bool>,
        text: impl FnOnce() -> PyResult<String>,
    ) -> PyResult<()> {
        let this = slf.get();
        let (Some(recorder), Some(run_id)) = (this.recorder.get(), run_id) else { return Ok(()) };
        if is_output()?
            && recorder.get().core.token(convert::run_key(run_id)?, via)
            && let Some(callback) = this.on_token.get()
            && let Err(error) = callback.call1(slf.py(), (text()?,))
        {
            Self::failed(slf, "on_token_callback", &error);
        }
        Ok(())
    }
}

#[pymethods]
impl Handler {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
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

    fn _on_token(&self, py: Python<'_>, callback: Option<Py<PyAny>>) {
        if let Some(callback) = callback {
            self.on_token.get_or_init_py_attached(py, || callback);
        }
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
    ) {
        let is_output = || output::in_token(token, chunk);
        if let Err(error) = Self::count(slf, run_id, Via::Token, is_output, || output::text_of(token)) {
            Self::failed(slf, "on_llm_new_token", &error);
        }
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
    ) {
        let is_output = || output::in_event(event);
        if let Err(error) = Self::count(slf, run_id, Via::StreamEvent, is_output, || output::text_of_event(event)) {
            Self::failed(slf, "on_stream_event", &error);
        }
    }
}
