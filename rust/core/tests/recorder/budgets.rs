//! What calls reserve of budgets, and spend.

use super::common::{DEMAND, USED, bench, budgeted, counter, dropped, key, label, model, outcome_of, standing};
use langmeter_core::budget::{Period, Terms, Unit, Unpriced};
use langmeter_core::{Begin, Counter, Demand, Dropped, End, Kind, Outcome, Price, SeriesData, Settings, Started};
use std::time::Duration;

#[test]
fn an_echo_of_a_start_asks_nothing_of_a_budget_that_has_no_more_room() {
    let b = bench(Settings::default());
    let terms = Terms {
        unit: Unit::Calls,
        limit: 1,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    };
    b.recorder.open_budget(&terms).expect("opens");
    let demand = Some(Demand { budgets: 1, ..Demand::default() });
    let call = |witness| Begin { demand, witness, ..Begin::new(key(2), Kind::Llm, "name") };
    assert_eq!(b.recorder.run_started(&call(7)), Ok(Started::New));
    assert_eq!(b.recorder.run_started(&call(7)), Ok(Started::Echo));
    assert!(b.recorder.run_started(&call(8)).is_err());
    assert_eq!(dropped(&b.recorder.snapshot(), Dropped::BudgetRefused), 1);
}

#[test]
fn calls_that_are_given_up_release_what_they_hold_at_once() {
    let b = bench(Settings::default());
    let terms = Terms {
        unit: Unit::Calls,
        limit: 2,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    };
    b.recorder.open_budget(&terms).expect("opens");
    let demand = Some(Demand { budgets: 1, ..Demand::default() });
    for n in [2, 3] {
        b.begin(n, None, Kind::Llm, demand).expect("room");
    }
    assert!(b.begin(4, None, Kind::Llm, demand).is_err());
    let calls: Vec<_> = b.recorder.reserving().into_iter().map(|call| call.key).collect();
    assert_eq!((calls.len(), b.recorder.abandon_runs(&[key(3), key(9)])), (2, 1));
    b.begin(4, None, Kind::Llm, demand).expect("room");
    let s = b.recorder.snapshot();
    assert_eq!(outcome_of(&model(&s, "gpt-4o").expect("counted"), Outcome::Abandoned), 1);
    assert_eq!((dropped(&s, Dropped::RunsOrphaned), s.in_flight), (1, 2));
}

#[test]
fn a_call_holds_its_worst_case_until_it_ends_and_is_settled_at_what_it_used() {
    let b = budgeted(Settings::default());
    b.begin(2, None, Kind::Llm, Some(DEMAND)).expect("fits");
    assert_eq!(standing(&b), (0, 600));
    let refused = b.begin(3, None, Kind::Llm, Some(DEMAND)).expect_err("600 and 600");
    assert_eq!((refused.budget, refused.crossed), (0, vec![(0, 1)]));
    let s = b.recorder.snapshot();
    assert_eq!((s.in_flight, dropped(&s, Dropped::BudgetRefused)), (1, 1));
    b.end(2, Outcome::Ok, "", Some(USED));
    assert_eq!(standing(&b), (120, 0));
    b.end(3, Outcome::Ok, "", None);
    assert_eq!(dropped(&b.recorder.snapshot(), Dropped::EndWithoutStart), 1);
}

#[test]
fn a_reservation_cannot_outlive_its_run() {
    let b = budgeted(Settings { max_run_age: Duration::from_secs(10), ..Settings::default() });
    let start = |n, parent| b.begin(n, parent, Kind::Llm, Some(DEMAND)).expect("nothing is held");
    // Cancelled, failed, from the cache: nothing is known to be spent.
    for (n, outcome) in [(2, Outcome::Cancelled), (3, Outcome::Error), (4, Outcome::Interrupted)] {
        start(n, None);
        b.end(n, outcome, "", None);
        assert_eq!(standing(&b), (0, 0), "{outcome:?}");
    }
    start(5, None);
    b.end(5, Outcome::CacheHit, "", Some(USED));
    assert_eq!(standing(&b), (0, 0));
    // Started twice, ended twice.
    start(6, None);
    assert!(b.begin(6, None, Kind::Llm, Some(Demand { output: Some(0), ..DEMAND })).is_ok());
    assert_eq!(standing(&b), (0, 600));
    b.end(6, Outcome::Error, "", None);
    b.end(6, Outcome::Error, "", None);
    assert_eq!(standing(&b), (0, 0));
    // Too old: the next call that needs the room takes it, and so does a snapshot.
    start(7, None);
    b.wait(10_001);
    start(8, None);
    assert_eq!(standing(&b), (25, 600), "the input of the one that went, at 4 bytes a token");
    b.wait(10_001);
    b.recorder.snapshot();
    assert_eq!(standing(&b), (50, 0));
    // Its ancestor has ended.
    b.start(9, None, Kind::Chain);
    start(10, Some(9));
    b.end(9, Outcome::Ok, "", None);
    start(11, None);
    assert_eq!(standing(&b), (75, 600));
    b.recorder.reset_after_fork();
    assert_eq!(standing(&b), (75, 0));
}

