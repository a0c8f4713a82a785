//! How a run gets into the table.

use super::call::CallRecord;
use super::component::ComponentRecord;
use super::packing::{
    BUDGETED, CHILD, CHILDREN, IDS, LABELED, ORPHAN, PARENT, PIPED, RETRIED, SERIES_BITS, SHARED, START, Tag, WHO,
    is_model_call, root_bits, update, who_cell,
};
use super::{DEEP, EMPTY, LIVE, LOST, Labels, REAPING, Run, RunKey, RunTable, STARTING, Start, Started, WAYS, is_run};
use crate::arena::{Cells, Line};
use crate::series::Kind;

impl RunTable {
    /// Puts a run in flight, unless its start is an echo. Runs that had to make room go to `evicted`.
    #[inline]
    pub fn start(self, cells: &Cells, run: &Start, mut evicted: impl FnMut(Run)) -> Started {
        let slot = self.claim_empty(cells, run.key, run.now, &mut evicted);
        let parent = run.parent.and_then(|parent| self.view(cells, parent));
        if let Some(record) = self.run(cells, slot) {
            let parent_who = parent.map_or(0, |parent| parent.who);
            let flag = |on: bool, flag: u64| if on { flag } else { 0 };
            let (budgeted, labeled) = (run.held.budgets != 0, run.labels != Labels::default());
            let flags = flag(budgeted, BUDGETED) | flag(labeled, LABELED) | flag(run.piped, PIPED);
            let retried = flag(run.retried, RETRIED) | parent_who & RETRIED;
            let child = flag(parent.is_some(), CHILD);
            // Published, all of them: whoever sees one of these sees that the key of the slot's last run is gone.
            record.publish::<START>(run.now);
            record.publish::<PARENT>(run.parent.map_or(EMPTY, RunKey::get));
            record.swap::<WHO>(who_cell(run.kind, run.now, flags | retried | child));
            if budgeted || labeled {
                let [cost, tokens] = run.held.input;
                let held = [run.held.budgets, run.held.cost, run.held.tokens, run.labels.get(), cost, tokens];
                for (i, n) in held.into_iter().enumerate() {
                    cells.publish(self.held(slot).wrapping_add(i), n);
                }
            }
            let tag = Tag::of_start(run.now);
            let more = if run.kind == Kind::Llm {
                CallRecord::new(record, tag).begin(run.witness);
                run.model as u64 | (run.gaps as u64) << SERIES_BITS
            } else {
                ComponentRecord::new(record, tag).begin(run.witness);
                let under = parent.filter(|parent| !is_model_call(parent.who)).map(|parent| parent.ids >> SERIES_BITS);
                under.unwrap_or(root_bits(slot, run.key.0))
            };
            record.publish::<IDS>(run.component as u64 | more << SERIES_BITS);
            record.swap::<CHILDREN>(tag.cell());
        }
        // Between the claim and the look at others, and acquiring: of two threads that start one id at once, the
        // second to come here sees the slot of the first.
        let live = cells.add_acquire_release(self.base.wrapping_add(LIVE), 1);
        let started = self.among_others(cells, run, slot);
        if started != Started::Echo {
            // Twice where an eviction has failed before, because another thread was looking for the oldest.
            for _ in 0..live.saturating_add(1).saturating_sub(self.capacity).min(2) {
                if let Some(oldest) = self.evict_oldest(cells, run.now) {
                    evicted(oldest);
                }
            }
        }
        if started == Started::Echo || cells.claim(self.key_cell(slot), run.key.0 | STARTING, run.key.0).is_err() {
            self.vacate(cells, slot);
            return Started::Echo;
        }
        if let Some(parent) = parent {
            parent.child_started(run.now);
        }
        started
    }

    /// Empties a slot.
    #[inline]
    pub(super) fn vacate(self, cells: &Cells, slot: usize) {
        cells.publish(self.key_cell(slot), EMPTY);
        let counted = self.counted(slot);
        if counted != 0 {
            cells.sub(self.base.wrapping_add(DEEP), counted);
        }
        cells.sub(self.base.wrapping_add(LIVE), 1);
    }

