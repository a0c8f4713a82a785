//! `Attempts`: attempts at defects, for `langmeter.defects`.

use crate::hooks::attempts::LONGEST;
use crate::hooks::identity;
use crate::recorder::Recorder;
use langmeter_core::defects::{FixOutcome, Judged, Place};
use langmeter_core::{self as core, Receipt};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// (id, hash of the defect, six names, three times, three counts, cost, (outcome, strength), (answered, cached),
/// confidence).
type Parts = (String, u64, [String; 6], [u64; 3], [u32; 3], u64, (String, u8), [bool; 2], Option<f32>);

/// The attempts of a recorder, by their numbers.
#[pyclass(frozen, module = "langmeter._core")]
pub struct Attempts(Py<Recorder>);

impl Attempts {
    fn core(&self) -> &core::Recorder {
        &self.0.get().core
    }
}

fn outcome_of(name: &str) -> PyResult<FixOutcome> {
    FixOutcome::from_name(name).ok_or_else(|| {
        let names: Vec<_> = FixOutcome::ALL.iter().map(|outcome| outcome.name()).collect();
        PyValueError::new_err(format!("outcome must be one of {}, got {name:?}", names.join(", ")))
    })
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[pymethods]
impl Attempts {
    #[new]
    const fn new(recorder: Py<Recorder>) -> Self {
        Self(recorder)
    }

    #[pyo3(signature = (defect_id, defect_type="", severity="", language="", strategy="", number=None))]
    fn open(
        &self,
        defect_id: &str,
        defect_type: &str,
        severity: &str,
        language: &str,
        strategy: &str,
        number: Option<u32>,
    ) -> u64 {
        let about = [defect_type, severity, language, strategy].map(short);
        self.core().attempt_opened(&short(defect_id), about.each_ref().map(String::as_str), number, None)
    }

    fn close(&self, attempt: u64, outcome: &str) -> PyResult<()> {
        self.core().attempt_closed(attempt, outcome_of(outcome)?);
        Ok(())
    }

    fn join(&self, run_id: &Bound<'_, PyAny>, attempt: u64) -> PyResult<()> {
        self.core().attempt_joined(identity::run_key(run_id)?, Place { attempt, candidate: None });
        Ok(())
    }

    fn of_run(&self, run_id: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        Ok(self.core().attempt_of(identity::run_key(run_id)?).map(|place| place.attempt))
    }

    fn owned_by(&self, run_id: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        Ok(self.core().attempt_owned_by(identity::run_key(run_id)?))
    }

    #[pyo3(signature = (attempt, index, *, recommended=false))]
    fn candidate(&self, attempt: u64, index: i64, recommended: bool) {
        self.core().attempt_candidate(attempt, index, recommended);
    }

    fn state_confidence(&self, attempt: u64, confidence: f32) {
        self.core().attempt_confidence(attempt, confidence);
    }

    /// Whether the verdict counts, was known ("same"), is weaker than the one that counts, or is on an unknown attempt.
    #[pyo3(signature = (attempt, outcome, source, score=None))]
    fn judge(&self, attempt: u64, outcome: &str, source: &str, score: Option<f32>) -> PyResult<&'static str> {
        Ok(match self.core().attempt_judged(attempt, outcome_of(outcome)?, &short(source), score) {
            Judged::Counts => "counts",
            Judged::Same => "same",
            Judged::Weaker => "weaker",
            Judged::Unknown => "unknown",
        })
    }

    #[pyo3(signature = (attempt, index, outcome, source, score=None))]
    fn judge_candidate(
        &self,
        attempt: u64,
        index: i64,
        outcome: &str,
        source: &str,
        score: Option<f32>,
    ) -> PyResult<bool> {
        Ok(self.core().candidate_judged(attempt, index, outcome_of(outcome)?, &short(source), score))
    }

    fn id(&self, attempt: u64) -> String {
        self.core().attempt_id(attempt)
    }

    fn number(&self, id: &str) -> Option<u64> {
        self.core().attempt_number(id)
    }

    fn receipt(&self, attempt: u64) -> Option<Parts> {
        let receipt = self.core().attempt_receipt(attempt)?;
        let Receipt { id, defect, names, times, counts, cost, verdict, answered, confidence } = receipt;
        Some((id, defect, names, times, counts, cost, (verdict.0.name().to_owned(), verdict.1), answered, confidence))
    }

    fn adopt(&self, receipt: Parts) -> PyResult<u64> {
        let (id, defect, names, times, counts, cost, (outcome, strength), answered, confidence) = receipt;
        let verdict = (outcome_of(&outcome)?, strength);
        let names = names.map(|name| short(&name));
        Ok(self.core().attempt_adopted(&Receipt {
            id,
            defect,
            names,
            times,
            counts,
            cost,
            verdict,
            answered,
            confidence,
        }))
    }
}
