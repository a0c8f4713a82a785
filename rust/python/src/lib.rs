//! `langmeter._core`: convert, call, wrap; nothing else.

mod clock;
mod collect;
mod components;
mod convert;
mod distribution;
mod end;
mod error;
mod handler;
mod money;
mod output;
mod pieces;
mod recorder;
mod services;
mod snapshot;
mod start;
mod tokenizer;
mod usage;

use langmeter_core::{Counter, Dropped, Kind, Labels, Measure, Outcome};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The native recorder.
#[pymodule(gil_used = false, name = "_core")]
fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let outcomes: Vec<_> = Outcome::ALL.iter().map(|o| o.name()).collect();
    let counters = outcomes.iter().copied().chain(Counter::ALL.iter().map(|c| c.name()));
    m.add("COUNTERS", PyTuple::new(py, counters.collect::<Vec<_>>())?)?;
    m.add("OUTCOMES", PyTuple::new(py, &outcomes)?)?;
    m.add("KINDS", PyTuple::new(py, Kind::ALL.map(Kind::name))?)?;
    m.add("MEASURES", PyTuple::new(py, Measure::ALL.iter().map(|m| m.name()).collect::<Vec<_>>())?)?;
    m.add("DROPPED", PyTuple::new(py, Dropped::ALL.iter().map(|d| d.name()).collect::<Vec<_>>())?)?;
    m.add("MAX_LABELS", Labels::MOST)?;
    m.add("BUILD_PROFILE", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<clock::ManualClock>()?;
    m.add_class::<distribution::Distribution>()?;
    m.add_class::<handler::Handler>()?;
    m.add_class::<money::RateCard>()?;
    m.add_class::<recorder::Recorder>()?;
    m.add_class::<services::Services>()?;
    m.add_class::<snapshot::SeriesStats>()?;
    m.add_class::<snapshot::Snapshot>()?;
    m.add_class::<collect::Streams>()?;
    m.add_function(wrap_pyfunction!(tokenizer::count_tokens, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::encoding_for_model, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::chat_overhead, m)?)?;
    m.add_function(wrap_pyfunction!(convert::plain_text, m)?)?;
    Ok(())
}
