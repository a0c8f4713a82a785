//! Which run an event is of: its id, its parent, and what tells one start from another.

use crate::imports::Imports;
use langmeter_core::RunKey;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a run: its UUID's 128-bit int. LangChain lets any other id through on a bare model call: that stands in
/// a tuple, in which no int is taken for a UUID's.
#[inline]
pub fn run_number<'py>(id: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let number = id.getattr_opt(intern!(id.py(), "int"))?;
    number.map_or_else(|| PyTuple::new(id.py(), [id]).map(Bound::into_any), Ok)
}

/// The key of a number: its hash, which Python folds modulo 2^61 - 1 in C. (`UUID.__hash__` is a Python
/// frame.)
#[inline]
pub fn key_of(number: &Bound<'_, PyAny>) -> PyResult<RunKey> {
    Ok(RunKey::new(number.hash()?.cast_unsigned() as u64))
}

/// The key of a run.
#[inline]
pub fn run_key(id: &Bound<'_, PyAny>) -> PyResult<RunKey> {
    key_of(&run_number(id)?)
}

/// The key of a run's parent, which LangChain names, or else the context: `RunnableWithFallbacks` hands its runs on
/// without one.
#[inline]
pub fn parent_key(
    id: Option<&Bound<'_, PyAny>>,
    imports: &Imports,
    py: Python<'_>,
    key: RunKey,
) -> PyResult<Option<RunKey>> {
    match id {
        Some(id) => run_key(id).map(Some),
        None => Ok(parent_in_context(imports, py)?.filter(|parent| *parent != key)),
    }
}

fn parent_in_context(imports: &Imports, py: Python<'_>) -> PyResult<Option<RunKey>> {
    let Some(get) = imports.parent_config(py) else { return Ok(None) };
    // LookupError where it is not set and has no default.
    let Ok(config) = get.call0() else { return Ok(None) };
    let Ok(config) = config.cast::<PyDict>() else { return Ok(None) };
    let Some(manager) = config.get_item(intern!(py, "callbacks"))? else { return Ok(None) };
    let parent = manager.getattr_opt(intern!(py, "parent_run_id"))?.filter(|parent| !parent.is_none());
    parent.map(|parent| run_key(&parent)).transpose()
}

/// 40 bits of the thread and of the objects that a start comes with: the messages of each prompt, the first and the
/// last of them, or what else it is given.
pub fn witness(given: &Bound<'_, PyAny>) -> u64 {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    let mut mixed = HERE.with(|here| std::ptr::from_ref(here).addr()) as u64;
    let mut add = |word: u64| mixed = (mixed ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let mut object = |object: &Bound<'_, PyAny>| add(object.as_ptr().addr() as u64);
    match given.cast::<PyList>() {
        Ok(prompts) if !prompts.is_empty() => {
            for prompt in prompts {
                match prompt.cast::<PyList>() {
                    Ok(messages) if !messages.is_empty() => {
                        for at in [0, messages.len() - 1] {
                            if let Ok(message) = messages.get_item(at) {
                                object(&message);
                            }
                        }
                    }
                    _ => object(&prompt),
                }
            }
        }
        _ => object(given),
    }
    (mixed >> 24) | 1
}

/// Steps of graphs that started lately, each as a hash of its parent and its place in the graph. A retry policy starts
/// a step again under the same parent, and says so nowhere else.
pub struct Steps([AtomicU64; Self::CELLS]);

impl Default for Steps {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Steps {
    const CELLS: usize = 1024;

    /// Notes that a step starts; whether it did before, under the same parent.
    pub fn again(&self, parent: RunKey, metadata: &Bound<'_, PyDict>) -> PyResult<bool> {
        let Some(place) = metadata.get_item(intern!(metadata.py(), "langgraph_checkpoint_ns"))? else {
            return Ok(false);
        };
        let Ok(place) = place.cast::<PyString>() else { return Ok(false) };
        let place = place.hash()?.cast_unsigned() as u64;
        let step = (parent.get() ^ place.rotate_left(17)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let cell = usize::try_from(step >> 32).unwrap_or(0) % Self::CELLS;
        Ok(self.0.get(cell).is_some_and(|cell| cell.swap(step, Ordering::Relaxed) == step))
    }
}

/// The number of a run, for Python.
#[pyfunction]
#[pyo3(name = "run_number")]
pub fn number_for_python<'py>(run_id: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    run_number(run_id)
}
