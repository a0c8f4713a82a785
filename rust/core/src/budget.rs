//! Budgets: what is spent and what is reserved, against a limit, by the calendar.

use crate::cells::Cells;
use crate::error::Error;

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

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
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

/// When a budget begins anew: by the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Period {
    /// Never.
    Total,
    /// Every minute.
    Minute,
    /// Every hour.
    Hour,
    /// At midnight.
    Day,
    /// On the first of the month.
    Month,
}

impl Period {
    /// Every period, in the order of its code.
    pub const ALL: [Self; 5] = [Self::Total, Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// Begin (inclusive) and end (exclusive) of the period around `now`, Unix nanoseconds.
    pub fn around(self, now: u64) -> (u64, u64) {
        let even = |length: u64| {
            let start = now.wrapping_sub(now.checked_rem(length).unwrap_or(0));
            (start, start.saturating_add(length))
        };
        match self {
            Self::Total => (0, u64::MAX),
            Self::Minute => even(60 * SECOND),
            Self::Hour => even(3600 * SECOND),
            Self::Day => even(DAY),
            Self::Month => month(now / DAY),
        }
    }
}

/// The month around a day since 1970: the civil calendar in whole numbers, counted from March, so that the
/// leap day is a year's last.
#[allow(clippy::arithmetic_side_effects)] // days of a u64 of nanoseconds: below 213,504
const fn month(day: u64) -> (u64, u64) {
    const TO_YEAR_0: u64 = 719_468;
    let z = day + TO_YEAR_0;
    let of_era = z % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * of_year + 2) / 153; // 0 is March
    let begin = (153 * m + 2) / 5;
    let length = if m == 11 {
        // February: to the end of a year that counts from March.
        let (next, leap) = (year + 1, z / 146_097 * 400);
        let (n, y) = (next + leap, year + leap);
        365 + n / 4 - y / 4 + y / 100 - n / 100 + n / 400 - y / 400 - begin
    } else {
        (153 * (m + 1) + 2) / 5 - begin
    };
    let first = day - (of_year - begin);
    (first * DAY, (first + length).saturating_mul(DAY))
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    const NOON: u64 = 1_700_000_000 * SECOND;

    fn arena() -> (Cells, Budgets) {
        (Cells::zeroed(Budgets::CELLS).expect("cells"), Budgets::at(0))
    }

    fn terms(limit: u64) -> Terms {
        Terms { unit: Unit::Tokens, limit, period: Period::Total, blocking: true, thresholds: vec![] }
    }

    fn tokens(n: u64) -> Reservation {
        Reservation { budgets: 1, cost: 0, tokens: n }
    }

    fn figures(cells: &Cells, budgets: Budgets, now: u64) -> (u64, u64) {
        let s = budgets.standing(cells, 0, now).expect("open");
        (s.spent, s.reserved)
    }

    #[test]
    fn a_reservation_is_refused_when_it_does_not_fit_and_settled_at_what_was_used() {
        let (cells, budgets) = arena();
        budgets.open(&cells, &terms(100), NOON).expect("opens");
        budgets.reserve(&cells, &tokens(60), NOON).expect("fits");
        assert_eq!(budgets.reserve(&cells, &tokens(41), NOON).map_err(|r| r.budget), Err(0));
        budgets.reserve(&cells, &tokens(40), NOON).expect("fits to the last");
        assert_eq!(figures(&cells, budgets, NOON), (0, 100));
        budgets.settle(&cells, &tokens(60), &[0, 10, 1], NOON);
        assert_eq!(figures(&cells, budgets, NOON), (10, 40));
        budgets.release(&cells, &tokens(40));
        assert_eq!(figures(&cells, budgets, NOON), (10, 0));
        budgets.reserve(&cells, &tokens(1), NOON).expect("fits");
        budgets.settle(&cells, &tokens(1), &[0, 500, 1], NOON);
        assert_eq!(figures(&cells, budgets, NOON), (510, 0));
        assert!(budgets.reserve(&cells, &tokens(0), NOON).is_err(), "an exhausted budget refuses everything");
    }

