//! Budgets: amounts spent and reserved, against a limit for a calendar period.

mod leases;
#[cfg(all(test, loom))]
mod loom_tests;
mod period;
mod terms;
#[cfg(all(test, not(loom)))]
mod tests;
mod thresholds;

pub use period::Period;
pub use terms::{
    Crossed, Late, MAX_COST, PRICES_MISSING, Refused, Reservation, Standing, Terms, UNPRICED, Unit, Unpriced, Used, Why,
};

use crate::arena::Cells;
use crate::error::Error;

/// Budgets of a recorder: one bit each.
pub const MAX_BUDGETS: usize = 64;
/// Thresholds of a budget.
pub const MAX_THRESHOLDS: usize = 8;

// A budget takes three lines: what changes and what it is judged by, the thresholds, and what is seldom read.
const COMMITTED: usize = 0;
const SPENT: usize = 1;
const BASE: usize = 2;
const ENDS: usize = 3;
const FIRED: usize = 4;
const LIMIT: usize = 5;
const TERMS: usize = 6;
/// How often the budget was reset or given another limit: part of the tag of `FIRED`.
const EPOCH: usize = 7;
const THRESHOLDS: usize = 8;
/// What a call to a model without a price is charged.
const WITHOUT_PRICE: usize = 16;
/// When it was reset last, Unix nanoseconds.
const RESET: usize = 17;
/// When the lease ends that `LIMIT` is a slice of, Unix nanoseconds; `u64::MAX` where it never does.
const LEASED_UNTIL: usize = 18;
const BUDGET: usize = 24;
/// Number of budgets, on a line of its own.
const HEADER: usize = 8;

/// Layout of `FIRED`: one bit a threshold in the low bits; then 24 bits of the epoch; above them the minute in which the period ends.
const FIRED_BITS: u32 = 8;
const EPOCH_BITS: u32 = 24;
const _: () = assert!(MAX_THRESHOLDS <= FIRED_BITS as usize && THRESHOLDS + MAX_THRESHOLDS <= WITHOUT_PRICE);

