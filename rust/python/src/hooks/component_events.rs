//! Chains, tools, retrievers: their starts and their good ends.

use crate::hooks::Arguments;
use crate::hooks::identity;
use crate::hooks::model_start::{Tagged, name_of};
use crate::services::Services;
use langmeter_core::{Begin, End, Kind, Outcome, Started};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// What a start hook is given.
pub struct Start<'py> {
    serialized: Bound<'py, PyAny>,
    /// What the run is to work on.
    given: Bound<'py, PyAny>,
    run_id: Bound<'py, PyAny>,
    parent_run_id: Option<Bound<'py, PyAny>>,
    tags: Option<Bound<'py, PyAny>>,
    metadata: Option<Bound<'py, PyAny>>,
    name: Option<Bound<'py, PyAny>>,
}

impl<'py> Start<'py> {
    /// Reads the arguments of a start hook whose second parameter has the name `second`.
    pub fn of(given: Arguments<'_, 'py>, second: &Bound<'py, PyString>) -> PyResult<Self> {
        let py = second.py();
        Ok(Self {
            serialized: given.at(0, intern!(py, "serialized"))?,
            given: given.at(1, second)?,
            run_id: given.required(intern!(py, "run_id"))?,
            parent_run_id: given.get(intern!(py, "parent_run_id"))?,
            tags: given.get(intern!(py, "tags"))?,
            metadata: given.get(intern!(py, "metadata"))?,
            name: given.get(intern!(py, "name"))?,
        })
    }
}

/// A run of `kind` begins; a chain may be the node of a graph or an agent.
pub fn begin(services: &Bound<'_, Services>, kind: Kind, start: &Start<'_>) -> PyResult<()> {
    let py = services.py();
    let recorder = services.get().recorder(services.py())?;
    let name = name_of(start.name.as_ref(), &start.serialized, &PyString::intern(py, kind.name()))?;
    let mut tagged = Tagged::by(start.tags.as_ref());
    let key = identity::run_key(&start.run_id)?;
    let parent = identity::parent_key(start.parent_run_id.as_ref(), &recorder.get().imports, py, key)?;
    let kind = if kind == Kind::Chain { role(&name, start.metadata.as_ref(), tagged)? } else { kind };
    if kind == Kind::Node
        && let Some(parent) = parent
        && let Some(Ok(metadata)) = start.metadata.as_ref().map(|metadata| metadata.cast::<PyDict>())
    {
        tagged.retried |= services.get().steps.again(parent, metadata)?;
    }
    let begin = Begin {
        key,
        parent,
        kind,
        name: &name.to_string_lossy(),
        provider: "",
        model: "",
        demand: None,
        labels: &[],
        retried: tagged.retried,
        piped: tagged.piped,
        witness: identity::witness(&start.given),
    };
    // Without a demand nothing is refused.
    let started = recorder.get().core.run_started(&begin);
    if let Some(attempts) = &services.get().attempts
        && started == Ok(Started::New)
    {
        attempts.join(&recorder.get().core, key, parent, start.metadata.as_ref(), py)?;
    }
    Ok(())
}

/// What a chain of this name is in its graph. What runs inside a node inherits its metadata, and may have its
/// name, an agent that is a node for one; the tag of a step of the graph is the node's alone.
fn role(name: &Bound<'_, PyString>, metadata: Option<&Bound<'_, PyAny>>, tagged: Tagged) -> PyResult<Kind> {
    let py = name.py();
    let Some(Ok(metadata)) = metadata.map(|m| m.cast::<PyDict>()) else { return Ok(Kind::Chain) };
    let called = |key| metadata.get_item(key)?.map_or(Ok(false), |called| called.eq(name));
    if tagged.node && called(intern!(py, "langgraph_node"))? {
        return Ok(Kind::Node);
    }
    Ok(if called(intern!(py, "lc_agent_name"))? { Kind::Agent } else { Kind::Chain })
}

/// A run ended well. What it is was said at its start; `kind` counts only where there was none.
pub fn end(services: &Bound<'_, Services>, kind: Kind, run_id: &Bound<'_, PyAny>, outcome: Outcome) -> PyResult<()> {
    let recorder = services.get().recorder(services.py())?;
    recorder.get().core.run_ended(&End { outcome, ..End::new(identity::run_key(run_id)?, kind) });
    Ok(())
}

/// A tool whose error was handled says so in its message.
pub fn tool_outcome(services: &Bound<'_, Services>, output: &Bound<'_, PyAny>) -> PyResult<Outcome> {
    let py = output.py();
    let imports = &services.get().recorder(py)?.get().imports;
    let handled = output.is_instance(imports.tool_message(py)?)?
        && output.getattr(intern!(py, "status"))?.eq(intern!(py, "error"))?;
    Ok(if handled { Outcome::Error } else { Outcome::Ok })
}
