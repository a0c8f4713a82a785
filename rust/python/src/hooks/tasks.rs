//! Which asyncio task a call began in, for telling calls that can end no more.

use langmeter_core::{Recorder, RunKey};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefReference};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many entries may be of runs that have ended before they are looked for.
const SLACK: usize = 4096;

/// By the key of each run that holds budgets and began in an asyncio task: weak references to the task, its event loop
/// and the run's id. Bounded by the runs in flight: entries of others are dropped when there are `SLACK` more.
pub struct Origins {
    pub entries: Py<PyDict>,
    sweep_at: AtomicUsize,
    // Of this interpreter, as `imports` says.
    running_loop: PyOnceLock<Py<PyAny>>,
    current_task: PyOnceLock<Py<PyAny>>,
}

impl Origins {
    pub const fn new(entries: Py<PyDict>) -> Self {
        Self {
            entries,
            sweep_at: AtomicUsize::new(SLACK),
            running_loop: PyOnceLock::new(),
            current_task: PyOnceLock::new(),
        }
    }

    /// Notes where a run begins; without a running event loop it forgets an earlier run with this id.
    pub fn note(&self, recorder: &Recorder, key: RunKey, run_id: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = run_id.py();
        let entries = self.entries.bind(py);
        let running = self.running_loop.import(py, "asyncio", "_get_running_loop")?.call0()?;
        let current = || self.current_task.import(py, "asyncio", "current_task")?.call1((&running,));
        let task = if running.is_none() { running.clone() } else { current()? };
        if task.is_none() {
            if !entries.is_empty() {
                entries.call_method1(intern!(py, "pop"), (key.get(), py.None()))?;
            }
            return Ok(());
        }
        // An id that is not a UUID cannot be referenced weakly: then only its task is checked.
        let id = PyWeakrefReference::new(run_id).ok();
        let (Ok(task), Ok(running)) = (PyWeakrefReference::new(&task), PyWeakrefReference::new(&running)) else {
            return Ok(()); // of a foreign kind
        };
        entries.set_item(key.get(), (task, running, id))?;
        if entries.len() > self.sweep_at.load(Ordering::Relaxed) {
            self.sweep(recorder, entries)?;
        }
        Ok(())
    }

    #[cold]
    fn sweep(&self, recorder: &Recorder, entries: &Bound<'_, PyDict>) -> PyResult<()> {
        let live: HashSet<u64> = recorder.reserving().iter().map(|call| call.key.get()).collect();
        for key in entries.keys() {
            if !live.contains(&key.extract()?) {
                entries.call_method1(intern!(key.py(), "pop"), (key, entries.py().None()))?;
            }
        }
        self.sweep_at.store(entries.len().saturating_add(SLACK), Ordering::Relaxed);
        Ok(())
    }
}
