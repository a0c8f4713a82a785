//! What a run tells its parent and its root: that it left, that it failed, its span.

use super::record::{
    CHILDREN, COUNT, EVENTS, FIRST, IDS, LAST, LOW, NO_TOKEN, ORPHAN, SERIES_BITS, WHO, is_model_call, root_bits,
    root_slot,
};
use super::{Branch, Newest, Root, RunKey, RunTable, is_run};
use crate::cells::{Cells, Line};
use crate::series::SeriesId;

impl RunTable {
    /// What the parent is told of a child that leaves, and the root above both.
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
        let root = parent.get::<IDS>() >> SERIES_BITS;
        let Some(slot) = root_slot(root) else { return Branch::Lost };
        let key = cells.get(self.key_cell(slot));
        // Where the root was reaped alone, somebody else may have its slot.
        if is_run(key) && root_bits(slot, key) == root { Branch::Under(Root { slot, key }) } else { Branch::Lost }
    }

    /// The newest of the spans under a root; None when it has ended.
    pub fn newest_span(self, cells: &Cells, root: Root) -> Option<Newest> {
        let who = self.run(cells, root.slot)?.observe::<WHO>();
        (cells.observe(self.key_cell(root.slot)) == root.key).then_some(Newest(who))
    }

    /// Makes `newest` the newest span under a root, if that is still `before`. Not under the next run of the
    /// root's slot: the cell tells when its run started.
    pub fn hang(self, cells: &Cells, root: Root, before: Newest, newest: u32) -> bool {
        let cell = self.run(cells, root.slot);
        cell.is_some_and(|record| record.claim::<WHO>(before.0, before.0 & !LOW | u64::from(newest)).is_ok())
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
