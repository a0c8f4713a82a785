//! A run's way through the table: it starts, it gives tokens, it leaves.

use super::record::{
    BUDGETED, BY_TOKEN, CHILD, CHILDREN, COUNT, EVENTS, FIRST, IDS, LABELED, LAST, LOW, NO_TOKEN, ORPHAN, PARENT,
    PIPED, RETRIED, SERIES_BITS, SINCE, START, WHO, brief_in, in_brief, in_micros, is_model_call, kind_code, root_bits,
    same_start, series_in, who_cell, with_brief,
};
use super::{Asked, IN_USE, LIVE};
use super::{BUSY, Branch, EMPTY, ENDING, Labels, REAPING, Run, RunKey, RunTable, Start, Token, Via, WAYS, is_run};
use crate::budget::Reservation;
use crate::cells::{Cells, Line};
use crate::series::Kind;

impl RunTable {
    /// Puts a run in flight; false when it already is. Runs that had to make room go to `evicted`.
    #[inline]
    pub fn start(self, cells: &Cells, run: &Start, mut evicted: impl FnMut(Run)) -> bool {
        if self.find(cells, run.key).is_some() {
            return false;
        }
        let live = cells.add(self.base.wrapping_add(LIVE), 1);
        // Twice where an eviction has failed before, because another thread was looking for the oldest.
        for _ in 0..live.saturating_add(1).saturating_sub(self.capacity).min(2) {
            if let Some(oldest) = self.evict_oldest(cells, run.now) {
                evicted(oldest);
            }
        }
        let slot = self.claim_empty(cells, run.key, run.now, &mut evicted);
        let parent = run.parent.and_then(|p| self.find(cells, p)).and_then(|slot| self.run(cells, slot));
        let parent_who = parent.map_or(Kind::Llm as u64, Line::get::<WHO>);
        if let Some(record) = self.run(cells, slot) {
            record.set::<START>(run.now);
            record.set::<PARENT>(run.parent.map_or(EMPTY, RunKey::get));
            let flag = |on: bool, flag: u64| if on { flag } else { 0 };
            let (budgeted, labeled) = (run.held.budgets != 0, run.labels != Labels::default());
            let flags = flag(budgeted, BUDGETED) | flag(labeled, LABELED) | flag(run.piped, PIPED);
            let retried = flag(run.retried, RETRIED) | parent_who & RETRIED;
            let child = flag(parent.is_some(), CHILD);
            record.publish::<WHO>(who_cell(run.kind, run.now, flags | retried | child));
            if budgeted || labeled {
                let [cost, tokens] = run.held.input;
                let held = [run.held.budgets, run.held.cost, run.held.tokens, run.labels.get(), cost, tokens];
                for (i, n) in held.into_iter().enumerate() {
                    cells.set(self.held(slot).wrapping_add(i), n);
                }
            }
            let more = if run.kind == Kind::Llm {
                run.model as u64 | (run.gaps as u64) << SERIES_BITS
            } else {
                let under = parent.filter(|_| !is_model_call(parent_who)).map(|p| p.get::<IDS>() >> SERIES_BITS);
                under.unwrap_or(root_bits(slot, run.key.0))
            };
            record.set::<IDS>(run.component as u64 | more << SERIES_BITS);
            record.set::<FIRST>(0);
            record.set::<CHILDREN>(0);
            // Published, as WHO: a late token of the last run that sees one of these sees its key gone.
            record.publish::<LAST>(run.now | NO_TOKEN);
            record.publish::<EVENTS>((run.now << 40) & !BY_TOKEN);
        }
        cells.publish(self.key_cell(slot), run.key.0);
        if let Some(parent) = parent
            && parent.add::<CHILDREN>(1) == 0
            && !is_model_call(parent_who)
        {
            parent.add::<FIRST>(run.now.wrapping_neg());
        }
        true
    }

