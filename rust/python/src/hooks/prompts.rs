//! What is kept of calls in flight until they end, each in a dict by the number of the run: prompts, in case a call
//! ends without usage, and the deployment and the vendor that were called, which may have a price of their own.

use crate::hooks::model_start::{Start, alone, entry};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::atomic::{AtomicBool, Ordering};

/// Prompts kept at most. A call whose prompt was let go is estimated by its answer alone.
pub const MAX_PROMPTS: usize = 2048;
/// Pairs of deployment and vendor kept at most, a pointer each: as many as runs by default. A call whose pair was let go
/// is priced by its provider and models alone.
const MAX_CALLED: usize = 65_536;
/// So many of the oldest are let go when there are more: those of runs that never ended.
const LET_GO: usize = 512;
/// Calls in flight with one id whose prompts are kept at most.
const MOST_WITH_ONE_ID: usize = 64;
/// Whether two calls in flight had one id in this process.
static ID_WAS_SHARED: AtomicBool = AtomicBool::new(false);

/// Keeps what was asked: the prompts; in a tuple if others went with them; with tools (prompts, tools, whether they
/// went alone). `shares`: another call in flight has the number too.
pub fn keep(
    prompts: &Bound<'_, PyDict>,
    start: &Start<'_, '_>,
    number: Bound<'_, PyAny>,
    shares: bool,
) -> PyResult<()> {
    let py = prompts.py();
    let batch_size = start.batch_size()?;
    let alone = batch_size.is_some() && alone(batch_size.as_ref());
    let tools = entry(start.invocation_params()?.as_ref(), intern!(py, "tools"))?;
    let request = match tools {
        Some(tools) if tools.is_truthy()? => (&start.prompts, tools, alone).into_pyobject(py)?.into_any(),
        _ if alone => start.prompts.clone(),
        _ => PyTuple::new(py, [&start.prompts])?.into_any(),
    };
    put(prompts, number, &request, shares, MAX_PROMPTS)
}

/// Keeps the deployment and the vendor that are called.
pub fn keep_called(
    kept: &Bound<'_, PyDict>,
    number: Bound<'_, PyAny>,
    called: &Bound<'_, PyAny>,
    shares: bool,
) -> PyResult<()> {
    put(kept, number, called, shares, MAX_CALLED)
}

fn put(
    kept: &Bound<'_, PyDict>,
    number: Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    shares: bool,
    most: usize,
) -> PyResult<()> {
    let number = if shares { free(kept, &number)? } else { number };
    kept.set_item(number, value)?;
    if kept.len() > most {
        for oldest in kept.keys().iter().take(LET_GO) {
            let _ = kept.del_item(oldest); // another thread may have been faster
        }
    }
    Ok(())
}

/// Returns what is kept of the call of this number, and its key; None where nothing is.
pub fn find<'py>(kept: &Bound<'py, PyDict>, number: &Bound<'py, PyAny>) -> PyResult<Option<[Bound<'py, PyAny>; 2]>> {
    if let Some(value) = kept.get_item(number)? {
        return Ok(Some([value, number.clone()]));
    }
    if ID_WAS_SHARED.load(Ordering::Relaxed) {
        for n in 1..=MOST_WITH_ONE_ID {
            let other = (number, n).into_pyobject(kept.py())?.into_any();
            if let Some(value) = kept.get_item(&other)? {
                return Ok(Some([value, other]));
            }
        }
    }
    Ok(None)
}

/// Returns the same value, and keeps it no longer.
pub fn take<'py>(kept: &Bound<'py, PyDict>, number: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some([value, number]) = find(kept, number)? else { return Ok(None) };
    let _ = kept.del_item(number); // another thread may have been faster
    Ok(Some(value))
}

/// A key for one more call of this number.
#[cold]
fn free<'py>(kept: &Bound<'py, PyDict>, number: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    ID_WAS_SHARED.store(true, Ordering::Relaxed);
    let py = kept.py();
    let mut key = number.clone();
    for n in 1..=MOST_WITH_ONE_ID {
        if !kept.contains(&key)? {
            break;
        }
        key = (number, n).into_pyobject(py)?.into_any();
    }
    Ok(key)
}