#[test]
fn the_run_that_makes_room_gives_back_what_it_holds() {
    let b = budgeted(Settings { max_runs: 1, ..Settings::default() });
    b.begin(2, None, Kind::Llm, Some(Demand { output: Some(0), ..DEMAND })).expect("fits");
    b.begin(3, None, Kind::Llm, Some(DEMAND)).expect("fits");
    assert_eq!(standing(&b), (25, 600));
}

#[test]
fn without_a_limit_of_its_own_a_call_is_expected_to_give_as_much_as_ever() {
    let b = bench(Settings::default());
    let terms = Terms {
        unit: Unit::Cost,
        limit: u64::MAX,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    };
    b.recorder.open_budget(&terms).expect("opens");
    let demand = Demand { output: None, price: Price::Rates { input: 3, output: 10, call: 7, text: 2 }, ..DEMAND };
    let mut reserved = Vec::new();
    for (n, output) in [(2, 100), (3, 5000), (4, 20)] {
        b.begin(n, None, Kind::Llm, Some(demand)).expect("fits");
        reserved.push(standing(&b).1);
        let mut usage = USED;
        usage[1] = output;
        b.end(n, Outcome::Ok, "gpt-4o-2024", Some(usage));
    }
    assert_eq!(reserved, [307 + 20_480, 307 + 20_480, 307 + 50_000]);
    b.begin(5, None, Kind::Llm, Some(Demand { answers: 3, ..demand })).expect("fits");
    assert_eq!(standing(&b).1, 307 + 3 * 50_000);
}

#[test]
fn what_was_spent_lately_is_known_by_window() {
    let b = bench(Settings::default());
    for n in 2..5 {
        b.start(n, None, Kind::Llm);
        let (key, kind, outcome) = (key(n), Kind::Llm, Outcome::Ok);
        b.finish(&End { outcome, usage: Some(USED), cost: Some(2_000_400), ..End::new(key, kind) });
        b.wait(100_000);
    }
    assert_eq!(
        b.recorder.spent_lately(),
        [(60, 60_000_000_000, 0), (300, 300_000_000_000, 4000), (900, 300_000_000_000, 6000)]
    );
}

#[test]
fn a_price_that_comes_later_prices_calls_labels_and_budgets() {
    let b = bench(Settings::default());
    let terms = Terms {
        unit: Unit::Cost,
        limit: 100,
        period: Period::Total,
        blocking: false,
        thresholds: vec![50],
        unpriced: Unpriced::Allow,
    };
    let budget = b.recorder.open_budget(&terms).expect("opened");
    b.begin_with(2, None, &[("team", "search")], false);
    let call = b.recorder.requested(key(2)).expect("in flight");
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    let unpriced = |d: &SeriesData| counter(d, Counter::UnpricedTotal) - counter(d, Counter::RepricedTotal);
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    assert_eq!((unpriced(&data), counter(&data, Counter::Cost)), (120, 0));
    let (provider, model_name, outcome) = ("openai", "gpt-4o", Outcome::Ok);
    let (budgets, labels, calls, total, cost) = (1 << budget, call.labels, 1, 120, 60);
    let crossed = b.recorder.repriced(&langmeter_core::Repriced {
        provider,
        model: model_name,
        outcome,
        budgets,
        labels,
        calls,
        total,
        cost,
        charged: false,
        ended: [call.now; 2],
        attempt: 0,
    });
    assert_eq!(crossed.len(), 1);
    let s = b.recorder.snapshot();
    for data in [model(&s, "gpt-4o").expect("counted"), label(&s, "team", "search")] {
        assert_eq!((unpriced(&data), counter(&data, Counter::Cost), counter(&data, Counter::PricedCalls)), (0, 60, 1));
    }
    assert_eq!(b.recorder.standing(budget).map(|(s, _)| s.spent), Some(60));
}

#[test]
fn the_late_end_of_a_reaped_call_is_charged_to_its_budgets() {
    let b = bench(Settings::default());
    let terms = Terms {
        unit: Unit::Cost,
        limit: 100,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    };
    let budget = b.recorder.open_budget(&terms).expect("opened");
    let demand = Demand {
        budgets: 1 << budget,
        input: 10,
        output: Some(10),
        answers: 1,
        price: Price::Rates { input: 1, output: 1, call: 0, text: 1 },
    };
    b.begin(2, None, Kind::Llm, Some(demand)).expect("it fits");
    b.wait(4_000_000);
    b.recorder.snapshot();
    b.finish(&End { usage: Some(USED), cost: Some(30), provider: "openai", ..End::new(key(2), Kind::Llm) });
    assert_eq!(b.recorder.standing(budget).map(|(s, _)| (s.spent, s.reserved)), Some((30, 0)));
}
