//! Offline token counts.

use langmeter_core::tokenizer::{self, Encoding};
use pyo3::exceptions::{PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Tokens of a text, as tiktoken's `encode_ordinary` counts them; off the GIL.
#[pyfunction]
pub fn count_tokens(text: &Bound<'_, PyString>, encoding: &str) -> PyResult<usize> {
    let py = text.py();
    let encoding = Encoding::from_name(encoding).ok_or_else(|| {
        PyValueError::new_err(format!(
            "unknown encoding {encoding:?}: allowed is cl100k_base, o200k_base, o200k_harmony or p50k_base"
        ))
    })?;
    match text.to_str() {
        Ok(text) => Ok(py.detach(|| encoding.count(text))),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(py) => {
            // As tiktoken: pairs of surrogates are joined, a lone one is U+FFFD.
            let bytes = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?;
            let units: Vec<u16> = bytes
                .cast::<PyBytes>()?
                .as_bytes()
                .as_chunks()
                .0
                .iter()
                .map(|unit| u16::from_le_bytes(*unit))
                .collect();
            Ok(py.detach(|| encoding.count(&String::from_utf16_lossy(&units))))
        }
        Err(error) => Err(error),
    }
}

/// The encoding of an `OpenAI` model; None for others.
#[pyfunction]
pub fn encoding_for_model(model: &str) -> Option<&'static str> {
    Encoding::for_model(model).map(Encoding::name)
}

/// `(per_message, per_name, reply_priming)`.
#[pyfunction]
pub fn chat_overhead(model: &str) -> (i32, i32, i32) {
    let overhead = tokenizer::chat_overhead(model);
    (overhead.per_message, overhead.per_name, overhead.reply_priming)
}
