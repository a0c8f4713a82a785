//! How runs begin and end, in trees, in threads and after a fork.

use super::common::{USED, bench, counter, dropped, key, measure, model, outcome_of, series};
use langmeter_core::budget::{Period, Terms, Unit, Unpriced};
use langmeter_core::{
    Begin, Clock, Counter, Demand, Dropped, End, Kind, Measure, Outcome, Price, Recorder, Settings, Snapshot, Started,
    Via,
};
use std::time::Duration;

#[test]
fn what_a_run_asked_for_is_known_until_it_ends() {
    let b = bench(Settings::default());
    b.wait(5);
    b.start(2, None, Kind::Llm);
    b.start(3, None, Kind::Chain);
    let call = b.recorder.requested(key(2)).expect("in flight");
    let (labels, at) = (call.model, call.at);
    assert_eq!((labels.a.as_str(), labels.b.as_str(), at), ("openai", "gpt-4o", 1_005_000_000));
    assert_eq!((b.recorder.requested(key(3)), b.recorder.requested(key(4))), (None, None));
    b.end(2, Outcome::Ok, "", None);
    assert_eq!(b.recorder.requested(key(2)), None);
}

#[test]
fn the_end_of_an_ancestor_abandons_its_descendants_and_a_late_end_still_counts_what_was_spent() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Chain);
    b.start(3, Some(2), Kind::Chain);
    b.start(4, Some(3), Kind::Llm);
    b.recorder.token(key(4), Via::Token, true);
    b.finish(&End { outcome: Outcome::Cancelled, ..End::new(key(2), Kind::Chain) });
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Abandoned), counter(&data, Counter::Streamed), s.in_flight), (1, 1, 0));
    assert_eq!(dropped(&s, Dropped::RunsOrphaned), 2);
    b.end(4, Outcome::Ok, "gpt-4o", Some(USED));
    b.end(4, Outcome::Ok, "gpt-4o", Some(USED));
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), outcome_of(&data, Outcome::Abandoned)), (0, 1));
    assert_eq!(counter(&data, Counter::Total), 120);
    assert_eq!((dropped(&s, Dropped::LateEnd), dropped(&s, Dropped::DuplicateEnd)), (1, 1));
}

#[test]
fn a_call_whose_chain_ends_a_moment_sooner_keeps_its_own_outcome() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Chain);
    b.start(3, Some(2), Kind::Llm);
    b.wait(5);
    let (key, kind, outcome) = (key(2), Kind::Chain, Outcome::Ok);
    b.finish(&End { outcome, ..End::new(key, kind) });
    b.end(3, Outcome::Cancelled, "", Some(USED));
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Cancelled), outcome_of(&data, Outcome::Abandoned)), (1, 0));
    assert_eq!((measure(&data, Measure::Latency).count(), s.dropped.len()), (1, 0));
}

#[test]
fn duplicates_and_strays_are_counted_and_change_nothing_else() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.start(2, None, Kind::Llm);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    assert!(!b.recorder.token(key(9), Via::Token, true));
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), counter(&data, Counter::Total)), (1, 120));
    for what in [Dropped::DuplicateStart, Dropped::DuplicateEnd, Dropped::StrayTokens] {
        assert_eq!(dropped(&s, what), 1, "{}", what.name());
    }
}

#[test]
fn runs_that_share_an_id_are_calls_of_their_own_whose_times_are_not_known() {
    let b = bench(Settings::default());
    let terms = Terms {
        unit: Unit::Tokens,
        limit: 1_000_000,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    };
    b.recorder.open_budget(&terms).expect("opens");
    let demand = Some(Demand { budgets: 1, input: 10, output: Some(10), answers: 1, price: Price::Unpriced });
    let call = |witness| Begin {
        provider: "openai",
        model: "gpt-4o",
        demand,
        witness,
        ..Begin::new(key(2), Kind::Llm, "name")
    };
    for (witness, started) in [(7, Started::New), (7, Started::Echo), (8, Started::SharesId), (9, Started::SharesId)] {
        b.wait(1);
        assert_eq!(b.recorder.run_started(&call(witness)), Ok(started));
    }
    assert_eq!(b.recorder.standing(0).expect("open").0.reserved, 60);
    for _ in 0..6 {
        b.recorder.token(key(2), Via::Token, true);
    }
    for outcome in [Outcome::Ok, Outcome::Ok, Outcome::Error, Outcome::Cancelled] {
        b.wait(1);
        b.end(2, outcome, "gpt-4o", Some(USED));
    }
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    let ends = [Outcome::Ok, Outcome::Error, Outcome::Cancelled].map(|o| outcome_of(&data, o));
    assert_eq!((ends, counter(&data, Counter::Total), s.in_flight), ([1, 1, 1], 360, 0));
    for what in [Measure::Latency, Measure::FirstToken, Measure::Gap] {
        assert_eq!(measure(&data, what).count(), 0, "{}", what.name());
    }
    assert_eq!((counter(&data, Counter::Streamed), counter(&data, Counter::TokenEvents)), (1, 3));
    assert_eq!((counter(&data, Counter::Duration), counter(&data, Counter::CriticalTime)), (0, 0));
    assert_eq!((dropped(&s, Dropped::SharedId), dropped(&s, Dropped::DuplicateStart)), (3, 1));
    assert_eq!(dropped(&s, Dropped::DuplicateEnd), 1);
    let standing = b.recorder.standing(0).expect("open").0;
    assert_eq!((standing.reserved, standing.spent), (0, 360));
}

