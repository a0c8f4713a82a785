//! Budgets: what is spent and what is reserved, against a limit, by the calendar.

#[cfg(all(test, loom))]
mod loom_tests;
mod period;
#[cfg(all(test, not(loom)))]
mod tests;

pub use period::Period;

use crate::cells::Cells;
use crate::error::Error;
use period::SECOND;

/// Budgets of a recorder: one bit each.
pub const MAX_BUDGETS: usize = 64;
/// Thresholds of a budget.
pub const MAX_THRESHOLDS: usize = 8;

// A budget is two lines: what moves and what it is judged by, then the thresholds.
const COMMITTED: usize = 0;
const SPENT: usize = 1;
const BASE: usize = 2;
const ENDS: usize = 3;
const FIRED: usize = 4;
const LIMIT: usize = 5;
const TERMS: usize = 6;
const THRESHOLDS: usize = 8;
const BUDGET: usize = 16;
/// How many there are, on a line of its own.
const HEADER: usize = 8;

/// In `FIRED`: below, one bit a threshold; above, the minute the period ends.
const FIRED_BITS: u32 = 8;
const _: () = assert!(MAX_THRESHOLDS <= FIRED_BITS as usize && THRESHOLDS + MAX_THRESHOLDS <= BUDGET);

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Unit {
    /// Pico-dollars; a u64 holds 18.4 million USD of them.
    Cost,
    /// Tokens, input and output.
    Tokens,
    /// Calls.
    Calls,
}

impl Unit {
    /// Every unit, in the order of its code.
    pub const ALL: [Self; 3] = [Self::Cost, Self::Tokens, Self::Calls];
}

/// What a budget is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What it counts.
    pub unit: Unit,
    /// Most of it in a period, at least 1.
    pub limit: u64,
    /// When it begins anew.
    pub period: Period,
    /// Whether it refuses calls that do not fit.
    pub blocking: bool,
    /// Amounts to be told of, ascending.
    pub thresholds: Vec<u64>,
}

/// What a budget stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Spent in this period.
    pub spent: u64,
    /// Held for calls in flight.
    pub reserved: u64,
    /// Begin of the period, Unix nanoseconds.
    pub begins: u64,
    /// Its end; `u64::MAX` when it has none.
    pub ends: u64,
}

/// What a call holds of the budgets it belongs to, at its worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reservation {
    /// The budgets, a bit each.
    pub budgets: u64,
    /// Pico-dollars.
    pub cost: u64,
    /// Tokens.
    pub tokens: u64,
}

/// What a call has used: pico-dollars, tokens, calls; in the order of [`Unit`].
pub type Used = [u64; 3];

/// Thresholds that an event crossed: budget, position of the threshold.
pub type Crossed = Vec<(usize, usize)>;

/// A call that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The budget it does not fit.
    pub budget: usize,
    /// What its refusal crossed.
    pub crossed: Crossed,
}

/// The budgets of a recorder in the arena.
///
/// `COMMITTED` and `SPENT` only ever speak of all time: spent and reserved together, and spent alone. A period
/// is no reset but a `BASE`: what had been spent when it began. So nothing has to change together at midnight,
/// and each race errs to the strict side:
///
/// - Reserving is one compare-and-swap of `COMMITTED`, judged against a `BASE` read before: an outdated one
///   is lower, and the call is judged again before it is refused.
/// - A settlement changes `COMMITTED` first and `SPENT` after it: whoever sees the one sees the other, so
///   `BASE <= SPENT <= COMMITTED` at every moment.
/// - `BASE` is raised to a `SPENT` that was read while the old period was on the books, by a maximum: however
///   many threads roll over, and however late, it never passes over what was spent in the new period.
///
/// A call counts in the period in which it ends; what it holds goes along with it. At every reservation
/// `spent + reserved <= limit`; only an end that used more than it held can exceed it. Consistency of a
/// reading: each figure is exact up to some moment during it; `reserved` may still hold what `spent` has.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    base: usize,
}

impl Budgets {
    /// Cells of all budgets.
    pub const CELLS: usize = HEADER + MAX_BUDGETS * BUDGET;

    /// The budgets whose cells begin at `base`.
    pub const fn at(base: usize) -> Self {
        Self { base }
    }

