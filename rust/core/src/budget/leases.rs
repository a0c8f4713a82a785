//! Slices of a limit that several processes share: each leases one for a time.

use super::{BASE, Budgets, COMMITTED, LEASED_UNTIL, LIMIT, RESET, Reservation, SPENT, Why, bits};
use crate::arena::Cells;

impl Budgets {
    /// Judges a reservation that was just made by a clock that is read after it: a process that was stopped in between may
    /// have lost the lease. Then nothing stays reserved.
    #[inline]
    pub fn confirm(self, cells: &Cells, asked: &Reservation, now: impl Fn() -> u64) -> Result<(), (usize, Why)> {
        for budget in bits(asked.budgets) {
            let until = cells.get(self.cell(budget, LEASED_UNTIL));
            let blocks = matches!(self.terms(cells, budget), Some((_, _, true)));
            if until != u64::MAX && blocks && now() >= until {
                self.release(cells, asked);
                return Err((budget, Why::Full));
            }
        }
        Ok(())
    }

    /// Sets the slice that a process leases of a budget: the most of what is spent and reserved since it was opened, and
    /// when the lease ends. Returns what is spent, and what is spent and reserved together, read after that; what is
    /// reserved already stays. `began` is when the period began: prices that come late for calls before it change nothing.
    pub fn lease(self, cells: &Cells, budget: usize, limit: u64, until: u64, began: u64) -> Option<(u64, u64)> {
        self.terms(cells, budget)?;
        cells.maximum(self.cell(budget, RESET), began);
        cells.publish(self.cell(budget, LIMIT), limit);
        // After the limit: a thread that sees the new lease sees its slice.
        cells.publish(self.cell(budget, LEASED_UNTIL), until);
        let spent = cells.observe(self.cell(budget, SPENT));
        // A reservation that this does not see comes after it, and sees the limit.
        let committed = cells.add_acquire_release(self.cell(budget, COMMITTED), 0);
        let base = cells.observe(self.cell(budget, BASE));
        Some((spent.saturating_sub(base), committed.saturating_sub(base)))
    }
}
