//! Limits and thresholds: how they are set, and which are crossed.

use super::period::SECOND;
use super::{
    Budgets, Crossed, ENDS, EPOCH, EPOCH_BITS, FIRED, FIRED_BITS, LIMIT, MAX_THRESHOLDS, Refused, THRESHOLDS, Why,
    check,
};
use crate::arena::Cells;
use crate::error::Error;

impl Budgets {
    pub(super) fn judge_by(self, cells: &Cells, budget: usize, limit: u64, thresholds: &[u64]) {
        for i in 0..MAX_THRESHOLDS {
            let at = thresholds.get(i).copied().unwrap_or(0);
            cells.set(self.cell(budget, THRESHOLDS).wrapping_add(i), at);
        }
        cells.publish(self.cell(budget, LIMIT), limit);
    }

    /// The threshold at the limit counts as crossed by the first refusal: what is left may be too little for every call.
    #[cold]
    pub fn refused(self, cells: &Cells, budget: usize, why: Why) -> Refused {
        let mut crossed = Crossed::new();
        if why == Why::Full {
            let epoch = cells.observe(self.cell(budget, EPOCH));
            let limit = cells.get(self.cell(budget, LIMIT));
            for i in 0..MAX_THRESHOLDS {
                let at = cells.get(self.cell(budget, THRESHOLDS).wrapping_add(i));
                // Unused thresholds are 0, as an empty slice is.
                if at == limit && at > 0 {
                    self.fire(cells, budget, i, epoch, &mut crossed);
                }
            }
        }
        Refused { budget, why, crossed }
    }

    #[inline]
    pub(super) fn fire_up_to(self, cells: &Cells, budget: usize, spent: u64, epoch: u64, crossed: &mut Crossed) {
        for i in 0..MAX_THRESHOLDS {
            let at = cells.get(self.cell(budget, THRESHOLDS).wrapping_add(i));
            if at == 0 || at > spent {
                break;
            }
            self.fire(cells, budget, i, epoch, crossed);
        }
    }

    /// Crosses a threshold once a period and epoch.
    pub(super) fn fire(self, cells: &Cells, budget: usize, threshold: usize, epoch: u64, crossed: &mut Crossed) {
        let (tag, cell, bit) = (self.tag(cells, budget, epoch), self.cell(budget, FIRED), 1_u64 << threshold);
        let mut old = cells.get(cell);
        loop {
            let of = old >> FIRED_BITS;
            if of > tag || (of == tag && old & bit != 0) {
                return;
            }
            let so_far = if of == tag { old } else { tag << FIRED_BITS };
            match cells.exchange(cell, old, so_far | bit) {
                Ok(()) => return crossed.push((budget, threshold)),
                Err(found) => old = found,
            }
        }
    }

    /// Returns the minute in which the period ends, and the epoch.
    pub(super) fn tag(self, cells: &Cells, budget: usize, epoch: u64) -> u64 {
        let minute = cells.get(self.cell(budget, ENDS)) / (60 * SECOND);
        minute << EPOCH_BITS | epoch & ((1 << EPOCH_BITS) - 1)
    }

    /// Sets another limit and thresholds. A threshold that is no longer reached can be crossed again; one that was crossed
    /// and is still reached stays crossed. Returns those that are reached now and were not before.
    pub fn set_limit(
        self,
        cells: &Cells,
        budget: usize,
        limit: u64,
        thresholds: &[u64],
        now: u64,
    ) -> Result<Crossed, Error> {
        check(limit, thresholds)?;
        let mut crossed = Crossed::new();
        let Some((_, period, _)) = self.terms(cells, budget) else { return Ok(crossed) };
        self.roll(cells, budget, period, now);
        self.judge_by(cells, budget, limit, thresholds);
        let fired = self.cell(budget, FIRED);
        let before = cells.observe(self.cell(budget, EPOCH));
        let (old, epoch) = (self.tag(cells, budget, before), before.wrapping_add(1));
        let reached = thresholds.iter().take_while(|at| **at <= self.spent(cells, budget)).count();
        let mut bits = cells.get(fired);
        while bits >> FIRED_BITS == old {
            let stay = bits & (1_u64 << reached).wrapping_sub(1);
            match cells.exchange(fired, bits, self.tag(cells, budget, epoch) << FIRED_BITS | stay) {
                Ok(()) => break,
                Err(other) => bits = other,
            }
        }
        // After that: earlier, no thread fires a threshold that has been crossed.
        cells.add_release(self.cell(budget, EPOCH), 1);
        let spent = self.spent(cells, budget);
        self.fire_up_to(cells, budget, spent, epoch, &mut crossed);
        Ok(crossed)
    }
}