    /// Whether a start is that of a run in flight, delivered once more; then it is counted as such.
    pub fn is_echo(self, cells: &Cells, key: RunKey, witness: u64) -> bool {
        self.find(cells, key).is_some()
            && (witness == 0
                || self
                    .others(cells, key)
                    .any(|(slot, value)| value == key.0 && self.started_again(cells, slot, witness)))
    }

    /// The slots of a key, whether in flight or on its way in or out, and their key cells.
    fn others(self, cells: &Cells, key: RunKey) -> impl Iterator<Item = (usize, u64)> {
        let mixed = key.mixed();
        let (middle, [first, second]) = self.deep_sets(mixed);
        let sets = [self.small_set(mixed), middle, Some(first), Some(second)].into_iter().flatten();
        let slots = sets.flat_map(|set| set..set.wrapping_add(WAYS));
        slots
            .map(move |slot| (slot, cells.observe(self.key_cell(slot))))
            .filter(move |(_, value)| value & !STARTING == key.0)
    }

    /// What a start is that has its slot, by the other slots of its key.
    #[inline]
    fn among_others(self, cells: &Cells, run: &Start, mine: usize) -> Started {
        let (mixed, key) = (run.key.mixed(), run.key.0);
        let only = |set: usize| {
            let Some(keys) = cells.line(self.key_cell(set)) else { return true };
            keys.find_beside(mine.wrapping_sub(set), WAYS, |value| value & !STARTING == key).is_none()
        };
        // Common: alone in the first level, and no run in any other.
        let alone = if let Some(set) = self.small_set(mixed) {
            only(set) && cells.get(self.base.wrapping_add(DEEP)) == 0
        } else {
            let (_, [first, second]) = self.deep_sets(mixed);
            only(first) && only(second)
        };
        if alone { Started::New } else { self.beside(cells, run, mine) }
    }

    #[cold]
    fn beside(self, cells: &Cells, run: &Start, mine: usize) -> Started {
        let mut started = Started::New;
        for (slot, mut value) in self.others(cells, run.key).filter(|(slot, _)| *slot != mine) {
            // On its way in, in another thread: then of two starts that may be one the lower slot stays.
            while run.witness == 0 && value == run.key.0 | STARTING {
                if slot < mine {
                    return Started::Echo;
                }
                value = cells.claim(self.key_cell(slot), value, LOST).map_or_else(|other| other, |()| LOST);
            }
            if value == run.key.0 && (run.witness == 0 || self.started_again(cells, slot, run.witness)) {
                return Started::Echo;
            }
            if value == run.key.0 || value == run.key.0 | STARTING {
                for slot in [slot, mine] {
                    if let Some(record) = self.run(cells, slot) {
                        let tag = Tag::of_who(record.observe::<WHO>());
                        update::<WHO>(record, |who| (Tag::of_who(who) == tag).then_some(who | SHARED));
                    }
                }
                started = Started::SharesId;
            }
        }
        started
    }

    fn started_again(self, cells: &Cells, slot: usize, witness: u64) -> bool {
        let Some(line) = self.run(cells, slot) else { return false };
        let who = line.observe::<WHO>();
        let tag = Tag::of_who(who);
        line.get::<CHILDREN>() == tag.cell()
            && if is_model_call(who) {
                CallRecord::new(line, tag).started_again(witness)
            } else {
                ComponentRecord::new(line, tag).started_again(witness)
            }
    }

    /// Returns a slot of one of the key's sets, claimed: the shallowest with room. When there is none, the oldest run
    /// of the last level's two sets makes room.
    #[inline]
    fn claim_empty(self, cells: &Cells, key: RunKey, now: u64, evicted: &mut impl FnMut(Run)) -> usize {
        let mixed = key.mixed();
        let in_small = self.small_set(mixed).and_then(|set| self.claim_in(cells, set, key));
        in_small.unwrap_or_else(|| self.claim_deep(cells, key, now, evicted))
    }

