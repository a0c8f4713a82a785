//! What a response says of its call: usage, names, how it ended, what was billed. `langmeter.usage.reader` is the
//! same for every kind of response, and a property test holds the two to each other; this one reads what most
//! responses look like, and leaves the rest to that one.

mod billed;
pub mod keys;
pub mod metadata;
mod searches;
pub mod usage;
pub mod words;

use crate::fields::Fields;
use billed::Billed;
use langmeter_core::{Counter, Usage};
use metadata::{Metadata, Raws};
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use searches::Searches;
use usage::{Mapped, Modifiers, Read, Stop, entry};

/// A model's name shorter than this is not looked at for being there twice.
const SHORTEST: usize = 4;

/// What a response says.
pub struct Reading<'py> {
    /// None when it holds no usage.
    pub usage: Option<Usage>,
    /// What changes the price, as `Usage.tier` has it.
    pub tier: String,
    /// LangChain's name of the provider.
    pub dialect: Option<Bound<'py, PyString>>,
    pub model: Option<Bound<'py, PyString>>,
    /// Served by LangChain's own response cache.
    pub cache_hit: bool,
    pub billed: Option<Billed>,
    /// No usage here because it may be whole on another run.
    pub shared: bool,
    /// The answer ended at the limit of its length.
    pub truncated: bool,
    /// Nanoseconds that the call waited at the provider's, if it says so.
    pub queue: Option<u64>,
    pub web_searches: u64,
    pub file_searches: u64,
}

impl Reading<'_> {
    fn saw(&mut self, seen: &Searches) {
        self.web_searches = self.web_searches.max(seen.web);
        self.file_searches = self.file_searches.max(seen.files);
    }
}

/// None when the response is for the careful reader.
pub fn read<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Reading<'py>>> {
    match look(response) {
        Ok(reading) => Ok(Some(reading)),
        Err(Stop::Careful) => Ok(None),
        // Exceptions that are not an `Exception` pass: Ctrl-C may arrive while a response's own code runs.
        Err(Stop::Raised(e)) if e.is_instance_of::<PyException>(response.py()) => Ok(None),
        Err(Stop::Raised(e)) => Err(e),
    }
}

