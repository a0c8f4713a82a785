//! `Services`: what the handlers of one recorder share.

use crate::cards::Cards;
use crate::hooks::attempts::Attempts;
use crate::hooks::clients::Clients;
use crate::hooks::demand::Demands;
use crate::hooks::identity::{self, Steps};
use crate::hooks::labels::Label;
use crate::hooks::prompts;
use crate::hooks::tasks::Origins;
use crate::recorder::Recorder;
use crate::streams::Streams;
use langmeter_core::Dropped;
use pyo3::exceptions::{PyBaseException, PyException};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::OnceLockExt;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys of the metadata, what returns the block around a run, and what reads outputs.
type AttemptParts = ([Py<PyString>; 6], Py<PyAny>, Option<Py<PyAny>>);

/// Base of `langmeter.callbacks.services.Services`, which has the methods that are called from here: those of the
/// protocol `Services` in `_core.pyi`, and no other.
#[pyclass(frozen, subclass, weakref, name = "ServicesBase", module = "langmeter._core")]
pub struct Services {
    /// Makes the recorder.
    new_recorder: Py<PyAny>,
    recorder: OnceLock<Py<Recorder>>,
    pub streams: Option<Py<Streams>>,
    /// Rate cards of the price book.
    pub cards: Option<Py<Cards>>,
    /// What a call asks of budgets, where it is held to some.
    pub demand: Option<Py<Demands>>,
    /// Makes room in a budget for a call that does not fit it, and says whether there may be some now.
    pub make_room: Option<Py<PyAny>>,
    /// Where calls that hold budgets began; see `tasks`.
    pub origins: Option<Origins>,
    /// Labels that calls are counted by.
    pub labels: Vec<Label>,
    /// Prompts of runs in flight, by the number of the run.
    pub prompts: Py<PyDict>,
    /// Deployments that runs in flight call, by the number of the run.
    pub called: Py<PyDict>,
    /// Whether prompts are kept of every call, also where an answer says what it used.
    pub keep_prompts: bool,
    pub clients: Clients,
    /// Steps of graphs that started lately.
    pub steps: Steps,
    /// How runs are found to belong to attempts at defects; None where no handler counts them.
    pub attempts: Option<Attempts>,
    /// A model call has begun in this process.
    awake: AtomicBool,
}

impl Services {
    /// The recorder, mapped at its first use.
    pub fn recorder(&self, py: Python<'_>) -> PyResult<&Py<Recorder>> {
        if let Some(recorder) = self.recorder.get() {
            return Ok(recorder);
        }
        let fresh: Py<Recorder> = self.new_recorder.call0(py)?.extract(py)?;
        Ok(self.recorder.get_or_init_py_attached(py, || fresh))
    }

    /// The recorder, if there is one yet.
    pub fn recorder_if_mapped(&self) -> Option<&Py<Recorder>> {
        self.recorder.get()
    }

    /// Whether a model call has begun in this process.
    pub fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
    }

    /// From now on a model call has begun in this process.
    pub fn wake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }
}

/// Counts and reports a failure of ours, and lets the metered call go on.
pub fn failed(services: &Bound<'_, Services>, place: &str, error: &Bound<'_, PyBaseException>) -> PyResult<()> {
    let py = services.py();
    match services.call_method1(intern!(py, "hook_failed"), (place, error)) {
        Err(raised) if raised.is_instance_of::<PyException>(py) => {
            if let Some(recorder) = services.get().recorder.get() {
                recorder.get().core.dropped(Dropped::HookErrors, 1);
            }
            Ok(())
        }
        other => other.map(drop),
    }
}