    fn claim_deep(self, cells: &Cells, key: RunKey, now: u64, evicted: &mut impl FnMut(Run)) -> usize {
        let (middle, [mut a, mut b]) = self.deep_sets(key.mixed());
        if let Some(slot) = middle.and_then(|set| self.claim_in(cells, set, key)) {
            return slot;
        }
        let free = |set: usize| {
            let slots = set..set.wrapping_add(WAYS);
            slots.filter(|s| cells.get(self.key_cell(*s)) == EMPTY).count()
        };
        if free(b) > free(a) {
            std::mem::swap(&mut a, &mut b);
        }
        loop {
            for set in [a, b] {
                if let Some(slot) = self.claim_in(cells, set, key) {
                    return slot;
                }
            }
            let slots = [a, b].into_iter().flat_map(|set| set..set.wrapping_add(WAYS));
            let runs = slots.map(|slot| (slot, cells.observe(self.key_cell(slot)))).filter(|(_, key)| is_run(*key));
            let oldest = runs.min_by_key(|(slot, _)| cells.get(self.record(*slot).wrapping_add(START)));
            if let Some((slot, key)) = oldest
                && let Some(run) = self.take_slot(cells, slot, key, REAPING, now)
            {
                evicted(run);
            }
        }
    }

    #[inline]
    fn claim_in(self, cells: &Cells, set: usize, key: RunKey) -> Option<usize> {
        let counted = self.counted(set);
        let keys = cells.line(self.key_cell(set))?;
        let mut from = 0;
        while let Some(way) = keys.find_relaxed(from, WAYS, EMPTY) {
            let slot = set.wrapping_add(way);
            // Before the slot is claimed: whoever may know of the run, or clears up after a fork, finds its
            // level in use.
            if counted != 0 {
                cells.add(self.base.wrapping_add(DEEP), counted);
            }
            if cells.claim(self.key_cell(slot), EMPTY, key.0 | STARTING).is_ok() {
                return Some(slot);
            }
            if counted != 0 {
                cells.sub(self.base.wrapping_add(DEEP), counted);
            }
            from = way.wrapping_add(1);
        }
        None
    }
}

/// A run in flight, by one look at its cells.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub slot: usize,
    pub line: Line<'a>,
    pub start: u64,
    pub who: u64,
    pub ids: u64,
}

impl RunTable {
    /// Looks at a run in flight; the cells are of one run.
    #[inline]
    pub(super) fn view(self, cells: &Cells, key: RunKey) -> Option<View<'_>> {
        self.view_at(cells, self.find(cells, key)?, key)
    }

    /// Looks at the run in a slot, if it is that of the key.
    #[inline]
    pub(super) fn view_at(self, cells: &Cells, slot: usize, key: RunKey) -> Option<View<'_>> {
        let line = self.run(cells, slot)?;
        let view =
            View { slot, line, start: line.observe::<START>(), who: line.observe::<WHO>(), ids: line.observe::<IDS>() };
        // After these: if one was the next run's, the key is gone.
        (cells.observe(self.key_cell(slot)) == key.0).then_some(view)
    }
}

impl<'a> View<'a> {
    pub const fn tag(self) -> Tag {
        Tag::of_who(self.who)
    }

    /// The record, where it is that of a model call.
    #[inline]
    pub fn call(self) -> Option<CallRecord<'a>> {
        is_model_call(self.who).then_some(CallRecord::new(self.line, self.tag()))
    }

    /// The record, where it is that of any other run.
    #[inline]
    pub fn component(self) -> Option<ComponentRecord<'a>> {
        (!is_model_call(self.who)).then_some(ComponentRecord::new(self.line, self.tag()))
    }

    #[inline]
    fn child_started(self, now: u64) {
        let before = update::<CHILDREN>(self.line, |children| {
            (self.tag().is_in(children) && children & ORPHAN == 0).then_some(children.wrapping_add(1))
        });
        if before == Some(self.tag().cell())
            && let Some(component) = self.component()
        {
            component.covered_from(now);
        }
    }

    /// Notes that a child has left.
    pub fn child_left(self, now: u64) {
        let (none, one) = (self.tag().cell(), self.tag().cell().wrapping_add(1));
        let before = update::<CHILDREN>(self.line, |children| {
            // Not below zero, nor where an ancestor's end has taken the place of the count.
            (self.tag().is_in(children) && children & ORPHAN == 0 && children != none)
                .then_some(children.wrapping_sub(1))
        });
        if before == Some(one)
            && let Some(component) = self.component()
        {
            component.covered_until(now);
        }
    }
}
