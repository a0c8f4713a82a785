//! What a call asks of budgets: which of them it belongs to, and its worst case.

use crate::convert;
use crate::hooks::bounds::{self, Params};
use crate::recorder::Asks;
use langmeter_core::{Demand, Price, Recorder, SeriesId};
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyString;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers kept, of each kind; past it all are forgotten and asked again.
const MOST: usize = 4096;
/// Models that may answer a call, of each that is requested.
const MAX_ANSWERS: usize = 16;
/// After so many calls budgets whose scope has matched none of them are named.
const FIRST_CALLS: u64 = 100;

/// A key of a scope that looks at the run, and the texts of which one has to match; the key `None` is its tags.
type Condition = (Option<Py<PyString>>, Vec<String>);

/// Bits of the budgets that cover every call of a (provider, model), and of those that look at the run.
type Covers = (u64, u64);

/// What `price` answers: version of the prices, Unix time until which they hold, and rates by band; no bands where
/// prices are missing.
type Rates = (u64, f64, Option<Vec<Band>>);
/// What a call costs at worst, and the models that are known to have answered such calls.
type Priced = (Rates, Vec<SeriesId>);
/// Input tokens above which it holds, and the rates as of `Asks`.
type Band = (i64, [u64; 4]);

type Named<T, const N: usize> = ([String; N], Arc<T>);

/// Answers by names.
struct Cache<T, const N: usize> {
    hasher: RandomState,
    answers: Mutex<HashMap<u64, Named<T, N>>>,
}

impl<T, const N: usize> Default for Cache<T, N> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), answers: Mutex::default() }
    }
}

impl<T, const N: usize> Cache<T, N> {
    fn get(&self, py: Python<'_>, names: [&str; N]) -> Option<Arc<T>> {
        let answers = self.answers.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let (same, answer) = answers.get(&self.hasher.hash_one(names))?;
        (same.each_ref().map(String::as_str) == names).then(|| Arc::clone(answer))
    }

