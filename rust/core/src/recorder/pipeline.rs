//! Pipelines: own time, and the critical path when the root ends.

use super::batch::Batch;
use crate::metrics::{Counter, Dropped};
use crate::pipeline::Span;
use crate::pipeline::Tree;
use crate::runs::{Branch, Orphan, Root, Run, RunKey};
use crate::series::{Kind, SeriesId};

impl Batch<'_> {
    /// Durations, own time, and the run's place on the critical path of its pipeline. `timed`: its model if it
    /// is a call of one, else its component.
    pub(super) fn path(&self, run: &Run, timed: SeriesId, now: u64) {
        let lasted = now.saturating_sub(run.start);
        let model = (timed != run.component).then_some(timed);
        let both = || std::iter::once(run.component).chain(model);
        // Where runs share an id, their begins and ends cannot be told apart.
        let branch = if run.shared { Branch::Lost } else { run.branch };
        for series in both().filter(|_| !run.shared) {
            self.bump(series, Counter::Duration, lasted);
            if run.branch != Branch::Lost {
                self.bump(series, Counter::SelfTime, run.own);
            }
        }
        let mut left = Vec::new();
        if run.children > 0 {
            let orphaned = |o: Orphan| {
                let model = (o.kind == Kind::Llm).then_some(o.model);
                let (key, parent, component, start, end) = (o.key.get(), o.parent.get(), o.component, o.start, now);
                left.push(Span { key, parent, root: 0, component, model, piped: o.piped, start, end });
            };
            self.runs.orphan(&self.cells, run.key, now, orphaned, |run| self.abandon(&run, Dropped::RunsOrphaned));
        }
        let parent = run.parent.map_or(0, RunKey::get);
        let (key, component, start, piped) = (run.key.get(), run.component, run.start, run.piped);
        let span = Span { key, parent, root: 0, component, model, piped, start, end: now };
        match branch {
            Branch::Lost => {}
            Branch::Under(root) => {
                for span in left.iter().chain([&span]) {
                    self.hang(root, span);
                }
            }
            Branch::Root(newest) => {
                self.bump(run.component, Counter::Pipelines, 1);
                self.bump(run.component, Counter::PipelineTime, lasted);
                if newest == 0 && left.is_empty() {
                    for series in both() {
                        self.bump(series, Counter::CriticalTime, lasted);
                        self.bump(series, Counter::SavedIfTwiceAsFast, lasted / 2);
                    }
                } else if let Some(spans) = self.spans.of_root(&self.cells, newest, key) {
                    left.extend(spans);
                    self.critical(&Tree::new(&span, &left));
                } else {
                    self.drop_one(Dropped::PathsLost);
                }
            }
        }
    }

    /// Keeps a span for the end of its root.
    pub(super) fn hang(&self, root: Root, span: &Span) {
        let Some(mut newest) = self.runs.newest_span(&self.cells, root) else { return };
        let handle = self.spans.push(&self.cells, &Span { root: root.key().get(), ..*span }, newest.span());
        while !self.runs.hang(&self.cells, root, newest, handle) {
            let Some(found) = self.runs.newest_span(&self.cells, root) else { return };
            newest = found;
            self.spans.relink(&self.cells, handle, newest.span());
        }
    }

    pub(super) fn critical(&self, tree: &Tree) {
        tree.critical_path(|component, model, nanos| {
            for series in std::iter::once(component).chain(model) {
                self.bump(series, Counter::CriticalTime, nanos);
            }
        });
        tree.saved_if_twice_as_fast(|series, nanos| self.bump(series, Counter::SavedIfTwiceAsFast, nanos));
    }
}
