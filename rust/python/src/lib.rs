//! `langmeter._core`. `hooks` are what LangChain calls, `response` reads what a model answered, `streams` collects what it
//! streams; every other module wraps one type of the core.

mod attempts;
mod cards;
mod clock;
mod convert;
mod distribution;
mod error;
mod fields;
mod files;
mod hooks;
mod imports;
mod rate_card;
mod recorder;
mod response;
mod services;
mod snapshot;
mod statistics;
mod streams;
mod tokenizer;

use langmeter_core::budget::{Period, Unit};
use langmeter_core::defects::{FixOutcome, SAMPLES, SOURCES, Stage, TALLIES, tally_name};
use langmeter_core::{Counter, Dropped, Kind, Labels, Measure, Outcome, SEPARATOR, SNAPSHOT_FORMAT, WINDOWS};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::BTreeMap;

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
    m.add("MAX_PROMPTS", hooks::prompts::MAX_PROMPTS)?;
    m.add("RETRY_TAG", hooks::model_start::RETRY_TAG)?;
    m.add("STREAM_KINDS", PyTuple::new(py, streams::delta::Kind::SHOWN)?)?;
    m.add("STREAM_WANTS", PyTuple::new(py, streams::WANTS)?)?;
    m.add("MODEL_KEYS", PyTuple::new(py, hooks::clients::MODEL_KEYS)?)?;
    m.add("PROVIDER_KEY", hooks::clients::PROVIDER_KEY)?;
    m.add("DEPLOYMENT_KEYS", PyTuple::new(py, hooks::clients::DEPLOYMENT_KEYS)?)?;
    m.add("ADDRESS_KEYS", PyTuple::new(py, hooks::clients::ADDRESS_KEYS)?)?;
    m.add("TALLIES", PyTuple::new(py, (0..TALLIES).map(tally_name))?)?;
    m.add("FIX_OUTCOMES", PyTuple::new(py, FixOutcome::ALL.iter().map(|outcome| outcome.name()).collect::<Vec<_>>())?)?;
    m.add("FIX_STAGES", PyTuple::new(py, Stage::ALL.iter().map(|stage| stage.name()).collect::<Vec<_>>())?)?;
    m.add("FIX_SOURCES", SOURCES.iter().copied().collect::<BTreeMap<_, _>>())?;
    m.add("MAX_CANDIDATES", SAMPLES)?;
    m.add("INDEX_BITS", hooks::attempts::INDEX_BITS)?;
    m.add("MAX_DEFECT_TEXT", hooks::attempts::LONGEST)?;
    m.add("SEPARATOR", SEPARATOR)?;
    m.add("SNAPSHOT_FORMAT", SNAPSHOT_FORMAT)?;
    m.add_class::<attempts::Attempts>()?;
    m.add_class::<cards::Cards>()?;
    m.add("HOOKS", hooks::types(py)?)?;
    m.add_class::<clock::ManualClock>()?;
    m.add_class::<distribution::Distribution>()?;
    m.add_class::<hooks::demand::Demands>()?;
    m.add_class::<rate_card::RateCard>()?;
    m.add_class::<recorder::Recorder>()?;
    m.add_class::<services::Services>()?;
    m.add_class::<snapshot::SeriesStats>()?;
    m.add_class::<snapshot::Snapshot>()?;
    m.add_class::<statistics::Discrete>()?;
    m.add_class::<statistics::Sample>()?;
    m.add_class::<streams::Streams>()?;
    m.add_function(wrap_pyfunction!(files::read_files, m)?)?;
    m.add_function(wrap_pyfunction!(files::is_held, m)?)?;
    m.add_function(wrap_pyfunction!(response::read_response, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::count_tokens, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::encoding_for_model, m)?)?;
    m.add_function(wrap_pyfunction!(tokenizer::chat_overhead, m)?)?;
    m.add_function(wrap_pyfunction!(convert::plain_text, m)?)?;
    m.add_function(wrap_pyfunction!(hooks::identity::number_for_python, m)?)?;
    m.add_function(wrap_pyfunction!(hooks::bounds::input_bound, m)?)?;
    m.add_function(wrap_pyfunction!(hooks::bounds::call_bounds, m)?)?;
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
    m.add("USAGE_KEYS", dict(response::keys::Field::WORDS)?)?;
    m.add("USAGE_PARTS", dict(response::keys::Part::WORDS)?)?;
    m.add("TIER_PARTS", dict(response::keys::TierPart::WORDS)?)?;
    m.add("USAGE_LIMIT", response::keys::LIMIT)?;
    for (name, words) in [
        ("TIERS", response::keys::TIERS),
        ("STANDARD_TIERS", response::keys::STANDARD),
        ("USUAL_MODIFIERS", response::keys::USUAL),
        ("USAGE_PLACES", response::keys::PLACES),
        ("SEARCH_TOOLS", response::keys::SEARCH_TOOLS),
        ("TOOL_TIMES", response::keys::TIMES),
        ("FINISH_REASONS", response::keys::REASONS),
        ("TOO_LONG", response::keys::TOO_LONG),
    ] {
        m.add(name, PyTuple::new(py, words)?)?;
    }
    Ok(())
}
