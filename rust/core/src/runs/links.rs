//! What a run tells its parent and its root: that it left, that it failed, its span.

use super::record::{
    CHILDREN, COUNT, EVENTS, FIRST, IDS, LAST, LOW, NO_TOKEN, ORPHAN, SERIES_BITS, WHO, is_model_call,
};
use super::{Branch, Root, RunKey, RunTable, is_run};
use crate::cells::{Cells, Line};
use crate::series::SeriesId;

impl RunTable {
    /// What the parent is told of a child that leaves, and the root above both.
    #[allow(clippy::cast_possible_truncation)] // a slot
    pub(super) fn left_parent(self, cells: &Cells, parent: Line<'_>, now: u64) -> Branch {
        // Not below zero: the parent may have been reaped and its slot have a new run.
        let mut n = parent.get::<CHILDREN>();
        while n > 0 && n & ORPHAN == 0 {
            match parent.exchange::<CHILDREN>(n, n.wrapping_sub(1)) {
                Ok(()) if n == 1 && !is_model_call(parent.get::<WHO>()) => {
                    parent.add::<FIRST>(now);
                    break;
                }
                Ok(()) => break,
                Err(found) => n = found,
            }
        }
        if is_model_call(parent.get::<WHO>()) {
            return Branch::Lost;
        }
        let root = (parent.get::<IDS>() >> SERIES_BITS) as usize;
        let Some(slot) = root.checked_sub(1) else { return Branch::Lost };
        let key = cells.get(self.key_cell(slot));
        if is_run(key) { Branch::Under(Root { slot, key }) } else { Branch::Lost }
    }

    /// The newest of the spans under a root; None when it has ended.
    #[allow(clippy::cast_possible_truncation)] // 32 bits
    pub fn newest_span(self, cells: &Cells, root: Root) -> Option<u32> {
        let record = self.run(cells, root.slot)?;
        let who = record.observe::<WHO>();
        (cells.observe(self.key_cell(root.slot)) == root.key).then_some(who as u32)
    }

    /// Makes `newest` the newest span under a root, if that was `before`.
    pub fn hang(self, cells: &Cells, root: Root, before: u32, newest: u32) -> bool {
        let Some(record) = self.run(cells, root.slot) else { return false };
        let who = record.get::<WHO>();
        let (from, to) = (who & !LOW | u64::from(before), who & !LOW | u64::from(newest));
        record.claim::<WHO>(from, to).is_ok()
    }

    /// Notes with its parent, if that is in flight, that a call of a model has failed.
    pub fn failed(self, cells: &Cells, parent: Option<RunKey>, model: SeriesId, now: u64) {
        let record = parent.and_then(|p| self.find(cells, p)).and_then(|slot| self.run(cells, slot));
        if let Some(record) = record.filter(|r| !is_model_call(r.get::<WHO>())) {
            record.set::<EVENTS>(record.get::<EVENTS>() & !COUNT | (model as u64).wrapping_add(1));
            record.set::<LAST>(now);
        }
    }

    /// The model whose failed call the call that began at `start` made good: both under the same parent.
    #[allow(clippy::cast_possible_truncation)] // a series
    pub fn recovered(self, cells: &Cells, parent: Option<RunKey>, start: u64) -> Option<SeriesId> {
        let record = self.run(cells, self.find(cells, parent?)?)?;
        let failed = record.get::<LAST>();
        if is_model_call(record.get::<WHO>()) || failed & NO_TOKEN != 0 || failed > start {
            return None;
        }
        record.exchange::<LAST>(failed, failed | NO_TOKEN).ok()?;
        ((record.get::<EVENTS>() & COUNT) as usize).checked_sub(1)
    }
}