#[allow(clippy::too_many_lines)] // one thing after the other, as `read_any` of the careful reader
fn look<'py>(response: &Bound<'py, PyAny>) -> Read<Reading<'py>> {
    let py = response.py();
    let answer = Fields::of(response.clone());
    let prompts = answer.get(intern!(py, "generations"))?.ok_or(Stop::Careful)?;
    let prompts = prompts.cast_exact::<PyList>().map_err(|_| Stop::Careful)?;
    if prompts.len() != 1 {
        return Err(Stop::Careful);
    }
    let candidates = prompts.get_item(0)?;
    let candidates = candidates.cast_exact::<PyList>().map_err(|_| Stop::Careful)?;
    if candidates.is_empty() {
        return Err(Stop::Careful);
    }
    let whole = answer.get(intern!(py, "llm_output"))?.filter(|whole| !whole.is_none());
    let whole = match &whole {
        Some(whole) => Some(whole.cast::<PyDict>().map_err(|_| Stop::Careful)?),
        None => None,
    };
    let mut of_whole = None;
    let mut reading = Reading {
        usage: None,
        tier: String::new(),
        dialect: None,
        model: None,
        cache_hit: false,
        billed: None,
        shared: false,
        truncated: false,
        queue: None,
        web_searches: 0,
        file_searches: 0,
    };
    let mut modifiers = Modifiers::default();
    let mut grounding = Vec::new();
    for candidate in candidates.iter() {
        if candidate.cast::<PyDict>().is_ok() {
            return Err(Stop::Careful);
        }
        let candidate = Fields::of(candidate);
        let message = candidate.get(intern!(py, "message"))?.filter(|message| !message.is_none());
        let info = candidate.get(intern!(py, "generation_info"))?;
        let (mut meta, mut figures) = (None, None);
        if let Some(message) = &message {
            if message.cast::<PyDict>().is_ok() {
                return Err(Stop::Careful);
            }
            let fields = Fields::of(message.clone());
            meta = fields.get(intern!(py, "response_metadata"))?;
            figures = fields.get(intern!(py, "usage_metadata"))?;
            let mut seen = Searches::default();
            if let Some(content) = fields.get(intern!(py, "content"))? {
                seen.in_blocks(&content)?;
            }
            if let Some(extra) = fields.get(intern!(py, "additional_kwargs"))? {
                seen.in_extra(&extra)?;
            }
            reading.saw(&seen);
        }
        let mut raws = Raws::default();
        let mut cost = None;
        let mut named = Modifiers::default();
        for (place, source) in [meta.as_ref(), info.as_ref()].into_iter().enumerate() {
            let Some(source) = source.filter(|source| !source.is_none()) else { continue };
            let source = source.cast::<PyDict>().map_err(|_| Stop::Careful)?;
            if source.is_empty() {
                continue;
            }
            let mut metadata = Metadata::of(source)?;
            reading.dialect = reading.dialect.or_else(|| metadata.dialect.take());
            reading.model = reading.model.or_else(|| metadata.model());
            reading.truncated |= metadata.truncated;
            reading.web_searches = reading.web_searches.max(metadata.searches);
            if metadata.items.iter().any(Option::is_some) {
                let mut seen = Searches::default();
                seen.in_metadata(&metadata.items)?;
                reading.saw(&seen);
            }
            grounding.extend(metadata.grounding.iter_mut().filter_map(Option::take));
            metadata.take_raws(source, &mut raws);
            if place == 0 && reading.usage.is_none() {
                cost = billed::billed(metadata.cost.as_ref(), metadata.ticks.as_ref())?;
                named = metadata.modifiers()?;
            }
        }
        if let Some(whole) = whole
            && !repeats(whole, raws.first.as_ref())?
        {
            let metadata = match &mut of_whole {
                Some(metadata) => metadata,
                None => of_whole.insert(Metadata::of(whole)?),
            };
            if metadata.raws(whole, &mut raws) {
                named.complete(metadata.modifiers()?);
            }
        }
        let first = match &raws.first {
            Some(raw) => Some(usage::mapping(raw)?.ok_or(Stop::Careful)?),
            None => None,
        };
        reading.queue = reading.queue.or(first.as_ref().and_then(|first| first.queue));
        if reading.queue.is_none() {
            for raw in &raws.others {
                let seconds = raw.get_item(intern!(py, "queue_time"))?;
                reading.queue = reading.queue.or(seconds.as_ref().and_then(usage::waited));
            }
        }
        let figures = match figures.as_ref().map(|figures| figures.cast::<PyDict>()) {
            Some(Ok(figures)) => {
                let mapped = usage::mapping(figures)?;
                // LangChain's mark on a message from its own response cache stands beside its figures.
                if mapped.as_ref().is_none_or(|mapped| mapped.unknown > 0) {
                    reading.cache_hit |= is_hit(figures)?;
                }
                mapped
            }
            _ => None,
        };
        if reading.usage.is_none() {
            for raw in raws.first.iter().chain(&raws.others) {
                if cost.is_some() {
                    break;
                }
                let (usd, ticks) = (intern!(py, "cost"), intern!(py, "cost_in_usd_ticks"));
                cost = billed::billed(raw.get_item(usd)?.as_ref(), raw.get_item(ticks)?.as_ref())?;
            }
            let mut marks = Modifiers::default();
            let others = raws.others.iter().map(usage::mapping).collect::<Read<Vec<_>>>()?;
            reading.usage = joined(figures, first, others, &mut marks);
            marks.complete(named);
            modifiers.complete(marks);
            if cost.is_some() && reading.billed.is_some() {
                return Err(Stop::Careful); // the costs of two candidates are added up
            }
            reading.billed = reading.billed.or(cost);
        }
    }
    if let Some(whole) = whole {
        if reading.dialect.is_none() || reading.model.is_none() {
            let mut metadata = match of_whole.take() {
                Some(metadata) => metadata,
                None => Metadata::of(whole)?,
            };
            reading.dialect = reading.dialect.or_else(|| metadata.dialect.take());
            reading.model = reading.model.or_else(|| metadata.model());
        }
        if reading.usage.is_none() {
            let shared = whole.get_item(intern!(py, "token_usage"))?;
            reading.shared = shared.is_some_and(|of| of.cast::<PyDict>().is_ok_and(PyDictMethods::is_empty));
        }
    }
    finish(reading, modifiers, &grounding)
}

/// LangChain's figures, completed by the provider's own; one of the two if one is there.
///
/// What the first of the provider's own lacks too is taken from its others, where these are of the same sums.
fn joined(
    figures: Option<Mapped>,
    raw: Option<Mapped>,
    others: Vec<Option<Mapped>>,
    marks: &mut Modifiers,
) -> Option<Usage> {
    let mut usage = None;
    if let Some(figures) = figures {
        *marks = figures.modifiers;
        usage = Some(figures.usage);
    }
    if let Some(raw) = raw {
        marks.complete(raw.modifiers);
        let mut joined = usage.map_or(raw.usage, |figures| completed(figures, &raw.usage));
        let mut extra = raw.extra;
        for other in others.into_iter().flatten().filter(|other| other.usage[..2] == raw.usage[..2]) {
            marks.complete(other.modifiers);
            joined = completed(joined, &other.usage);
            extra = if extra == 0 { other.extra } else { extra };
        }
        joined[Counter::Output as usize] += extra;
        joined[Counter::Total as usize] += extra;
        usage = Some(joined);
    }
    usage
}

