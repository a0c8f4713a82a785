//! One mapping of usage, whoever wrote it. `langmeter.usage.provider_formats` is the same for what is not a plain
//! number, and a test holds the two to each other.

use crate::response::keys::{Field, LIMIT, Part, SEARCH_TOOLS, STANDARD, TIMES, TierPart, USUAL, tier_part};
use langmeter_core::{Counter, Usage};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyList, PyString};

/// Why a response is not read natively.
pub enum Stop {
    /// Something in it is for the careful reader.
    Careful,
    /// Its own code has raised.
    Raised(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

pub type Read<T> = Result<T, Stop>;

/// What the response names that changes the price: tier, speed, region, latency, size of a search; "" is the default
/// of each. Boxed, because nearly every response has the defaults, and five empty texts are 120 bytes to move about.
#[derive(Default)]
pub struct Modifiers(Option<Box<Named>>);

#[derive(Default)]
pub struct Named {
    pub tier: String,
    pub speed: String,
    pub region: String,
    pub latency: String,
    pub context: String,
}

impl Modifiers {
    /// Sets one of them, unless it is the default.
    pub fn set(&mut self, which: impl FnOnce(&mut Named) -> &mut String, value: String) {
        if !value.is_empty() {
            *which(self.0.get_or_insert_default()) = value;
        }
    }

    /// Takes from others what these lack.
    pub fn complete(&mut self, by: Self) {
        let Some(by) = by.0 else { return };
        let Some(named) = &mut self.0 else {
            self.0 = Some(by);
            return;
        };
        for (mine, theirs) in [
            (&mut named.tier, by.tier),
            (&mut named.speed, by.speed),
            (&mut named.region, by.region),
            (&mut named.latency, by.latency),
            (&mut named.context, by.context),
        ] {
            if mine.is_empty() {
                *mine = theirs;
            }
        }
    }

    /// As `Usage.tier` has them.
    pub fn into_text(self) -> String {
        let Some(named) = self.0 else { return String::new() };
        let Named { tier, speed, region, latency, context } = *named;
        let alone = matches!(speed.as_str(), "" | "fast") && (tier.is_empty() || speed.is_empty());
        if alone && region.is_empty() && latency.is_empty() && context.is_empty() {
            return if tier.is_empty() { speed } else { tier };
        }
        let first = if tier == "batch" { "processing" } else { "service_tier" };
        let named = [
            (first, tier),
            ("speed", speed),
            ("inference_geo", region),
            ("latency", latency),
            ("search_context_size", context),
        ];
        let pairs = named.iter().filter(|(_, value)| !value.is_empty());
        pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
    }
}

/// What a mapping of usage says.
pub struct Mapped {
    pub usage: Usage,
    /// Output that is in none of its sums.
    pub extra: u64,
    pub modifiers: Modifiers,
    pub queue: Option<u64>,
    /// Keys that mean nothing here.
    pub unknown: usize,
}

/// A whole number from 0 to the limit; None is 0. Not a bool, and no subclass: those are for the careful reader.
pub fn number(value: &Bound<'_, PyAny>) -> Read<u64> {
    static ZERO: PyOnceLock<Py<PyInt>> = PyOnceLock::new();
    let py = value.py();
    // Most counts are 0, which is one object: compared by its address it costs 10 instructions, read 58.
    if value.is_none() || value.is(ZERO.get_or_init(py, || PyInt::new(py, 0).unbind())) {
        return Ok(0);
    }
    let value = value.cast_exact::<PyInt>().map_err(|_| Stop::Careful)?;
    let value = value.extract::<u64>().map_err(|_| Stop::Careful)?;
    if value < LIMIT { Ok(value) } else { Err(Stop::Careful) }
}

/// Calls `see` with each entry of a dict whose key is a text and means something, and with the meaning (None: not a word
/// known there). No Python code may run meanwhile, which could change the dict.
pub fn each<'py, T>(
    of: &Bound<'py, PyDict>,
    meaning: impl Fn(&Bound<'py, PyString>) -> PyResult<T>,
    mut see: impl FnMut(T, &Bound<'py, PyString>, Bound<'py, PyAny>) -> Read<()>,
) -> Read<()> {
    for (key, value) in of.iter() {
        // A key with half a surrogate pair is a text without a meaning.
        if let Ok(key) = key.cast::<PyString>()
            && let Ok(meaning) = meaning(key)
        {
            see(meaning, key, value)?;
        }
    }
    Ok(())
}

/// The first of these entries that is not None.
pub fn entry<'py>(of: &Bound<'py, PyDict>, keys: &[&Bound<'py, PyString>]) -> PyResult<Option<Bound<'py, PyAny>>> {
    for key in keys {
        if let Some(value) = of.get_item(key)?
            && !value.is_none()
        {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A modifier in lower case; "" for one of the usual words, and for what is not a text.
pub fn modifier(value: &Bound<'_, PyAny>, usual: &[&str]) -> Read<String> {
    let Ok(text) = value.cast::<PyString>() else { return Ok(String::new()) };
    let text = text.to_str()?;
    if usual.contains(&text) {
        return Ok(String::new());
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Stop::Careful);
    }
    let name = text.trim_matches(' ').to_ascii_lowercase();
    Ok(if usual.contains(&name.as_str()) { String::new() } else { name })
}

/// A service tier in lower case; "" for the default one. Google writes `SERVICE_TIER_FLEX`, Vertex AI
/// `TrafficType.ON_DEMAND_PRIORITY`.
pub fn tier(value: &Bound<'_, PyAny>) -> Read<String> {
    let name = modifier(value, STANDARD)?;
    let bare = name.strip_prefix("traffictype.").unwrap_or(&name);
    let bare = bare.strip_prefix("servicetier.").unwrap_or(bare);
    let bare = bare.strip_prefix("service_tier_").unwrap_or(bare);
    let bare = bare.strip_prefix("on_demand_").unwrap_or(bare);
    if bare.len() == name.len() {
        return Ok(name);
    }
    Ok(if STANDARD.contains(&bare) { String::new() } else { bare.to_owned() })
}

/// Seconds that a call waited at the provider's as nanoseconds.
pub fn waited(seconds: &Bound<'_, PyAny>) -> Option<u64> {
    let exact = seconds.cast_exact::<PyInt>().is_ok() || seconds.cast_exact::<pyo3::types::PyFloat>().is_ok();
    let seconds = if exact { seconds.extract::<f64>().ok()? } else { return None };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range
    (0.0..1e9).contains(&seconds).then(|| (seconds * 1e9).round_ties_even() as u64)
}

/// The parts that details name.
#[derive(Default)]
struct Parts<'py> {
    counts: [u64; Part::COUNT],
    cached: Option<Bound<'py, PyAny>>,
    tier: &'static str,
}

impl Parts<'_> {
    const fn get(&self, part: Part) -> u64 {
        self.counts[part as usize]
    }
}

fn details<'py>(of: Option<&Bound<'py, PyAny>>) -> Read<Parts<'py>> {
    let mut parts = Parts::default();
    let Some(of) = of else { return Ok(parts) };
    if let Ok(of) = of.cast::<PyDict>() {
        each(of, Part::of_key, |part, key, value| {
            match part {
                Some(Part::Cached) => parts.cached = Some(value),
                Some(part) => {
                    let count = number(&value)?;
                    let part = &mut parts.counts[part as usize];
                    *part = if *part == 0 { count } else { *part };
                }
                None => {
                    if let Some((tier, part)) = tier_part(key.to_str()?) {
                        parts.tier = tier;
                        let part = match part {
                            TierPart::Rest => return Ok(()),
                            TierPart::CacheRead => Part::CacheRead,
                            TierPart::CacheWrite => Part::CacheWrite,
                            TierPart::Reasoning => Part::Reasoning,
                        };
                        parts.counts[part as usize] += number(&value)?;
                    }
                }
            }
            Ok(())
        })?;
    } else if let Ok(of) = of.cast::<PyList>() {
        for item in of.iter() {
            modality(&item, &mut parts)?;
        }
    }
    Ok(parts)
}

/// One of Google's counts by modality.
fn modality(item: &Bound<'_, PyAny>, parts: &mut Parts<'_>) -> Read<()> {
    let py = item.py();
    let Ok(item) = item.cast::<PyDict>() else { return Ok(()) };
    let Some(name) = entry(item, &[intern!(py, "modality")])? else { return Ok(()) };
    let name = name.cast_exact::<PyString>().map_err(|_| Stop::Careful)?;
    let name = name.to_str()?;
    let part = match name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "audio" => Part::Audio,
        "image" | "document" => Part::Image,
        "video" => Part::Video,
        _ => return Ok(()),
    };
    if let Some(count) = entry(item, &[intern!(py, "token_count"), intern!(py, "tokenCount")])? {
        parts.counts[part as usize] += number(&count)?;
    }
    Ok(())
}

