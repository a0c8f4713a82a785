//! Metadata of a message or of a text: names, how the answer ended, and where usage stands.

use crate::response::keys::{Field, PLACES, REASONS, TOO_LONG, USUAL};
use crate::response::usage::{self, Modifiers, Read, Stop};
use crate::response::words::Words;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

/// Words that stand in the metadata of many clients and mean nothing here: in the table their addresses are enough.
const MEANINGLESS: &[&str] = &["id", "object", "created", "system_fingerprint", "logprobs", "model_version", "index"];

/// Mappings of usage of one candidate, the most likely first: nearly always one.
#[derive(Default)]
pub struct Raws<'py> {
    pub first: Option<Bound<'py, PyDict>>,
    pub others: Vec<Bound<'py, PyDict>>,
}

impl<'py> Raws<'py> {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn push(&mut self, raw: Bound<'py, PyDict>) {
        if self.first.is_none() {
            self.first = Some(raw);
        } else {
            self.others.push(raw);
        }
    }
}

/// Metadata, read in one pass.
#[derive(Default)]
pub struct Metadata<'py> {
    pub dialect: Option<Bound<'py, PyString>>,
    pub names: [Option<Bound<'py, PyString>>; 3],
    raws: [Option<Bound<'py, PyDict>>; PLACES.len()],
    /// The counts stand among them, as Ollama writes them.
    itself: bool,
    pub cost: Option<Bound<'py, PyAny>>,
    pub ticks: Option<Bound<'py, PyAny>>,
    tier: Option<Bound<'py, PyAny>>,
    tier_of_aws: Option<Bound<'py, PyAny>>,
    /// Of Vertex AI.
    traffic: Option<Bound<'py, PyAny>>,
    performance: Option<Bound<'py, PyAny>>,
    /// Speed, region, size of a search.
    others: [Option<Bound<'py, PyAny>>; 3],
    pub grounding: [Option<Bound<'py, PyAny>>; 2],
    /// Output items, tools that were called.
    pub items: [Option<Bound<'py, PyAny>>; 3],
    incomplete: Option<Bound<'py, PyAny>>,
    pub truncated: bool,
    pub searches: u64,
}

/// What a key of metadata means.
#[derive(Clone, Copy)]
enum Key {
    Dialect,
    Name(usize),
    Cost,
    Ticks,
    Tier,
    TierOfAws,
    Traffic,
    Performance,
    Other(usize),
    Items(usize),
    Grounding(usize),
    Searches,
    Incomplete,
    Reason,
    Place(usize),
    Count,
}

impl Key {
    const WORDS: [&str; 21] = [
        "model_provider",
        "model_name",
        "model",
        "model_id",
        "cost",
        "cost_in_usd_ticks",
        "service_tier",
        "serviceTier",
        "traffic_type",
        "trafficType",
        "performanceConfig",
        "speed",
        "inference_geo",
        "search_context_size",
        "output",
        "tool_outputs",
        "executed_tools",
        "grounding_metadata",
        "groundingMetadata",
        "num_search_queries",
        "incomplete_details",
    ];

    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "model_provider" => Self::Dialect,
            "model_name" => Self::Name(0),
            "model" => Self::Name(1),
            "model_id" => Self::Name(2),
            "cost" => Self::Cost,
            "cost_in_usd_ticks" => Self::Ticks,
            "service_tier" => Self::Tier,
            "serviceTier" => Self::TierOfAws,
            "traffic_type" | "trafficType" => Self::Traffic,
            "performanceConfig" => Self::Performance,
            "speed" => Self::Other(0),
            "inference_geo" => Self::Other(1),
            "search_context_size" => Self::Other(2),
            "output" => Self::Items(0),
            "tool_outputs" => Self::Items(1),
            "executed_tools" => Self::Items(2),
            "grounding_metadata" => Self::Grounding(0),
            "groundingMetadata" => Self::Grounding(1),
            // Perplexity's, which its client takes out of the usage.
            "num_search_queries" => Self::Searches,
            "incomplete_details" => Self::Incomplete,
            _ if REASONS.contains(&key) => Self::Reason,
            _ => match PLACES.iter().position(|place| *place == key) {
                Some(place) => Self::Place(place),
                None if matches!(Field::of(key), Some(Field::Input | Field::Output)) => Self::Count,
                None => return None,
            },
        })
    }

    fn of_key(key: &Bound<'_, PyString>) -> PyResult<Option<Self>> {
        static TABLE: PyOnceLock<Words<Option<Key>>> = PyOnceLock::new();
        let py = key.py();
        let table = TABLE.get_or_init(py, || {
            let words = Self::WORDS.iter().chain(REASONS).chain(PLACES).chain(MEANINGLESS);
            Words::new(py, words.map(|word| (*word, Self::of(word))))
        });
        match table.by_address(key) {
            None => Ok(Self::of(key.to_str()?)),
            Some(meaning) => Ok(meaning),
        }
    }
}

impl<'py> Metadata<'py> {
    pub fn of(meta: &Bound<'py, PyDict>) -> Read<Self> {
        let mut metadata = Self::default();
        usage::each(meta, Key::of_key, |key, _, value| {
            match key {
                None => {}
                Some(Key::Dialect) => metadata.dialect = filled(value),
                Some(Key::Name(place)) => metadata.names[place] = filled(value),
                Some(Key::Cost) => metadata.cost = Some(value),
                Some(Key::Ticks) => metadata.ticks = Some(value),
                Some(Key::Tier) => metadata.tier = Some(value),
                Some(Key::TierOfAws) => metadata.tier_of_aws = Some(value),
                Some(Key::Traffic) => metadata.traffic = Some(value),
                Some(Key::Performance) => metadata.performance = Some(value),
                Some(Key::Other(place)) => metadata.others[place] = Some(value),
                Some(Key::Items(place)) => metadata.items[place] = Some(value),
                Some(Key::Grounding(place)) => metadata.grounding[place] = Some(value),
                Some(Key::Searches) => metadata.searches = usage::number(&value)?,
                Some(Key::Incomplete) => metadata.incomplete = Some(value),
                Some(Key::Reason) => metadata.truncated |= too_long(&value)?,
                Some(Key::Place(place)) => {
                    metadata.raws[place] = value.cast_into::<PyDict>().ok().filter(|raw| !raw.is_empty());
                }
                Some(Key::Count) => metadata.itself = true,
            }
            Ok(())
        })?;
        if let Some(Ok(details)) = metadata.incomplete.as_ref().map(|details| details.cast::<PyDict>())
            && let Some(reason) = details.get_item(intern!(meta.py(), "reason"))?
        {
            metadata.truncated |= too_long(&reason)?;
        }
        Ok(metadata)
    }

    pub fn take_raws(&mut self, meta: &Bound<'py, PyDict>, to: &mut Raws<'py>) {
        self.raws.iter_mut().filter_map(Option::take).for_each(|raw| to.push(raw));
        if self.itself {
            to.push(meta.clone());
        }
    }

    /// The same from metadata that are read again, without what is there already; whether there was more.
    pub fn raws(&self, meta: &Bound<'py, PyDict>, to: &mut Raws<'py>) -> bool {
        let before = to.len();
        let itself = self.itself.then_some(meta);
        self.raws.iter().flatten().chain(itself).for_each(|raw| {
            if !to.first.iter().chain(&to.others).any(|known| known.is(raw)) {
                to.push(raw.clone());
            }
        });
        to.len() > before
    }

    pub fn model(&mut self) -> Option<Bound<'py, PyString>> {
        self.names.iter_mut().find_map(Option::take)
    }

    pub fn modifiers(&self) -> Read<Modifiers> {
        let mut modifiers = Modifiers::default();
        match &self.tier {
            Some(tier) if tier.cast::<PyString>().is_ok_and(not_empty) => {
                modifiers.set(|named| &mut named.tier, usage::tier(tier)?);
            }
            Some(tier) if tier.cast::<PyString>().is_err() && !tier.is_none() => return Err(Stop::Careful),
            _ => {
                let traffic = self.traffic.as_ref().filter(|traffic| !traffic.is_none());
                // A mapping of Bedrock, a text of Google.
                let text = self.tier_of_aws.clone().filter(|tier| tier.cast::<PyString>().is_ok_and(not_empty));
                let named = inside(self.tier_of_aws.as_ref(), "type")?.or(text);
                if let Some(name) = named.or_else(|| traffic.cloned()) {
                    modifiers.set(|named| &mut named.tier, usage::tier(&name)?);
                }
            }
        }
        if let Some(latency) = inside(self.performance.as_ref(), "latency")? {
            modifiers.set(|named| &mut named.latency, usage::modifier(&latency, USUAL)?);
        }
        let [speed, region, context] = &self.others;
        if let Some(speed) = speed {
            modifiers.set(|named| &mut named.speed, usage::modifier(speed, USUAL)?);
        }
        if let Some(region) = region {
            modifiers.set(|named| &mut named.region, usage::modifier(region, USUAL)?);
        }
        if let Some(context) = context {
            modifiers.set(|named| &mut named.context, usage::modifier(context, USUAL)?);
        }
        Ok(modifiers)
    }
}

/// An entry of a mapping that is not None; None where it is missing or the value is not a mapping.
pub fn inside<'py>(of: Option<&Bound<'py, PyAny>>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    match of.map(|of| of.cast::<PyDict>()) {
        Some(Ok(of)) => Ok(of.get_item(key)?.filter(|value| !value.is_none())),
        _ => Ok(None),
    }
}

/// A text that is not empty.
fn filled(value: Bound<'_, PyAny>) -> Option<Bound<'_, PyString>> {
    value.cast_into::<PyString>().ok().filter(not_empty)
}

fn not_empty(text: &Bound<'_, PyString>) -> bool {
    text.len().is_ok_and(|n| n > 0)
}

fn too_long(reason: &Bound<'_, PyAny>) -> Read<bool> {
    let Ok(reason) = reason.cast::<PyString>() else { return Ok(false) };
    Ok(TOO_LONG.contains(&reason.to_str().map_err(|_| Stop::Careful)?))
}
