//! `langmeter._core`: convert, call, wrap; nothing else.

mod billed;
mod bounds;
mod cards;
mod clients;
mod clock;
mod collect;
mod components;
mod convert;
mod demand;
mod distribution;
mod end;
mod error;
mod hooks;
mod identity;
mod imports;
mod metadata;
mod money;
mod output;
mod pieces;
mod prompts;
mod recorder;
mod response;
mod searches;
mod services;
mod snapshot;
mod start;
mod tasks;
mod tokenizer;
mod usage;
mod usage_keys;
mod words;

use langmeter_core::budget::{Period, Unit};
use langmeter_core::{Counter, Dropped, Kind, Labels, Measure, Outcome, WINDOWS};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

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
    usage_words(m)?;
    m.add("WINDOWS", PyTuple::new(py, WINDOWS)?)?;
    m.add("BUILD_PROFILE", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("BUDGET_UNITS", PyTuple::new(py, Unit::ALL.map(Unit::name))?)?;
    m.add("BUDGET_PERIODS", PyTuple::new(py, Period::ALL.map(Period::name))?)?;
    m.add("HOOKS_TIMED", hooks::TIMED)?;
    m.add("MAX_PROMPTS", prompts::MAX_PROMPTS)?;
    m.add("RETRY_TAG", start::RETRY_TAG)?;
    m.add("STREAM_KINDS", PyTuple::new(py, output::Kind::SHOWN)?)?;
    m.add("STREAM_WANTS", PyTuple::new(py, collect::WANTS)?)?;
    m.add("MODEL_KEYS", PyTuple::new(py, clients::MODEL_KEYS)?)?;
    m.add("DEPLOYMENT_KEYS", PyTuple::new(py, clients::DEPLOYMENT_KEYS)?)?;
    m.add("ADDRESS_KEYS", PyTuple::new(py, clients::ADDRESS_KEYS)?)?;
    m.add_class::<cards::Cards>()?;
    m.add("HOOKS", hooks::types(py)?)?;
    m.add_class::<clock::ManualClock>()?;
    m.add_class::<distribution::Distribution>()?;
    m.add_class::<demand::Demands>()?;
    m.add_class::<money::RateCard>()?;
    m.add_class::<recorder::Recorder>()?;
    m.add_class::<services::Services>()?;
    m.add_class::<snapshot::SeriesStats>()?;
    m.add_class::<snapshot::Snapshot>()?;
    m.add_class::<collect::Streams>()?;
    m.add_function(wrap_pyfunction!(response::read_response, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::count_tokens, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::encoding_for_model, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::chat_overhead, m)?)?;
    m.add_function(wrap_pyfunction!(convert::plain_text, m)?)?;
    m.add_function(wrap_pyfunction!(identity::number_for_python, m)?)?;
    m.add_function(wrap_pyfunction!(bounds::input_bound, m)?)?;
    m.add_function(wrap_pyfunction!(bounds::call_bounds, m)?)?;
    Ok(())
}

/// The words of usage that the careful reader needs too.
fn usage_words(m: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = m.py();
    let dict = |words: &[(&str, &str)]| -> PyResult<_> {
        let dict = PyDict::new(py);
        words.iter().try_for_each(|(key, meaning)| dict.set_item(key, meaning))?;
        Ok(dict)
    };
    m.add("USAGE_KEYS", dict(usage_keys::Field::WORDS)?)?;
    m.add("USAGE_PARTS", dict(usage_keys::Part::WORDS)?)?;
    m.add("TIER_PARTS", dict(usage_keys::TierPart::WORDS)?)?;
    m.add("USAGE_LIMIT", usage_keys::LIMIT)?;
    for (name, words) in [
        ("TIERS", usage_keys::TIERS),
        ("STANDARD_TIERS", usage_keys::STANDARD),
        ("USUAL_MODIFIERS", usage_keys::USUAL),
        ("USAGE_PLACES", usage_keys::PLACES),
        ("FINISH_REASONS", usage_keys::REASONS),
        ("TOO_LONG", usage_keys::TOO_LONG),
    ] {
        m.add(name, PyTuple::new(py, words)?)?;
    }
    Ok(())
}