    fn keep(&self, py: Python<'_>, names: [&str; N], answer: T) -> Arc<T> {
        let answer = Arc::new(answer);
        let mut answers = self.answers.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.clear();
        }
        answers.insert(self.hasher.hash_one(names), (names.map(str::to_owned), Arc::clone(&answer)));
        answer
    }

    fn forget(&self, py: Python<'_>) {
        self.answers.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Which budgets a call belongs to, and its worst case.
#[pyclass(frozen, module = "langmeter._core")]
pub struct Demands {
    /// By budget: the part of its scope that looks at the run.
    conditions: Vec<Vec<Condition>>,
    /// Bits of the budgets that ask for the worst case in tokens, and for its price.
    bounded: u64,
    priced: u64,
    /// The price book, whose `version` grows when a price may have changed.
    prices: Option<Py<PyAny>>,
    covers: Py<PyAny>,
    price: Py<PyAny>,
    unread: Py<PyAny>,
    counted: Option<Py<PyAny>>,
    calls: AtomicU64,
    /// By provider, model and vendor.
    scopes: Cache<Covers, 3>,
    /// By provider, model, deployment, vendor and tier.
    rates: Cache<Priced, 5>,
}

/// Whom a call asks.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    /// The deployment; may be empty.
    pub deployment: &'a str,
    /// LangChain's name of the provider, where the user has another one; may be empty.
    pub vendor: &'a str,
    /// The model that answered the last such call, under another name.
    pub answered: Option<(&'a Recorder, SeriesId)>,
}

/// What a start hook is given of a call.
pub struct Call<'a, 'py> {
    pub names: Asked<'a>,
    pub prompts: &'a Bound<'py, PyAny>,
    pub metadata: Option<&'a Bound<'py, PyAny>>,
    pub tags: Option<&'a Bound<'py, PyAny>>,
    pub params: Option<&'a Bound<'py, PyAny>>,
}

impl Demands {
    /// What a call asks of budgets; None where it belongs to none.
    pub fn of(&self, py: Python<'_>, call: &Call<'_, '_>) -> PyResult<Option<Demand>> {
        let budgets = self.budgets(py, call)?;
        if budgets & self.bounded == 0 {
            let free = Price::default();
            return Ok((budgets != 0).then_some(Demand {
                budgets,
                input: 0,
                output: Some(0),
                answers: 1,
                price: free,
            }));
        }
        let input = match bounds::input(call.prompts) {
            // Messages of a foreign kind.
            Err(error) if error.is_instance_of::<PyException>(py) => bounds::text(&call.prompts.str()?),
            other => other,
        }?;
        let params = Params::read(call.params, call.metadata)?;
        let input = input.saturating_add(params.beside);
        let price = self.price(py, budgets, &call.names, &params.tier, input)?;
        Ok(Some(Demand { budgets, input, output: params.output, answers: params.answers.max(1), price }))
    }

    /// Forgets who has answered: the handles are of a recorder that was reset.
    pub fn forget(&self, py: Python<'_>) {
        self.rates.forget(py);
    }

    /// The budgets that a call belongs to.
    fn budgets(&self, py: Python<'_>, call: &Call<'_, '_>) -> PyResult<u64> {
        if let Some(counted) = &self.counted
            && self.calls.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == FIRST_CALLS
        {
            counted.call0(py)?;
        }
        let names = [call.names.provider, call.names.model, call.names.vendor];
        let scope = if let Some(scope) = self.scopes.get(py, names) {
            scope
        } else {
            self.scopes.keep(py, names, self.covers.call1(py, (names[0], names[1], names[2]))?.extract(py)?)
        };
        let (mut budgets, mut others) = *scope;
        while others != 0 {
            let place = others.trailing_zeros();
            others &= others.wrapping_sub(1);
            let conditions = self.conditions.get(place as usize).map_or(&[][..], Vec::as_slice);
            match covers_run(conditions, call) {
                Ok(true) => budgets |= 1 << place,
                Ok(false) => {}
                // Of a value that no text can be made of: not what the budget covers.
                Err(error) if error.is_instance_of::<PyException>(py) => {
                    self.unread.call1(py, (error.value(py),))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(budgets)
    }

    /// The price of so many input tokens at worst, where a budget asks for it.
    fn price(&self, py: Python<'_>, budgets: u64, asked: &Asked<'_>, tier: &str, input: u64) -> PyResult<Price> {
        let Some(prices) = self.prices.as_ref().filter(|_| budgets & self.priced != 0) else {
            return Ok(Price::default());
        };
        let version: u64 = prices.getattr(py, intern!(py, "version"))?.extract(py)?;
        let names = [asked.provider, asked.model, asked.deployment, asked.vendor, tier];
        let known = self.rates.get(py, names);
        // Whoever has answered such a call may answer the next one, at that one's price.
        let is_new = |models: &Vec<SeriesId>| {
            asked.answered.filter(|(_, id)| models.len() < MAX_ANSWERS && !models.contains(id))
        };
        let holds = |known: &Arc<Priced>| {
            let ((of, until, _), models) = &**known;
            *of == version && (until.is_infinite() || now() < *until) && is_new(models).is_none()
        };
        let known = match known {
            Some(known) if holds(&known) => known,
            known => {
                let mut models = known.map(|known| known.1.clone()).unwrap_or_default();
                models.extend(is_new(&models).map(|(_, id)| id));
                let answered = asked.answered.map(|(core, _)| models.iter().filter_map(|id| Some(core.names(*id)?.b)));
                let answered: Vec<String> = answered.map(Iterator::collect).unwrap_or_default();
                let Asked { provider, model, deployment, vendor, .. } = *asked;
                let call = (provider, model, deployment, vendor, tier, answered, budgets & self.priced);
                let fresh: Rates = self.price.call1(py, call)?.extract(py)?;
                // Not before they are loaded.
                let missing = fresh.2.as_ref().is_some_and(Vec::is_empty);
                let fresh = (fresh, models);
                if missing { Arc::new(fresh) } else { self.rates.keep(py, names, fresh) }
            }
        };
        let Some(bands) = &known.0.2 else { return Ok(Price::Unpriced) };
        let reached = bands.iter().filter(|(above, _)| i64::try_from(input).unwrap_or(i64::MAX) > *above);
        let worst = reached.map(|(_, rates)| *rates).reduce(|a, b| std::array::from_fn(|i| a[i].max(b[i])));
        let Some([input, output, call, text]) = worst else { return Ok(Price::Missing) };
        Ok(Price::Rates { input, output, call, text })
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Whether each condition on tags and metadata is met.
fn covers_run(conditions: &[Condition], call: &Call<'_, '_>) -> PyResult<bool> {
    let matches = |value: &Bound<'_, PyAny>, texts: &[String]| {
        let text = convert::text_of(value)?;
        PyResult::Ok(texts.iter().any(|wanted| **wanted == *text))
    };
    for (key, texts) in conditions {
        let met = match key {
            None => match call.tags.filter(|tags| !tags.is_none()) {
                None => false,
                Some(tags) => {
                    let mut met = false;
                    for tag in tags.try_iter()? {
                        let tag = tag?;
                        met = met || (tag.is_instance_of::<PyString>() && matches(&tag, texts)?);
                    }
                    met
                }
            },
            Some(key) => match call.metadata.filter(|metadata| !metadata.is_none()) {
                None => false,
                Some(metadata) => {
                    let key = key.bind(metadata.py());
                    metadata.contains(key)? && matches(&metadata.get_item(key)?, texts)?
                }
            },
        };
        if !met {
            return Ok(false);
        }
    }
    Ok(true)
}

fn asks(demand: &Demand) -> Asks {
    let rates = match demand.price {
        Price::Rates { input, output, call, text } => Some(vec![input, output, call, text]),
        Price::Missing => Some(Vec::new()),
        Price::Unpriced => None,
    };
    (demand.budgets, demand.input, demand.output, demand.answers, rates)
}

#[pymethods]
impl Demands {
    #[new]
    #[pyo3(signature = (conditions, *, bounded, priced, prices, covers, price, unread, counted=None))]
    #[allow(clippy::too_many_arguments, clippy::similar_names)] // what never changes, in one call
    fn new(
        conditions: Vec<Vec<Condition>>,
        bounded: u64,
        priced: u64,
        prices: Option<Py<PyAny>>,
        covers: Py<PyAny>,
        price: Py<PyAny>,
        unread: Py<PyAny>,
        counted: Option<Py<PyAny>>,
    ) -> Self {
        let (scopes, rates) = (Cache::default(), Cache::default());
        let calls = AtomicU64::new(0);
        Self { conditions, bounded, priced, prices, covers, price, unread, counted, calls, scopes, rates }
    }

    #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for callable in [&self.covers, &self.price, &self.unread] {
            visit.call(callable)?;
        }
        self.prices.as_ref().map_or(Ok(()), |prices| visit.call(prices))?;
        self.counted.as_ref().map_or(Ok(()), |counted| visit.call(counted))
    }

    #[pyo3(signature = (provider, model, prompts, metadata, tags, params, deployment="", vendor=""))]
    #[allow(clippy::too_many_arguments)] // what a start hook is given
    fn __call__(
        &self,
        provider: &str,
        model: &str,
        prompts: &Bound<'_, PyAny>,
        metadata: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        params: Option<&Bound<'_, PyAny>>,
        deployment: &str,
        vendor: &str,
    ) -> PyResult<Option<Asks>> {
        let names = Asked { provider, model, deployment, vendor, answered: None };
        let call = Call { names, prompts, metadata, tags, params };
        Ok(self.of(prompts.py(), &call)?.as_ref().map(asks))
    }

    #[pyo3(signature = (provider, model, tokens, deployment=""))]
    fn embedding(
        &self,
        py: Python<'_>,
        provider: &str,
        model: &str,
        tokens: u64,
        deployment: &str,
    ) -> PyResult<Option<Asks>> {
        let prompts = PyString::new(py, "");
        let names = Asked { provider, model, deployment, vendor: "", answered: None };
        let call = Call { names, prompts: prompts.as_any(), metadata: None, tags: None, params: None };
        let budgets = self.budgets(py, &call)?;
        if budgets == 0 {
            return Ok(None);
        }
        let price = self.price(py, budgets, &names, "", tokens)?;
        Ok(Some(asks(&Demand { budgets, input: tokens, output: Some(0), answers: 1, price })))
    }
}