/// Reads one mapping of usage; None if it has no number in its sums.
#[allow(clippy::too_many_lines)] // one thing after the other, as `from_mapping` of the careful reader
pub fn mapping(raw: &Bound<'_, PyDict>) -> Read<Option<Mapped>> {
    const NUMBERS: usize = Field::Into as usize;
    let (mut seen, mut unknown) = (0_u32, 0);
    let mut numbers = [0_u64; NUMBERS];
    let mut others: [Option<Bound<'_, PyAny>>; Field::COUNT - NUMBERS] = Default::default();
    each(raw, Field::of_key, |field, _, value| {
        let Some(field) = field else {
            unknown += 1;
            return Ok(());
        };
        let (place, bit) = (field as usize, 1 << field as u32);
        if value.is_none() || seen & bit != 0 {
            return Ok(());
        }
        seen |= bit;
        if let Some(to) = numbers.get_mut(place) {
            *to = number(&value)?;
        } else {
            others[place - NUMBERS] = Some(value);
        }
        Ok(())
    })?;
    if seen & (1 << Field::Input as u32 | 1 << Field::Output as u32) == 0 {
        return Ok(None);
    }
    let n = |field: Field| numbers[field as usize];
    let other = |field: Field| others[field as usize - NUMBERS].as_ref();
    let (mut into, out_of) = (details(other(Field::Into))?, details(other(Field::OutOf))?);
    let cached = match &into.cached {
        Some(cached) if cached.cast::<PyDict>().is_ok_and(|cached| !cached.is_empty()) => details(Some(cached))?,
        Some(cached) if !cached.is_none() => return Err(Stop::Careful),
        _ => details(other(Field::Cached))?,
    };
    if let Some(lifetimes) = other(Field::Lifetimes) {
        add_lifetimes(&mut into, lifetimes)?;
    }
    let either = |first: u64, second: u64| if first == 0 { second } else { first };
    let (read_beside, write_beside) = (n(Field::ReadBeside), n(Field::WriteBeside));
    let read = either(into.get(Part::CacheRead), either(read_beside, n(Field::ReadWithin)));
    // One total or its two parts, never both.
    let lifetimes = into.get(Part::Five) + into.get(Part::Hour);
    let write = either(into.get(Part::CacheWrite), either(write_beside, lifetimes));
    let (mut input, mut output, mut total) = (n(Field::Input), n(Field::Output), n(Field::Total));
    if (read_beside != 0 || write_beside != 0) && other(Field::Into).is_none() {
        input += read + write;
        total = total.max(input + output);
    }
    input += n(Field::ToolPrompt);
    output += n(Field::Thoughts);
    let (apart, citation) = (n(Field::Reasoning), n(Field::Citation));
    let mut usage = Usage::default();
    for (counter, count) in [
        (Counter::Input, input),
        (Counter::Output, output),
        (Counter::Total, either(total, input + output)),
        (Counter::CacheRead, read),
        (Counter::CacheWrite, write),
        (Counter::CacheWrite1h, into.get(Part::Hour)),
        (Counter::Reasoning, either(out_of.get(Part::Reasoning), either(n(Field::Thoughts), apart))),
        (Counter::AudioInput, into.get(Part::Audio)),
        (Counter::AudioOutput, out_of.get(Part::Audio)),
        (Counter::ImageInput, into.get(Part::Image)),
        (Counter::ImageOutput, out_of.get(Part::Image)),
        (Counter::VideoInput, into.get(Part::Video)),
        (Counter::VideoOutput, out_of.get(Part::Video)),
        (Counter::CachedAudio, cached.get(Part::Audio)),
        (Counter::CachedImage, cached.get(Part::Image)),
        (Counter::Citation, citation),
        (
            Counter::WebSearches,
            either(searches(other(Field::Tools))?, either(n(Field::Searches), into.get(Part::Searches))),
        ),
    ] {
        usage[counter as usize] = count;
    }
    if let Some(iterations) = other(Field::Iterations)
        && compacted(iterations)?
    {
        return Err(Stop::Careful);
    }
    // Perplexity's deep research: neither its reasoning nor its citations are in its output.
    let extra = citation + if citation > 0 || apart > n(Field::Output) + n(Field::Thoughts) { apart } else { 0 };
    let mut modifiers = Modifiers::default();
    let in_details = if into.tier.is_empty() { out_of.tier } else { into.tier };
    modifiers.set(|named| &mut named.tier, in_details.to_owned());
    if let Some(name) = other(Field::Tier) {
        modifiers.set(|named| &mut named.tier, tier(name)?);
    }
    if let Some(name) = other(Field::Speed) {
        modifiers.set(|named| &mut named.speed, modifier(name, USUAL)?);
    }
    if let Some(name) = other(Field::Region) {
        modifiers.set(|named| &mut named.region, modifier(name, USUAL)?);
    }
    if let Some(name) = other(Field::Context) {
        modifiers.set(|named| &mut named.context, modifier(name, USUAL)?);
    }
    let queue = other(Field::Queue).and_then(waited);
    Ok(Some(Mapped { usage, extra, modifiers, queue, unknown }))
}

/// Cache writes by lifetime: a mapping from Anthropic, a list from Bedrock.
fn add_lifetimes(parts: &mut Parts<'_>, lifetimes: &Bound<'_, PyAny>) -> Read<()> {
    let py = lifetimes.py();
    if let Ok(lifetimes) = lifetimes.cast::<PyDict>() {
        for (part, key) in [
            (Part::Five, intern!(py, "ephemeral_5m_input_tokens")),
            (Part::Hour, intern!(py, "ephemeral_1h_input_tokens")),
        ] {
            if let Some(count) = lifetimes.get_item(key)? {
                parts.counts[part as usize] += number(&count)?;
            }
        }
    } else if let Ok(lifetimes) = lifetimes.cast::<PyList>() {
        for item in lifetimes.iter() {
            let Ok(item) = item.cast::<PyDict>() else { continue };
            let Some(ttl) = entry(item, &[intern!(py, "ttl")])? else { continue };
            let part = match ttl.cast_exact::<PyString>().map_err(|_| Stop::Careful)?.to_str()? {
                "5m" => Part::Five,
                "1h" => Part::Hour,
                _ => continue,
            };
            if let Some(count) = item.get_item(intern!(py, "inputTokens"))? {
                parts.counts[part as usize] += number(&count)?;
            }
        }
    }
    Ok(())
}

/// Web searches among the calls of tools, whoever counts them.
fn searches(tools: Option<&Bound<'_, PyAny>>) -> Read<u64> {
    let Some(Ok(tools)) = tools.map(|tools| tools.cast::<PyDict>()) else { return Ok(0) };
    let mut count = 0;
    for (key, value) in tools.iter() {
        let Ok(key) = key.cast::<PyString>() else { continue };
        let Ok(key) = key.to_str() else { continue };
        if !SEARCH_TOOLS.iter().any(|tool| key.eq_ignore_ascii_case(tool)) {
            continue;
        }
        let Ok(tool) = value.cast::<PyDict>() else {
            count += number(&value)?;
            continue;
        };
        for times in TIMES {
            if let Some(times) = tool.get_item(times)?.filter(|times| !times.is_none()) {
                count += number(&times)?;
                break;
            }
        }
    }
    Ok(count)
}

/// Whether Claude used more than its answer: compaction is in no sum, messages are in all. An iteration that names a
/// model (an advisor's) is that of another model.
fn compacted(iterations: &Bound<'_, PyAny>) -> Read<bool> {
    let Ok(iterations) = iterations.cast::<PyList>() else { return Ok(false) };
    for item in iterations.iter() {
        let Ok(item) = item.cast::<PyDict>() else { continue };
        let py = item.py();
        let message = match item.get_item(intern!(py, "type"))? {
            Some(kind) => match kind.cast_exact::<PyString>() {
                Ok(kind) => kind.to_str()? == "message",
                Err(_) => false,
            },
            None => false,
        };
        if !message && entry(item, &[intern!(py, "model")])?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}
