//! `Attempts`: attempts at defects, for `langmeter.defects`.

use crate::convert;
use crate::hooks::attempts::{LONGEST, identified};
use crate::hooks::identity;
use crate::recorder::Recorder;
use langmeter_core::defects::{Candidate, FixOutcome, Judged, Place, SAMPLES, Verdict};
use langmeter_core::{self as core, Receipt};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Outcome, strength, source, score.
type Judgement = (String, u8, u8, Option<f32>);
/// Index, whether the response cache gave it, whether it is recommended, whether it is right and by which strength.
type Proposed = (i64, bool, bool, Option<(bool, u8)>);
/// (id, hash of the defect, six names, three times, five counts, cost, verdict, (answered, cached), confidence,
/// candidates).
type Parts = (String, u64, [String; 6], [u64; 3], [u32; 5], u64, Judgement, [bool; 2], Option<f32>, Vec<Proposed>);

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
        defect_id: &Bound<'_, PyAny>,
        defect_type: &str,
        severity: &str,
        language: &str,
        strategy: &str,
        number: Option<u32>,
    ) -> PyResult<u64> {
        let about = [defect_type, severity, language, strategy].map(short);
        let id = convert::text_of(defect_id)?;
        Ok(self.core().attempt_opened(identified(&id), about.each_ref().map(String::as_str), number, None))
    }

    fn close(&self, attempt: u64, outcome: &str) -> PyResult<()> {
        self.core().attempt_closed(attempt, outcome_of(outcome)?);
        Ok(())
    }

    #[pyo3(signature = (run_id, attempt, *, embeds=false))]
    fn join(&self, run_id: &Bound<'_, PyAny>, attempt: u64, embeds: bool) -> PyResult<()> {
        self.core().attempt_joined(identity::run_key(run_id)?, Place { embeds, ..Place::of(attempt) });
        Ok(())
    }

    fn of_run(&self, run_id: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        Ok(self.core().attempt_of(identity::run_key(run_id)?).map(|place| place.attempt))
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
        let Receipt { id, defect, names, times, counts, cost, verdict, answered, confidence, candidates } = receipt;
        let Verdict { outcome, strength, source, score } = verdict;
        let verdict = (outcome.name().to_owned(), strength, source, score);
        let candidates = candidates.iter().map(|known| (known.index, known.cached, known.recommended, known.right));
        Some((id, defect, names, times, counts, cost, verdict, answered, confidence, candidates.collect()))
    }

    fn adopt(&self, receipt: Parts) -> PyResult<u64> {
        let (id, defect, names, times, counts, cost, verdict, answered, confidence, candidates) = receipt;
        let (outcome, strength, source, score) = verdict;
        let verdict = Verdict { outcome: outcome_of(&outcome)?, strength, source, score };
        let candidates = candidates.into_iter().take(SAMPLES).map(|(index, cached, recommended, right)| Candidate {
            index,
            model: None,
            cached,
            recommended,
            right,
        });
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
            candidates: candidates.collect(),
        }))
    }
}
