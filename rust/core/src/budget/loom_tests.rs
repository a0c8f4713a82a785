use super::period::SECOND;
use super::*;
use loom::sync::Arc;
use loom::thread;

const LATER: u64 = 60 * SECOND;

fn arena(limit: u64) -> (Arc<Cells>, Budgets) {
    let (cells, budgets) = (Cells::zeroed(HEADER + BUDGET).expect("cells"), Budgets::at(0));
    let terms = Terms {
        unit: Unit::Tokens,
        limit,
        period: Period::Minute,
        blocking: true,
        thresholds: vec![limit],
        unpriced: Unpriced::Allow,
    };
    budgets.open(&cells, &terms, 0).expect("opens");
    (Arc::new(cells), budgets)
}

fn tokens(n: u64) -> Reservation {
    Reservation { budgets: 1, cost: 0, tokens: n, input: [0; 2] }
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

#[test]
fn a_call_beside_a_reset_is_spent_before_it_or_after_it() {
    loom::model(|| {
        let (cells, budgets) = arena(10);
        budgets.reserve(&cells, &tokens(6), 0).expect("fits");
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || budgets.settle(&cells, &tokens(6), &[0, 6, 1], 0))
        };
        budgets.reset(&cells, 0, 0);
        let here = call(&cells, budgets, 8, 0).0;
        there.join().expect("joins");
        let standing = budgets.standing(&cells, 0, 0).expect("open");
        assert_eq!(standing.reserved, 0);
        assert!(standing.spent == here || standing.spent == here + 6, "{standing:?}");
        assert!(standing.spent <= 10);
    });
}

#[test]
fn two_calls_beside_a_reset_never_spend_the_limit_twice_after_it() {
    loom::model(|| {
        let (cells, budgets) = arena(10);
        assert_eq!(call(&cells, budgets, 10, 0).0, 10);
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || call(&cells, budgets, 10, 0).0)
        };
        budgets.reset(&cells, 0, 0);
        let here = call(&cells, budgets, 10, 0).0;
        let there = there.join().expect("joins");
        assert_eq!(here + there, 10);
        let standing = budgets.standing(&cells, 0, 0).expect("open");
        assert_eq!((standing.spent, standing.reserved), (10, 0));
    });
}

#[test]
fn a_call_beside_a_new_limit_is_judged_by_one_of_the_two_and_refused_by_the_new_one() {
    for (limit, fits) in [(20, [true, true]), (5, [true, false])] {
        loom::model(move || {
            let (cells, budgets) = arena(10);
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || budgets.set_limit(&cells, 0, limit, &[limit], 0).expect("in range").len())
            };
            let here = call(&cells, budgets, 8, 0).0;
            there.join().expect("joins");
            // By whichever limit the first was judged, the next is judged by the new one.
            let next = budgets.reserve(&cells, &tokens(limit - here.min(limit)), 0).is_ok();
            assert!(fits.contains(&(here == 8)), "{here}");
            assert_eq!(next, here < limit);
            let standing = budgets.standing(&cells, 0, 0).expect("open");
            assert_eq!(standing.spent, here);
        });
    }
}

#[test]
fn what_a_process_gives_back_of_its_slice_is_reserved_by_no_call() {
    loom::model(|| {
        let (cells, budgets) = arena(10);
        let there = {
            let cells = Arc::clone(&cells);
            thread::spawn(move || budgets.reserve(&cells, &tokens(6), 0).is_ok())
        };
        // Keeps what is in use, and gives back the rest.
        let (_, in_use) = budgets.lease(&cells, 0, 2, LATER, 0).expect("open");
        let there = there.join().expect("joins");
        let standing = budgets.standing(&cells, 0, 0).expect("open");
        assert_eq!(standing.reserved, if there { 6 } else { 0 });
        assert!(in_use.max(2) >= standing.reserved, "{in_use} {standing:?}");
    });
}

#[test]
fn two_calls_beside_a_smaller_slice_hold_no_more_than_it_and_what_it_saw() {
    loom::model(|| {
        let (cells, budgets) = arena(10);
        let others: Vec<_> = (0..2)
            .map(|_| {
                let cells = Arc::clone(&cells);
                thread::spawn(move || budgets.reserve(&cells, &tokens(4), 0).is_ok())
            })
            .collect();
        let (_, in_use) = budgets.lease(&cells, 0, 4, LATER, 0).expect("open");
        let held = others.into_iter().map(|t| u64::from(t.join().expect("joins")) * 4).sum::<u64>();
        assert!(held <= in_use.max(4), "{held} {in_use}");
    });
}
