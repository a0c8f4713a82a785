//! `Recorder`.

use crate::clock::ManualClock;
use crate::convert;
use crate::error::raise;
use crate::hooks::identity;
use crate::imports::Imports;
use crate::snapshot::{Change, Snapshot, anomaly};
use langmeter_core::budget::{Crossed, Period, Refused, Terms, Unit, Unpriced};
use langmeter_core::{
    self as core, Begin, Clock, Demand, Dropped, End, Labels, Price, Repriced, Settings, Started, Via,
};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyTuple;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// (budgets, input, output, answers, rates): the rates are pico-dollars for an input token at most, for an output
/// token, for the call, and for an input token that no cache has seen; None without a price, empty while prices are
/// missing.
pub type Asks = (u64, u64, Option<u64>, u64, Option<Vec<u64>>);
/// (budget, code of why, thresholds crossed): a call that was refused.
pub type No = (usize, u8, Crossed);
/// (provider, model, begin in Unix seconds, budgets, labels, whether budgets took it for one without a price, now in Unix
/// seconds, number of its attempt at a defect or 0).
type Asked = (String, String, f64, u64, u64, bool, f64, u64);
/// (run's key, provider, model, begin and last token in Unix nanoseconds, token events).
type Silent = (u64, String, String, u64, u64, u64);
/// (provider, model, calls, errors, tokens, pico-dollars, nanoseconds).
type Figures = (String, String, u64, u64, u64, u64, u64);

/// What a call asks of budgets.
fn demand_of((budgets, input, output, answers, rates): Asks) -> Demand {
    let price = match rates.as_deref() {
        None => Price::Unpriced,
        Some(&[input, output, call, text]) => Price::Rates { input, output, call, text },
        Some(_) => Price::Missing,
    };
    Demand { budgets, input, output, answers, price }
}

/// Starts a run by `start`; before a budget refuses it, `make_room` is called and the call judged again.
pub fn judged(
    make_room: Option<&Bound<'_, PyAny>>,
    start: impl FnOnce(&mut dyn FnMut(usize, u64) -> bool) -> Result<Started, Refused>,
) -> PyResult<Result<Started, No>> {
    let mut failed = None;
    let started = start(&mut |budget, amount| {
        let room = make_room.map_or(Ok(false), |make| make.call1((budget, amount)).and_then(|room| room.extract()));
        room.map_err(|error| failed = Some(error)).is_ok_and(|room| room)
    });
    // Ctrl-C and its like: the callable counts its own failures.
    failed.map_or(Ok(()), Err)?;
    Ok(started.map_err(|Refused { budget, why, crossed }| (budget, why as u8, crossed)))
}

/// The arena. Every method may be called from any thread; none blocks.
#[pyclass(frozen, weakref, module = "langmeter._core")]
pub struct Recorder {
    pub core: core::Recorder,
    pub imports: Imports,
    /// The file that it counts into. Written while no thread records, and only tried: a fork may leave it locked.
    file: Mutex<Option<PathBuf>>,
}

#[pymethods]
impl Recorder {
    #[new]
    #[pyo3(signature = (*, max_series=1024, max_runs=65_536, max_run_age=3600.0, significant_digits=3, clock=None))]
    fn new(
        py: Python<'_>,
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
        let clock = || clock.map_or_else(Clock::monotonic, |c| Clock::Manual(c.get().0.clone()));
        let mapped = match core::Recorder::new(settings, clock()) {
            // Recorders that only a reference cycle of the user's keeps may have the address space.
            Err(core::Error::Memory { .. }) => {
                py.import("gc")?.call_method0("collect")?;
                core::Recorder::new(settings, clock())
            }
            other => other,
        };
        Ok(Self { core: mapped.map_err(raise)?, imports: Imports::new(), file: Mutex::default() })
    }

