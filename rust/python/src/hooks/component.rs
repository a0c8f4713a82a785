//! Hooks of chains, tools and retrievers.

use super::{Link, hook, plain_code};
use crate::services::Services;
use crate::{components, end, identity, start};
use langmeter_core::{Kind, Outcome};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

hook! {
    /// A chain begins; a decision model is a model call.
    ChainStart, "on_chain_start";

    #[pyo3(signature = (
        serialized, inputs, *, run_id, parent_run_id=None, tags=None, metadata=None, run_type=None, name=None, **kwargs
    ))]
    fn __call__(
        &self,
        py: Python<'_>,
        serialized: &Bound<'_, PyAny>,
        inputs: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        run_type: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        if let Some(run_type) = run_type
            && run_type.eq(intern!(py, "llm")).unwrap_or(false)
        {
            let (prompts, invocation_params, batch_size) = (inputs, None, None);
            let given = start::Start {
                serialized,
                prompts,
                run_id,
                parent_run_id,
                tags,
                metadata,
                invocation_params,
                name,
                batch_size,
            };
            return self.0.begun(py, &given);
        }
        let given = components::Start { serialized, given: inputs, run_id, parent_run_id, tags, metadata, name };
        if !self.0.components {
            return Ok(());
        }
        self.0.run(py, "on_chain_start", |services| components::begin(services, Kind::Chain, &given))
    }
}

hook! {
    /// A tool begins.
    ToolStart, "on_tool_start";

    #[pyo3(signature = (
        serialized, input_str, *, run_id, parent_run_id=None, tags=None, metadata=None, inputs=None, name=None, **kwargs
    ))]
    fn __call__(
        &self,
        py: Python<'_>,
        serialized: &Bound<'_, PyAny>,
        input_str: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        inputs: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = components::Start { serialized, given: input_str, run_id, parent_run_id, tags, metadata, name };
        self.0.run(py, "on_tool_start", |services| components::begin(services, Kind::Tool, &given))
    }
}

hook! {
    /// A retriever begins.
    RetrieverStart, "on_retriever_start";

    #[pyo3(signature = (
        serialized, query, *, run_id, parent_run_id=None, tags=None, metadata=None, name=None, **kwargs
    ))]
    fn __call__(
        &self,
        py: Python<'_>,
        serialized: &Bound<'_, PyAny>,
        query: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        name: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = components::Start { serialized, given: query, run_id, parent_run_id, tags, metadata, name };
        self.0.run(py, "on_retriever_start", |services| components::begin(services, Kind::Retriever, &given))
    }
}

hook! {
    /// A chain gave its result; that of a decision model is a model call's.
    ChainEnd, "on_chain_end";

    #[pyo3(signature = (outputs, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    fn __call__(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let components = self.0.components;
        self.0.run(py, "on_chain_end", |services| {
            let decides = if components {
                outputs.get_type().name()?.to_cow()? == "ClassifierResponse"
            } else {
                let key = identity::run_key(run_id)?;
                services.get().recorder(py)?.get().core.requested(key).is_some()
            };
            if decides {
                end::uncommon(services, run_id, outputs, Kind::Chain)
            } else if components {
                components::end(services, Kind::Chain, run_id, Outcome::Ok)
            } else {
                Ok(())
            }
        })
    }
}

hook! {
    /// A tool gave its result.
    ToolEnd, "on_tool_end";

    #[pyo3(signature = (output, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    fn __call__(
        &self,
        py: Python<'_>,
        output: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.0.run(py, "on_tool_end", |services| {
            components::end(services, Kind::Tool, run_id, components::tool_outcome(output)?)
        })
    }
}

hook! {
    /// A retriever gave its result.
    RetrieverEnd, "on_retriever_end";

    #[pyo3(signature = (documents, *, run_id, parent_run_id=None, tags=None, **kwargs))]
    fn __call__(
        &self,
        py: Python<'_>,
        documents: &Bound<'_, PyAny>,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.0.run(py, "on_retriever_end", |services| components::end(services, Kind::Retriever, run_id, Outcome::Ok))
    }
}