    /// A slot of one of the key's sets, owned: the shallowest with room. When there is none, the oldest run
    /// of the last level's two sets makes room.
    #[inline]
    pub(super) fn claim_empty(self, cells: &Cells, key: RunKey, now: u64, evicted: &mut impl FnMut(Run)) -> usize {
        let [small, middle, mut a, mut b] = self.sets_of(key);
        for (level, set) in [small, middle] {
            if self.levels.get(level) != Some(&0)
                && let Some(slot) = self.claim_in(cells, level, set)
            {
                return slot;
            }
        }
        let free = |set: usize| {
            let slots = set..set.wrapping_add(WAYS);
            slots.filter(|s| cells.get(self.key_cell(*s)) == EMPTY).count()
        };
        if free(b.1) > free(a.1) {
            std::mem::swap(&mut a, &mut b);
        }
        loop {
            for (level, set) in [a, b] {
                if let Some(slot) = self.claim_in(cells, level, set) {
                    return slot;
                }
            }
            let slots = [a, b].into_iter().flat_map(|(_, set)| set..set.wrapping_add(WAYS));
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
    pub(super) fn claim_in(self, cells: &Cells, level: usize, set: usize) -> Option<usize> {
        for slot in set..set.wrapping_add(WAYS) {
            let cell = self.key_cell(slot);
            if cells.get(cell) != EMPTY {
                continue;
            }
            let (in_use, bit) = (self.base.wrapping_add(IN_USE), 1 << level);
            // Before the slot is claimed: whoever may know of the run, or clears up after a fork, finds its
            // level in use.
            if cells.get(in_use) & bit == 0 {
                cells.or(in_use, bit);
            }
            if cells.claim(cell, EMPTY, BUSY).is_ok() {
                return Some(slot);
            }
        }
        None
    }

    /// What a model run in flight asked for.
    pub fn asked(self, cells: &Cells, key: RunKey) -> Option<Asked> {
        let slot = self.find(cells, key)?;
        let record = self.run(cells, slot)?;
        let who = record.get::<WHO>();
        let held = |i: usize| cells.get(self.held(slot).wrapping_add(i));
        is_model_call(who).then(|| Asked {
            model: series_in(record.get::<IDS>(), 1),
            start: record.get::<START>(),
            budgets: if who & BUDGETED == 0 { 0 } else { held(0) },
            labels: Labels(if who & LABELED == 0 { 0 } else { held(3) }),
            streamed: record.get::<EVENTS>() & COUNT > 0,
        })
    }

    /// Takes the run out of the table: exactly one caller gets it.
    #[inline]
    pub fn take(self, cells: &Cells, key: RunKey, now: u64) -> Option<Run> {
        let slot = self.find(cells, key)?;
        self.take_slot(cells, slot, key.0, ENDING, now)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // what `start` packed
    pub(super) fn take_slot(self, cells: &Cells, slot: usize, key: u64, mark: u64, now: u64) -> Option<Run> {
        cells.claim(self.key_cell(slot), key, key | mark).ok()?;
        let record = self.run(cells, slot)?;
        let (who, ids, parent) = (record.get::<WHO>(), record.get::<IDS>(), record.get::<PARENT>());
        let (start, last, first, children) =
            (record.get::<START>(), record.get::<LAST>(), record.get::<FIRST>(), record.get::<CHILDREN>());
        let is_model_call = is_model_call(who);
        let component = series_in(ids, 0);
        let lasted = now.saturating_sub(start);
        let open = if children & ORPHAN == 0 { children } else { 0 };
        let covered = if is_model_call {
            0
        } else if open > 0 {
            first.wrapping_add(now)
        } else {
            first
        };
        let held = |i: usize| cells.get(self.held(slot).wrapping_add(i));
        let streamed = is_model_call && last & NO_TOKEN == 0;
        let mut run = Run {
            key: RunKey(key),
            parent: (parent != EMPTY).then_some(RunKey(parent)),
            start,
            first_chunk: brief_in(first, 0).filter(|_| streamed),
            first_token: brief_in(first, 1).filter(|_| streamed),
            first_visible: brief_in(first, 2).filter(|_| streamed),
            last_token: streamed.then_some(last),
            longest_gap: if streamed { (who & LOW).saturating_mul(1000) } else { 0 },
            kind: Kind::from_code(kind_code(who)).unwrap_or(Kind::Chain),
            component,
            model: if is_model_call { series_in(ids, 1) } else { component },
            gaps: if is_model_call { series_in(ids, 2) } else { component },
            events: if streamed { record.get::<EVENTS>() & COUNT } else { 0 },
            children: open,
            held: if who & BUDGETED == 0 {
                Reservation::default()
            } else {
                Reservation { budgets: held(0), cost: held(1), tokens: held(2), input: [held(4), held(5)] }
            },
            labels: Labels(if who & LABELED == 0 { 0 } else { held(3) }),
            retried: who & RETRIED != 0,
            piped: who & PIPED != 0,
            own: lasted.saturating_sub(covered),
            branch: Branch::Lost,
        };
        if mark == REAPING {
            self.remember_charge(cells, key, &run.held);
        }
        cells.publish(self.left_cell(run.key, mark), key);
        cells.publish(self.key_cell(slot), EMPTY);
        cells.sub(self.base.wrapping_add(LIVE), 1);
        let orphan = children & ORPHAN != 0;
        let known = run.parent.filter(|_| who & CHILD != 0);
        let parent = known.and_then(|p| self.find(cells, p)).and_then(|slot| self.run(cells, slot));
        // Not a later run with its parent's id: that one never counted it.
        let parent = parent.filter(|p| p.get::<START>() <= start);
        run.branch = match parent {
            _ if orphan => Branch::Lost,
            // Reaped or evicted, or gone so lately that its children are not marked yet.
            None if who & CHILD != 0 => Branch::Lost,
            None => Branch::Root(if is_model_call { 0 } else { who as u32 }),
            Some(parent) => self.left_parent(cells, parent, now),
        };
        Some(run)
    }

    /// A chunk of a run that is no output.
    pub fn chunk(self, cells: &Cells, key: RunKey, now: u64) {
        let record = self.find(cells, key).and_then(|slot| self.run(cells, slot));
        if let Some(record) = record.filter(|r| is_model_call(r.get::<WHO>())) {
            let first = record.get::<FIRST>();
            let since = in_brief(now.saturating_sub(record.get::<START>()));
            if first == 0 {
                // Whoever was first if two were.
                let _ = record.exchange::<FIRST>(0, with_brief(0, 0, since));
            }
        }
    }

    /// A token of a run; `visible`: it is no reasoning.
    #[inline]
    pub fn token(self, cells: &Cells, key: RunKey, now: u64, via: Via, visible: bool) -> Token {
        let Some(slot) = self.find(cells, key) else {
            return Token::Unknown;
        };
        let Some(record) = self.run(cells, slot) else { return Token::Unknown };
        let mut events = record.observe::<EVENTS>();
        let before = record.observe::<LAST>();
        let (who, ids, start) = (record.get::<WHO>(), record.get::<IDS>(), record.get::<START>());
        // After these: if any was the next run's, this finds the key gone.
        if cells.observe(self.key_cell(slot)) != key.0 || !is_model_call(who) || !same_start(who, events) {
            return Token::Unknown;
        }
        if via == Via::StreamEvent && events & BY_TOKEN != 0 {
            return Token::Echo;
        }
        let by_token = if via == Via::Token { BY_TOKEN } else { 0 };
        while let Err(found) = record.exchange::<EVENTS>(events, events.wrapping_add(1) | by_token) {
            if (found ^ events) & !(COUNT | BY_TOKEN) != 0 {
                return Token::Unknown; // the slot's next run: its start says so
            }
            events = found;
        }
        if record.exchange::<LAST>(before, now).is_err() {
            return Token::Counted;
        }
        let first = record.get::<FIRST>();
        if before & NO_TOKEN != 0 || (visible && brief_in(first, 2).is_none()) {
            let since = in_brief(now.saturating_sub(start));
            let first = with_brief(with_brief(first, 0, since), 1, since);
            record.set::<FIRST>(if visible { with_brief(first, 2, since) } else { first });
        }
        if before & NO_TOKEN != 0 {
            return Token::First;
        }
        let gap = now.saturating_sub(before);
        let micros = in_micros(gap);
        let mut longest = who;
        while micros > longest & LOW {
            match record.exchange::<WHO>(longest, longest & !LOW | micros) {
                Ok(()) => break,
                Err(found) if (found ^ who) & SINCE != 0 => break, // the slot's next run
                Err(found) => longest = found,
            }
        }
        Token::Next { series: series_in(ids, 2), gap }
    }
}