    #[pyo3(signature = (
        run_id, parent_run_id, kind, name, provider="", model="", demand=None, labels=None, retried=false, piped=false,
        make_room=None
    ))]
    #[allow(clippy::too_many_arguments)] // one native call a hook
    fn run_started(
        &self,
        run_id: &Bound<'_, PyAny>,
        parent_run_id: Option<&Bound<'_, PyAny>>,
        kind: u64,
        name: &str,
        provider: &str,
        model: &str,
        demand: Option<Asks>,
        labels: Option<Vec<(PyBackedStr, PyBackedStr)>>,
        retried: bool,
        piped: bool,
        make_room: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<No>> {
        let (key, kind) = (identity::run_key(run_id)?, convert::kind(kind)?);
        let parent = identity::parent_key(parent_run_id, &self.imports, run_id.py(), key)?;
        let demand = demand.map(demand_of);
        let labels = labels.unwrap_or_default();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        let begin =
            Begin { key, parent, kind, name, provider, model, demand, labels: &labels, retried, piped, witness: 0 };
        let started = judged(make_room, |room| self.core.run_started_or(&begin, room))?;
        Ok(started.err())
    }

    fn open_budget(
        &self,
        unit: usize,
        limit: u64,
        period: usize,
        blocking: bool,
        thresholds: Vec<u64>,
        unpriced: u64,
    ) -> PyResult<usize> {
        let (Some(unit), Some(period)) = (Unit::ALL.get(unit), Period::ALL.get(period)) else {
            return Err(PyValueError::new_err("unit is 0 to 2, period 0 to 4"));
        };
        let unpriced = match unpriced {
            0 => Unpriced::Allow,
            u64::MAX => Unpriced::Block,
            cost => Unpriced::Charge(cost),
        };
        let terms = Terms { unit: *unit, limit, period: *period, blocking, thresholds, unpriced };
        self.core.open_budget(&terms).map_err(raise)
    }

    #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
    fn set_limit(&self, budget: usize, limit: u64, thresholds: Vec<u64>) -> PyResult<Crossed> {
        self.core.set_limit(budget, limit, &thresholds).map_err(raise)
    }

    fn reset_budget(&self, budget: usize) {
        self.core.reset_budget(budget);
    }

    fn lease(&self, budget: usize, limit: u64, until: u64, began: u64) -> PyResult<(u64, u64)> {
        self.core.lease(budget, limit, until, began).ok_or_else(|| PyIndexError::new_err("no such budget"))
    }

    fn standing(&self, budget: usize) -> PyResult<(u64, u64, u64, Option<u64>, u64, u64)> {
        let (standing, now) = self.core.standing(budget).ok_or_else(|| PyIndexError::new_err("no such budget"))?;
        let ends = (standing.ends != u64::MAX).then_some(standing.ends);
        Ok((standing.spent, standing.reserved, standing.begins, ends, now, standing.limit))
    }

    fn spent_lately(&self) -> Vec<(u64, u64, u64)> {
        self.core.spent_lately().to_vec()
    }

    #[allow(clippy::cast_precision_loss)] // seconds to the microsecond
    fn requested(&self, run_id: &Bound<'_, PyAny>) -> PyResult<Option<Asked>> {
        let call = self.core.requested(identity::run_key(run_id)?);
        Ok(call.map(|a| {
            let (began, now) = (a.at as f64 / 1e9, a.now as f64 / 1e9);
            (a.model.a, a.model.b, began, a.budgets, a.labels.get(), a.unpriced, now, a.attempt)
        }))
    }

    #[pyo3(signature = (
        provider, model, outcome, budgets, labels, calls, total, cost, charged, ended, attempt=0
    ))]
    #[allow(clippy::too_many_arguments, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // one native call
    fn repriced(
        &self,
        provider: &str,
        model: &str,
        outcome: u64,
        budgets: u64,
        labels: u64,
        calls: u64,
        total: u64,
        cost: u64,
        charged: bool,
        ended: (f64, f64),
        attempt: u64,
    ) -> PyResult<Crossed> {
        let (outcome, labels) = (convert::outcome(outcome)?, Labels::from_bits(labels));
        let ended = [ended.0, ended.1].map(|seconds| (seconds * 1e9) as u64);
        let calls = Repriced { provider, model, outcome, budgets, labels, calls, total, cost, charged, ended, attempt };
        Ok(self.core.repriced(&calls))
    }

    fn silent(&self, silence: f64) -> PyResult<Vec<Silent>> {
        let silence: Duration = convert::duration("silence", silence)?;
        let row = |(model, began, last, stream): (core::LabelSet, u64, u64, core::Streaming)| {
            (stream.key.get(), model.a, model.b, began, last, stream.events)
        };
        Ok(self.core.silent(silence).into_iter().map(row).collect())
    }

    #[staticmethod]
    fn key(run_id: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(identity::run_key(run_id)?.get())
    }

    fn end_is_echo(&self, run_id: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.core.end_is_echo(identity::run_key(run_id)?))
    }

    fn reserving(&self) -> Vec<(u64, u64, Option<u64>, bool, u64)> {
        let calls = self.core.reserving().into_iter();
        calls.map(|call| (call.key.get(), call.start, call.heard, call.orphaned, call.budgets)).collect()
    }

    #[pyo3(signature = (keys, *, unheard=false))]
    fn abandon(&self, keys: Vec<u64>, unheard: bool) -> u64 {
        let mut keys: Vec<core::RunKey> = keys.into_iter().map(core::RunKey::new).collect();
        if unheard {
            let calls = self.core.reserving().into_iter().filter(|call| call.heard.is_none());
            let still: HashSet<u64> = calls.map(|call| call.key.get()).collect();
            keys.retain(|key| still.contains(&key.get()));
        }
        self.core.abandon_runs(&keys)
    }

    fn stalled(&self, provider: &str, model: &str) {
        self.core.stalled(provider, model);
    }

    fn pulse(&self) -> Vec<Figures> {
        let row = |p: core::Pulse| (p.model.a, p.model.b, p.calls, p.errors, p.tokens, p.cost, p.duration);
        self.core.pulse().into_iter().map(row).collect()
    }

    fn fix_pulse(&self) -> Vec<(String, String, u64, u64, u64, u64)> {
        let row = |p: core::FixPulse| (p.provider, p.model, p.closed, p.fixed, p.ever_fixed, p.cost);
        self.core.fix_pulse().into_iter().map(row).collect()
    }

    fn in_hook(&self, hook: &str, nanos: u64) {
        self.core.in_hook(hook, nanos);
    }

    #[pyo3(signature = (run_id, *, visible=true))]
    fn token(&self, run_id: &Bound<'_, PyAny>, visible: bool) -> PyResult<()> {
        self.core.token(identity::run_key(run_id)?, Via::Token, visible);
        Ok(())
    }

    #[pyo3(signature = (
        run_id, kind, outcome, provider="", model="", usage=None, cost=None, billed=None, queue=None, truncated=false,
        error=None, labels=Vec::new()
    ))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // one native call a hook
    fn run_ended(
        &self,
        run_id: &Bound<'_, PyAny>,
        kind: u64,
        outcome: u64,
        provider: &str,
        model: &str,
        usage: Option<&Bound<'_, PyTuple>>,
        cost: Option<u64>,
        billed: Option<u64>,
        queue: Option<u64>,
        truncated: bool,
        error: Option<&str>,
        labels: Vec<PyBackedStr>,
    ) -> PyResult<Option<Crossed>> {
        let labels: Vec<&str> = labels.iter().map(|key| &**key).collect();
        let crossed = self.core.run_ended(&End {
            key: identity::run_key(run_id)?,
            kind: convert::kind(kind)?,
            outcome: convert::outcome(outcome)?,
            provider,
            model,
            answered: None,
            usage: usage.map(convert::usage).transpose()?,
            cost,
            billed,
            queue,
            truncated,
            error,
            labels: &labels,
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

    #[getter]
    fn origin(&self) -> (u64, u64) {
        self.core.origin()
    }

    #[pyo3(signature = (anomalies=None, labels=Vec::new()))]
    fn snapshot(&self, py: Python<'_>, anomalies: Option<Vec<Change>>, labels: Vec<String>) -> Snapshot {
        let figures = self.core.attempt_figures();
        let mut snapshot = py.detach(|| self.core.snapshot_with(figures));
        snapshot.anomalies = anomalies.unwrap_or_default().into_iter().map(anomaly).collect();
        snapshot.labels = labels.into_iter().collect();
        Snapshot(snapshot)
    }

    #[cfg(target_os = "linux")]
    #[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
    fn attach(&self, path: PathBuf, mode: u32) -> PyResult<()> {
        self.core.attach(&path, mode).map_err(raise)?;
        if let Ok(mut file) = self.file.try_lock() {
            *file = Some(path);
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::needless_pass_by_value, clippy::unused_self)] // as on Linux
    fn attach(&self, path: PathBuf, _mode: u32) -> PyResult<()> {
        let why = "a recorder counts into a file on Linux only".to_owned();
        Err(raise(core::Error::File { path: path.display().to_string(), why }))
    }

    #[cfg_attr(not(target_os = "linux"), allow(clippy::unused_self, unused_variables))]
    fn grow_file(&self, py: Python<'_>) -> bool {
        #[cfg(target_os = "linux")]
        return py.detach(|| self.core.grow_file());
        #[cfg(not(target_os = "linux"))]
        true
    }

    #[getter]
    fn file(&self) -> Option<PathBuf> {
        self.file.try_lock().ok()?.clone()
    }

    fn reset_after_fork(&self) {
        if let Ok(mut file) = self.file.try_lock() {
            *file = None;
        }
        self.core.reset_after_fork();
    }

    #[getter]
    fn is_empty(&self) -> bool {
        self.core.is_empty()
    }
}
