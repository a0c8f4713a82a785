//! The labels of a call: values of its metadata, its config or its tags.

use crate::convert;
use crate::hooks::model_start::{Start, entry};
use crate::imports::Imports;
use crate::services::{Services, failed};
use langmeter_core::{Dropped, Recorder, SEPARATOR, cut};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};
use std::borrow::Cow;

/// Bytes of a value that are kept where a label crosses keys: of three of them, as much as a series has room for.
const LONGEST: usize = 80;

/// A label: a key, or keys that are crossed.
pub struct Label {
    /// Its keys, joined: how its rows are called.
    name: String,
    keys: Vec<Key>,
}

struct Key {
    name: Py<PyString>,
    /// How a tag begins that gives a value.
    tag: String,
}

impl Label {
    /// From its keys.
    pub fn new(keys: &[String], py: Python<'_>) -> Self {
        let name = keys.join(SEPARATOR.encode_utf8(&mut [0; 4]));
        let keys = keys.iter().map(|key| Key { name: PyString::new(py, key).unbind(), tag: format!("{key}:") });
        Self { name, keys: keys.collect() }
    }
}

/// Where a call may say its labels.
struct Sources<'a, 'py> {
    services: &'a Bound<'py, Services>,
    metadata: Option<&'a Bound<'py, PyDict>>,
    configurable: Option<Bound<'py, PyAny>>,
    tags: Option<&'a Bound<'py, PyList>>,
}

/// Name and value of every declared label of a call, those of a label that crosses keys joined. A value is that of the
/// metadata, else that under `configurable` in the config of the runnable around the call, else what follows `key:` in a
/// tag, else empty. A value that no text can be made of is reported, and counts as none.
pub fn of<'a>(
    services: &'a Bound<'_, Services>,
    recorder: (&Recorder, &Imports),
    start: &Start<'_, '_>,
) -> PyResult<Vec<(&'a str, Value)>> {
    let labels = &services.get().labels;
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    let (core, imports) = recorder;
    let sources = Sources {
        services,
        metadata: start.metadata.as_ref().and_then(|metadata| metadata.cast::<PyDict>().ok()),
        configurable: configurable(imports, services.py()),
        tags: start.tags.as_ref().and_then(|tags| tags.cast::<PyList>().ok()),
    };
    let pair = |label: &'a Label| {
        if let [key] = &label.keys[..] {
            return Ok((label.name.as_str(), sources.value(key)?));
        }
        let mut joined = String::new();
        for (place, key) in label.keys.iter().enumerate() {
            if place > 0 {
                joined.push(SEPARATOR);
            }
            let value = sources.value(key)?;
            let (text, was_cut) = cut(value.as_ref(), LONGEST);
            if was_cut {
                core.dropped(Dropped::LabelsCut, 1);
            }
            joined.push_str(text);
        }
        Ok((label.name.as_str(), Value::Made(joined)))
    };
    labels.iter().map(pair).collect()
}

/// What users set under `configurable` for the runnable around a call. LangChain hands it to no handler.
fn configurable<'py>(imports: &Imports, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
    let config = imports.parent_config(py)?.call0().ok()?;
    entry(Some(&config), intern!(py, "configurable")).ok()?
}

impl Sources<'_, '_> {
    fn value(&self, key: &Key) -> PyResult<Value> {
        let py = self.services.py();
        let name = key.name.bind(py);
        let in_metadata = self.metadata.map_or(Ok(None), |metadata| metadata.get_item(name))?;
        let mut value = in_metadata.filter(|value| !value.is_none());
        if value.is_none() {
            value = entry(self.configurable.as_ref(), name)?.filter(is_plain);
        }
        let Some(value) = value else { return Ok(self.tagged(key)) };
        match convert::text_of(&value) {
            Ok(text) => Ok(Value::plain(text)),
            Err(error) => {
                failed(self.services, "labels", error.value(py))?;
                Ok(Value::Made(String::new()))
            }
        }
    }

    fn tagged(&self, key: &Key) -> Value {
        for tag in self.tags.into_iter().flatten() {
            if let Ok(tag) = tag.cast_into::<PyString>()
                && let Some(value) = tag.to_string_lossy().strip_prefix(key.tag.as_str())
            {
                return Value::Made(without_separator(value).into_owned());
            }
        }
        Value::Made(String::new())
    }
}

/// Whether a value of `configurable` is a text, a number or a truth value, as LangChain's own tracer takes them; graphs
/// keep objects of theirs there too.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>()
        || value.is_instance_of::<PyBool>()
}

/// The value of a label.
pub enum Value {
    /// As it was found.
    Found(PyBackedStr),
    /// Made of others.
    Made(String),
}

impl Value {
    fn plain(text: PyBackedStr) -> Self {
        match without_separator(&text) {
            Cow::Owned(text) => Self::Made(text),
            Cow::Borrowed(_) => Self::Found(text),
        }
    }
}

impl AsRef<str> for Value {
    fn as_ref(&self) -> &str {
        match self {
            Self::Found(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// Replaces the character that joins the parts of a row's name.
fn without_separator(text: &str) -> Cow<'_, str> {
    if text.contains(SEPARATOR) { Cow::Owned(text.replace(SEPARATOR, " ")) } else { Cow::Borrowed(text) }
}
