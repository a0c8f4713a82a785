//! `Cards`: the rate cards that a price book has given so far, for the native end of a call.

use crate::rate_card::RateCard;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Cards that are kept; past it all are let go, and asked for again.
const MAX_CARDS: usize = 4096;

/// What a price is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priced<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    /// The model that was requested, where another one answered; else empty.
    pub requested: &'a str,
    /// The deployment that was called; empty where the call names none.
    pub deployment: &'a str,
    /// LangChain's name of the provider, where the user has another one; else empty.
    pub vendor: &'a str,
    /// What changes the price, as `Usage.tier` has it; empty for the standard price.
    pub tier: &'a str,
}

/// The names of a `Priced`, in its order.
type Names = [String; 6];

impl Priced<'_> {
    fn names(&self) -> Names {
        [self.provider, self.model, self.requested, self.deployment, self.vendor, self.tier].map(str::to_owned)
    }
}

/// Rate cards by what a price is looked up by. One of a tier is kept where the whole tier has a price of its own: the
/// careful way says where it has none. A change of prices lets all of them go.
#[pyclass(frozen, module = "langmeter._core")]
#[derive(Default)]
pub struct Cards {
    cards: Mutex<HashMap<Names, Py<RateCard>>>,
    version: AtomicU64,
}

impl Cards {
    /// Grows when a price may have changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The card of a call, if it was given.
    pub fn card(&self, py: Python<'_>, priced: &Priced<'_>) -> Option<Py<RateCard>> {
        let names = priced.names();
        self.with(py, |cards| cards.get(&names).map(|card| card.clone_ref(py)))
    }

    /// Nothing that could run Python code may happen in here.
    fn with<R>(&self, py: Python<'_>, body: impl FnOnce(&mut HashMap<Names, Py<RateCard>>) -> R) -> R {
        body(&mut self.cards.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Cards {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter(version)]
    fn shown_version(&self) -> u64 {
        self.version()
    }

    /// Keeps a card, unless prices have changed since `version`; None takes away what is there.
    fn set(&self, py: Python<'_>, names: Names, card: Option<Py<RateCard>>, version: u64) {
        let old = self.with(py, |cards| {
            if self.version() != version {
                return (card, None);
            }
            let full = (cards.len() >= MAX_CARDS).then(|| std::mem::take(cards));
            let old = match card {
                Some(card) => cards.insert(names, card),
                None => cards.remove(&names),
            };
            (old, full)
        });
        drop(old); // outside of the lock
    }

    /// The card of a call, if it is kept.
    #[pyo3(signature = (provider, model, requested="", deployment="", vendor="", tier=""))]
    #[allow(clippy::too_many_arguments)] // what a price is looked up by
    fn get(
        &self,
        py: Python<'_>,
        provider: &str,
        model: &str,
        requested: &str,
        deployment: &str,
        vendor: &str,
        tier: &str,
    ) -> Option<Py<RateCard>> {
        self.card(py, &Priced { provider, model, requested, deployment, vendor, tier })
    }

    /// Lets all cards go: prices have changed.
    fn refresh(&self, py: Python<'_>) {
        let old = self.with(py, |cards| {
            self.version.fetch_add(1, Ordering::AcqRel);
            std::mem::take(cards)
        });
        drop(old);
    }

    /// Cards that are there.
    fn __len__(&self, py: Python<'_>) -> usize {
        self.with(py, |cards| cards.len())
    }
}
