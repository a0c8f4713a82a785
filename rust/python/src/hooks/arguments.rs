//! What LangChain calls a hook with.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// The arguments of one call, as Python hands them over: whoever needs one looks it up.
///
/// Declared parameters cost 2,276 instructions for the start and the end of a call: `PyO3` compares the text of each
/// keyword with their names. A look-up by an interned name is 105, and a start needs six of eight, an end one of three.
#[derive(Clone, Copy)]
pub struct Arguments<'a, 'py> {
    positional: &'a Bound<'py, PyTuple>,
    keywords: Option<&'a Bound<'py, PyDict>>,
}

impl<'a, 'py> Arguments<'a, 'py> {
    pub const fn new(positional: &'a Bound<'py, PyTuple>, keywords: Option<&'a Bound<'py, PyDict>>) -> Self {
        Self { positional, keywords }
    }

    /// Returns the argument of this name; None where it is None or was not given.
    #[inline]
    pub fn get(self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(keywords) = self.keywords else { return Ok(None) };
        Ok(keywords.get_item(name)?.filter(|value| !value.is_none()))
    }

    /// Returns the argument of this name. Raises `TypeError` where it was not given.
    #[inline]
    pub fn required(self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let value = self.keywords.map_or(Ok(None), |keywords| keywords.get_item(name))?;
        value.ok_or_else(|| missing(name))
    }

    /// Returns the argument at this place, which may have been given by its name instead. Raises `TypeError` where it was
    /// not given.
    #[inline]
    pub fn at(self, place: usize, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        if place < self.positional.len() { self.positional.get_item(place) } else { self.required(name) }
    }
}

#[cold]
fn missing(name: &Bound<'_, PyString>) -> PyErr {
    PyTypeError::new_err(format!("the hook was called without its argument {name}"))
}
