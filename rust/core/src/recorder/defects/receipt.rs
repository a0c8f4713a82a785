//! Attempts that another process or host goes on with.

use crate::defects::{About, Attempt, Candidate, Cluster, OTHER_SOURCE, SOURCES, Verdict};
use crate::recorder::Recorder;
use crate::series::{SEPARATOR, SeriesId};

/// An attempt as another process or host goes on with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Its id, which begins with that of its recorder.
    pub id: String,
    /// Hash of the id of its defect.
    pub defect: u64,
    /// Type and severity of the defect, provider and model, strategy and language.
    pub names: [String; 6],
    /// Begin of the first attempt at the defect, begin and end of this one, Unix nanoseconds.
    pub times: [u64; 3],
    /// Number of the attempt; of each of its rows the attempts that fixed the defect, and those with a verdict.
    pub counts: [u32; 5],
    /// Its cost, pico-dollars.
    pub cost: u64,
    /// The verdict that counts; its source is `OTHER_SOURCE` where it has no rank of its own.
    pub verdict: Verdict,
    /// A model answered; the response cache did.
    pub answered: [bool; 2],
    /// Confidence that the model stated.
    pub confidence: Option<f32>,
    /// What it proposed, without the models.
    pub candidates: Vec<Candidate>,
}

impl Recorder {
    /// What another process needs to go on with an attempt that has ended; None while it is open, or forgotten.
    pub fn attempt_receipt(&self, attempt: u64) -> Option<Receipt> {
        let book = self.book();
        let known = book.attempt(attempt).filter(|known| known.ended > 0)?.clone();
        let (clusters, first) = book.clusters(attempt);
        drop(book);
        let pair = |row: Option<SeriesId>| row.and_then(|row| self.names(row)).map(|l| (l.a, l.b)).unwrap_or_default();
        let [row, strategy] = known.rows.map(pair);
        let split = |text: &str| {
            let (a, b) = text.split_once(SEPARATOR).unwrap_or((text, ""));
            (a.to_owned(), b.to_owned())
        };
        let [model_row, strategy_row] = clusters;
        let verdict = known.verdict;
        let ranked = usize::from(verdict.source) < SOURCES.len();
        let ((defect_type, severity), (provider, model)) = (split(&row.0), split(&row.1));
        Some(Receipt {
            id: self.attempt_id(attempt),
            defect: known.defect,
            names: [defect_type, severity, provider, model, strategy.0, strategy.1],
            times: [first, known.started, known.ended],
            counts: [known.number, model_row.fixed, model_row.scored, strategy_row.fixed, strategy_row.scored],
            cost: known.cost,
            verdict: Verdict { source: if ranked { verdict.source } else { OTHER_SOURCE }, ..verdict },
            answered: [known.answered, known.cached],
            confidence: known.confidence,
            candidates: known.candidates.into_iter().map(|known| Candidate { model: None, ..known }).collect(),
        })
    }

    /// The number of the attempt of a receipt, which is remembered from now on.
    pub fn attempt_adopted(&self, receipt: &Receipt) -> u64 {
        let own = self.attempt_number(&receipt.id).filter(|number| self.book().attempt(*number).is_some());
        if let Some(number) = own {
            return number;
        }
        let [defect_type, severity, provider, model, strategy, language] = receipt.names.each_ref().map(String::as_str);
        let about = About {
            defect_type: defect_type.into(),
            severity: severity.into(),
            language: language.into(),
            strategy: strategy.into(),
        };
        let rows = self.attempt_rows(&about, provider, model);
        let ([number, counts @ ..], [first, started, ended]) = (receipt.counts, receipt.times);
        let cluster = |fixed: u32, scored: u32| Cluster { fixed, scored, timed: fixed > 0 };
        let [fixed, scored, by_strategy, scored_by_strategy] = counts;
        let clusters = [cluster(fixed, scored), cluster(by_strategy, scored_by_strategy)];
        self.make_room();
        self.book().adopt(&receipt.id, clusters, first, || Attempt {
            defect: receipt.defect,
            number,
            started,
            ended: ended.max(1),
            owner: 0,
            about: None,
            totals: None,
            rows,
            model: None,
            called: None,
            answered: receipt.answered[0],
            cached: receipt.answered[1],
            candidates: receipt.candidates.clone(),
            verdict: receipt.verdict,
            confidence: receipt.confidence,
            cost: receipt.cost,
        })
    }
}
