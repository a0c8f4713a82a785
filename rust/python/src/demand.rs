//! What a call asks of budgets: which of them it belongs to, and its worst case.

use crate::bounds::{self, Params};
use crate::convert;
use crate::recorder::Asks;
use langmeter_core::{Demand, Price};
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
/// After so many calls budgets whose scope has matched none of them are named.
const FIRST_CALLS: u64 = 100;

/// A key of a scope that looks at the run, and the texts of which one has to match; the key `None` is its tags.
type Condition = (Option<Py<PyString>>, Vec<String>);

/// Bits of the budgets that cover every call of a (provider, model), and of those that look at the run.
type Covers = (u64, u64);

/// What a call of a (provider, model, tier) costs: version of the prices, Unix time until which they hold, and rates by
/// band; no bands where prices are missing.
type Priced = (u64, f64, Option<Vec<Band>>);
/// Input tokens above which it holds, and the rates as of `Asks`.
type Band = (i64, [u64; 4]);

type Named<T> = ([String; 3], Arc<T>);

/// Answers by three names.
struct Cache<T> {
    hasher: RandomState,
    answers: Mutex<HashMap<u64, Named<T>>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), answers: Mutex::default() }
    }
}

impl<T> Cache<T> {
    fn get(&self, py: Python<'_>, names: [&str; 3]) -> Option<Arc<T>> {
        let answers = self.answers.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let (same, answer) = answers.get(&self.hasher.hash_one(names))?;
        (same.each_ref().map(String::as_str) == names).then(|| Arc::clone(answer))
    }

    fn keep(&self, py: Python<'_>, names: [&str; 3], answer: T) -> Arc<T> {
        let answer = Arc::new(answer);
        let mut answers = self.answers.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.clear();
        }
        answers.insert(self.hasher.hash_one(names), (names.map(str::to_owned), Arc::clone(&answer)));
        answer
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
    scopes: Cache<Covers>,
    rates: Cache<Priced>,
}

/// What a start hook is given of a call.
pub struct Call<'a, 'py> {
    pub provider: &'a str,
    pub model: &'a str,
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
        let price = self.price(py, budgets, [call.provider, call.model, &params.tier], input)?;
        Ok(Some(Demand { budgets, input, output: params.output, answers: params.answers.max(1), price }))
    }

    /// The budgets that a call belongs to.
    fn budgets(&self, py: Python<'_>, call: &Call<'_, '_>) -> PyResult<u64> {
        if let Some(counted) = &self.counted
            && self.calls.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == FIRST_CALLS
        {
            counted.call0(py)?;
        }
        let names = [call.provider, call.model, ""];
        let found = if let Some(found) = self.scopes.get(py, names) {
            found
        } else {
            self.scopes.keep(py, names, self.covers.call1(py, (call.provider, call.model))?.extract(py)?)
        };
        let (mut budgets, mut others) = *found;
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
    fn price(&self, py: Python<'_>, budgets: u64, names: [&str; 3], input: u64) -> PyResult<Price> {
        let Some(prices) = self.prices.as_ref().filter(|_| budgets & self.priced != 0) else {
            return Ok(Price::default());
        };
        let version: u64 = prices.getattr(py, intern!(py, "version"))?.extract(py)?;
        let holds = |known: &Arc<Priced>| known.0 == version && (known.1.is_infinite() || now() < known.1);
        let known = if let Some(known) = self.rates.get(py, names).filter(holds) {
            known
        } else {
            let [provider, model, tier] = names;
            let fresh: Priced = self.price.call1(py, (provider, model, tier, budgets & self.priced))?.extract(py)?;
            // Not before they are loaded.
            let missing = fresh.2.as_ref().is_some_and(Vec::is_empty);
            if missing { Arc::new(fresh) } else { self.rates.keep(py, names, fresh) }
        };
        let Some(bands) = &known.2 else { return Ok(Price::Unpriced) };
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

    fn __call__(
        &self,
        provider: &str,
        model: &str,
        prompts: &Bound<'_, PyAny>,
        metadata: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        params: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Asks>> {
        let call = Call { provider, model, prompts, metadata, tags, params };
        Ok(self.of(prompts.py(), &call)?.as_ref().map(asks))
    }

    fn embedding(&self, py: Python<'_>, provider: &str, model: &str, tokens: u64) -> PyResult<Option<Asks>> {
        let prompts = PyString::new(py, "");
        let call = Call { provider, model, prompts: prompts.as_any(), metadata: None, tags: None, params: None };
        let budgets = self.budgets(py, &call)?;
        if budgets == 0 {
            return Ok(None);
        }
        let price = self.price(py, budgets, [provider, model, ""], tokens)?;
        Ok(Some(asks(&Demand { budgets, input: tokens, output: Some(0), answers: 1, price })))
    }
}
