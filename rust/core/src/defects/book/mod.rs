//! The attempts of one recorder, the runs under them, and the defects that they are about.

mod entries;
mod verdicts;

use super::attempt::{About, Attempt, Candidate, Totals, Verdict};
use super::outcome::FixOutcome;
use super::tally::{self, SAMPLES, Tally};
use crate::runs::RunKey;
use crate::series::SeriesId;
pub use entries::{Cluster, Judged, Opening, Place, Write};
use entries::{Defect, Hashed};
use std::collections::VecDeque;

/// Attempts, runs and defects that are remembered at most.
pub const REMEMBERED: usize = 65_536;
/// Attempts that are open at most.
pub const MAX_OPEN: usize = 4096;
/// Durations of model calls that an open attempt keeps.
pub const MAX_DURATIONS: usize = 1024;
/// Position of a source whose name another process knows.
pub const OTHER_SOURCE: u8 = u8::MAX;

/// Open attempts, those that verdicts may still come for, and their runs and defects. Bounded in each of them.
#[derive(Debug, Default)]
pub struct Book {
    attempts: VecDeque<Attempt>,
    /// Number of the first of `attempts`, less one: numbers begin at 1.
    forgotten: u64,
    /// Numbers of attempts that were opened, the oldest first; some have ended.
    opened: VecDeque<u64>,
    open: usize,
    runs: Hashed<Place>,
    /// An attempt has closed since `runs` was searched for those that were given up.
    stale: bool,
    defects: Hashed<Defect>,
    defect_order: VecDeque<u64>,
    /// Attempts of other recorders, by the hash of their id.
    foreign: Hashed<u64>,
    sources: Vec<Box<str>>,
}

/// A hash that is the same in every process: FNV-1a.
pub fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

impl Book {
    /// Forgets everything; numbers go on, so that those of before are unknown.
    pub fn clear(&mut self) {
        let forgotten = self.forgotten.wrapping_add(self.attempts.len() as u64);
        *self = Self { forgotten, ..Self::default() };
    }