#[test]
fn an_end_without_a_start_counts_the_call_once() {
    let b = bench(Settings::default());
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    let chain = End { ..End::new(key(3), Kind::Chain) };
    b.finish(&chain);
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!(
        (outcome_of(&data, Outcome::Ok), counter(&data, Counter::Input), measure(&data, Measure::Latency).count()),
        (1, 100, 0)
    );
    assert_eq!((dropped(&s, Dropped::EndWithoutStart), dropped(&s, Dropped::DuplicateEnd)), (2, 1));
}

#[test]
fn a_run_past_its_age_is_abandoned_by_the_next_snapshot() {
    let b = bench(Settings { max_run_age: Duration::from_millis(500), ..Settings::default() });
    for n in 2..102 {
        b.start(n, None, Kind::Llm);
    }
    b.wait(400);
    b.start(200, None, Kind::Llm);
    assert_eq!(b.recorder.snapshot().in_flight, 101);
    b.wait(200);
    let s = b.recorder.snapshot();
    assert_eq!((s.in_flight, dropped(&s, Dropped::RunsAged)), (1, 100));
    assert_eq!(outcome_of(&model(&s, "gpt-4o").expect("counted"), Outcome::Abandoned), 100);
}

#[test]
fn at_max_runs_the_oldest_is_abandoned() {
    let b = bench(Settings { max_runs: 10, ..Settings::default() });
    for n in 2..27 {
        b.wait(1);
        b.start(n, None, Kind::Llm);
    }
    let s = b.recorder.snapshot();
    assert_eq!((s.in_flight, dropped(&s, Dropped::RunsCapped)), (10, 15));
    b.end(26, Outcome::Ok, "gpt-4o", None);
    b.end(2, Outcome::Ok, "gpt-4o", None);
    let s = b.recorder.snapshot();
    assert_eq!((s.in_flight, dropped(&s, Dropped::LateEnd)), (9, 1));
}

#[test]
fn after_a_fork_the_child_has_only_its_own() {
    let b = bench(Settings::default());
    for n in 2..8 {
        b.start(n, None, Kind::Llm);
        b.recorder.token(key(n), Via::Token, true);
    }
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.recorder.dropped(Dropped::Other, 1);
    let parent = b.recorder.snapshot();
    b.recorder.reset_after_fork();
    assert!(b.recorder.is_empty());
    assert_eq!(b.recorder.snapshot().in_flight, 0);
    b.start(2, None, Kind::Llm);
    b.wait(1);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    let child = b.recorder.snapshot();
    assert_eq!(outcome_of(&model(&child, "gpt-4o").expect("counted"), Outcome::Ok), 1);
    assert_eq!(child.dropped.len(), 0);
    // The other way round, or beside a sibling, there is nothing to subtract.
    assert!(parent.minus(&child).is_err());
    b.recorder.reset_after_fork();
    let grandchild = b.recorder.snapshot();
    assert_eq!(grandchild.minus(&child), Ok(grandchild));
    // A difference to what the parent had before is all the child's.
    assert_eq!(child.minus(&parent), Ok(child.clone()));
    let both = child.plus(&parent);
    assert_eq!(outcome_of(&model(&both, "gpt-4o").expect("counted"), Outcome::Ok), 2);
}

