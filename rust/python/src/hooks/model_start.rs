//! The start of a model call: who is asked, what for, and on whose behalf.

use crate::hooks::Arguments;
use crate::hooks::clients::Clients;
use crate::hooks::demand::{Asked, Call};
use crate::hooks::identity;
use crate::hooks::labels;
use crate::hooks::prompts;
use crate::recorder::{No, judged};
use crate::services::Services;
use langmeter_core::{Begin, End, Kind, Outcome, Started};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

/// Begins the tag of a second attempt of `with_retry` or a later one.
pub const RETRY_TAG: &str = "retry:attempt:";

/// What a start hook is given.
pub struct Start<'a, 'py> {
    given: Arguments<'a, 'py>,
    pub serialized: Bound<'py, PyAny>,
    pub prompts: Bound<'py, PyAny>,
    pub run_id: Bound<'py, PyAny>,
    pub parent_run_id: Option<Bound<'py, PyAny>>,
    pub tags: Option<Bound<'py, PyAny>>,
    pub metadata: Option<Bound<'py, PyAny>>,
    pub name: Option<Bound<'py, PyAny>>,
}

impl<'a, 'py> Start<'a, 'py> {
    /// Reads the arguments of a start hook whose second parameter has the name `second`.
    #[inline]
    pub fn of(given: Arguments<'a, 'py>, second: &Bound<'py, PyString>) -> PyResult<Self> {
        let py = second.py();
        Ok(Self {
            given,
            serialized: given.at(0, intern!(py, "serialized"))?,
            prompts: given.at(1, second)?,
            run_id: given.required(intern!(py, "run_id"))?,
            parent_run_id: given.get(intern!(py, "parent_run_id"))?,
            tags: given.get(intern!(py, "tags"))?,
            metadata: given.get(intern!(py, "metadata"))?,
            name: given.get(intern!(py, "name"))?,
        })
    }

    /// Looks up the parameters of the request, which most calls do without.
    pub fn invocation_params(&self) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.given.get(intern!(self.serialized.py(), "invocation_params"))
    }

    /// Looks up how many prompts go together; None where that is not known.
    pub fn batch_size(&self) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.given.get(intern!(self.serialized.py(), "batch_size"))
    }
}

/// The entry of what is a dict, if it has it.
pub fn entry<'py>(of: Option<&Bound<'py, PyAny>>, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    of.and_then(|m| m.cast::<PyDict>().ok()).map_or(Ok(None), |dict| dict.get_item(key))
}

/// What a run's own tags say of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tagged {
    /// A second attempt of `with_retry`, or a later one.
    pub retried: bool,
    /// A step of a sequence but its first.
    pub piped: bool,
    /// A step of a graph.
    pub node: bool,
}

impl Tagged {
    /// Reads the tags of a start hook.
    pub fn by(tags: Option<&Bound<'_, PyAny>>) -> Self {
        let mut tagged = Self::default();
        let Some(Ok(tags)) = tags.map(|tags| tags.cast::<PyList>()) else { return tagged };
        for tag in tags.iter() {
            if let Ok(tag) = tag.cast::<PyString>() {
                let tag = tag.to_string_lossy();
                tagged.retried |= tag.starts_with(RETRY_TAG);
                tagged.piped |= tag.strip_prefix("seq:step:").is_some_and(|step| step != "1");
                tagged.node |= tag.starts_with("graph:step:");
            }
        }
        tagged
    }
}

/// Name of a run: as the user or LangChain called it, else its class.
pub fn name_of<'py>(
    name: Option<&Bound<'py, PyAny>>,
    serialized: &Bound<'py, PyAny>,
    fallback: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyString>> {
    let py = serialized.py();
    let mut value = name.filter(|n| !n.is_none()).cloned();
    if !value.as_ref().map_or(Ok(false), PyAnyMethods::is_truthy)? {
        value = entry(Some(serialized), intern!(py, "name"))?;
        if !value.as_ref().map_or(Ok(false), PyAnyMethods::is_truthy)? {
            let path = entry(Some(serialized), intern!(py, "id"))?;
            value = path
                .and_then(|path| path.cast_into::<PyList>().ok())
                .filter(|p| !p.is_empty())
                .map_or(Ok(None), |path| path.get_item(path.len() - 1).map(Some))?;
        }
    }
    match value {
        Some(value) if value.is_truthy()? => value.cast_into::<PyString>().or_else(|e| e.into_inner().str()),
        _ => Ok(fallback.clone()),
    }
}

/// Whether this is the only prompt of its batch, if the size of the batch is known.
pub fn alone(batch_size: Option<&Bound<'_, PyAny>>) -> bool {
    batch_size.is_none_or(|n| n.extract::<u64>().is_ok_and(|n| n == 1))
}

