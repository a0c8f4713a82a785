//! Hooks of chains, tools and retrievers.

use super::{Arguments, Link, hook, plain_code};
use crate::hooks::attempts::Attempts;
use crate::hooks::component_events;
use crate::hooks::identity;
use crate::hooks::model_end;
use crate::hooks::model_start;
use crate::services::Services;
use langmeter_core::{Kind, Outcome};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

hook! {
    /// A chain begins; a decision model is a model call.
    ChainStart, "on_chain_start";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let run_type = given.get(intern!(py, "run_type"))?;
        if run_type.is_some_and(|run_type| run_type.eq(intern!(py, "llm")).unwrap_or(false)) {
            return self.0.begun(py, &model_start::Start::of(given, intern!(py, "inputs"))?);
        }
        let start = component_events::Start::of(given, intern!(py, "inputs"))?;
        if !self.0.components {
            return Ok(());
        }
        self.0.run(py, "on_chain_start", |services| component_events::begin(services, Kind::Chain, &start))
    }
}

hook! {
    /// A tool begins.
    ToolStart, "on_tool_start";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let start = component_events::Start::of(given, intern!(py, "input_str"))?;
        self.0.run(py, "on_tool_start", |services| component_events::begin(services, Kind::Tool, &start))
    }
}

hook! {
    /// A retriever begins.
    RetrieverStart, "on_retriever_start";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let start = component_events::Start::of(given, intern!(py, "query"))?;
        self.0.run(py, "on_retriever_start", |services| component_events::begin(services, Kind::Retriever, &start))
    }
}

hook! {
    /// A chain gave its result; that of a decision model is a model call's.
    ChainEnd, "on_chain_end";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let (outputs, run_id) = (given.at(0, intern!(py, "outputs"))?, given.required(intern!(py, "run_id"))?);
        let components = self.0.components;
        self.0.run(py, "on_chain_end", |services| {
            if let Some(read) = Attempts::reads(services, &run_id)? {
                read.read(&outputs)?;
            }
            let decides = if components {
                outputs.get_type().name()?.to_cow()? == "ClassifierResponse"
            } else {
                let key = identity::run_key(&run_id)?;
                services.get().recorder(py)?.get().core.requested(key).is_some()
            };
            if decides {
                model_end::uncommon(services, &run_id, &outputs, Kind::Chain)
            } else if components {
                component_events::end(services, Kind::Chain, &run_id, Outcome::Ok)
            } else {
                Ok(())
            }
        })
    }
}

hook! {
    /// A tool gave its result.
    ToolEnd, "on_tool_end";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let (output, run_id) = (given.at(0, intern!(py, "output"))?, given.required(intern!(py, "run_id"))?);
        self.0.run(py, "on_tool_end", |services| {
            component_events::end(services, Kind::Tool, &run_id, component_events::tool_outcome(services, &output)?)
        })
    }
}

hook! {
    /// A retriever gave its result.
    RetrieverEnd, "on_retriever_end";

    fn called(&self, py: Python<'_>, given: Arguments<'_, '_>) -> PyResult<()> {
        let run_id = given.required(intern!(py, "run_id"))?;
        self.0.run(py, "on_retriever_end", |services| {
            component_events::end(services, Kind::Retriever, &run_id, Outcome::Ok)
        })
    }
}
