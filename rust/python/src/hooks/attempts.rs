//! The attempt at a defect that a run belongs to.

use crate::convert;
use crate::hooks::identity;
use crate::hooks::model_start::entry;
use crate::services::Services;
use langmeter_core::RunKey;
use langmeter_core::defects::Place;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::atomic::{AtomicBool, Ordering};

/// Characters of an id, a type, a severity, a language or a strategy that are kept.
pub const LONGEST: usize = 64;
/// Characters by which the id of a defect is told from others: paths and fingerprints are longer than `LONGEST`.
const LONGEST_ID: usize = 1024;

/// A block is one number: its attempt times 2^20, plus one more than the index of its candidate; 0 for no block. As a
/// tuple it cost each run in it 60 ns more.
pub const INDEX_BITS: u32 = 20;

/// How runs are found to belong to an attempt.
pub struct Attempts {
    /// Keys of a run's metadata: id, type and severity of the defect, language, strategy, number of the attempt.
    keys: [Py<PyString>; 6],
    /// `ContextVar.get` of the block that a thread or task is in: one number, see `INDEX_BITS`.
    block: Py<PyAny>,
    /// Whether a block was ever entered.
    has_blocks: AtomicBool,
    /// Reads the outcome of an attempt from what its run returned; None without such a reader.
    read_output: Option<Py<PyAny>>,
}

/// An attempt whose outcome is read from what its run returns.
pub struct Reads<'py> {
    attempt: u64,
    reader: Bound<'py, PyAny>,
}

impl Reads<'_> {
    pub fn read(&self, output: &Bound<'_, PyAny>) -> PyResult<()> {
        self.reader.call1((self.attempt, output)).map(drop)
    }
}

impl Attempts {
    pub const fn new(keys: [Py<PyString>; 6], block: Py<PyAny>, read_output: Option<Py<PyAny>>) -> Self {
        Self { keys, block, has_blocks: AtomicBool::new(false), read_output }
    }

    /// Notes that blocks are used from now on.
    pub fn block_entered(&self) {
        self.has_blocks.store(true, Ordering::Relaxed);
    }

    /// The objects that Python's collector visits.
    pub fn objects(&self) -> impl Iterator<Item = &Py<PyAny>> {
        std::iter::once(&self.block).chain(&self.read_output)
    }

    /// The attempt that a run in flight is, where its outcome is read from what the run returns.
    #[inline]
    pub fn reads<'py>(services: &Bound<'py, Services>, run_id: &Bound<'py, PyAny>) -> PyResult<Option<Reads<'py>>> {
        let this = services.get();
        let Some(reader) = this.attempts.as_ref().and_then(|attempts| attempts.read_output.as_ref()) else {
            return Ok(None);
        };
        let core = &this.recorder(services.py())?.get().core;
        let attempt = core.attempt_owned_by(identity::run_key(run_id)?);
        Ok(attempt.map(|attempt| Reads { attempt, reader: reader.bind(services.py()).clone() }))
    }

    /// Puts a run that begins into its attempt: that of its parent or of the block around it, whichever began later. A
    /// run whose metadata names another defect, or that is in no attempt, opens one.
    #[inline]
    pub fn join(
        &self,
        core: &langmeter_core::Recorder,
        key: RunKey,
        parent: Option<RunKey>,
        metadata: Option<&Bound<'_, PyAny>>,
        py: Python<'_>,
    ) -> PyResult<()> {
        let [id, ..] = &self.keys;
        let marked = entry(metadata, id.bind(py))?.filter(|id| !id.is_none());
        let marked = marked.map(|id| convert::text_of(&id)).transpose()?.filter(|id| !id.is_empty());
        let block = if self.has_blocks.load(Ordering::Relaxed) { self.block(py)? } else { None };
        let place = parent.and_then(|parent| core.attempt_of(parent));
        let place = match (place, block) {
            (Some(place), Some(block)) if block.attempt >= place.attempt => Some(block),
            (place, block) => place.or(block),
        };
        let Some(marked) = marked else {
            if let Some(place) = place {
                core.attempt_joined(key, place);
            }
            return Ok(());
        };
        let id = identified(&marked);
        match place {
            Some(place) if core.is_at_defect(place.attempt, id) => core.attempt_joined(key, place),
            _ => self.opened(core, key, id, metadata, py)?,
        }
        Ok(())
    }

    fn block(&self, py: Python<'_>) -> PyResult<Option<Place>> {
        let block = self.block.bind(py).call0()?;
        let number: u64 = block.extract()?;
        let index = i64::try_from(number & ((1 << INDEX_BITS) - 1)).unwrap_or_default();
        let attempt = number >> INDEX_BITS;
        let candidate = index.checked_sub(1).filter(|index| *index >= 0);
        Ok((attempt > 0).then_some(Place { candidate, ..Place::of(attempt) }))
    }

    #[cold]
    fn opened(
        &self,
        core: &langmeter_core::Recorder,
        key: RunKey,
        id: &str,
        metadata: Option<&Bound<'_, PyAny>>,
        py: Python<'_>,
    ) -> PyResult<()> {
        let [_, defect_type, severity, language, strategy, number] = &self.keys;
        let text = |key: &Py<PyString>| {
            let value = entry(metadata, key.bind(py))?.filter(|value| !value.is_none());
            value.map_or_else(|| Ok(String::new()), |value| short(&value))
        };
        let about = [text(defect_type)?, text(severity)?, text(language)?, text(strategy)?];
        let number = entry(metadata, number.bind(py))?.and_then(|number| number.extract().ok());
        core.attempt_opened(id, about.each_ref().map(String::as_str), number, Some(key));
        Ok(())
    }
}

/// What of the id of a defect is looked at.
pub fn identified(id: &str) -> &str {
    id.char_indices().nth(LONGEST_ID).and_then(|(end, _)| id.get(..end)).unwrap_or(id)
}

/// The first characters of a text.
fn short(value: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(convert::text_of(value)?.chars().take(LONGEST).collect())
}
