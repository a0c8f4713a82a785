//! Runs that end, and the tokens before.

use super::batch::Batch;
use super::labels::of_each_key;
use super::layout::{ALIAS, CALLS_HOME, HOME, LARGEST};
use super::money::{more, used};
use super::{End, Recorder};
use crate::budget::{Crossed, Reservation};
use crate::metrics::{Counter, Dropped, Measure, Outcome};
use crate::runs::{Branch, Labels, Left, Run, RunKey, Token, Via};
use crate::series::{Kind, SeriesId};
use crate::stops::stop;

impl Recorder {
    /// A chunk of a streamed run without output: a role, usage, the end marker.
    pub fn chunk(&self, key: RunKey) {
        self.runs.chunk(&self.cells, key, self.clock.now());
    }

    /// A token of a streamed run, visible or reasoning; false when the other hook has reported it or the run is
    /// not in flight.
    #[inline]
    pub fn token(&self, key: RunKey, via: Via, visible: bool) -> bool {
        match self.runs.token(&self.cells, key, self.clock.now(), via, visible) {
            Token::Next { series, gap } => self.record_at_once(series, Measure::Gap, gap),
            Token::First | Token::Counted => {}
            Token::Echo => return false,
            Token::Unknown => {
                self.drop_one(Dropped::StrayTokens);
                return false;
            }
        }
        true
    }

    /// A run ended. Returns the thresholds of budgets that its spending crossed.
    pub fn run_ended(&self, end: &End<'_>) -> Crossed {
        let now = self.clock.now();
        let Some(run) = self.runs.take(&self.cells, end.key, now) else {
            return self.ended_unknown(end, now);
        };
        stop!(Taken);
        self.one_less(&run);
        let crossed = if run.held.budgets == 0 {
            Crossed::new()
        } else {
            self.budgets.settle(&self.cells, &run.held, &used(end), self.clock.unix(now))
        };
        self.batch().ended(&run, end, now);
        self.attempt_run_ended(end, Some(&run), now);
        crossed
    }
}