    #[test]
    fn a_call_holds_all_of_its_budgets_or_none() {
        let (cells, budgets) = arena();
        for (unit, limit) in [(Unit::Cost, 50), (Unit::Tokens, 100), (Unit::Calls, 2)] {
            budgets.open(&cells, &Terms { unit, ..terms(limit) }, NOON).expect("opens");
        }
        let call = Reservation { budgets: 0b111, cost: 20, tokens: 30 };
        budgets.reserve(&cells, &call, NOON).expect("fits");
        budgets.reserve(&cells, &call, NOON).expect("fits");
        let third = budgets.reserve(&cells, &Reservation { cost: 1, ..call }, NOON);
        assert_eq!(third.map_err(|r| r.budget), Err(2));
        let reserved = |i| budgets.standing(&cells, i, NOON).map(|s| s.reserved);
        assert_eq!([reserved(0), reserved(1), reserved(2)], [Some(40), Some(60), Some(2)]);
        budgets.settle(&cells, &call, &[0, 0, 0], NOON);
        assert_eq!([reserved(0), reserved(1), reserved(2)], [Some(20), Some(30), Some(1)]);
        assert_eq!(budgets.standing(&cells, 3, NOON), None);
    }

    #[test]
    fn a_budget_that_only_warns_holds_nothing_and_refuses_nothing() {
        let (cells, budgets) = arena();
        budgets.open(&cells, &Terms { blocking: false, ..terms(10) }, NOON).expect("opens");
        budgets.reserve(&cells, &tokens(1000), NOON).expect("only warns");
        assert_eq!(figures(&cells, budgets, NOON), (0, 0));
        budgets.settle(&cells, &tokens(1000), &[0, 30, 1], NOON);
        assert_eq!(figures(&cells, budgets, NOON), (30, 0));
    }

    #[test]
    fn a_new_period_begins_with_nothing_spent_and_what_is_held_still_held() {
        let (cells, budgets) = arena();
        budgets.open(&cells, &Terms { period: Period::Hour, ..terms(100) }, NOON).expect("opens");
        budgets.reserve(&cells, &tokens(70), NOON).expect("fits");
        budgets.settle(&cells, &tokens(70), &[0, 70, 1], NOON);
        budgets.reserve(&cells, &tokens(30), NOON).expect("fits");
        let later = NOON + 3600 * SECOND;
        assert_eq!(figures(&cells, budgets, later), (0, 30));
        assert!(budgets.reserve(&cells, &tokens(71), later).is_err());
        budgets.settle(&cells, &tokens(30), &[0, 20, 1], later);
        assert_eq!(figures(&cells, budgets, later), (20, 0));
        // A thread that read its clock before midnight changes nothing about the new day.
        budgets.reserve(&cells, &tokens(80), NOON).expect("fits");
        assert!(budgets.reserve(&cells, &tokens(1), NOON).is_err());
        assert_eq!(figures(&cells, budgets, later + 72 * 3600 * SECOND), (0, 80));
    }

    #[test]
    fn a_threshold_is_crossed_once_a_period() {
        let (cells, budgets) = arena();
        let at = Terms { period: Period::Minute, blocking: false, thresholds: vec![50, 80, 100], ..terms(100) };
        budgets.open(&cells, &at, NOON).expect("opens");
        let spend = |n, now| budgets.settle(&cells, &tokens(0), &[0, n, 1], now);
        assert_eq!(spend(49, NOON), vec![]);
        assert_eq!(spend(31, NOON), vec![(0, 0), (0, 1)]);
        assert_eq!(spend(10, NOON), vec![]);
        assert_eq!(spend(10, NOON), vec![(0, 2)]);
        assert_eq!(spend(10, NOON), vec![]);
        assert_eq!(spend(60, NOON + 60 * SECOND), vec![(0, 0)]);
    }

    #[test]
    fn the_first_refusal_of_a_period_crosses_the_threshold_at_the_limit() {
        let (cells, budgets) = arena();
        budgets.open(&cells, &Terms { thresholds: vec![50, 100], ..terms(100) }, NOON).expect("opens");
        let refused = |r: Result<(), Refused>| r.expect_err("too much").crossed;
        assert_eq!(refused(budgets.reserve(&cells, &tokens(101), NOON)), vec![(0, 1)]);
        assert_eq!(refused(budgets.reserve(&cells, &tokens(101), NOON)), vec![]);
    }

