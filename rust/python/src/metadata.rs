//! Metadata of a message or of a text: names, how the answer ended, and where usage stands.

use crate::usage::{self, Modifiers, Read, Stop};
use crate::usage_keys::{Field, PLACES, REASONS, TOO_LONG, USUAL};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Metadata, read in one pass.
#[derive(Default)]
pub struct Metadata<'py> {
    pub dialect: Option<Bound<'py, PyString>>,
    pub names: [Option<Bound<'py, PyString>>; 3],
    pub raws: [Option<Bound<'py, PyDict>>; PLACES.len()],
    /// The counts stand among them, as Ollama writes them.
    pub itself: bool,
    pub cost: Option<Bound<'py, PyAny>>,
    pub ticks: Option<Bound<'py, PyAny>>,
    tier: Option<Bound<'py, PyAny>>,
    tier_of_aws: Option<Bound<'py, PyAny>>,
    performance: Option<Bound<'py, PyAny>>,
    pub grounding: [Option<Bound<'py, PyAny>>; 2],
    incomplete: Option<Bound<'py, PyAny>>,
    pub truncated: bool,
    pub searches: u64,
}

impl<'py> Metadata<'py> {
    pub fn of(meta: &Bound<'py, PyDict>) -> Read<Self> {
        let mut found = Self::default();
        usage::each(meta, |key, value| {
            match key {
                "model_provider" => found.dialect = filled(value),
                "model_name" => found.names[0] = filled(value),
                "model" => found.names[1] = filled(value),
                "model_id" => found.names[2] = filled(value),
                "cost" => found.cost = Some(value.clone()),
                "cost_in_usd_ticks" => found.ticks = Some(value.clone()),
                "service_tier" => found.tier = Some(value.clone()),
                "serviceTier" => found.tier_of_aws = Some(value.clone()),
                "performanceConfig" => found.performance = Some(value.clone()),
                "grounding_metadata" => found.grounding[0] = Some(value.clone()),
                "groundingMetadata" => found.grounding[1] = Some(value.clone()),
                // Perplexity's, which its client takes out of the usage.
                "num_search_queries" => found.searches = usage::number(value)?,
                "incomplete_details" => found.incomplete = Some(value.clone()),
                _ if REASONS.contains(&key) => found.truncated |= too_long(value)?,
                _ => {
                    if let Some(place) = PLACES.iter().position(|place| *place == key) {
                        let raw = value.cast::<PyDict>().ok().filter(|raw| !raw.is_empty());
                        found.raws[place] = raw.cloned();
                    } else {
                        found.itself |= matches!(Field::of(key), Some(Field::Input | Field::Output));
                    }
                }
            }
            Ok(())
        })?;
        if let Some(Ok(details)) = found.incomplete.as_ref().map(|details| details.cast::<PyDict>())
            && let Some(reason) = details.get_item(intern!(meta.py(), "reason"))?
        {
            found.truncated |= too_long(&reason)?;
        }
        Ok(found)
    }

    pub fn take_raws(&mut self, meta: &Bound<'py, PyDict>, to: &mut Vec<Bound<'py, PyDict>>) {
        to.extend(self.raws.iter_mut().filter_map(Option::take));
        if self.itself {
            to.push(meta.clone());
        }
    }

    pub fn model(&mut self) -> Option<Bound<'py, PyString>> {
        self.names.iter_mut().find_map(Option::take)
    }

    pub fn modifiers(&self) -> Read<Modifiers> {
        let mut modifiers = Modifiers::default();
        match &self.tier {
            Some(tier) if tier.cast::<PyString>().is_ok_and(|tier| tier.len().is_ok_and(|n| n > 0)) => {
                modifiers.tier = usage::tier(tier)?;
            }
            Some(tier) if tier.cast::<PyString>().is_err() && !tier.is_none() => return Err(Stop::Careful),
            _ => {
                if let Some(named) = inside(self.tier_of_aws.as_ref(), "type")? {
                    modifiers.tier = usage::tier(&named)?;
                }
            }
        }
        if let Some(latency) = inside(self.performance.as_ref(), "latency")? {
            modifiers.latency = usage::modifier(&latency, USUAL)?;
        }
        Ok(modifiers)
    }
}

fn inside<'py>(of: Option<&Bound<'py, PyAny>>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    match of.map(|of| of.cast::<PyDict>()) {
        Some(Ok(of)) => Ok(of.get_item(key)?.filter(|value| !value.is_none())),
        _ => Ok(None),
    }
}

/// A text that is not empty.
fn filled<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyString>> {
    value.cast::<PyString>().ok().filter(|text| text.len().is_ok_and(|n| n > 0)).cloned()
}

fn too_long(reason: &Bound<'_, PyAny>) -> Read<bool> {
    let Ok(reason) = reason.cast::<PyString>() else { return Ok(false) };
    Ok(TOO_LONG.contains(&reason.to_str().map_err(|_| Stop::Careful)?))
}