impl Batch<'_> {
    fn ended(&self, run: &Run, end: &End<'_>, now: u64) {
        let lasted = now.saturating_sub(run.start);
        self.outcome(run.component, end.outcome);
        if run.shared {
            self.drop_one(Dropped::SharedId);
        } else {
            self.record(run.component, end.outcome.latency(), lasted);
        }
        let mut timed = run.component;
        if run.kind == Kind::Llm {
            if let Some([_, output, ..]) = end.usage {
                let largest = self.block(run.model).wrapping_add(LARGEST);
                if output > self.cells.get(largest) {
                    self.cells.maximum(largest, output);
                }
            }
            let answered = self.answered_by(run, end);
            timed = answered.unwrap_or(run.model);
            self.settle_calls(run.model, timed);
            self.model_call(run, end, timed, answered, now);
            for label in run.labels.iter() {
                let label = self.label_of(label, timed, run.labels.len());
                self.finish_model(label, end, run.retried, now);
                if end.outcome != Outcome::CacheHit && !run.shared {
                    self.record(label, end.outcome.latency(), lasted);
                }
            }
        } else {
            if run.branch != Branch::Lost && !run.shared {
                self.record(run.component, Measure::SelfTime, run.own);
            }
            if end.outcome == Outcome::Error
                && let Some(model) = run.failed
            {
                // The whole run failed with its call: whatever succeeds in its place makes that good.
                self.runs.failed(&self.cells, run.parent, model, now);
            }
        }
        self.failed(timed, end, (!run.shared).then_some(lasted));
        self.path(run, timed, now);
    }

    /// Who failed, and how, and after how many nanoseconds if known.
    pub(super) fn failed(&self, series: SeriesId, end: &End<'_>, lasted: Option<u64>) {
        if let Some(how) = end.error
            && let Some(who) = self.series.labels(&self.cells, series)
        {
            let who = match who.kind {
                Kind::Model => format!("{}/{}", who.a, who.b),
                kind => format!("{} {}", kind.name(), who.a),
            };
            let failure = self.resolve(Kind::Error, &who, how);
            self.outcome(failure, end.outcome);
            if let Some(lasted) = lasted {
                self.record(failure, Measure::Latency, lasted);
            }
        }
    }

    /// Model figures that the end of a call reports.
    pub(super) fn model_call(&self, run: &Run, end: &End<'_>, model: SeriesId, answered: Option<SeriesId>, now: u64) {
        self.finish_model(model, end, run.retried, now);
        self.tokens_of(model, end);
        self.paid(end, now);
        match end.outcome {
            Outcome::Error => self.runs.failed(&self.cells, run.parent, model, now),
            Outcome::Ok => {
                if let Some(failed) = self.runs.recovered(&self.cells, run.parent, run.start) {
                    self.bump(failed, Counter::Recovered, 1);
                }
            }
            _ => {}
        }
        if end.outcome != Outcome::CacheHit && !run.shared {
            self.record(model, end.outcome.latency(), now.saturating_sub(run.start));
        }
        if let Some(queue) = end.queue {
            self.record(model, Measure::Queue, queue);
        }
        self.streamed(run, model, answered, end.outcome == Outcome::Ok);
        if let Some([_, output, ..]) = end.usage
            && end.outcome == Outcome::Ok
            && let Some(streaming) = run.streaming().filter(|_| !run.shared)
            // The first token came with the first output event: the time is that of the others.
            && let Some(each) = streaming.checked_div(output.saturating_sub(1))
        {
            self.record(model, Measure::TimePerToken, each);
        }
    }

    /// The distributions of the tokens of a call.
    fn tokens_of(&self, model: SeriesId, end: &End<'_>) {
        if let Some([input, output, ..]) = end.usage
            && end.outcome != Outcome::CacheHit
        {
            for (measure, tokens) in [(Measure::InputTokens, input), (Measure::OutputTokens, output)] {
                if tokens > 0 {
                    self.record(model, measure, tokens.saturating_mul(1000));
                }
            }
        }
    }

    /// The series of the model that answered, and what is learned from it about the requested name.
    pub(super) fn answered_by(&self, run: &Run, end: &End<'_>) -> Option<SeriesId> {
        let model = match end.answered {
            Some(model) => model,
            None if end.model.is_empty() && end.provider.is_empty() => return None,
            None if end.model.is_empty() || end.provider.is_empty() => {
                let requested = self.series.labels(&self.cells, run.model);
                let (provider, name) = requested.map_or_else(Default::default, |l| (l.a, l.b));
                let or = |reported: &str, requested: String| {
                    if reported.is_empty() { requested } else { reported.to_owned() }
                };
                let model = self.resolve(Kind::Model, &or(end.provider, provider), &or(end.model, name));
                if model == run.model && end.model.is_empty() {
                    return None; // only the provider was named: which model answered is not known
                }
                model
            }
            None => self.resolve(Kind::Model, end.provider, end.model),
        };
        // Who answered last; nothing to note while a model has only ever answered to its own name.
        let (alias, last) = (self.block(run.model).wrapping_add(ALIAS), model.saturating_add(1) as u64);
        let before = self.cells.get(alias);
        if before != last && (before != 0 || model != run.model) {
            self.cells.set(alias, last);
        }
        Some(model)
    }

    /// Where the calls in flight and the peak of a requested name are shown, from its first end on: at the model that
    /// this call is of.
    pub(super) fn settle_calls(&self, requested: SeriesId, model: SeriesId) {
        for series in [model, requested] {
            let home = self.block(series).wrapping_add(CALLS_HOME);
            if self.cells.get(home) == 0 {
                // Another end may have been faster.
                let _ = self.cells.exchange(home, 0, model.saturating_add(1) as u64);
            }
        }
    }

    /// Assigns the gaps between tokens of a requested model to the model that answers. Gaps recorded under the requested
    /// name stay unpublished until a stream ends that names its model or is complete; they are then assigned,
    /// permanently, to the model that answered it. A stream that breaks earlier assigns nothing.
    pub(super) fn settle_gaps(&self, run: &Run, answered: Option<SeriesId>, whole: bool) {
        if run.events < 2 || (answered.is_none() && !whole) {
            return;
        }
        let settle = |series: SeriesId, home: SeriesId| {
            let home = home.saturating_add(1) as u64;
            self.cells.exchange(self.block(series).wrapping_add(HOME), 0, home).map_or_else(|there| there, |()| home)
        };
        // From here on the gaps of this request go to the model that answered, which is its own home.
        let model = answered.unwrap_or(run.model);
        settle(model, model);
        if settle(run.gaps, model) != model.saturating_add(1) as u64 {
            self.dropped(Dropped::GapsMislaid, run.events.saturating_sub(1));
        }
    }

    pub(super) fn streamed(&self, run: &Run, model: SeriesId, answered: Option<SeriesId>, whole: bool) {
        if run.events > 0 {
            self.bump(model, Counter::Streamed, 1);
            self.bump(model, Counter::TokenEvents, run.events);
            if run.shared {
                return; // and no gaps either
            }
            self.settle_gaps(run, answered, whole);
            if let Some(first) = run.first_token {
                self.record(model, Measure::FirstToken, first);
            }
            if let Some(first) = run.first_chunk {
                self.record(model, Measure::FirstChunk, first);
            }
            if let Some(first) = run.first_visible {
                self.record(model, Measure::FirstVisibleToken, first);
            }
            if run.events > 1 {
                self.record(model, Measure::LongestGap, run.longest_gap);
            }
            if let Some(streaming) = run.streaming() {
                self.record(model, Measure::StreamDuration, streaming);
            }
        }
    }
}