    const fn cell(self, budget: usize, which: usize) -> usize {
        self.base.wrapping_add(HEADER).wrapping_add(budget.wrapping_mul(BUDGET)).wrapping_add(which)
    }

    /// Opens a budget at `now` (Unix nanoseconds) and returns its bit's position.
    pub fn open(self, cells: &Cells, terms: &Terms, now: u64) -> Result<usize, Error> {
        let wrong =
            |name: &'static str, value: String, allowed: &'static str| Err(Error::OutOfRange { name, value, allowed });
        if terms.limit == 0 {
            return wrong("limit", "0".into(), "1 or more");
        }
        if terms.thresholds.len() > MAX_THRESHOLDS {
            return wrong("thresholds", terms.thresholds.len().to_string(), "at most 8");
        }
        let mut count = cells.get(self.base);
        let budget = loop {
            if count >= MAX_BUDGETS as u64 {
                return wrong("budgets", count.saturating_add(1).to_string(), "at most 64 in one recorder");
            }
            match cells.exchange(self.base, count, count.saturating_add(1)) {
                #[allow(clippy::cast_possible_truncation)] // below 64
                Ok(()) => break count as usize,
                Err(found) => count = found,
            }
        };
        cells.set(self.cell(budget, LIMIT), terms.limit);
        cells.set(self.cell(budget, ENDS), terms.period.around(now).1);
        for (i, at) in terms.thresholds.iter().enumerate() {
            cells.set(self.cell(budget, THRESHOLDS).wrapping_add(i), *at);
        }
        let packed = terms.unit as u64 | (terms.period as u64) << 8 | u64::from(terms.blocking) << 16 | 1 << 24;
        cells.publish(self.cell(budget, TERMS), packed);
        Ok(budget)
    }

    /// Unit, period, and whether it blocks; None when there is no such budget.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // a byte
    fn terms(self, cells: &Cells, budget: usize) -> Option<(Unit, Period, bool)> {
        let packed = cells.observe(self.cell(budget, TERMS));
        let period = *Period::ALL.get((packed >> 8 & 0xFF) as usize)?;
        let unit = *Unit::ALL.get((packed & 0xFF) as usize)?;
        (packed >> 24 == 1).then_some((unit, period, packed >> 16 & 1 == 1))
    }

    /// Begins a new period where the old one is over.
    #[inline]
    fn roll(self, cells: &Cells, budget: usize, period: Period, now: u64) {
        let ends = self.cell(budget, ENDS);
        let mut end = cells.observe(ends);
        while now >= end && end != u64::MAX {
            let spent = cells.observe(self.cell(budget, SPENT));
            let still = cells.observe(ends);
            if still == end {
                cells.raise(self.cell(budget, BASE), spent);
                end = cells.claim(ends, end, period.around(now).1).err().unwrap_or(u64::MAX);
            } else {
                end = still;
            }
        }
    }

    /// Holds the worst a call can cost on each of its budgets, or on none of them.
    #[inline]
    pub fn reserve(self, cells: &Cells, asked: &Reservation, now: u64) -> Result<(), Refused> {
        for budget in bits(asked.budgets) {
            let Some((unit, period, blocking)) = self.terms(cells, budget) else { continue };
            self.roll(cells, budget, period, now);
            if blocking && !self.hold(cells, budget, amount(unit, asked)) {
                let before = asked.budgets & !(u64::MAX << budget);
                self.release(cells, &Reservation { budgets: before, ..*asked });
                return Err(self.refused(cells, budget));
            }
        }
        Ok(())
    }

    /// The threshold at the limit counts as crossed by the first refusal: what is left may be too little for
    /// any call.
    #[cold]
    fn refused(self, cells: &Cells, budget: usize) -> Refused {
        let mut crossed = Crossed::new();
        let limit = cells.get(self.cell(budget, LIMIT));
        for i in 0..MAX_THRESHOLDS {
            if cells.get(self.cell(budget, THRESHOLDS).wrapping_add(i)) == limit {
                self.fire(cells, budget, i, &mut crossed);
            }
        }
        Refused { budget, crossed }
    }