    fn position(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.forgotten)?.checked_sub(1)?).ok()
    }

    /// The attempt of a number, if it is remembered.
    pub fn attempt(&self, number: u64) -> Option<&Attempt> {
        self.attempts.get(self.position(number)?)
    }

    fn attempt_mut(&mut self, number: u64) -> Option<&mut Attempt> {
        let position = self.position(number)?;
        self.attempts.get_mut(position)
    }

    /// The attempt that a run is in.
    pub fn place(&self, key: RunKey) -> Option<Place> {
        self.runs.get(&key.get()).copied()
    }

    /// Open attempts that are runs: their numbers and the keys of the runs.
    pub fn open_runs(&self) -> Vec<(u64, u64)> {
        let open = self.opened.iter().filter_map(|number| Some((*number, self.attempt(*number)?)));
        open.filter(|(_, attempt)| attempt.ended == 0 && attempt.owner != 0)
            .map(|(number, attempt)| (number, attempt.owner))
            .collect()
    }

    /// Whether a run is in an attempt.
    pub fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    /// The hash of the defect of an attempt.
    pub fn defect_of(&self, number: u64) -> Option<u64> {
        self.attempt(number).map(|attempt| attempt.defect)
    }

    /// Opens an attempt; returns its number, and that of an attempt that has to be closed for it.
    pub fn open(&mut self, opening: &Opening<'_>) -> (u64, Option<u64>) {
        let hash = stable_hash(opening.defect);
        let defect = self.defect(hash, opening.now);
        let given = opening.number.filter(|number| *number > 0);
        defect.elsewhere |= defect.attempts == 0 && given.is_some_and(|number| number > 1);
        let number = given.unwrap_or_else(|| defect.attempts.saturating_add(1));
        defect.attempts = defect.attempts.max(number);
        let [defect_type, severity, language, strategy] = opening.about.map(Box::from);
        let id = self.remember(Attempt {
            defect: hash,
            number,
            started: opening.now,
            ended: 0,
            owner: opening.owner.map_or(0, RunKey::get),
            about: Some(Box::new(About { defect_type, severity, language, strategy })),
            totals: Some(Box::default()),
            rows: [None; 2],
            model: None,
            called: None,
            answered: false,
            cached: false,
            candidates: Vec::new(),
            verdict: Verdict::without_source(FixOutcome::Unverified),
            confidence: None,
            cost: 0,
        });
        self.opened.push_back(id);
        self.open = self.open.saturating_add(1);
        while self.opened.front().is_some_and(|first| !self.is_open(*first)) {
            self.opened.pop_front();
        }
        let beyond = self.open > MAX_OPEN || self.opened.len() > REMEMBERED / 2;
        (id, if beyond { self.opened.front().copied() } else { None })
    }

    /// Whether an attempt is open.
    pub fn is_open(&self, number: u64) -> bool {
        self.attempt(number).is_some_and(|attempt| attempt.ended == 0)
    }

    /// The open attempt that the next one would make forgotten; it has to be closed before.
    pub fn crowded_out(&self) -> Option<u64> {
        let open = self.attempts.len() >= REMEMBERED && self.attempts.front().is_some_and(|first| first.ended == 0);
        open.then(|| self.forgotten.wrapping_add(1))
    }

    fn remember(&mut self, attempt: Attempt) -> u64 {
        if self.attempts.len() >= REMEMBERED {
            self.attempts.pop_front();
            self.forgotten = self.forgotten.wrapping_add(1);
        }
        self.attempts.push_back(attempt);
        self.forgotten.wrapping_add(self.attempts.len() as u64)
    }

    fn defect(&mut self, hash: u64, now: u64) -> &mut Defect {
        if !self.defects.contains_key(&hash) {
            if self.defects.len() >= REMEMBERED
                && let Some(oldest) = self.defect_order.pop_front()
            {
                self.defects.remove(&oldest);
            }
            self.defect_order.push_back(hash);
        }
        self.defects.entry(hash).or_insert_with(|| Defect { first: now, ..Defect::default() })
    }

    /// A run began in an attempt. False where too many runs are in attempts.
    pub fn join(&mut self, key: RunKey, place: Place) -> bool {
        if self.runs.len() >= REMEMBERED && self.stale {
            // Runs that were given up, whose end never came. Searched once for each attempt that closes: for each run
            // it cost 200 µs where all are in open attempts.
            self.stale = false;
            let (attempts, forgotten) = (&self.attempts, self.forgotten);
            self.runs.retain(|_, place| {
                let position = place.attempt.checked_sub(forgotten).and_then(|n| n.checked_sub(1));
                let position = position.and_then(|n| usize::try_from(n).ok());
                position.and_then(|n| attempts.get(n)).is_some_and(|attempt| attempt.ended == 0)
            });
        }
        let room = self.runs.len() < REMEMBERED;
        if room {
            self.runs.insert(key.get(), place);
        }
        room
    }

    /// A run ended: where it was, and whether the attempt ends with it.
    pub fn leave(&mut self, key: RunKey) -> Option<(Place, bool)> {
        let place = self.runs.remove(&key.get())?;
        let owns = self.attempt(place.attempt).is_some_and(|attempt| attempt.owner == key.get() && attempt.ended == 0);
        Some((place, owns))
    }

    /// A model was called for an attempt, whatever came of it.
    pub fn called(&mut self, place: Place, model: SeriesId) {
        if let Some(attempt) = self.attempt_mut(place.attempt) {
            attempt.called = Some(model);
        }
    }

    /// A model answered for an attempt; from its response cache, or not.
    pub fn answered(&mut self, place: Place, model: SeriesId, cached: bool) {
        let Some(attempt) = self.attempt_mut(place.attempt) else { return };
        (attempt.model, attempt.answered, attempt.cached) = (Some(model), true, cached);
        if let Some(index) = place.candidate
            && let Some(candidate) = attempt.candidates.iter_mut().find(|candidate| candidate.index == index)
        {
            (candidate.model, candidate.cached) = (Some(model), cached);
        }
    }

    /// The counters that calls of an attempt go to while it is open; else its rows.
    pub fn totals(&mut self, number: u64) -> Result<&mut Totals, [Option<SeriesId>; 2]> {
        match self.attempt_mut(number) {
            None => Err([None; 2]),
            Some(attempt) => {
                let rows = attempt.rows;
                attempt.totals.as_deref_mut().ok_or(rows)
            }
        }
    }

    /// Adds a candidate to an attempt, or recommends it; also returns whether one of 17 was left out. A recommended one
    /// takes the place of another, because a verdict on it is one on its attempt.
    pub fn candidate(&mut self, number: u64, index: i64, recommended: bool) -> (Vec<Write>, bool) {
        let Some(attempt) = self.attempt(number) else { return (Vec::new(), false) };
        let is_new = attempt.candidates.iter().all(|candidate| candidate.index != index);
        let capped = is_new && attempt.candidates.len() >= SAMPLES;
        if capped && !recommended {
            return (Vec::new(), true);
        }
        let replaced = capped.then(|| {
            let unjudged = attempt.candidates.iter().rposition(|candidate| candidate.right.is_none());
            unjudged.unwrap_or_else(|| SAMPLES.wrapping_sub(1))
        });
        let replaced_cached = replaced.and_then(|at| attempt.candidates.get(at)).is_some_and(|known| known.cached);
        let (model, cached, ended, rows) = (attempt.model, attempt.cached, attempt.ended > 0, attempt.rows);
        let mut writes = self.change(number, |attempt| {
            if is_new {
                if let Some(at) = replaced {
                    attempt.candidates.remove(at);
                }
                attempt.candidates.push(Candidate { index, model, cached, recommended: false, right: None });
            }
            if recommended {
                for candidate in &mut attempt.candidates {
                    candidate.recommended = candidate.index == index;
                }
            }
        });
        if is_new && ended {
            let counted = |cached: bool| [(tally::CANDIDATES, 1), (tally::CACHED, u64::from(cached))];
            for row in rows.into_iter().flatten() {
                let before = if capped { counted(replaced_cached).to_vec() } else { Vec::new() };
                changes(row, &before, &counted(cached), &mut writes);
            }
        }
        (writes, capped)
    }

    /// The model states how sure it is, 0 to 1.
    pub fn state(&mut self, number: u64, confidence: f32) -> Vec<Write> {
        self.change(number, |attempt| attempt.confidence = Some(confidence))
    }

    /// Closes an attempt. `rows` are the series that count it.
    pub fn close(&mut self, number: u64, rows: [Option<SeriesId>; 2], outcome: FixOutcome, now: u64) -> Vec<Write> {
        let Some(attempt) = self.attempt_mut(number).filter(|attempt| attempt.ended == 0) else { return Vec::new() };
        attempt.ended = now.max(1);
        attempt.rows = rows;
        attempt.about = None;
        let standing = attempt.verdict;
        // A score without an outcome says nothing about how the block was left.
        if standing.strength == 0 || (standing.outcome == FixOutcome::Unverified && outcome != standing.outcome) {
            attempt.verdict = Verdict { score: standing.score, ..Verdict::without_source(outcome) };
        }
        let totals = attempt.totals.take().unwrap_or_default();
        let (figures, verdict) = (attempt.figures(), attempt.verdict);
        let (hash, fixed, number) = (attempt.defect, attempt.fixed(), attempt.number);
        let candidates = attempt.candidates.iter().filter(|candidate| candidate.cached).count();
        let more = [
            (tally::CANDIDATES, attempt.candidates.len() as u64),
            (tally::CACHED, candidates as u64),
            (tally::TOOLS, totals.tools),
            (tally::RETRIEVERS, totals.retrievers),
        ];
        self.open = self.open.saturating_sub(1);
        self.stale = true;
        // A defect whose first attempts were made elsewhere is counted there.
        let defect = self.defect(hash, now);
        let elsewhere = defect.elsewhere && defect.rows.is_empty();
        let mut writes = Vec::new();
        for row in rows.into_iter().flatten() {
            let entered = figures.iter().chain(&more).filter(|(_, n)| *n > 0);
            writes.extend(entered.map(|(tally, n)| Write::Enter(row, *tally, *n)));
            if let Some(score) = verdict.score {
                writes.push(Write::Score(row, score));
            }
            self.new_in_row(hash, row, now, !elsewhere, &mut writes);
            self.recount(hash, row, None, fixed, (number, now), &mut writes);
            writes.push(Write::Calls(row, totals.clone()));
        }
        writes
    }

    /// Notes a defect in a row that has not had it, and counts it there if wanted.
    fn new_in_row(&mut self, hash: u64, row: SeriesId, now: u64, counts: bool, writes: &mut Vec<Write>) {
        let defect = self.defect(hash, now);
        if defect.rows.iter().any(|(known, _)| *known == row) {
            return;
        }
        defect.rows.push((row, Cluster::default()));
        if counts {
            writes.push(Write::Enter(row, tally::DEFECTS, 1));
        }
    }

    /// An attempt at a defect goes from one result to another: None is a result that does not count.
    fn recount(
        &mut self,
        hash: u64,
        row: SeriesId,
        from: Option<bool>,
        to: Option<bool>,
        (number, ended): (u32, u64),
        writes: &mut Vec<Write>,
    ) {
        let defect = self.defect(hash, ended);
        let since = defect.first;
        let Some((_, cluster)) = defect.rows.iter_mut().find(|(known, _)| *known == row) else { return };
        let before = *cluster;
        let count = |result: Option<bool>| (u32::from(result == Some(true)), u32::from(result.is_some()));
        let ((k, m), (more_k, more_m)) = (count(from), count(to));
        cluster.fixed = cluster.fixed.saturating_sub(k).saturating_add(more_k);
        cluster.scored = cluster.scored.saturating_sub(m).saturating_add(more_m);
        let first_fix = cluster.fixed > 0 && !cluster.timed;
        cluster.timed |= first_fix;
        let after = *cluster;
        changes(row, &before.figures(), &after.figures(), writes);
        if first_fix {
            writes.push(Write::FirstFix(row, ended.saturating_sub(since), number));
        }
    }

    /// Changes an attempt, and the figures of its rows if it is closed.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Attempt)) -> Vec<Write> {
        let mut writes = Vec::new();
        let Some(attempt) = self.attempt_mut(number) else { return writes };
        if attempt.ended == 0 {
            change(attempt);
            return writes;
        }
        let (before, from) = (attempt.figures(), attempt.fixed());
        change(attempt);
        let (after, to) = (attempt.figures(), attempt.fixed());
        let (hash, rows, at) = (attempt.defect, attempt.rows, (attempt.number, attempt.ended));
        for row in rows.into_iter().flatten() {
            changes(row, &before, &after, &mut writes);
            if from != to {
                self.recount(hash, row, from, to, at, &mut writes);
            }
        }
        writes
    }

    /// A call of an attempt that has ended cost more than was known. Returns what its rows count of it.
    pub fn spent(&mut self, number: u64, cost: u64) -> Vec<Write> {
        self.change(number, |attempt| attempt.cost = attempt.cost.saturating_add(cost))
    }

    /// The number of an attempt of another recorder, whose state `known` gives where it is new here; `clusters` are those
    /// of its defect in its rows.
    pub fn adopt(&mut self, id: &str, clusters: [Cluster; 2], first: u64, known: impl FnOnce() -> Attempt) -> u64 {
        let key = stable_hash(id);
        if let Some(number) = self.foreign.get(&key)
            && self.attempt(*number).is_some()
        {
            return *number;
        }
        let attempt = known();
        let (hash, rows) = (attempt.defect, attempt.rows);
        let defect = self.defect(hash, first);
        defect.attempts = defect.attempts.max(attempt.number);
        for (row, cluster) in rows.into_iter().zip(clusters) {
            if let Some(row) = row
                && !defect.rows.iter().any(|(known, _)| *known == row)
            {
                defect.rows.push((row, cluster));
            }
        }
        let number = self.remember(attempt);
        if self.foreign.len() >= REMEMBERED * 2 {
            let forgotten = self.forgotten;
            self.foreign.retain(|_, number| *number > forgotten);
        }
        self.foreign.insert(key, number);
        number
    }

    /// The attempts at the defect of an attempt in each of its rows, and when the first of them began.
    pub fn clusters(&self, number: u64) -> ([Cluster; 2], u64) {
        let Some(attempt) = self.attempt(number) else { return Default::default() };
        let Some(defect) = self.defects.get(&attempt.defect) else { return ([Cluster::default(); 2], attempt.started) };
        let of = |row: Option<SeriesId>| defect.rows.iter().find(|(known, _)| Some(*known) == row);
        (attempt.rows.map(|row| of(row).map(|known| known.1).unwrap_or_default()), defect.first)
    }
}

/// What entered and what left each figure between two states.
fn changes(row: SeriesId, before: &[(Tally, u64)], after: &[(Tally, u64)], writes: &mut Vec<Write>) {
    let of = |figures: &[(Tally, u64)], tally: Tally| figures.iter().find(|(t, _)| *t == tally).map_or(0, |(_, n)| *n);
    for (tally, n) in before {
        if of(after, *tally) != *n && *n > 0 {
            writes.push(Write::Leave(row, *tally, *n));
        }
    }
    for (tally, n) in after {
        if of(before, *tally) != *n && *n > 0 {
            writes.push(Write::Enter(row, *tally, *n));
        }
    }
}
