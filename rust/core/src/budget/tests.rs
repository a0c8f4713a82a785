use super::period::DAY;
use super::period::SECOND;
use super::*;
use proptest::prelude::*;
use std::sync::Arc;

const NOON: u64 = 1_700_000_000 * SECOND;

fn arena() -> (Cells, Budgets) {
    (Cells::zeroed(Budgets::CELLS).expect("cells"), Budgets::at(0))
}

fn terms(limit: u64) -> Terms {
    Terms {
        unit: Unit::Tokens,
        limit,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    }
}

fn tokens(n: u64) -> Reservation {
    Reservation { budgets: 1, cost: 0, tokens: n, input: [0; 2] }
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
    let call = Reservation { budgets: 0b111, cost: 20, tokens: 30, input: [0; 2] };
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

fn dollars(cost: u64) -> Reservation {
    Reservation { budgets: 1, cost, tokens: 0, input: [0; 2] }
}

#[test]
fn a_call_that_costs_nothing_is_not_refused_by_an_exhausted_budget_in_money() {
    let (cells, budgets) = arena();
    budgets.open(&cells, &Terms { unit: Unit::Cost, ..terms(100) }, NOON).expect("opens");
    budgets.reserve(&cells, &dollars(100), NOON).expect("fits");
    budgets.reserve(&cells, &dollars(0), NOON).expect("nothing is left, and nothing is asked");
    budgets.settle(&cells, &dollars(100), &[250, 0, 1], NOON);
    budgets.reserve(&cells, &dollars(0), NOON).expect("overspent");
    budgets.settle(&cells, &dollars(0), &[0, 9, 1], NOON);
    assert_eq!(figures(&cells, budgets, NOON), (250, 0));
}

#[test]
fn a_call_without_a_price_is_allowed_blocked_or_charged() {
    let why = |r: Result<(), Refused>| r.map_err(|r| (r.why, r.crossed.len()));
    for (unpriced, first, spent, third) in [
        (Unpriced::Allow, Ok(()), 0, Ok(())),
        (Unpriced::Block, Err((Why::Unpriced, 0)), 0, Err((Why::Unpriced, 0))),
        (Unpriced::Charge(40), Ok(()), 40, Err((Why::Full, 1))),
    ] {
        let (cells, budgets) = arena();
        let terms = Terms { unit: Unit::Cost, thresholds: vec![100], unpriced, ..terms(100) };
        budgets.open(&cells, &terms, NOON).expect("opens");
        assert_eq!(why(budgets.reserve(&cells, &dollars(PRICES_MISSING), NOON)), Err((Why::PricesMissing, 0)));
        let call = dollars(UNPRICED);
        assert_eq!(why(budgets.reserve(&cells, &call, NOON)), first);
        if first.is_ok() {
            // Failed: it costs nothing. The next gives its result.
            budgets.settle(&cells, &call, &[0, 0, 0], NOON);
            budgets.reserve(&cells, &call, NOON).expect("fits");
            budgets.settle(&cells, &call, &[UNPRICED, 120, 1], NOON);
        }
        assert_eq!(figures(&cells, budgets, NOON), (spent, 0));
        let _ = budgets.reserve(&cells, &call, NOON);
        assert_eq!(why(budgets.reserve(&cells, &call, NOON)), third, "{unpriced:?}");
    }
    // Exhausted, it refuses what it would allow.
    let (cells, budgets) = arena();
    budgets.open(&cells, &Terms { unit: Unit::Cost, ..terms(100) }, NOON).expect("opens");
    budgets.settle(&cells, &dollars(0), &[100, 0, 1], NOON);
    assert_eq!(why(budgets.reserve(&cells, &dollars(UNPRICED), NOON)), Err((Why::Full, 0)));
}

#[test]
fn an_abandoned_call_counts_as_its_input_in_tokens_and_money_and_as_nothing_in_calls() {
    let (cells, budgets) = arena();
    for unit in Unit::ALL {
        budgets.open(&cells, &Terms { unit, thresholds: vec![5], ..terms(100) }, NOON).expect("opens");
    }
    let call = Reservation { budgets: 0b111, cost: 60, tokens: 50, input: [8, 9] };
    budgets.reserve(&cells, &call, NOON).expect("fits");
    budgets.abandon(&cells, &call, NOON);
    let standing = |i| budgets.standing(&cells, i, NOON).map(|s| (s.spent, s.reserved));
    assert_eq!([standing(0), standing(1), standing(2)], [Some((8, 0)), Some((9, 0)), Some((0, 0))]);
    // These thresholds were not reported: the next call that ends does.
    assert_eq!(budgets.settle(&cells, &Reservation { cost: 0, tokens: 0, ..call }, &[1, 1, 0], NOON), [(0, 0), (1, 0)]);
}

#[test]
fn a_new_limit_holds_from_the_next_call_on_and_thresholds_follow_it() {
    let (cells, budgets) = arena();
    budgets.open(&cells, &Terms { thresholds: vec![50, 100], ..terms(100) }, NOON).expect("opens");
    let spend = |n| budgets.settle(&cells, &tokens(0), &[0, n, 1], NOON);
    assert_eq!(spend(60), [(0, 0)]);
    // Raised: half of it is not reached any more, and can be crossed anew.
    assert_eq!(budgets.set_limit(&cells, 0, 200, &[100, 200], NOON), Ok(vec![]));
    budgets.reserve(&cells, &tokens(140), NOON).expect("fits now");
    budgets.release(&cells, &tokens(140));
    assert_eq!((spend(30), spend(10)), (vec![], vec![(0, 0)]));
    // Lowered a little: the threshold stays crossed; lowered below the amount spent: the last one is crossed.
    assert_eq!(budgets.set_limit(&cells, 0, 150, &[75, 150], NOON), Ok(vec![]));
    assert_eq!(budgets.set_limit(&cells, 0, 80, &[40, 80], NOON), Ok(vec![(0, 1)]));
    assert_eq!(budgets.reserve(&cells, &tokens(1), NOON).map_err(|r| r.crossed), Err(vec![]));
    assert_eq!(spend(5), []);
    assert!(budgets.set_limit(&cells, 0, 0, &[], NOON).is_err());
    assert!(budgets.set_limit(&cells, 0, 1, &[1; 9], NOON).is_err());
    assert_eq!(budgets.set_limit(&cells, 7, 1, &[], NOON), Ok(vec![]), "no such budget");
}

#[test]
fn a_reset_begins_with_nothing_spent_and_what_is_held_still_held() {
    let (cells, budgets) = arena();
    budgets.open(&cells, &Terms { thresholds: vec![50, 100], ..terms(100) }, NOON).expect("opens");
    budgets.reserve(&cells, &tokens(30), NOON).expect("fits");
    assert_eq!(budgets.settle(&cells, &tokens(0), &[0, 70, 1], NOON), [(0, 0)]);
    budgets.reset(&cells, 0, NOON);
    assert_eq!(figures(&cells, budgets, NOON), (0, 30));
    assert!(budgets.reserve(&cells, &tokens(71), NOON).is_err());
    budgets.reserve(&cells, &tokens(70), NOON).expect("fits");
    assert_eq!(budgets.settle(&cells, &tokens(70), &[0, 60, 1], NOON), [(0, 0)]);
    assert_eq!(figures(&cells, budgets, NOON), (60, 30));
    budgets.reset(&cells, 7, NOON);
}

#[test]
fn a_slice_of_a_lease_is_the_limit_until_the_lease_ends() {
    let (cells, budgets) = arena();
    budgets.open(&cells, &terms(1), NOON).expect("opens");
    let until = NOON + 30 * SECOND;
    assert_eq!(budgets.lease(&cells, 0, 0, until, 0), Some((0, 0)));
    let refused = budgets.reserve(&cells, &tokens(0), NOON).expect_err("an empty slice refuses everything");
    assert_eq!(refused.crossed, [], "the thresholds are the store's");
    assert_eq!(budgets.lease(&cells, 0, 100, until, 0), Some((0, 0)));
    budgets.reserve(&cells, &tokens(60), NOON).expect("fits");
    budgets.settle(&cells, &tokens(60), &[0, 10, 1], NOON);
    budgets.reserve(&cells, &tokens(50), NOON).expect("fits");
    // Given back down to what is in use, which stays.
    assert_eq!(budgets.lease(&cells, 0, 10, until, 0), Some((10, 60)));
    assert!(budgets.reserve(&cells, &tokens(1), NOON).is_err());
    assert_eq!(budgets.lease(&cells, 0, 100, until, 0), Some((10, 60)));
    assert!(budgets.reserve(&cells, &tokens(1), until).is_err(), "the lease has ended");
    budgets.reserve(&cells, &tokens(1), until - 1).expect("not yet");
    budgets.confirm(&cells, &tokens(1), || until - 1).expect("not yet");
    assert!(budgets.confirm(&cells, &tokens(1), || until).is_err(), "it ended between clock and reservation");
    assert_eq!(figures(&cells, budgets, NOON), (10, 50));
    assert_eq!(budgets.lease(&cells, 7, 1, until, 0), None, "no such budget");
    // One that only warns refuses nothing, with any lease.
    budgets.open(&cells, &Terms { blocking: false, ..terms(1) }, NOON).expect("opens");
    budgets.lease(&cells, 1, 0, 0, 0).expect("open");
    let warned = Reservation { budgets: 2, ..tokens(5) };
    budgets.reserve(&cells, &warned, NOON).expect("only warns");
    budgets.confirm(&cells, &warned, || NOON).expect("only warns");
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
                    let demand = tokens(1 + (thread * 7 + i) % 13);
                    if budgets.reserve(&cells, &demand, NOON).is_ok() {
                        let used = if i % 3 == 0 { 0 } else { demand.tokens / 4 };
                        budgets.settle(&cells, &demand, &[0, used, 1], NOON);
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

/// Days of a month by the textbook rule.
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

    /// Compared with plain integers that follow the same rules.
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

#[test]
fn a_late_price_replaces_the_charge_in_the_period_of_the_call() {
    let (cells, budgets) = arena();
    let terms =
        Terms { unit: Unit::Cost, unpriced: Unpriced::Charge(40), period: Period::Day, blocking: false, ..terms(1000) };
    budgets.open(&cells, &terms, NOON).expect("opens");
    let call = dollars(UNPRICED);
    let late = |cost, ended| Late { budgets: 1, cost, charged: 1, ended: [ended; 2] };
    for (cost, spent) in [(100, 100), (10, 110), (0, 110)] {
        budgets.settle(&cells, &call, &[UNPRICED, 120, 1], NOON);
        budgets.price(&cells, &late(cost, NOON), NOON);
        assert_eq!(figures(&cells, budgets, NOON), (spent, 0));
    }
    budgets.settle(&cells, &call, &[UNPRICED, 120, 1], NOON);
    budgets.reset(&cells, 0, NOON + 1);
    budgets.price(&cells, &late(100, NOON), NOON + 2);
    assert_eq!(figures(&cells, budgets, NOON + 2), (0, 0), "it ended before the reset");
    let tomorrow = NOON + 24 * 3600 * 1_000_000_000;
    budgets.settle(&cells, &call, &[7, 120, 1], tomorrow);
    budgets.price(&cells, &late(100, NOON + 3), tomorrow);
    assert_eq!(figures(&cells, budgets, tomorrow), (7, 0), "its day is over");
    budgets.price(&cells, &Late { ended: [NOON + 3, tomorrow], ..late(100, NOON) }, tomorrow);
    assert_eq!(figures(&cells, budgets, tomorrow), (107, 0), "on both sides: charged, and nothing taken back");
}