    #[inline]
    fn hold(self, cells: &Cells, budget: usize, amount: u64) -> bool {
        let (committed, base) = (self.cell(budget, COMMITTED), self.cell(budget, BASE));
        let limit = cells.get(self.cell(budget, LIMIT));
        let mut judged_by = cells.observe(base);
        let mut held = cells.get(committed);
        loop {
            let left = limit.saturating_sub(held.saturating_sub(judged_by));
            // An exhausted budget also refuses what costs nothing: with no price it would never block.
            let sum = if left == 0 || amount > left { None } else { held.checked_add(amount) };
            let Some(sum) = sum else {
                // By the latest figures, then: the sum as it is now, and the base it is judged by after it.
                let latest = (cells.add(committed, 0), cells.observe(base));
                if latest == (held, judged_by) {
                    return false;
                }
                (held, judged_by) = latest;
                continue;
            };
            match cells.claim(committed, held, sum) {
                Ok(()) => return true,
                Err(found) => held = found,
            }
        }
    }

    /// Gives back what a call held.
    pub fn release(self, cells: &Cells, held: &Reservation) {
        for budget in bits(held.budgets) {
            if let Some((unit, _, true)) = self.terms(cells, budget) {
                cells.sub(self.cell(budget, COMMITTED), amount(unit, held));
            }
        }
    }

    /// Puts what a call used in the place of what it held.
    #[inline]
    pub fn settle(self, cells: &Cells, held: &Reservation, used: &Used, now: u64) -> Crossed {
        let mut crossed = Crossed::new();
        for budget in bits(held.budgets) {
            let Some((unit, period, blocking)) = self.terms(cells, budget) else { continue };
            self.roll(cells, budget, period, now);
            let used = used.get(unit as usize).copied().unwrap_or(0);
            let before = if blocking { amount(unit, held) } else { 0 };
            cells.add(self.cell(budget, COMMITTED), used.wrapping_sub(before));
            if used > 0 {
                let spent = cells.post(self.cell(budget, SPENT), used).wrapping_add(used);
                let spent = spent.saturating_sub(cells.get(self.cell(budget, BASE)));
                for i in 0..MAX_THRESHOLDS {
                    let at = cells.get(self.cell(budget, THRESHOLDS).wrapping_add(i));
                    if at == 0 || at > spent {
                        break;
                    }
                    self.fire(cells, budget, i, &mut crossed);
                }
            }
        }
        crossed
    }

    /// Once a period.
    fn fire(self, cells: &Cells, budget: usize, threshold: usize, crossed: &mut Crossed) {
        let minute = cells.get(self.cell(budget, ENDS)) / (60 * SECOND);
        let (cell, bit) = (self.cell(budget, FIRED), 1_u64 << threshold);
        let mut old = cells.get(cell);
        loop {
            let of = old >> FIRED_BITS;
            if of > minute || (of == minute && old & bit != 0) {
                return;
            }
            let so_far = if of == minute { old } else { minute << FIRED_BITS };
            match cells.exchange(cell, old, so_far | bit) {
                Ok(()) => return crossed.push((budget, threshold)),
                Err(found) => old = found,
            }
        }
    }

    /// What a budget stands at; None when there is no such budget.
    pub fn standing(self, cells: &Cells, budget: usize, now: u64) -> Option<Standing> {
        let (_, period, _) = self.terms(cells, budget)?;
        self.roll(cells, budget, period, now);
        let spent = cells.observe(self.cell(budget, SPENT));
        let committed = cells.get(self.cell(budget, COMMITTED));
        let (begins, ends) = period.around(now);
        Some(Standing {
            spent: spent.saturating_sub(cells.get(self.cell(budget, BASE))),
            reserved: committed.saturating_sub(spent),
            begins,
            ends,
        })
    }

    /// In a process that has just been forked: keeps what was spent, holds nothing; its parent's runs end there.
    pub fn release_all(self, cells: &Cells) {
        for budget in 0..MAX_BUDGETS {
            if self.terms(cells, budget).is_some() {
                cells.set(self.cell(budget, COMMITTED), cells.get(self.cell(budget, SPENT)));
            }
        }
    }
}

#[inline]
const fn amount(unit: Unit, held: &Reservation) -> u64 {
    match unit {
        Unit::Cost => held.cost,
        Unit::Tokens => held.tokens,
        Unit::Calls => 1,
    }
}

/// Positions of the bits that are set.
#[inline]
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let position = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        position
    })
}
