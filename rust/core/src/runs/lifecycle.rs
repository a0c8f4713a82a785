//! A run in flight and its end: tokens, what may be asked of it, and how it is taken out.

use super::call::CallRecord;
use super::component::ComponentRecord;
use super::packing::{
    BUDGETED, CHILD, CHILDREN, IDS, LABELED, LOW_40, ORPHAN, PARENT, PIPED, RETRIED, SHARED, START, Tag, WHO, gap_in,
    is_model_call, kind_of, series_in,
};
use super::start::View;
use super::{Asked, Branch, EMPTY, ENDING, Labels, Run, RunKey, RunTable, Token, Via};
use crate::arena::Cells;
use crate::budget::{PRICES_MISSING, Reservation};

impl RunTable {
    /// Returns what a model run in flight asked for.
    pub fn asked(self, cells: &Cells, key: RunKey) -> Option<Asked> {
        let view = self.view(cells, key)?;
        let held = |flag: u64, i: usize| {
            if view.who & flag == 0 { 0 } else { cells.observe(self.held(view.slot).wrapping_add(i)) }
        };
        let call = Asked {
            model: series_in(view.ids, 1),
            start: view.start,
            budgets: held(BUDGETED, 0),
            labels: Labels(held(LABELED, 3)),
            streamed: view.call().is_some_and(CallRecord::streamed),
            unpriced: held(BUDGETED, 1) >= PRICES_MISSING,
        };
        (is_model_call(view.who) && self.still(cells, view, key)).then_some(call)
    }

    /// Whether a run is still the one that its slot holds.
    #[inline]
    fn still(self, cells: &Cells, view: View<'_>, key: RunKey) -> bool {
        cells.observe(self.key_cell(view.slot)) == key.0
    }

    /// Takes the run out of the table: exactly one caller gets it. None where no run of this id is in flight, or
    /// where this end is an echo of one that took another run of the same id.
    #[inline]
    pub fn take(self, cells: &Cells, key: RunKey, now: u64) -> Option<Run> {
        loop {
            let slot = self.find(cells, key)?;
            let shared = self.run(cells, slot)?.get::<WHO>() & SHARED != 0;
            if shared && self.take_echo(cells, key) {
                return None;
            }
            if let Some(run) = self.take_slot(cells, slot, key.0, ENDING, now) {
                return Some(run);
            }
            if !shared {
                return None; // another thread has taken it
            }
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // what `start` packed
    pub(super) fn take_slot(self, cells: &Cells, slot: usize, key: u64, mark: u64, now: u64) -> Option<Run> {
        cells.claim(self.key_cell(slot), key, key | mark).ok()?;
        let record = self.run(cells, slot)?;
        let (who, ids, parent) = (record.get::<WHO>(), record.get::<IDS>(), record.get::<PARENT>());
        let (start, children) = (record.get::<START>(), record.get::<CHILDREN>());
        let (tag, component, orphan) = (Tag::of_who(who), series_in(ids, 0), children & ORPHAN != 0);
        let open = if orphan { 0 } else { children & LOW_40 };
        let held = |i: usize| cells.get(self.held(slot).wrapping_add(i));
        let mut run = Run {
            key: RunKey(key),
            parent: (parent != EMPTY).then_some(RunKey(parent)),
            start,
            first_chunk: None,
            first_token: None,
            first_visible: None,
            last_token: None,
            longest_gap: 0,
            kind: kind_of(who),
            component,
            model: component,
            gaps: component,
            events: 0,
            children: open,
            held: if who & BUDGETED == 0 {
                Reservation::default()
            } else {
                Reservation { budgets: held(0), cost: held(1), tokens: held(2), input: [held(4), held(5)] }
            },
            labels: Labels(if who & LABELED == 0 { 0 } else { held(3) }),
            retried: who & RETRIED != 0,
            piped: who & PIPED != 0,
            shared: who & SHARED != 0,
            failed: None,
            own: now.saturating_sub(start),
            branch: Branch::Lost,
        };
        let echoes = if is_model_call(who) {
            let call = CallRecord::new(record, tag);
            run.model = series_in(ids, 1);
            run.gaps = series_in(ids, 2);
            if let Some(output) = call.output() {
                [run.first_chunk, run.first_token, run.first_visible] = output.firsts;
                (run.last_token, run.events) = (Some(output.last), output.events);
                run.longest_gap = gap_in(who);
            }
            if run.shared { call.echoes() } else { 0 }
        } else {
            let record = ComponentRecord::new(record, tag);
            run.own = run.own.saturating_sub(record.covered(open > 0, now));
            run.failed = record.failed_model();
            if run.shared { record.echoes() } else { 0 }
        };
        // Remembered only where an end with this id may come for another run.
        self.remember_as(cells, run.key, mark, &run.held, echoes);
        self.vacate(cells, slot);
        let known = run.parent.filter(|_| who & CHILD != 0);
        // Not a later run with its parent's id: that one never counted it.
        let parent = known.and_then(|parent| self.view(cells, parent)).filter(|parent| parent.start <= start);
        if let Some(parent) = parent {
            parent.child_left(now);
        }
        run.branch = match parent {
            _ if orphan => Branch::Lost,
            // Reaped or evicted, or gone so lately that its children are not marked yet.
            None if who & CHILD != 0 => Branch::Lost,
            None => Branch::Root(if is_model_call(who) { 0 } else { who as u32 }),
            Some(parent) => self.branch_under(cells, parent),
        };
        Some(run)
    }

    /// Notes a chunk of a model run that is not output.
    pub fn chunk(self, cells: &Cells, key: RunKey, now: u64) {
        if let Some(view) = self.view(cells, key)
            && let Some(call) = view.call()
        {
            call.chunk(now.saturating_sub(view.start));
        }
    }

    /// Counts a token of a model run; `visible`: it is not reasoning.
    #[inline]
    pub fn token(self, cells: &Cells, key: RunKey, now: u64, via: Via, visible: bool) -> Token {
        let Some(slot) = self.find(cells, key) else { return Token::Unknown };
        let Some(line) = self.run(cells, slot) else { return Token::Unknown };
        let (start, who, ids) = (line.observe::<START>(), line.observe::<WHO>(), line.observe::<IDS>());
        if !is_model_call(who) {
            return Token::Unknown;
        }
        // Asked after all of them are read: if one was the next run's, the key is gone.
        let still = || cells.observe(self.key_cell(slot)) == key.0;
        let call = CallRecord::new(line, Tag::of_who(who));
        call.token((start, who, ids), (now, via, visible), who & SHARED != 0, still)
    }
}
