//! Clients seen last: which provider and model each of them requests, and who answered, as handles into the
//! recorder instead of names.
//!
//! LangChain makes the dict `serialized` once for each client and hands it to every call: a client is known by that
//! dict and by what a call may say of its provider and model. A start then looks nothing up in the recorder, and an
//! end finds the series and the rate card of its answer in one list.

use crate::cards::{Cards, Priced};
use crate::hooks::model_start::{Start, entry, name_of};
use crate::rate_card::RateCard;
use crate::services::Services;
use langmeter_core::{Kind, OTHER, Recorder, SeriesId};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::{MutexExt, PyOnceLock};
use pyo3::types::{PyDict, PyString, PyTuple};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Clients that are remembered, and models.
const MAX_CLIENTS: usize = 32;
/// Names that a model answers under, of each model.
const MAX_ANSWERS: usize = 16;
/// Where invocation parameters name the model, in the order in which they are asked.
pub const MODEL_KEYS: [&str; 5] = ["model", "model_name", "model_id", "azure_deployment", "deployment_name"];
/// Where the integrations keep the address, in their constructor or their invocation parameters.
pub const ADDRESS_KEYS: [&str; 6] =
    ["openai_api_base", "base_url", "api_base", "azure_endpoint", "anthropic_api_url", "endpoint"];

/// The entry of a call's metadata that names its provider, whatever LangChain calls it.
pub const PROVIDER_KEY: &str = "langmeter_provider";
/// Where invocation parameters name the deployment.
pub const DEPLOYMENT_KEYS: [&str; 2] = ["azure_deployment", "deployment_name"];

type Text = Option<Py<PyString>>;
/// What `Services.requested` returns.
type Requested<'py> = (Bound<'py, PyString>, Bound<'py, PyString>, bool, Bound<'py, PyString>, Bound<'py, PyString>);

/// A client, and what its calls request.
pub struct Client {
    serialized: Py<PyAny>,
    /// The user's name of the provider.
    told_name: Text,
    told_provider: Text,
    told_model: Text,
    /// The address that a call itself named, of a client whose provider depends on that.
    address: Option<Text>,
    pub component_name: Py<PyString>,
    pub provider: Py<PyString>,
    pub model_name: Py<PyString>,
    /// The deployment that is called, which may have a price of its own.
    pub deployment: Text,
    /// LangChain's name of the provider, where the user has another one.
    pub vendor: Text,
    /// Both of them, "" for none, where there is one.
    pub called: Option<Py<PyTuple>>,
    /// The invocation parameters name it.
    told_deployment: Text,
    /// None where the recorder has no series to spare.
    pub component: Option<SeriesId>,
    pub model: Option<Arc<Model>>,
}

/// A model that is requested.
pub struct Model {
    pub series: SeriesId,
    /// Its last answer said what it used.
    sends_usage: AtomicBool,
    /// It has streamed.
    streams: AtomicBool,
    answers: Mutex<Arc<Vec<Answer>>>,
}

/// An answer of a model under one name, of a deployment, in a tier.
#[derive(Clone)]
struct Answer {
    told: Option<Arc<str>>,
    deployment: Arc<str>,
    vendor: Arc<str>,
    tier: Arc<str>,
    answered: Arc<Answered>,
    version: u64,
}

/// Names that the end of a call gives.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The model that answered, where the response names it.
    pub told: Option<&'a str>,
    /// The deployment that was called; may be empty.
    pub deployment: &'a str,
    /// LangChain's name of the provider, where the user has another one; may be empty.
    pub vendor: &'a str,
    /// What changes the price; may be empty.
    pub tier: &'a str,
}

/// Who answered, and for how much.
pub struct Answered {
    /// None as requested.
    pub series: Option<SeriesId>,
    /// None where calls are not priced.
    pub card: Option<Py<RateCard>>,
}

/// The clients and models seen last.
#[derive(Default)]
pub struct Clients {
    seen: Mutex<Arc<Seen>>,
}

#[derive(Default, Clone)]
struct Seen {
    clients: Vec<Arc<Client>>,
    models: Vec<Arc<Model>>,
}

