//! Who left: the keys of ended and of reaped runs, as long as they are remembered.

use super::record::{BUDGETED, WHO};
use super::{ENDING, LEFT, Left, REAPING, RunKey, RunTable};
use crate::cells::Cells;

impl RunTable {
    #[allow(clippy::cast_possible_truncation)] // a position
    pub(super) const fn left_cell(self, key: RunKey, mark: u64) -> usize {
        let ring = if mark == ENDING { 0 } else { LEFT };
        self.left.wrapping_add(ring).wrapping_add(key.0 as usize % LEFT)
    }

    #[allow(clippy::cast_possible_truncation)] // a position
    pub(super) const fn reaped_budgets(self, key: u64) -> usize {
        self.left.wrapping_add(LEFT * 2).wrapping_add(key as usize % LEFT)
    }

    /// The budgets that a reaped run belonged to, as far as it is remembered.
    pub fn budgets_of_reaped(self, cells: &Cells, key: RunKey) -> u64 {
        let mark = key.0 | REAPING;
        // Still on its way out: what it held is still in its slot.
        let leaving = self.find_as(cells, key, mark).and_then(|slot| {
            let budgeted = self.run(cells, slot)?.observe::<WHO>() & BUDGETED != 0;
            let budgets = if budgeted { cells.observe(self.held(slot)) } else { 0 };
            (cells.observe(self.key_cell(slot)) == mark).then_some(budgets)
        });
        leaving.unwrap_or_else(|| {
            let remembered = cells.observe(self.left_cell(key, REAPING)) == key.0;
            if remembered { cells.get(self.reaped_budgets(key.0)) } else { 0 }
        })
    }

    /// Remembers the end of a run that was not in flight.
    pub fn remember(self, cells: &Cells, key: RunKey) {
        cells.publish(self.left_cell(key, ENDING), key.0);
    }

    /// How a run that is not in flight left; None when it never was, or is forgotten: after some thousand
    /// later ends, or some thousand later reapings.
    pub fn left(self, cells: &Cells, key: RunKey) -> Option<Left> {
        let told = |(mark, left)| (cells.observe(self.left_cell(key, mark)) == key.0).then_some(left);
        let leaving = |(mark, left)| self.find_as(cells, key, key.0 | mark).map(|_| left);
        let ways = [(ENDING, Left::Ended), (REAPING, Left::Reaped)];
        let remembered = || ways.into_iter().find_map(told);
        // Remembered before the slot is empty: who finds it neither told nor leaving finds it told at last.
        remembered().or_else(|| ways.into_iter().find_map(leaving)).or_else(remembered)
    }
}
