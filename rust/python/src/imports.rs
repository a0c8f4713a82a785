//! Objects of Python's modules that the hooks use.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// Imported at their first use. Held by a recorder, not by the process: each interpreter of a process has modules of
/// its own. Kept in statics, those of a subinterpreter that came first were taken for the main one's: calls lost their
/// parents, and objects outlived their interpreter.
pub struct Imports {
    parent_config: PyOnceLock<Py<PyAny>>,
    tool_message: PyOnceLock<Py<PyType>>,
}

impl Imports {
    pub const fn new() -> Self {
        Self { parent_config: PyOnceLock::new(), tool_message: PyOnceLock::new() }
    }

    /// `get` of the context variable with the config of the runnable that is running; None while LangChain has not
    /// loaded it. It is not loaded from here: pydantic-core serves one interpreter of a process, the first.
    pub fn parent_config<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        let get = self.parent_config.get_or_try_init(py, || {
            let modules = py.import("sys")?.getattr(intern!(py, "modules"))?;
            let config = modules.get_item(intern!(py, "langchain_core.runnables.config"))?;
            let var = config.getattr(intern!(py, "var_child_runnable_config"))?;
            var.getattr(intern!(py, "get")).map(Bound::unbind)
        });
        get.ok().map(|get| get.bind(py))
    }

    /// LangChain's `ToolMessage`.
    pub fn tool_message<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        self.tool_message.import(py, "langchain_core.messages", "ToolMessage")
    }
}
