//! The hooks that LangChain calls.
//!
//! Each is an object that a handler carries in its `__dict__`, and that `inspect` takes for a Python function. For each
//! async event LangChain asks `inspect.iscoroutinefunction(hook)`, which looks at a native method for as long as the
//! rest of the dispatch takes; the design page `border` has the shapes that were measured. A hook holds no handler, so that a
//! handler is freed by its reference count.

mod arguments;
pub mod attempts;
pub mod bounds;
pub mod clients;
mod component;
mod component_events;
pub mod demand;
pub mod identity;
pub mod labels;
mod model;
mod model_end;
pub mod model_start;
pub mod prompts;
pub mod tasks;

pub use arguments::Arguments;

use crate::services;
use crate::services::Services;
use langmeter_core::Started;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What a hook needs of its handler.
pub struct Link {
    pub services: Py<Services>,
    /// Class of the handler, for reports.
    pub owner: Py<PyString>,
    /// Whether the handler counts chains, tools and retrievers.
    pub components: bool,
}

/// One event in so many is timed; a prime, so that no pattern of events always meets it.
pub const TIMED: u32 = 61;

thread_local! {
    static EVENTS: Cell<u32> = const { Cell::new(0) };
}

impl Link {
    /// Whatever goes wrong in a hook is counted and said once by `hook_failed`. What that raises is the host's
    /// (Ctrl-C, `SystemExit`) and goes on its way; a failure of `hook_failed` itself is counted.
    #[cold]
    fn failed(&self, py: Python<'_>, hook: &str, error: &PyErr) -> PyResult<()> {
        let hook = format!("{}.{hook}", self.owner.bind(py).to_string_lossy());
        services::failed(self.services.bind(py), &hook, error.value(py))
    }

    /// Runs the body of a hook; neither an exception of ours nor a panic leaves it.
    #[inline]
    pub fn run(
        &self,
        py: Python<'_>,
        name: &str,
        body: impl FnOnce(&Bound<'_, Services>) -> PyResult<()>,
    ) -> PyResult<()> {
        let services = self.services.bind(py);
        let event = EVENTS.get().wrapping_add(1);
        EVENTS.set(event);
        let begun = event.is_multiple_of(TIMED).then(Instant::now);
        let done = match catch_unwind(AssertUnwindSafe(|| body(services))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => self.failed(py, name, &error),
            Err(_) => {
                let panic = PyRuntimeError::new_err("langmeter's core panicked: please report it");
                self.failed(py, name, &panic)
            }
        };
        if let Some(begun) = begun {
            took(services.get(), name, begun);
        }
        done
    }

    /// A model call begins.
    pub fn begun(&self, py: Python<'_>, call: &model_start::Start<'_, '_>) -> PyResult<()> {
        let services = self.services.bind(py);
        if !services.get().is_awake() {
            self.run(py, "on_llm_start", |_| services.call_method0(intern!(py, "first_call")).map(drop))?;
            // Not before: no call of another thread may pass budgets that are not open yet.
            services.get().wake();
        }
        let (mut refused, mut echo) = (None, false);
        self.run(py, "on_llm_start", |services| {
            match model_start::begin(services, call)? {
                Ok(started) => echo = started == Started::Echo,
                Err(no) => refused = Some(no),
            }
            Ok(())
        })?;
        // Calls that LangChain starts one by one and means as one are held to budgets as one.
        if services.get().demand.is_some() && !echo {
            self.run(py, "on_llm_start", |services| model_start::batched(services, call, refused.is_some()))?;
        }
        // Outside of the guard: a budget that refuses the call has to reach it.
        refused.map_or(Ok(()), |refused| services.call_method1(intern!(py, "refused"), refused).map(drop))
    }
}

#[cold]
fn took(services: &Services, hook: &str, begun: Instant) {
    if let Some(recorder) = services.recorder_if_mapped() {
        recorder.get().core.in_hook(hook, u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Code of a Python function that does nothing, for `inspect` to look at.
pub fn plain_code(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static CODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let code = CODE.get_or_try_init(py, || {
        py.eval(c"lambda *args, **kwargs: None", None, None)?.getattr(intern!(py, "__code__")).map(Bound::unbind)
    })?;
    Ok(code.clone_ref(py))
}

macro_rules! hook {
    ($(#[$doc:meta])+ $hook:ident, $name:literal; $called:item) => {
        $(#[$doc])+
        #[pyclass(frozen, module = "langmeter._core")]
        pub struct $hook(Link);

        impl $hook {
            $called
        }

        #[pymethods]
        impl $hook {
            #[new]
            fn new(services: Py<Services>, owner: Py<PyString>, components: bool) -> Self {
                Self(Link { services, owner, components })
            }

            /// What `inspect` goes by: with it and `__code__` this is a function and no coroutine function.
            #[getter]
            fn __class__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                Ok(FUNCTION.import(py, "types", "FunctionType")?.clone().unbind())
            }

            #[getter]
            fn __code__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                plain_code(py)
            }

            #[getter]
            fn __name__(&self) -> &'static str {
                $name
            }

            #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
            fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                visit.call(&self.0.services)
            }

            // With these two parameters, and no other beside them, PyO3 hands on what it is given.
            #[pyo3(signature = (*args, **kwargs))]
            fn __call__(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
                self.called(args.py(), Arguments::new(args, kwargs))
            }
        }
    };
}

use hook;

/// The type of each native hook, by its name: made of the services, the class of the handler, and whether that counts
/// chains, tools and retrievers.
pub fn types(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let types = PyDict::new(py);
    types.set_item("on_llm_start", py.get_type::<model::LlmStart>())?;
    types.set_item("on_chat_model_start", py.get_type::<model::ChatModelStart>())?;
    types.set_item("on_chain_start", py.get_type::<component::ChainStart>())?;
    types.set_item("on_tool_start", py.get_type::<component::ToolStart>())?;
    types.set_item("on_retriever_start", py.get_type::<component::RetrieverStart>())?;
    types.set_item("on_chain_end", py.get_type::<component::ChainEnd>())?;
    types.set_item("on_tool_end", py.get_type::<component::ToolEnd>())?;
    types.set_item("on_retriever_end", py.get_type::<component::RetrieverEnd>())?;
    types.set_item("on_llm_end", py.get_type::<model::LlmEnd>())?;
    types.set_item("on_llm_new_token", py.get_type::<model::NewToken>())?;
    types.set_item("on_stream_event", py.get_type::<model::StreamEvent>())?;
    Ok(types)
}