/// Takes a copy of what a lock holds: nothing that could run Python code happens under it.
fn copied<T>(lock: &Mutex<Arc<T>>, py: Python<'_>) -> Arc<T> {
    Arc::clone(&lock.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
}

/// Puts something else there; what was there is dropped outside of the lock.
fn replace<T>(lock: &Mutex<Arc<T>>, py: Python<'_>, fresh: T) {
    let fresh = Arc::new(fresh);
    let old = std::mem::replace(&mut *lock.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner), fresh);
    drop(old);
}

fn same(known: &Text, told: Option<&Bound<'_, PyString>>) -> bool {
    match (known, told) {
        (None, None) => true,
        (Some(known), Some(told)) => {
            known.is(told)
                || matches!((known.bind(told.py()).to_cow(), told.to_cow()), (Ok(known), Ok(told)) if known == told)
        }
        _ => false,
    }
}

/// Whether it is this very object.
fn is(known: &Text, told: Option<&Bound<'_, PyAny>>) -> bool {
    known.as_ref().zip(told).is_some_and(|(known, told)| known.is(told))
}

/// A text, if it is not empty.
fn given(text: &Bound<'_, PyString>) -> Text {
    text.len().is_ok_and(|n| n > 0).then(|| text.clone().unbind())
}

/// A value as a text; None where it is none or empty.
fn not_empty(value: Bound<'_, PyAny>) -> Option<Bound<'_, PyString>> {
    value.cast_into::<PyString>().ok().filter(|text| text.len().is_ok_and(|n| n > 0))
}

/// Whether a mapping has an entry of one of these names.
fn has_any<const N: usize>(of: Option<&Bound<'_, PyAny>>, keys: &[Py<PyString>; N], py: Python<'_>) -> PyResult<bool> {
    let Some(Ok(of)) = of.map(|of| of.cast::<PyDict>()) else { return Ok(false) };
    for key in keys {
        if of.contains(key.bind(py))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn first_text<'py, const N: usize>(
    of: Option<&Bound<'py, PyAny>>,
    keys: &[Py<PyString>; N],
    py: Python<'py>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    for key in keys {
        let text = entry(of, key.bind(py))?.and_then(not_empty);
        if text.is_some() {
            return Ok(text);
        }
    }
    Ok(None)
}

struct Keys {
    models: [Py<PyString>; MODEL_KEYS.len()],
    addresses: [Py<PyString>; ADDRESS_KEYS.len()],
    deployments: [Py<PyString>; DEPLOYMENT_KEYS.len()],
}

fn keys(py: Python<'_>) -> &Keys {
    static KEYS: PyOnceLock<Keys> = PyOnceLock::new();
    let interned = |key| PyString::intern(py, key).unbind();
    KEYS.get_or_init(py, || Keys {
        models: MODEL_KEYS.map(interned),
        addresses: ADDRESS_KEYS.map(interned),
        deployments: DEPLOYMENT_KEYS.map(interned),
    })
}

impl Model {
    /// Whether a call may need its prompt at its end: nothing says that its answer will name what it used, or it may
    /// be a stream that breaks.
    pub fn needs_prompts(&self) -> bool {
        !self.sends_usage.load(Relaxed) || self.streams.load(Relaxed)
    }

    fn answer(&self, names: Names<'_>, py: Python<'_>, priced: bool, version: u64) -> Option<Arc<Answered>> {
        let answers = copied(&self.answers, py);
        let answer = answers.iter().find(|answer| answer.is_of(names))?;
        let holds = answer.version == version && answer.answered.card.is_some() == priced;
        holds.then(|| Arc::clone(&answer.answered))
    }

    fn remember(&self, answer: Answer, py: Python<'_>) {
        let mut answers = copied(&self.answers, py).as_ref().clone();
        answers.retain(|known| {
            let Answer { deployment, vendor, tier, .. } = &answer;
            !known.is_of(Names { told: answer.told.as_deref(), deployment, vendor, tier })
        });
        if answers.len() >= MAX_ANSWERS {
            answers.remove(0);
        }
        answers.push(answer);
        replace(&self.answers, py, answers);
    }
}

impl Answer {
    fn is_of(&self, names: Names<'_>) -> bool {
        self.told.as_deref() == names.told
            && *self.deployment == *names.deployment
            && *self.vendor == *names.vendor
            && *self.tier == *names.tier
    }
}

impl Client {
    /// Whether a call is of the client's deployment. Only of one that has any: no other pays for looking.
    fn calls(&self, params: Option<&Bound<'_, PyAny>>, keys: &Keys, py: Python<'_>) -> PyResult<bool> {
        Ok(match &self.told_deployment {
            None => true,
            known => same(known, first_text(params, &keys.deployments, py)?.as_ref()),
        })
    }
}

impl Clients {
    /// The client of a call.
    pub fn of<'py>(services: &Bound<'py, Services>, core: &Recorder, start: &Start<'_, 'py>) -> PyResult<Arc<Client>> {
        let (py, this) = (services.py(), &services.get().clients);
        let (keys, seen) = (keys(py), copied(&this.seen, py));
        let provider = entry(start.metadata.as_ref(), intern!(py, "ls_provider"))?;
        let model = entry(start.metadata.as_ref(), intern!(py, "ls_model_name"))?;
        let name = entry(start.metadata.as_ref(), intern!(py, PROVIDER_KEY))?;
        // Nearly always the very texts that the client named before, and no address.
        for client in seen.clients.iter().filter(|client| client.serialized.is(&start.serialized)) {
            if is(&client.told_provider, provider.as_ref())
                && is(&client.told_model, model.as_ref())
                && (is(&client.told_name, name.as_ref()) || (client.told_name.is_none() && name.is_none()))
                && match &client.address {
                    None => true,
                    Some(None) => !has_any(start.invocation_params()?.as_ref(), &keys.addresses, py)?,
                    Some(Some(_)) => false,
                }
                && (client.told_deployment.is_none() || client.calls(start.invocation_params()?.as_ref(), keys, py)?)
            {
                return Ok(Arc::clone(client));
            }
        }
        let params = start.invocation_params()?;
        let (provider, model) = (provider.and_then(not_empty), model.and_then(not_empty));
        let name = name.and_then(not_empty);
        let model = match model {
            Some(model) => Some(model),
            None => first_text(params.as_ref(), &keys.models, py)?,
        };
        let address = || first_text(params.as_ref(), &keys.addresses, py);
        for client in seen.clients.iter().filter(|client| client.serialized.is(&start.serialized)) {
            if same(&client.told_provider, provider.as_ref())
                && same(&client.told_model, model.as_ref())
                && same(&client.told_name, name.as_ref())
            {
                match &client.address {
                    Some(known) if !same(known, address()?.as_ref()) => continue,
                    _ => {}
                }
                if client.calls(params.as_ref(), keys, py)? {
                    return Ok(Arc::clone(client));
                }
            }
        }
        let call = (&start.metadata, &params, &start.serialized);
        let names = services.call_method1(intern!(py, "requested"), call)?;
        let (asked_provider, asked_model, by_address, deployment, vendor): Requested<'_> = names.extract()?;
        let called = (given(&deployment), given(&vendor));
        let called = match called {
            (None, None) => None,
            _ => Some((&deployment, &vendor).into_pyobject(py)?.unbind()),
        };
        let component_name = name_of(None, &start.serialized, intern!(py, "llm"))?;
        let component = core.series(Kind::Llm, &component_name.to_string_lossy(), "");
        let series = core.series(Kind::Model, &asked_provider.to_string_lossy(), &asked_model.to_string_lossy());
        let plain = |text: Option<Bound<'_, PyString>>| text.map(Bound::unbind);
        let there = |series| seen.models.iter().find(|model| model.series == series).map(Arc::clone);
        let client = Arc::new(Client {
            serialized: start.serialized.clone().unbind(),
            told_name: plain(name),
            told_provider: plain(provider),
            told_model: plain(model),
            address: if by_address { Some(plain(address()?)) } else { None },
            component_name: component_name.unbind(),
            provider: asked_provider.unbind(),
            model_name: asked_model.unbind(),
            deployment: given(&deployment),
            vendor: given(&vendor),
            called,
            told_deployment: plain(first_text(params.as_ref(), &keys.deployments, py)?),
            component: component.lasting(),
            model: series.lasting().map(|series| there(series).unwrap_or_else(|| Arc::new(Model::new(series)))),
        });
        if start.serialized.is_instance_of::<PyDict>() {
            this.remember(&client, py);
        }
        Ok(client)
    }

    fn remember(&self, client: &Arc<Client>, py: Python<'_>) {
        let mut seen = copied(&self.seen, py).as_ref().clone();
        if seen.clients.len() >= MAX_CLIENTS {
            seen.clients.remove(0);
        }
        seen.clients.push(Arc::clone(client));
        if let Some(model) = &client.model
            && !seen.models.iter().any(|known| known.series == model.series)
        {
            if seen.models.len() >= MAX_CLIENTS {
                seen.models.remove(0);
            }
            seen.models.push(Arc::clone(model));
        }
        replace(&self.seen, py, seen);
    }

    /// The model of a series, if it was requested lately.
    pub fn model(&self, series: SeriesId, py: Python<'_>) -> Option<Arc<Model>> {
        copied(&self.seen, py).models.iter().find(|model| model.series == series).map(Arc::clone)
    }

    /// Notes whether a model said what it used, and whether it streamed.
    pub fn ended(&self, series: SeriesId, sends_usage: bool, streamed: bool, py: Python<'_>) {
        if let Some(model) = self.model(series, py) {
            model.ended(sends_usage, streamed);
        }
    }

    /// Forgets everything: the handles are of a recorder that was reset.
    pub fn forget(&self, py: Python<'_>) {
        replace(&self.seen, py, Seen::default());
    }
}

