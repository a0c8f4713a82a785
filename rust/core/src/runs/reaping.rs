//! Runs that do not end by themselves: evicted at capacity, reaped by age, left behind by an ancestor.

use super::call::CallRecord;
use super::packing::{
    BUDGETED, CHILD, CHILDREN, LOW_40, ORPHAN, PARENT, PIPED, START, Tag, WHO, is_model_call, kind_of, series_in,
    update,
};
use super::start::View;
use super::{
    HEADER, NEXT_VICTIM, Orphan, REAPING, REFILL, Reserving, Run, RunKey, RunTable, Streaming, VICTIMS, is_run,
};
use crate::arena::Cells;
use std::collections::BinaryHeap;

/// How long an orphan may still end by itself when orphans are looked for, microseconds.
pub(super) const GRACE: u64 = 1_000_000;

impl RunTable {
    pub(super) const fn victim(self, i: usize) -> usize {
        self.base.wrapping_add(HEADER).wrapping_add(i.wrapping_mul(2))
    }

    /// Takes the oldest run of all. One scan finds the 256 oldest in order; later evictions pop them: a run
    /// that starts later is younger than all of them. Measured: 2.4 µs a start at 65,536 runs.
    pub(super) fn evict_oldest(self, cells: &Cells, now: u64) -> Option<Run> {
        let next = self.base.wrapping_add(NEXT_VICTIM);
        let refill = self.base.wrapping_add(REFILL);
        for _ in 0..2 {
            loop {
                // The cursor counts down, so that zeroed cells are an empty list.
                let left = cells.observe(next);
                if left == 0 {
                    break;
                }
                if cells.claim(next, left, left.wrapping_sub(1)).is_err() {
                    continue;
                }
                #[allow(clippy::cast_possible_truncation)] // at most 256
                let victim = self.victim(left.wrapping_sub(1) as usize);
                let (key, start) = (RunKey(cells.observe(victim)), cells.get(victim.wrapping_add(1)));
                // Compares the start too: a run id may have been used again, for a younger run.
                if is_run(key.0)
                    && let Some(slot) = self.find(cells, key)
                    && cells.get(self.record(slot).wrapping_add(START)) == start
                    && let Some(run) = self.take_slot(cells, slot, key.0, REAPING, now)
                {
                    return Some(run);
                }
            }
            if cells.claim(refill, 0, 1).is_err() {
                // Another thread scans: the table is over its cap by this one run until the next start.
                return None;
            }
            self.find_victims(cells);
            cells.publish(refill, 0);
        }
        None
    }

    pub(super) fn find_victims(self, cells: &Cells) {
        let mut oldest: BinaryHeap<(u64, u64)> = BinaryHeap::with_capacity(VICTIMS.saturating_add(1));
        self.each(cells, |_, key, start| {
            if oldest.len() < VICTIMS || oldest.peek().is_some_and(|(t, _)| start < *t) {
                oldest.push((start, key));
                if oldest.len() > VICTIMS {
                    oldest.pop();
                }
            }
        });
        let victims = oldest.into_sorted_vec();
        for (i, (start, key)) in victims.iter().rev().enumerate() {
            cells.set(self.victim(i).wrapping_add(1), *start);
            cells.publish(self.victim(i), *key);
        }
        cells.publish(self.base.wrapping_add(NEXT_VICTIM), victims.len() as u64);
    }

    /// Calls `f(slot, key, start)` for each run; the start is that of the key or of a later run.
    pub(super) fn each(self, cells: &Cells, mut f: impl FnMut(usize, u64, u64)) {
        for slot in 0..self.slots_in_use(cells) {
            // Relaxed first: an empty slot, and most are, costs a plain load.
            if !is_run(cells.get(self.key_cell(slot))) {
                continue;
            }
            let key = cells.observe(self.key_cell(slot));
            if is_run(key) {
                f(slot, key, cells.get(self.record(slot).wrapping_add(START)));
            }
        }
    }

    /// Takes every run that started before `limit` and every orphan; the flag says which. Returns how many
    /// model runs stay in flight.
    pub fn reap(self, cells: &Cells, limit: u64, now: u64, mut reaped: impl FnMut(Run, bool)) -> u64 {
        let mut models = 0_u64;
        self.each(cells, |slot, key, start| {
            let orphan = self.run(cells, slot).is_some_and(|r| r.get::<CHILDREN>() & ORPHAN != 0);
            if start < limit || orphan {
                if let Some(run) = self.take_slot(cells, slot, key, REAPING, now) {
                    reaped(run, orphan);
                }
            } else if is_model_call(cells.get(self.record(slot).wrapping_add(WHO))) {
                models = models.saturating_add(1);
            }
        });
        models
    }