    #[test]
    fn a_fork_keeps_what_was_spent_and_holds_nothing() {
        let (cells, budgets) = arena();
        budgets.open(&cells, &terms(100), NOON).expect("opens");
        budgets.reserve(&cells, &tokens(60), NOON).expect("fits");
        budgets.settle(&cells, &tokens(60), &[0, 25, 1], NOON);
        budgets.reserve(&cells, &tokens(60), NOON).expect("fits");
        budgets.release_all(&cells);
        assert_eq!(figures(&cells, budgets, NOON), (25, 0));
    }

    #[test]
    fn what_no_budget_can_be_is_refused() {
        let (cells, budgets) = arena();
        assert!(budgets.open(&cells, &terms(0), NOON).is_err());
        assert!(budgets.open(&cells, &Terms { thresholds: vec![1; 9], ..terms(1) }, NOON).is_err());
        for i in 0..MAX_BUDGETS {
            assert_eq!(budgets.open(&cells, &terms(1), NOON), Ok(i));
        }
        let error = budgets.open(&cells, &terms(1), NOON).expect_err("65");
        assert!(error.to_string().contains("at most 64"), "{error}");
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn threads_never_hold_and_spend_more_than_the_limit_together() {
        let (cells, budgets) = arena();
        budgets.open(&cells, &terms(1000), NOON).expect("opens");
        let cells = Arc::new(cells);
        std::thread::scope(|s| {
            for thread in 0..8_u64 {
                let cells = Arc::clone(&cells);
                s.spawn(move || {
                    for i in 0..2000 {
                        let asked = tokens(1 + (thread * 7 + i) % 13);
                        if budgets.reserve(&cells, &asked, NOON).is_ok() {
                            let used = if i % 3 == 0 { 0 } else { asked.tokens / 4 };
                            budgets.settle(&cells, &asked, &[0, used, 1], NOON);
                        }
                        let (spent, _) = figures(&cells, budgets, NOON);
                        assert!(spent <= 1000);
                    }
                });
            }
        });
        let (spent, reserved) = figures(&cells, budgets, NOON);
        assert!(reserved == 0 && spent > 980 && spent <= 1000, "{spent}, {reserved}");
    }

    /// Days of a month by the rule as everyone learns it.
    fn days(year: u64, month: u64) -> u64 {
        match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let mut first = 0;
        for year in 1970..2550 {
            for month in 1..=12 {
                let next = first + days(year, month);
                for day in [first, first + 14, next - 1] {
                    let now = day * DAY + DAY / 2;
                    assert_eq!(Period::Month.around(now), (first * DAY, next * DAY), "{year}-{month}");
                }
                first = next;
            }
        }
    }

    proptest! {
        #[test]
        fn a_period_holds_its_moment_and_the_next_begins_where_it_ends(now in 0..18_000_000_000_u64, period in 1..5_usize) {
            let (period, now) = (Period::ALL[period], now * SECOND);
            let (begin, end) = period.around(now);
            prop_assert!(begin <= now && now < end);
            prop_assert_eq!(period.around(end).0, begin.max(end));
            prop_assert_eq!(period.around(begin), (begin, end));
        }

        /// Against plain numbers with the same rules.
        #[test]
        fn the_books_balance(
            limit in 1..500_u64,
            steps in prop::collection::vec((0..4_u8, 0..200_u64, 0..150_u64, 0..40_u64), 1..80),
        ) {
            let (cells, budgets) = arena();
            budgets.open(&cells, &Terms { period: Period::Minute, ..terms(limit) }, NOON).expect("opens");
            let (mut now, mut spent, mut held) = (NOON, 0_u64, Vec::<u64>::new());
            for (op, ask, used, seconds) in steps {
                let later = now + seconds * SECOND;
                if Period::Minute.around(later) != Period::Minute.around(now) {
                    spent = 0;
                }
                now = later;
                let reserved: u64 = held.iter().sum();
                match (op, held.pop()) {
                    (0 | 1, last) => {
                        held.extend(last);
                        let fits = spent + reserved < limit && spent + reserved + ask <= limit;
                        prop_assert_eq!(budgets.reserve(&cells, &tokens(ask), now).is_ok(), fits);
                        if fits {
                            held.push(ask);
                        }
                    }
                    (2, Some(last)) => {
                        budgets.settle(&cells, &tokens(last), &[0, used, 1], now);
                        spent += used;
                    }
                    (_, Some(last)) => budgets.release(&cells, &tokens(last)),
                    (_, None) => {}
                }
                prop_assert_eq!(figures(&cells, budgets, now), (spent, held.iter().sum()));
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    const LATER: u64 = 60 * SECOND;

    fn arena(limit: u64) -> (Arc<Cells>, Budgets) {
        let (cells, budgets) = (Cells::zeroed(HEADER + BUDGET).expect("cells"), Budgets::at(0));
        let terms =
            Terms { unit: Unit::Tokens, limit, period: Period::Minute, blocking: true, thresholds: vec![limit] };
        budgets.open(&cells, &terms, 0).expect("opens");
        (Arc::new(cells), budgets)
    }

    fn tokens(n: u64) -> Reservation {
        Reservation { budgets: 1, cost: 0, tokens: n }
    }

    /// Reserves and spends; returns what was spent and how many thresholds that crossed.
    fn call(cells: &Cells, budgets: Budgets, n: u64, now: u64) -> (u64, usize) {
        if let Err(refused) = budgets.reserve(cells, &tokens(n), now) {
            return (0, refused.crossed.len());
        }
        (n, budgets.settle(cells, &tokens(n), &[0, n, 1], now).len())
    }

    #[test]
    fn of_two_calls_that_do_not_both_fit_one_goes_and_the_threshold_is_crossed_once() {
        loom::model(|| {
            let (cells, budgets) = arena(10);
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || call(&cells, budgets, 6, 0))
            };
            let here = call(&cells, budgets, 6, 0);
            let there = there.join().expect("joins");
            assert_eq!((here.0 + there.0, here.1 + there.1), (6, 1));
            let standing = budgets.standing(&cells, 0, 0).expect("open");
            assert_eq!((standing.spent, standing.reserved), (6, 0));
        });
    }

    #[test]
    fn two_threads_that_begin_a_period_never_spend_its_limit_twice() {
        loom::model(|| {
            let (cells, budgets) = arena(10);
            assert_eq!(call(&cells, budgets, 10, 0).0, 10);
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || call(&cells, budgets, 10, LATER).0)
            };
            let here = call(&cells, budgets, 10, LATER).0;
            assert_eq!(here + there.join().expect("joins"), 10);
            let standing = budgets.standing(&cells, 0, LATER).expect("open");
            assert_eq!((standing.spent, standing.reserved), (10, 0));
        });
    }

    #[test]
    fn a_call_that_ends_while_a_period_begins_is_spent_in_one_of_the_two() {
        loom::model(|| {
            let (cells, budgets) = arena(10);
            budgets.reserve(&cells, &tokens(6), 0).expect("fits");
            let there = {
                let cells = Arc::clone(&cells);
                // Its clock was read in the old period.
                thread::spawn(move || budgets.settle(&cells, &tokens(6), &[0, 6, 1], 0))
            };
            let here = call(&cells, budgets, 10, LATER).0;
            there.join().expect("joins");
            let standing = budgets.standing(&cells, 0, LATER).expect("open");
            assert_eq!(standing.reserved, 0);
            assert!(standing.spent == here || standing.spent == here + 6);
            assert!(standing.spent <= 10, "{standing:?}");
        });
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        loom::model(|| {
            let (cells, budgets) = arena(10);
            budgets.reserve(&cells, &tokens(10), 0).expect("fits");
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || budgets.release(&cells, &tokens(10)))
            };
            let here = call(&cells, budgets, 4, 0).0;
            there.join().expect("joins");
            assert!(here == 0 || here == 4);
            assert_eq!(call(&cells, budgets, 10 - here, 0).0, 10 - here);
        });
    }
}