#[test]
fn many_threads_count_exactly_beside_snapshots() {
    let recorder = Recorder::new(Settings::default(), Clock::monotonic()).expect("recorder");
    let (threads, calls) = (8_u64, if cfg!(miri) { 20 } else { 5_000 });
    std::thread::scope(|scope| {
        for t in 0..threads {
            let recorder = &recorder;
            scope.spawn(move || {
                for i in 0..calls {
                    let run = key(2 + t * calls + i);
                    let model = if i % 2 == 0 { "a" } else { "b" };
                    let (name, provider) = ("name", "openai");
                    let begin = Begin {
                        key: run,
                        parent: None,
                        kind: Kind::Llm,
                        name,
                        provider,
                        model,
                        demand: None,
                        labels: &[],
                        retried: false,
                        piped: false,
                        witness: 0,
                    };
                    recorder.run_started(&begin).expect("no budget");
                    for _ in 0..3 {
                        recorder.token(run, Via::Token, true);
                    }
                    let usage = Some(USED);
                    let end = End { provider: "openai", model: "m", usage, cost: Some(1), ..End::new(run, Kind::Llm) };
                    recorder.run_ended(&end);
                }
            });
        }
        let mut before = recorder.snapshot();
        for _ in 0..if cfg!(miri) { 2 } else { 50 } {
            let now = recorder.snapshot();
            let delta = now.minus(&before);
            assert!(delta.is_ok(), "a figure fell: {delta:?}");
            before = now;
        }
    });
    let s = recorder.snapshot();
    let data = model(&s, "m").expect("counted");
    let n = threads * calls;
    assert_eq!(
        (outcome_of(&data, Outcome::Ok), counter(&data, Counter::Total), counter(&data, Counter::Cost)),
        (n, 120 * n, n)
    );
    assert_eq!(
        (
            measure(&data, Measure::Latency).count(),
            measure(&data, Measure::FirstToken).count(),
            measure(&data, Measure::Gap).count()
        ),
        (n, n, 2 * n)
    );
    assert_eq!(s.in_flight, 0);
}

#[test]
fn the_time_of_a_pipeline_is_shared_out_along_its_critical_path() {
    let b = bench(Settings::default());
    let of = |s: &Snapshot, kind, name: &str, b: &str| {
        let data = series(s, kind, name, b);
        let millis = |c| counter(&data, c) / 1_000_000;
        (millis(Counter::SelfTime), millis(Counter::CriticalTime), millis(Counter::SavedIfTwiceAsFast))
    };
    b.start(2, None, Kind::Chain);
    b.wait(10);
    b.start(3, Some(2), Kind::Tool);
    b.start(4, Some(2), Kind::Llm);
    b.wait(30);
    b.finish(&End::new(key(3), Kind::Tool));
    b.wait(70);
    b.end(4, Outcome::Ok, "gpt-4o", Some(USED));
    b.wait(5);
    b.finish(&End::new(key(2), Kind::Chain));
    let s = b.recorder.snapshot();
    assert_eq!(of(&s, Kind::Chain, "name", ""), (15, 15, 7));
    assert_eq!(of(&s, Kind::Tool, "name", ""), (30, 0, 0));
    // Twice as fast, the call would still take longer than the tool.
    assert_eq!(of(&s, Kind::Llm, "name", ""), (100, 100, 50));
    assert_eq!(of(&s, Kind::Model, "openai", "gpt-4o"), (100, 100, 50));
    let chain = series(&s, Kind::Chain, "name", "");
    assert_eq!((counter(&chain, Counter::Pipelines), counter(&chain, Counter::PipelineTime)), (1, 115_000_000));
}

#[test]
fn a_call_that_nobody_ended_is_what_its_pipeline_waited_for() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Chain);
    b.wait(10);
    b.start(3, Some(2), Kind::Llm);
    b.wait(90);
    b.finish(&End { outcome: Outcome::Cancelled, ..End::new(key(2), Kind::Chain) });
    let s = b.recorder.snapshot();
    let critical = |kind, a, b| counter(&series(&s, kind, a, b), Counter::CriticalTime) / 1_000_000;
    assert_eq!((critical(Kind::Chain, "name", ""), critical(Kind::Model, "openai", "gpt-4o")), (10, 90));
}

#[test]
fn a_tree_too_large_for_its_critical_path_is_counted() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Chain);
    for n in 3..700 {
        b.start(n, Some(2), Kind::Tool);
        b.finish(&End::new(key(n), Kind::Tool));
    }
    b.finish(&End::new(key(2), Kind::Chain));
    assert_eq!(dropped(&b.recorder.snapshot(), Dropped::PathsLost), 1);
}

#[test]
fn a_hook_that_was_timed_is_told() {
    let b = bench(Settings::default());
    b.recorder.in_hook("on_llm_end", 3_000);
    let data = series(&b.recorder.snapshot(), Kind::Hook, "on_llm_end", "");
    // A thousandfold.
    assert_eq!(measure(&data, Measure::Latency).quantile_micros(1.0), Some(3_001));
}