    /// Takes out the runs of these keys that are in flight.
    pub fn abandon(self, cells: &Cells, keys: &[RunKey], now: u64, mut reaped: impl FnMut(Run)) {
        for key in keys {
            if let Some(slot) = self.find(cells, *key)
                && let Some(run) = self.take_slot(cells, slot, key.0, REAPING, now)
            {
                reaped(run);
            }
        }
    }

    /// Calls `f` for each model call in flight that holds a reservation.
    pub fn reserving(self, cells: &Cells, mut f: impl FnMut(Reserving)) {
        self.each_view(cells, |view, key| {
            if let Some(call) = view.call()
                && view.who & BUDGETED != 0
            {
                let (budgets, heard) = (cells.observe(self.held(view.slot)), call.heard(view.start));
                f(Reserving { key, start: view.start, heard, orphaned: self.is_orphaned(cells, view), budgets });
            }
        });
    }

    /// Whether an ancestor that was in flight when a run started no longer is.
    fn is_orphaned<'a>(self, cells: &'a Cells, mut run: View<'a>) -> bool {
        // A tree deeper than this is not looked at whole.
        for _ in 0..256 {
            if run.who & CHILD == 0 {
                return false;
            }
            if run.line.get::<CHILDREN>() & ORPHAN != 0 {
                return true;
            }
            let parent = RunKey(run.line.get::<PARENT>());
            match self.view(cells, parent).filter(|parent| parent.start <= run.start) {
                Some(parent) => run = parent,
                None => return true,
            }
        }
        false
    }

    /// Calls `f` for each run in flight with a look at its cells.
    fn each_view<'a>(self, cells: &'a Cells, mut f: impl FnMut(View<'a>, RunKey)) {
        self.each(cells, |slot, key, _| {
            if let Some(view) = self.view_at(cells, slot, RunKey(key)) {
                f(view, RunKey(key));
            }
        });
    }

    /// Calls `f` for each model call in flight whose last token came before `limit`.
    pub fn silent(self, cells: &Cells, limit: u64, mut f: impl FnMut(Streaming)) {
        self.each_view(cells, |view, key| {
            let output = view.call().and_then(CallRecord::output);
            if let Some(output) = output.filter(|output| output.last < limit) {
                let last = output.last;
                let (model, gaps) = (series_in(view.ids, 1), series_in(view.ids, 2));
                f(Streaming { key, model, gaps, start: view.start, last, events: output.events });
            }
        });
    }

    /// Marks every descendant of a run that is gone as an orphan, and takes those marked a second ago and
    /// before. Not at once: a stream that its reader leaves ends its chain first and its model call, as
    /// cancelled, a moment later. Only for a run that left with open children: a scan of the keys in use for
    /// each generation, 0.4 ms with 65,536 runs in flight.
    pub fn orphan(
        self,
        cells: &Cells,
        of: RunKey,
        now: u64,
        mut left: impl FnMut(Orphan),
        mut reaped: impl FnMut(Run),
    ) {
        let micros = now / 1000;
        let mut parents = vec![of.0];
        while !parents.is_empty() {
            let mut next = Vec::new();
            self.each_view(cells, |view, key| {
                let (children, parent) = (view.line.get::<CHILDREN>(), view.line.get::<PARENT>());
                if children & ORPHAN != 0 {
                    if micros.wrapping_sub(children) & LOW_40 > GRACE
                        && let Some(run) = self.take_slot(cells, view.slot, key.0, REAPING, now)
                    {
                        reaped(run);
                    }
                    return;
                }
                let tag = Tag::of_who(view.who);
                let orphan = |cell: u64| {
                    (tag.is_in(cell) && cell & ORPHAN == 0).then_some(ORPHAN | tag.cell() | micros & LOW_40)
                };
                if parents.binary_search(&parent).is_err() {
                    return;
                }
                let Some(children) = update::<CHILDREN>(view.line, orphan) else { return };
                let component = series_in(view.ids, 0);
                left(Orphan {
                    key,
                    parent: RunKey(parent),
                    start: view.start,
                    kind: kind_of(view.who),
                    component,
                    model: if is_model_call(view.who) { series_in(view.ids, 1) } else { component },
                    piped: view.who & PIPED != 0,
                });
                if children & LOW_40 > 0 {
                    next.push(key.0);
                }
            });
            next.sort_unstable();
            parents = next;
        }
    }
}
