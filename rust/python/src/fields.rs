//! Attributes of LangChain's objects.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Attributes of an object, which for pydantic's are in its dict.
///
/// `getattr` asks the class first, and a pydantic class has a `__getattr__`: 360 instructions for a field, and 510 for
/// `__dict__` (callgrind). The dict is taken without that.
pub struct Fields<'py> {
    object: Bound<'py, PyAny>,
    dict: Option<Bound<'py, PyDict>>,
}

impl<'py> Fields<'py> {
    #[inline]
    pub fn of(object: Bound<'py, PyAny>) -> Self {
        Self { dict: dict_of(&object), object }
    }

    pub fn py(&self) -> Python<'py> {
        self.object.py()
    }

    /// The attribute; None where there is none of this name.
    #[inline]
    pub fn get(&self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.dict.as_ref().map_or(Ok(None), |dict| dict.get_item(name))? {
            Some(value) => Ok(Some(value)),
            None => self.object.getattr_opt(name),
        }
    }

    /// The attribute, if it is a list that is not empty.
    pub fn list(&self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyList>>> {
        let list = self.get(name)?.and_then(|list| list.cast_into::<PyList>().ok());
        Ok(list.filter(|list| !list.is_empty()))
    }
}

/// The dict of an object itself; None where it has none.
#[inline]
// PyO3 has no safe form of it.
pub fn dict_of<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    let py = object.py();
    // SAFETY: the object is alive, and `py` attached. A new reference is returned, or null with an exception set.
    let dict = unsafe {
        Bound::from_owned_ptr_or_opt(py, ffi::PyObject_GenericGetDict(object.as_ptr(), std::ptr::null_mut()))
    };
    if dict.is_none() {
        drop(PyErr::take(py));
    }
    dict?.cast_into().ok()
}