/// The budgets of a recorder in the arena.
///
/// `COMMITTED` (spent and reserved together) and `SPENT` cover all time and only count up and down; a new period changes
/// `BASE`, the amount that had been spent when the period began. So nothing has to change together at midnight, and each
/// race errs on the strict side:
///
/// - Reserving is one compare-and-swap of `COMMITTED`, judged against a `BASE` read before. An outdated `BASE` is lower,
///   and the call is judged again before it is refused.
/// - A settlement changes `COMMITTED` before `SPENT`: a reader that sees the second change sees the first, so
///   `BASE <= SPENT <= COMMITTED` at every moment.
/// - `BASE` is raised, by a maximum, to a `SPENT` that was read while the old period was current: however many threads
///   begin the new period, and however late, `BASE` never exceeds what was spent before it.
///
/// A reset begins a period early: `BASE` is raised in the same way. A new limit is one store; a reservation beside it is
/// judged by the old or the new limit, and by the new one before it is refused.
///
/// A budget of several processes is a slice that each of them leases from a store: its limit is what this process may use
/// since it began. A lower slice is published before `COMMITTED` is read by a read-modify-write, and a reservation reads the
/// limit again after its own: one of the two sees the other, so nothing is reserved beyond what was given back.
///
/// A call counts in the period in which it ends, and its reservation moves with it. At every reservation
/// `spent + reserved <= limit`; only a call that used more than it reserved can exceed the limit. Consistency of a
/// reading: each figure was exact at some moment during it; `reserved` may still include what `spent` already has.
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

    /// The cells of all budgets.
    pub const fn range(self) -> std::ops::Range<usize> {
        self.base..self.base.wrapping_add(Self::CELLS)
    }

    const fn cell(self, budget: usize, which: usize) -> usize {
        self.base.wrapping_add(HEADER).wrapping_add(budget.wrapping_mul(BUDGET)).wrapping_add(which)
    }

    /// Opens a budget at `now` (Unix nanoseconds) and returns its position.
    pub fn open(self, cells: &Cells, terms: &Terms, now: u64) -> Result<usize, Error> {
        let wrong =
            |name: &'static str, value: String, allowed: &'static str| Err(Error::OutOfRange { name, value, allowed });
        check(terms.limit, &terms.thresholds)?;
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
        cells.set(self.cell(budget, ENDS), terms.period.around(now).1);
        cells.set(self.cell(budget, LEASED_UNTIL), u64::MAX);
        cells.set(self.cell(budget, WITHOUT_PRICE), terms.unpriced.cell());
        self.judge_by(cells, budget, terms.limit, &terms.thresholds);
        let packed = terms.unit as u64 | (terms.period as u64) << 8 | u64::from(terms.blocking) << 16 | 1 << 24;
        cells.publish(self.cell(budget, TERMS), packed);
        Ok(budget)
    }

    /// Returns unit, period and whether it blocks; None when there is no such budget.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // a byte
    fn terms(self, cells: &Cells, budget: usize) -> Option<(Unit, Period, bool)> {
        let packed = cells.observe(self.cell(budget, TERMS));
        let period = *Period::ALL.get((packed >> 8 & 0xFF) as usize)?;
        let unit = *Unit::ALL.get((packed & 0xFF) as usize)?;
        (packed >> 24 == 1).then_some((unit, period, packed >> 16 & 1 == 1))
    }

    /// Begins a new period where the old one has ended.
    #[inline]
    fn roll(self, cells: &Cells, budget: usize, period: Period, now: u64) {
        let ends = self.cell(budget, ENDS);
        let mut end = cells.observe(ends);
        while now >= end && end != u64::MAX {
            let spent = cells.observe(self.cell(budget, SPENT));
            let still = cells.observe(ends);
            if still == end {
                cells.maximum(self.cell(budget, BASE), spent);
                end = cells.claim(ends, end, period.around(now).1).err().unwrap_or(u64::MAX);
            } else {
                end = still;
            }
        }
    }

    /// Reserves the worst case of a call on each of its budgets, or on none of them.
    pub fn reserve(self, cells: &Cells, asked: &Reservation, now: u64) -> Result<(), Refused> {
        self.try_reserve(cells, asked, now).map_err(|(budget, why)| self.refused(cells, budget, why))
    }

    /// Reserves likewise, without reporting a refusal yet: returns which budget the call does not fit, and why.
    #[inline]
    pub fn try_reserve(self, cells: &Cells, asked: &Reservation, now: u64) -> Result<(), (usize, Why)> {
        for budget in bits(asked.budgets) {
            let Some((unit, period, blocking)) = self.terms(cells, budget) else { continue };
            self.roll(cells, budget, period, now);
            if !blocking {
                continue;
            }
            let held = match (unit, asked.cost) {
                // A call that costs nothing fits every budget in USD.
                (Unit::Cost, 0) => Ok(()),
                (Unit::Cost, PRICES_MISSING) => Err(Why::PricesMissing),
                (Unit::Cost, UNPRICED) if cells.get(self.cell(budget, WITHOUT_PRICE)) == Unpriced::Block.cell() => {
                    Err(Why::Unpriced)
                }
                _ if now >= cells.observe(self.cell(budget, LEASED_UNTIL)) => Err(Why::Full),
                _ if self.hold(cells, budget, self.amount(cells, budget, unit, asked)) => Ok(()),
                _ => Err(Why::Full),
            };
            if let Err(why) = held {
                let before = asked.budgets & !(u64::MAX << budget);
                self.release(cells, &Reservation { budgets: before, ..*asked });
                return Err((budget, why));
            }
        }
        Ok(())
    }

    /// What a call reserves of a budget.
    pub fn reserves(self, cells: &Cells, budget: usize, asked: &Reservation) -> u64 {
        self.terms(cells, budget).map_or(0, |(unit, ..)| self.amount(cells, budget, unit, asked))
    }

    #[inline]
    fn amount(self, cells: &Cells, budget: usize, unit: Unit, held: &Reservation) -> u64 {
        match unit {
            Unit::Cost if held.cost >= PRICES_MISSING => self.without_price(cells, budget, held.cost),
            Unit::Cost => held.cost,
            Unit::Tokens => held.tokens,
            Unit::Calls => 1,
        }
    }

    #[cold]
    fn without_price(self, cells: &Cells, budget: usize, cost: u64) -> u64 {
        let charge = cells.get(self.cell(budget, WITHOUT_PRICE));
        if cost == UNPRICED && charge != Unpriced::Block.cell() { charge } else { 0 }
    }

    #[inline]
    fn hold(self, cells: &Cells, budget: usize, amount: u64) -> bool {
        let (committed, base, limit) =
            (self.cell(budget, COMMITTED), self.cell(budget, BASE), self.cell(budget, LIMIT));
        let (mut judged_by, mut most) = (cells.observe(base), cells.get(limit));
        let mut held = cells.get(committed);
        loop {
            let left = most.saturating_sub(held.saturating_sub(judged_by));
            // An exhausted budget also refuses calls that reserve nothing: otherwise calls without a price would never be blocked.
            let sum = if left == 0 || amount > left { None } else { held.checked_add(amount) };
            let Some(sum) = sum else {
                // Judge again by the latest figures: the sum as it is now, and the base and limit read after it.
                let latest = (cells.add(committed, 0), cells.observe(base), cells.observe(limit));
                if latest == (held, judged_by, most) {
                    return false;
                }
                (held, judged_by, most) = latest;
                continue;
            };
            match cells.claim(committed, held, sum) {
                // After the claim: a slice may have been given back since the limit was read.
                Ok(()) if cells.get(limit) >= most => return true,
                Ok(()) => {
                    held = cells.sub(committed, amount).wrapping_sub(amount);
                    most = cells.observe(limit);
                }
                Err(found) => held = found,
            }
        }
    }

    /// Releases the reservation of a call.
    pub fn release(self, cells: &Cells, held: &Reservation) {
        for budget in bits(held.budgets) {
            if let Some((unit, _, true)) = self.terms(cells, budget) {
                let amount = self.amount(cells, budget, unit, held);
                if amount > 0 {
                    cells.sub(self.cell(budget, COMMITTED), amount);
                }
            }
        }
    }

    /// Replaces the reservation of a call by what it used.
    #[inline]
    pub fn settle(self, cells: &Cells, held: &Reservation, used: &Used, now: u64) -> Crossed {
        let mut crossed = Crossed::new();
        for budget in bits(held.budgets) {
            let Some((spent, epoch)) = self.spend(cells, budget, held, used, now) else { continue };
            self.fire_up_to(cells, budget, spent, epoch, &mut crossed);
        }
        crossed
    }

    /// Replaces the reservation of an abandoned call by its estimated input; it does not count as a call. Thresholds that this
    /// reaches are reported by the next call that ends, because there is no caller to report them to.
    pub fn abandon(self, cells: &Cells, held: &Reservation, now: u64) {
        let [cost, tokens] = held.input;
        for budget in bits(held.budgets) {
            self.spend(cells, budget, held, &[cost, tokens, 0], now);
        }
    }

    /// Returns what was spent in this period and the epoch in which it was read; None where the call used nothing.
    #[inline]
    fn spend(self, cells: &Cells, budget: usize, held: &Reservation, used: &Used, now: u64) -> Option<(u64, u64)> {
        let (unit, period, blocking) = self.terms(cells, budget)?;
        self.roll(cells, budget, period, now);
        let before = if blocking { self.amount(cells, budget, unit, held) } else { 0 };
        let used = match used.get(unit as usize).copied().unwrap_or(0) {
            // What a call without a price is charged, where it had none when it began, or prices were not loaded.
            UNPRICED if held.cost >= PRICES_MISSING => self.without_price(cells, budget, UNPRICED),
            UNPRICED => 0,
            used => used,
        };
        if used != before {
            cells.add(self.cell(budget, COMMITTED), used.wrapping_sub(before));
        }
        if used == 0 {
            return None;
        }
        let spent = cells.add_release(self.cell(budget, SPENT), used).wrapping_add(used);
        let epoch = cells.observe(self.cell(budget, EPOCH));
        Some((spent.saturating_sub(cells.get(self.cell(budget, BASE))), epoch))
    }

    /// A price has come for calls that ended without one: what they cost takes the place of what they were charged. Those
    /// that ended before this period count in none: theirs is over.
    pub fn price(self, cells: &Cells, late: &Late, now: u64) -> Crossed {
        let mut crossed = Crossed::new();
        let [first, last] = late.ended;
        for budget in bits(late.budgets) {
            let Some((Unit::Cost, period, _)) = self.terms(cells, budget) else { continue };
            self.roll(cells, budget, period, now);
            let begins = period.around(now).0.max(cells.get(self.cell(budget, RESET)));
            if last < begins {
                continue;
            }
            // Of calls on both sides of the beginning it is not known how many were charged in this period: none.
            let charged = if first < begins { 0 } else { late.charged };
            let charged = charged.saturating_mul(self.without_price(cells, budget, UNPRICED));
            self.give_back(cells, budget, charged.saturating_sub(late.cost));
            let more = late.cost.saturating_sub(charged);
            if more > 0 {
                cells.add(self.cell(budget, COMMITTED), more);
                let spent = cells.add_release(self.cell(budget, SPENT), more).wrapping_add(more);
                let epoch = cells.observe(self.cell(budget, EPOCH));
                let spent = spent.saturating_sub(cells.get(self.cell(budget, BASE)));
                self.fire_up_to(cells, budget, spent, epoch, &mut crossed);
            }
        }
        crossed
    }

    /// Takes back what was spent in this period, at most what was spent: by a higher `BASE`, because the sums only grow.
    fn give_back(self, cells: &Cells, budget: usize, amount: u64) {
        let base = self.cell(budget, BASE);
        let mut before = cells.observe(base);
        loop {
            let after = before.saturating_add(amount).min(cells.observe(self.cell(budget, SPENT)));
            if after <= before {
                return;
            }
            match cells.claim(base, before, after) {
                Ok(()) => return,
                Err(found) => before = found,
            }
        }
    }

    fn spent(self, cells: &Cells, budget: usize) -> u64 {
        cells.observe(self.cell(budget, SPENT)).saturating_sub(cells.get(self.cell(budget, BASE)))
    }

    /// Begins the period anew: nothing spent, no threshold crossed. Calls in flight keep their reservations.
    pub fn reset(self, cells: &Cells, budget: usize, now: u64) {
        let Some((_, period, _)) = self.terms(cells, budget) else { return };
        self.roll(cells, budget, period, now);
        cells.maximum(self.cell(budget, RESET), now);
        cells.maximum(self.cell(budget, BASE), cells.observe(self.cell(budget, SPENT)));
        // After the base: a thread that sees the new epoch sees its base.
        cells.add_release(self.cell(budget, EPOCH), 1);
    }

    /// Returns the status of a budget; None when there is no such budget.
    pub fn standing(self, cells: &Cells, budget: usize, now: u64) -> Option<Standing> {
        let (_, period, _) = self.terms(cells, budget)?;
        self.roll(cells, budget, period, now);
        let spent = cells.observe(self.cell(budget, SPENT));
        let committed = cells.get(self.cell(budget, COMMITTED));
        let (begins, ends) = period.around(now);
        Some(Standing {
            spent: spent.saturating_sub(cells.get(self.cell(budget, BASE))),
            reserved: committed.saturating_sub(spent),
            limit: cells.get(self.cell(budget, LIMIT)),
            begins,
            ends,
        })
    }

    /// In a process that was just forked: keeps what was spent and releases every reservation, because the parent's runs end in the parent.
    pub fn release_all(self, cells: &Cells) {
        for budget in 0..MAX_BUDGETS {
            if self.terms(cells, budget).is_some() {
                cells.set(self.cell(budget, COMMITTED), cells.get(self.cell(budget, SPENT)));
            }
        }
    }
}

fn check(limit: u64, thresholds: &[u64]) -> Result<(), Error> {
    let wrong = |name, value: String, allowed| Err(Error::OutOfRange { name, value, allowed });
    if limit == 0 {
        return wrong("limit", "0".into(), "1 or more");
    }
    if thresholds.len() > MAX_THRESHOLDS {
        return wrong("thresholds", thresholds.len().to_string(), "at most 8");
    }
    Ok(())
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
