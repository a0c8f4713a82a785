//! `Recorder`.

use crate::clock::ManualClock;
use crate::convert;
use crate::error::raise;
use crate::snapshot::Snapshot;
use langmeter_core::budget::{Crossed, Period, Terms, Unit};
use langmeter_core::{self as core, Begin, Clock, Demand, Dropped, End, Settings, Via};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The arena. Every method may be called from any thread; none blocks.
#[pyclass(frozen, weakref, module = "langmeter._core")]
pub struct Recorder {
    pub core: core::Recorder,
}

#[pymethods]
impl Recorder {
    #[new]
    #[pyo3(signature = (*, max_series=1024, max_runs=65_536, max_run_age=3600.0, significant_digits=3, clock=None))]
    fn new(
        max_series: u64,
        max_runs: u64,
        max_run_age: f64,
        significant_digits: u8,
        clock: Option<&Bound<'_, ManualClock>>,
    ) -> PyResult<Self> {
        let settings = Settings {
            max_series,
            max_runs,
            max_run_age: convert::duration("max_run_age", max_run_age)?,
            significant_digits,
        };
        let clock = clock.map_or_else(Clock::monotonic, |c| Clock::Manual(c.get().0.clone()));
        Ok(Self { core: core::Recorder::new(settings, clock).map_err(raise)? })
    }

    #[pyo3(signature = (run_id, parent_run_id, kind, name, provider="", model="", demand=None))]
    #[allow(clippy::too_many_arguments)] // one native call a hook
    fn run_started(
        &self,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        kind: u64,
        name: &str,
        provider: &str,
        model: &str,
        demand: Option<(u64, u64, Option<u64>, u64, u64, u64, u64)>,
    ) -> PyResult<Option<(usize, Crossed)>> {
        let (key, parent, kind) =
            (convert::run_key(run_id)?, convert::parent_key(parent_run_id)?, convert::kind(kind)?);
        let demand = demand.map(|(budgets, input, output, answers, per_input, per_output, fixed)| Demand {
            budgets,
            input,
            output,
            answers,
            rates: [per_input, per_output, fixed],
        });
        let started = self.core.run_started(&Begin { key, parent, kind, name, provider, model, demand });
        Ok(started.err().map(|refused| (refused.budget, refused.crossed)))
    }

    fn open_budget(
        &self,
        unit: usize,
        limit: u64,
        period: usize,
        blocking: bool,
        thresholds: Vec<u64>,
    ) -> PyResult<usize> {
        let (Some(unit), Some(period)) = (Unit::ALL.get(unit), Period::ALL.get(period)) else {
            return Err(PyValueError::new_err("unit is 0 to 2, period 0 to 4"));
        };
        let terms = Terms { unit: *unit, limit, period: *period, blocking, thresholds };
        self.core.open_budget(&terms).map_err(raise)
    }

    fn standing(&self, budget: usize) -> PyResult<(u64, u64, u64, Option<u64>, u64)> {
        let (standing, now) = self.core.standing(budget).ok_or_else(|| PyIndexError::new_err("no such budget"))?;
        let ends = (standing.ends != u64::MAX).then_some(standing.ends);
        Ok((standing.spent, standing.reserved, standing.begins, ends, now))
    }

    fn spent_lately(&self) -> Vec<(u64, u64, u64)> {
        self.core.spent_lately().to_vec()
    }

    #[allow(clippy::cast_precision_loss)] // seconds to the microsecond
    fn requested(&self, run_id: &Bound<'_, PyAny>) -> PyResult<Option<(String, String, f64)>> {
        let asked = self.core.requested(convert::run_key(run_id)?);
        Ok(asked.map(|(labels, at)| (labels.a, labels.b, at as f64 / 1e9)))
    }

    fn token(&self, run_id: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.token(convert::run_key(run_id)?, Via::Token);
        Ok(())
    }

    #[pyo3(signature = (run_id, kind, outcome, provider="", model="", usage=None, cost=None))]
    #[allow(clippy::too_many_arguments)] // one native call a hook
    fn run_ended(
        &self,
        run_id: &Bound<'_, PyAny>,
        kind: u64,
        outcome: u64,
        provider: &str,
        model: &str,
        usage: Option<&Bound<'_, PyTuple>>,
        cost: Option<u64>,
    ) -> PyResult<Option<Crossed>> {
        let crossed = self.core.run_ended(&End {
            key: convert::run_key(run_id)?,
            kind: convert::kind(kind)?,
            outcome: convert::outcome(outcome)?,
            provider,
            model,
            usage: usage.map(convert::usage).transpose()?,
            cost,
        });
        Ok((!crossed.is_empty()).then_some(crossed))
    }

    #[pyo3(signature = (kind, name, outcome, duration=None))]
    fn count(&self, kind: u64, name: &str, outcome: u64, duration: Option<u64>) -> PyResult<()> {
        self.core.count(convert::kind(kind)?, name, convert::outcome(outcome)?, duration);
        Ok(())
    }

    #[pyo3(signature = (name, n=1))]
    fn dropped(&self, name: &str, n: u64) {
        let what = Dropped::ALL.iter().copied().find(|d| d.name() == name);
        self.core.dropped(what.unwrap_or(Dropped::Other), n);
    }

    fn snapshot(&self, py: Python<'_>) -> Snapshot {
        Snapshot(py.detach(|| self.core.snapshot()))
    }

    fn reset_after_fork(&self) {
        self.core.reset_after_fork();
    }

    #[getter]
    fn is_empty(&self) -> bool {
        self.core.is_empty()
    }
}
