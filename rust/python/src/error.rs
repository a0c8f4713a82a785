//! The core's one error as a builtin exception.

use langmeter_core::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyValueError};

/// What the caller can mend is a `ValueError`; what the machine lacks is a `MemoryError` or an `OSError`.
#[allow(clippy::needless_pass_by_value)] // the shape `map_err` wants
pub fn raise(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Memory { .. } => PyMemoryError::new_err(text),
        Error::File { .. } => PyOSError::new_err(text),
        Error::OutOfRange { .. }
        | Error::Malformed(_)
        | Error::Version { .. }
        | Error::Stranger
        | Error::Restarted
        | Error::NotEarlier { .. } => PyValueError::new_err(text),
    }
}
