//! Who left: the keys of ended and of reaped runs, as long as they are remembered.

use super::record::{BUDGETED, WHO};
use super::{CHARGED, ENDING, LEFT, Left, REAPING, RunKey, RunTable};
use crate::budget::Reservation;
use crate::cells::Cells;

impl RunTable {
    #[allow(clippy::cast_possible_truncation)] // a position
    pub(super) const fn left_cell(self, key: RunKey, mark: u64) -> usize {
        let ring = if mark == ENDING { 0 } else { LEFT };
        self.left.wrapping_add(ring).wrapping_add(key.0 as usize % LEFT)
    }

    /// The cells of what a reaped run was charged: its budgets, pico-dollars, tokens.
    #[allow(clippy::cast_possible_truncation)] // a position
    const fn reaped_cells(self, key: u64) -> usize {
        self.left.wrapping_add(LEFT * 2).wrapping_add((key as usize % LEFT).wrapping_mul(CHARGED))
    }

    /// Remembers what a run is charged as it is reaped.
    pub(super) fn remember_charge(self, cells: &Cells, key: u64, held: &Reservation) {
        let first = self.reaped_cells(key);
        if held.budgets == 0 && cells.get(first) == 0 {
            return;
        }
        let [cost, tokens] = held.input;
        for (i, n) in [held.budgets, cost, tokens].into_iter().enumerate() {
            cells.set(first.wrapping_add(i), n);
        }
    }

    /// The budgets that a reaped run belonged to and what they were charged for it, as far as it is remembered:
    /// a reservation that holds nothing.
    pub fn charged_for_reaped(self, cells: &Cells, key: RunKey) -> Reservation {
        let mark = key.0 | REAPING;
        let charge = |budgets, cost, tokens| Reservation { budgets, cost: 0, tokens: 0, input: [cost, tokens] };
        // Still on its way out: what it held is still in its slot.
        let leaving = self.find_as(cells, key, mark).and_then(|slot| {
            let budgeted = self.run(cells, slot)?.observe::<WHO>() & BUDGETED != 0;
            let held = |i: usize| if budgeted { cells.observe(self.held(slot).wrapping_add(i)) } else { 0 };
            let charged = charge(held(0), held(4), held(5));
            (cells.observe(self.key_cell(slot)) == mark).then_some(charged)
        });
        leaving.unwrap_or_else(|| {
            if cells.observe(self.left_cell(key, REAPING)) != key.0 {
                return Reservation::default();
            }
            let first = self.reaped_cells(key.0);
            charge(cells.get(first), cells.get(first.wrapping_add(1)), cells.get(first.wrapping_add(2)))
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
