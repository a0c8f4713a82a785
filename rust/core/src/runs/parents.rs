//! What a run tells its parent and its root: that a model call failed, its span.

use super::packing::{CHILD, LOW_32, PARENT, SERIES_BITS, WHO, is_model_call, root_bits, root_slot};
use super::start::View;
use super::{ANY_FAILED, Branch, Newest, Root, RunKey, RunTable, is_run};
use crate::arena::Cells;
use crate::series::SeriesId;

impl RunTable {
    /// The root above a parent.
    pub(super) fn branch_under(self, cells: &Cells, parent: View<'_>) -> Branch {
        if is_model_call(parent.who) {
            return Branch::Lost;
        }
        let root = parent.ids >> SERIES_BITS;
        let Some(slot) = root_slot(root) else { return Branch::Lost };
        let key = cells.get(self.key_cell(slot));
        // Where the root was reaped alone, another run may have its slot.
        if is_run(key) && root_bits(slot, key) == root { Branch::Under(Root { slot, key }) } else { Branch::Lost }
    }

    /// Returns the newest of the spans under a root; None when it has ended.
    pub fn newest_span(self, cells: &Cells, root: Root) -> Option<Newest> {
        let who = self.run(cells, root.slot)?.observe::<WHO>();
        (cells.observe(self.key_cell(root.slot)) == root.key).then_some(Newest(who))
    }

    /// Makes `newest` the newest span under a root, if that is still `before`. Not under the next run of the
    /// root's slot: the cell has the tag of its run.
    pub fn hang(self, cells: &Cells, root: Root, before: Newest, newest: u32) -> bool {
        let cell = self.run(cells, root.slot);
        cell.is_some_and(|record| record.claim::<WHO>(before.0, before.0 & !LOW_32 | u64::from(newest)).is_ok())
    }

    /// Notes with its parent, if that is in flight, that a call of a model has failed.
    pub fn failed(self, cells: &Cells, parent: Option<RunKey>, model: SeriesId, now: u64) {
        let any = self.any_failed();
        if cells.get(any) == 0 {
            cells.publish(any, 1);
        }
        if let Some(parent) = parent.and_then(|key| self.view(cells, key)).and_then(View::component) {
            parent.failed(model, now);
        }
    }

    /// Returns the model whose failed call the call that began at `start` made good: both under the same parent, or
    /// in runs of which one failed and another has taken its place.
    pub fn recovered(self, cells: &Cells, mut parent: Option<RunKey>, mut start: u64) -> Option<SeriesId> {
        if cells.observe(self.any_failed()) == 0 {
            return None;
        }
        // In a deeper tree the failure is not looked for further up.
        for _ in 0..32 {
            let view = self.view(cells, parent?)?;
            let failed = view.component()?.recovered(start);
            if failed.is_some() || view.who & CHILD == 0 {
                return failed;
            }
            (parent, start) = (Some(RunKey(view.line.get::<PARENT>())), view.start);
        }
        None
    }

    /// The cell that says whether a call of a model has failed so far.
    const fn any_failed(self) -> usize {
        self.base.wrapping_add(ANY_FAILED)
    }
}