/// A model call begins, or does not fit a budget: which, and the thresholds crossed.
pub fn begin(services: &Bound<'_, Services>, start: &Start<'_, '_>) -> PyResult<Result<Started, No>> {
    let (py, this) = (services.py(), services.get());
    let recorder = this.recorder(py)?;
    let core = &recorder.get().core;
    let client = Clients::of(services, core, start)?;
    let tagged = Tagged::by(start.tags.as_ref());
    let labels = labels::of(services, (core, &recorder.get().imports), start)?;
    let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_ref())).collect();
    let number = identity::run_number(&start.run_id)?;
    let key = identity::key_of(&number)?;
    let (provider, model) = (client.provider.bind(py), client.model_name.bind(py));
    let demand = match &this.demand {
        Some(demands) => {
            let (provider, model) = (provider.to_string_lossy(), model.to_string_lossy());
            let (prompts, metadata, tags) = (&start.prompts, start.metadata.as_ref(), start.tags.as_ref());
            let params = start.invocation_params()?;
            let params = params.as_ref();
            let deployment = client.deployment.as_ref().map(|name| name.bind(py).to_string_lossy());
            let vendor = client.vendor.as_ref().map(|name| name.bind(py).to_string_lossy());
            let names = Asked {
                provider: &provider,
                model: &model,
                deployment: deployment.as_deref().unwrap_or(""),
                vendor: vendor.as_deref().unwrap_or(""),
                answered: client.model.as_ref().and_then(|model| Some((core, core.answered_last(model.series)?))),
            };
            demands.get().of(py, &Call { names, prompts, metadata, tags, params })?
        }
        None => None,
    };
    let component = match (&start.name, client.component) {
        (None, Some(component)) => component,
        (name, _) => {
            let known = client.component_name.bind(py);
            let name = if name.is_none() { known.clone() } else { name_of(name.as_ref(), &start.serialized, known)? };
            core.series(Kind::Llm, &name.to_string_lossy(), "").id
        }
    };
    let requested = match &client.model {
        Some(model) => model.series,
        None => core.series(Kind::Model, &provider.to_string_lossy(), &model.to_string_lossy()).id,
    };
    let begin = Begin {
        key,
        parent: identity::parent_key(start.parent_run_id.as_ref(), &recorder.get().imports, py, key)?,
        kind: Kind::Llm,
        name: "",
        provider: "",
        model: "",
        demand,
        labels: &labels,
        retried: tagged.retried,
        piped: tagged.piped,
        witness: identity::witness(&start.prompts),
    };
    let make_room = this.make_room.as_ref().map(|make| make.bind(py));
    let started = match judged(make_room, |room| core.begin(&begin, component, requested, room))? {
        Ok(started) => started,
        Err(no) => return Ok(Err(no)),
    };
    if let Some(origins) = &this.origins
        && begin.demand.is_some()
        && started != Started::Echo
    {
        origins.note(core, begin.key, &start.run_id)?;
    }
    if let Some(attempts) = &this.attempts
        && started == Started::New
    {
        attempts.join(core, begin.key, begin.parent, start.metadata.as_ref(), py)?;
    }
    if let Some(called) = &client.called
        && started != Started::Echo
    {
        let (called, shares) = (called.bind(py).as_any(), started == Started::SharesId);
        prompts::keep_called(this.called.bind(py), number.clone(), called, shares)?;
    }
    let keeps_prompt = this.keep_prompts || client.model.as_ref().is_none_or(|model| model.needs_prompts());
    if keeps_prompt && started != Started::Echo {
        prompts::keep(this.prompts.bind(py), start, number, started == Started::SharesId)?;
    }
    Ok(Ok(started))
}

/// One of the calls that begin together was started, or refused: then those before it are given up, because
/// LangChain ends none of them.
pub fn batched(services: &Bound<'_, Services>, start: &Start<'_, '_>, refused: bool) -> PyResult<()> {
    let (py, batch_size) = (services.py(), start.batch_size()?);
    let Some(recorder) = services.get().recorder_if_mapped() else { return Ok(()) };
    if alone(batch_size.as_ref()) {
        return Ok(());
    }
    let call = (&start.run_id, batch_size, start.invocation_params()?, refused);
    for run_id in services.call_method1(intern!(py, "in_batch"), call)?.try_iter()? {
        let end = End::new(identity::run_key(&run_id?)?, Kind::Llm);
        recorder.get().core.run_ended(&End { outcome: Outcome::Cancelled, ..end });
    }
    Ok(())
}