/// Whether `llm_output` holds the very usage that stands in the message, as LangChain mostly copies it there.
fn repeats(whole: &Bound<'_, PyDict>, first: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
    let Some(first) = first else { return Ok(false) };
    let py = whole.py();
    for place in [intern!(py, "token_usage"), intern!(py, "usage")] {
        if whole.get_item(place)?.is_some_and(|raw| raw.is(first)) {
            return Ok(true);
        }
    }
    Ok(whole.is_empty())
}

/// A usage with every count that it lacks taken from another source of the same call.
fn completed(mut usage: Usage, by: &Usage) -> Usage {
    const INPUT: usize = Counter::Input as usize;
    const OUTPUT: usize = Counter::Output as usize;
    const TOTAL: usize = Counter::Total as usize;
    let sums = (usage[INPUT], usage[OUTPUT]);
    for (mine, theirs) in usage.iter_mut().zip(by) {
        if *mine == 0 {
            *mine = *theirs;
        }
    }
    if sums != (usage[INPUT], usage[OUTPUT]) {
        usage[TOTAL] = usage[TOTAL].max(usage[INPUT] + usage[OUTPUT]);
    }
    usage
}

fn finish<'py>(mut reading: Reading<'py>, modifiers: Modifiers, grounding: &[Bound<'py, PyAny>]) -> Read<Reading<'py>> {
    reading.tier = modifiers.into_text();
    if reading.cache_hit {
        reading.billed = None;
    }
    let mut balance = false;
    if let Some(dialect) = &reading.dialect {
        match dialect.to_str().map_err(|_| Stop::Careful)? {
            "bedrock" | "bedrock_converse" => reading.model = None, // an echo of the request
            "google_genai" => balance = true,
            _ => {}
        }
    }
    if let Some(model) = reading.model.take() {
        reading.model = Some(once(model)?);
    }
    if !grounding.is_empty() {
        let model = match &reading.model {
            Some(model) => model.to_str().map_err(|_| Stop::Careful)?,
            None => "",
        };
        for metadata in grounding {
            reading.web_searches = reading.web_searches.max(searches::grounded(metadata, model)?);
        }
    }
    if let Some(usage) = &mut reading.usage {
        let [input, output, total, _, _, _, reasoning, ..] = usage;
        let parts = *input + *output;
        if *reasoning > 0 && *total == parts + *reasoning {
            *output += *reasoning; // xAI and Google's OpenAI endpoint leave it out of the output alone
        } else if balance && *total > parts {
            *total = parts; // LangChain cuts Google's corrections at 0 in the total, not in the input
        }
        for (counter, seen) in
            [(Counter::WebSearches, &mut reading.web_searches), (Counter::FileSearches, &mut reading.file_searches)]
        {
            let count = &mut usage[counter as usize];
            *count = (*count).max(*seen);
            *seen = *count;
        }
    }
    Ok(reading)
}

/// Whether LangChain marks a message as one from its own response cache.
fn is_hit(figures: &Bound<'_, PyDict>) -> Read<bool> {
    let Some(cost) = entry(figures, &[intern!(figures.py(), "total_cost")])? else { return Ok(false) };
    if cost.cast::<PyBool>().is_ok() {
        return Ok(false);
    }
    if cost.cast::<PyInt>().is_ok() || cost.cast::<PyFloat>().is_ok() { Ok(cost.eq(0)?) } else { Ok(false) }
}

/// A model's name once: where chunks each carry it, merging them strings it together.
fn once(name: Bound<'_, PyString>) -> Read<Bound<'_, PyString>> {
    let text = name.to_str().map_err(|_| Stop::Careful)?;
    let bytes = text.as_bytes();
    let turns = |period: &usize| {
        bytes.len().is_multiple_of(*period) && bytes.get(*period..) == bytes.get(..bytes.len() - period)
    };
    // Only where the beginning comes again can all of it be one name more than once.
    let Some(period) = (1..=bytes.len() / 2).find(turns) else { return Ok(name) };
    if !text.is_ascii() {
        return Err(Stop::Careful);
    }
    Ok(match text.get(..period) {
        Some(single) if period >= SHORTEST => PyString::new(name.py(), single),
        _ => name,
    })
}

/// Return what a response reports: counts, tier, LangChain's name of the provider, model, cache hit, billed, shared,
/// truncated, queue, web searches, file searches. None: the careful reader has to read it.
#[pyfunction]
pub fn read_response<'py>(response: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(reading) = read(response)? else { return Ok(None) };
    let py = response.py();
    let empty = || PyString::intern(py, "");
    let counts = reading.usage.map(|usage| PyTuple::new(py, usage)).transpose()?;
    let head = (counts, reading.tier, reading.dialect.unwrap_or_else(empty), reading.model.unwrap_or_else(empty));
    let (counts, tier, dialect, model) = head;
    let billed = reading.billed.map(Billed::into_text);
    let tail = (reading.truncated, reading.queue, reading.web_searches, reading.file_searches);
    let (truncated, queue, web, files) = tail;
    let said = (counts, tier, dialect, model, reading.cache_hit, billed, reading.shared, truncated, queue, web, files);
    said.into_pyobject(py).map(Some)
}