impl Model {
    fn new(series: SeriesId) -> Self {
        Self { series, sends_usage: false.into(), streams: false.into(), answers: Mutex::default() }
    }

    /// Notes whether it said what it used, and whether it streamed.
    pub fn ended(&self, sends_usage: bool, streamed: bool) {
        if self.sends_usage.load(Relaxed) != sends_usage {
            self.sends_usage.store(sends_usage, Relaxed);
        }
        if streamed && !self.streams.load(Relaxed) {
            self.streams.store(true, Relaxed);
        }
    }
}

/// Who answered under these names, and for how much; None where that has to be looked for with care. `known` is the
/// requested model, where it is remembered; `again` looks the rate card up once more.
pub fn answered(
    core: &Recorder,
    cards: Option<&Bound<'_, Cards>>,
    asked: SeriesId,
    known: Option<&Model>,
    by: Names<'_>,
    py: Python<'_>,
    again: bool,
) -> Option<Arc<Answered>> {
    let version = cards.map_or(0, |cards| cards.get().version());
    if !again && let Some(found) = known.and_then(|model| model.answer(by, py, cards.is_some(), version)) {
        return Some(found);
    }
    let names = core.names(asked).filter(|names| !names.a.is_empty() && names.a != OTHER)?;
    let Names { told, deployment, vendor, tier } = by;
    let card = match cards {
        Some(cards) => {
            let (model, requested) = match told {
                Some(told) if told != names.b => (told, names.b.as_str()),
                _ => (names.b.as_str(), ""),
            };
            let priced = Priced { provider: &names.a, model, requested, deployment, vendor, tier };
            Some(cards.get().card(py, &priced)?)
        }
        None => None,
    };
    let series = told.map(|told| core.series(Kind::Model, &names.a, told));
    let lasting = series.is_none_or(|series| series.lasting().is_some());
    let answered = Arc::new(Answered { series: series.map(|series| series.id), card });
    if lasting && let Some(known) = known {
        let [deployment, vendor, tier] = [deployment, vendor, tier].map(Arc::from);
        let (told, answered) = (told.map(Arc::from), Arc::clone(&answered));
        known.remember(Answer { told, deployment, vendor, tier, answered, version }, py);
    }
    Some(answered)
}