impl Recorder {
    /// Whether an end of this run is one that has come before; then it is counted as dropped, and there is no more to do.
    pub fn end_is_echo(&self, key: RunKey) -> bool {
        let echo = self.runs.end_is_echo(&self.cells, key);
        if echo {
            self.drop_one(Dropped::DuplicateEnd);
        }
        echo
    }

    /// The end of a run that is not in flight: a second end, an end after the run was reaped, or an end
    /// whose start another handler received. What was spent is counted once in every case.
    pub(super) fn ended_unknown(&self, end: &End<'_>, now: u64) -> Crossed {
        let left = self.runs.left(&self.cells, end.key);
        if left == Some(Left::Ended) || !self.runs.remember(&self.cells, end.key) {
            self.drop_one(Dropped::DuplicateEnd);
            return Crossed::new();
        }
        let late = left == Some(Left::Reaped);
        self.drop_one(if late { Dropped::LateEnd } else { Dropped::EndWithoutStart });
        let charged = if late { self.runs.charged_for_reaped(&self.cells, end.key) } else { Reservation::default() };
        let crossed = if charged.budgets == 0 {
            Crossed::new()
        } else {
            // What it held was given back when it was reaped, and its input charged; what it spent is spent.
            self.budgets.settle(&self.cells, &charged, &more(used(end), charged.input), self.clock.unix(now))
        };
        let named = !(end.model.is_empty() && end.provider.is_empty());
        if end.kind == Kind::Llm && (named || end.answered.is_some()) {
            let batch = self.batch();
            let model = end.answered.unwrap_or_else(|| self.resolve(Kind::Model, end.provider, end.model));
            self.paid(end, now);
            batch.failed(model, end, None);
            batch.tokens_of(model, end);
            let keys = end.labels.iter().take(Labels::MOST);
            let labels = keys.map(|key| self.label(key, &of_each_key(key, ""), model, end.labels.len()));
            for series in std::iter::once(model).chain(labels) {
                if !late {
                    batch.finish_model(series, end, false, now);
                } else if end.outcome != Outcome::CacheHit {
                    batch.spend(series, end, false, now);
                }
            }
        }
        self.attempt_run_ended(end, None, now);
        crossed
    }
}