#[pymethods]
impl Services {
    #[new]
    #[pyo3(signature = (
        new_recorder, *, streams=None, cards=None, demand=None, make_room=None, origins=None, labels=Vec::new(),
        keep_prompts=false, attempts=None
    ))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // what never changes, in one call
    fn new(
        py: Python<'_>,
        new_recorder: Py<PyAny>,
        streams: Option<Py<Streams>>,
        cards: Option<Py<Cards>>,
        demand: Option<Py<Demands>>,
        make_room: Option<Py<PyAny>>,
        origins: Option<Py<PyDict>>,
        labels: Vec<Vec<String>>,
        keep_prompts: bool,
        attempts: Option<AttemptParts>,
    ) -> Self {
        Self {
            new_recorder,
            recorder: OnceLock::new(),
            streams,
            cards,
            demand,
            make_room,
            origins: origins.map(Origins::new),
            labels: labels.iter().map(|keys| Label::new(keys, py)).collect(),
            prompts: PyDict::new(py).unbind(),
            called: PyDict::new(py).unbind(),
            keep_prompts,
            clients: Clients::default(),
            steps: Steps::default(),
            attempts: attempts.map(|(keys, block, read_output)| Attempts::new(keys, block, read_output)),
            awake: AtomicBool::new(false),
        }
    }

    #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A user's callback may lead back to here: the cycle is collected through its other members.
        visit.call(&self.new_recorder)?;
        self.recorder.get().map_or(Ok(()), |r| visit.call(r))?;
        self.cards.as_ref().map_or(Ok(()), |c| visit.call(c))?;
        self.demand.as_ref().map_or(Ok(()), |d| visit.call(d))?;
        self.make_room.as_ref().map_or(Ok(()), |r| visit.call(r))?;
        self.origins.as_ref().map_or(Ok(()), |o| visit.call(&o.entries))?;
        self.streams.as_ref().map_or(Ok(()), |s| visit.call(s))?;
        self.attempts.iter().flat_map(Attempts::objects).try_for_each(|object| visit.call(object))?;
        visit.call(&self.called)?;
        visit.call(&self.prompts)
    }

    /// Whether the recorder was mapped: by an event, or by a question.
    #[getter]
    fn is_mapped(&self) -> bool {
        self.recorder.get().is_some()
    }

    #[getter(recorder)]
    fn recorder_or_mapped(&self, py: Python<'_>) -> PyResult<Py<Recorder>> {
        Ok(self.recorder(py)?.clone_ref(py))
    }

    #[getter]
    fn prompts(&self, py: Python<'_>) -> Py<PyDict> {
        self.prompts.clone_ref(py)
    }

    /// Returns what the call of a run that ends was asked, and keeps it no longer; () where it is not kept.
    fn take_prompt<'py>(&self, py: Python<'py>, run_id: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let prompt = prompts::take(self.prompts.bind(py), &identity::run_number(run_id)?)?;
        Ok(prompt.unwrap_or_else(|| PyTuple::empty(py).into_any()))
    }

    /// Returns the deployment and the vendor that a run that ends has called, and keeps them no longer; "" for none.
    fn take_called<'py>(&self, py: Python<'py>, run_id: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let pairs = self.called.bind(py);
        let called = if pairs.is_empty() { None } else { prompts::take(pairs, &identity::run_number(run_id)?)? };
        called.map_or_else(|| Ok(("", "").into_pyobject(py)?.into_any()), Ok)
    }

    /// Looks for the block that runs begin in, from now on.
    fn block_entered(&self) {
        if let Some(attempts) = &self.attempts {
            attempts.block_entered();
        }
    }

    /// Forgets the parent's calls and clients in a process that has just been forked and has one thread.
    fn reset_after_fork(&self, py: Python<'_>) {
        if let Some(recorder) = self.recorder.get() {
            recorder.get().core.reset_after_fork();
        }
        self.clients.forget(py);
        if let Some(demand) = &self.demand {
            demand.get().forget(py);
        }
        self.prompts.bind(py).clear();
        self.called.bind(py).clear();
        if let Some(origins) = &self.origins {
            origins.entries.bind(py).clear();
        }
        self.awake.store(false, Ordering::Relaxed);
    }
}
