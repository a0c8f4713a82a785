//! Prompts of calls in flight, kept in case a call ends without usage: a dict by the number of the run.

use crate::start::{Start, alone, entry};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::atomic::{AtomicBool, Ordering};

/// Prompts kept at most. A call whose prompt was let go is estimated by its answer alone.
pub const MAX_PROMPTS: usize = 2048;
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
    let number = if shares { free(prompts, &number)? } else { number };
    let batch_size = start.batch_size()?;
    let alone = batch_size.is_some() && alone(batch_size.as_ref());
    let tools = entry(start.invocation_params()?.as_ref(), intern!(py, "tools"))?;
    if let Some(tools) = tools
        && tools.is_truthy()?
    {
        prompts.set_item(number, (&start.prompts, tools, alone))?;
    } else if alone {
        prompts.set_item(number, &start.prompts)?;
    } else {
        prompts.set_item(number, PyTuple::new(py, [&start.prompts])?)?;
    }
    if prompts.len() > MAX_PROMPTS {
        for oldest in prompts.keys().iter().take(LET_GO) {
            let _ = prompts.del_item(oldest); // another thread may have been faster
        }
    }
    Ok(())
}

/// Returns what the call of this number was asked, and keeps it no longer; None where it is not kept.
pub fn take<'py>(prompts: &Bound<'py, PyDict>, number: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(asked) = prompts.get_item(number)? {
        let _ = prompts.del_item(number); // another thread may have been faster
        return Ok(Some(asked));
    }
    if ID_WAS_SHARED.load(Ordering::Relaxed) {
        for n in 1..=MOST_WITH_ONE_ID {
            let other = (number, n).into_pyobject(prompts.py())?;
            if let Some(asked) = prompts.get_item(&other)? {
                let _ = prompts.del_item(other);
                return Ok(Some(asked));
            }
        }
    }
    Ok(None)
}

/// A key for one more call of this number.
#[cold]
fn free<'py>(prompts: &Bound<'py, PyDict>, number: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    ID_WAS_SHARED.store(true, Ordering::Relaxed);
    let py = prompts.py();
    let mut key = number.clone();
    for n in 1..=MOST_WITH_ONE_ID {
        if !prompts.contains(&key)? {
            break;
        }
        key = (number, n).into_pyobject(py)?.into_any();
    }
    Ok(key)
}
