//! What each event leaves in a snapshot.
#![cfg(not(loom))]

use langmeter_core::budget::{Period, Refused, Standing, Terms, Unit, Unpriced};
use langmeter_core::histogram::Histogram;
use langmeter_core::{
    Begin, Clock, Counter, Demand, Dropped, End, Kind, LabelSet, ManualClock, Measure, Outcome, Price, Recorder,
    RunKey, SeriesData, Settings, Snapshot, Started, Usage, Via,
};
use std::time::Duration;

struct Bench {
    clock: ManualClock,
    recorder: Recorder,
}

fn bench(settings: Settings) -> Bench {
    let clock = ManualClock::default();
    let recorder = Recorder::new(settings, Clock::Manual(clock.clone())).expect("recorder");
    Bench { clock, recorder }
}

fn key(n: u64) -> RunKey {
    RunKey::new(n)
}

const USED: Usage = [100, 20, 120, 40, 5, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Bench {
    fn start(&self, n: u64, parent: Option<u64>, kind: Kind) {
        self.begin(n, parent, kind, None).expect("no budget");
    }

    fn begin(&self, n: u64, parent: Option<u64>, kind: Kind, demand: Option<Demand>) -> Result<(), Refused> {
        let (name, provider, model) = ("name", "openai", "gpt-4o");
        self.recorder
            .run_started(&Begin {
                key: key(n),
                parent: parent.map(key),
                kind,
                name,
                provider,
                model,
                demand,
                labels: &[],
                retried: false,
                piped: false,
                witness: 0,
            })
            .map(drop)
    }

    fn end(&self, n: u64, outcome: Outcome, model: &str, usage: Option<Usage>) {
        self.finish(&End { outcome, provider: "openai", model, usage, ..End::new(key(n), Kind::Llm) });
    }

    fn finish(&self, end: &End<'_>) {
        self.recorder.run_ended(end);
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

fn model(snapshot: &Snapshot, name: &str) -> Option<SeriesData> {
    let labels = LabelSet { kind: Kind::Model, a: "openai".into(), b: name.into() };
    snapshot.series.get(&labels).cloned()
}

fn outcome_of(data: &SeriesData, outcome: Outcome) -> u64 {
    data.counters[outcome as usize]
}

fn counter(data: &SeriesData, counter: Counter) -> u64 {
    data.counters[Outcome::ALL.len() + counter as usize]
}

fn measure(data: &SeriesData, measure: Measure) -> &Histogram {
    &data.measures[measure as usize]
}

fn dropped(snapshot: &Snapshot, what: Dropped) -> u64 {
    snapshot.dropped.get(what.name()).copied().unwrap_or(0)
}

#[test]
fn a_call_counts_under_the_name_in_its_response() {
    let b = bench(Settings::default());
    assert!(b.recorder.is_empty());
    b.start(2, None, Kind::Llm);
    assert_eq!(b.recorder.snapshot().in_flight, 1);
    b.wait(250);
    b.finish(&End {
        provider: "openai",
        model: "gpt-4o-2024",
        usage: Some(USED),
        cost: Some(77),
        ..End::new(key(2), Kind::Llm)
    });
    let s = b.recorder.snapshot();
    assert_eq!(model(&s, "gpt-4o"), None);
    let data = model(&s, "gpt-4o-2024").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), s.in_flight), (1, 0));
    let used: Vec<u64> = Counter::ALL.iter().take(USED.len()).map(|c| counter(&data, *c)).collect();
    assert_eq!(used, USED);
    assert_eq!((counter(&data, Counter::Cost), counter(&data, Counter::PricedCalls)), (77, 1));
    assert_eq!(counter(&data, Counter::UnpricedCalls), 0);
    assert_eq!(
        (measure(&data, Measure::Latency).count(), measure(&data, Measure::Latency).quantile_micros(0.5)),
        (1, Some(250_111))
    );
    assert_eq!(data.windows[0].counts, [1, 100, 20, 0]);
    let component = &s.series[&LabelSet { kind: Kind::Llm, a: "name".into(), b: String::new() }];
    assert_eq!((outcome_of(component, Outcome::Ok), measure(component, Measure::Latency).count()), (1, 1));
    assert!(!b.recorder.is_empty());
}

#[test]
fn what_the_response_does_not_name_is_as_requested() {
    let b = bench(Settings::default());
    for (n, provider, name) in [(2, "", ""), (3, "azure", ""), (4, "", "o1")] {
        b.start(n, None, Kind::Llm);
        let end = End { provider, model: name, ..End::new(key(n), Kind::Llm) };
        b.finish(&end);
    }
    let names: Vec<_> = b.recorder.snapshot().series.into_keys().filter(|l| l.kind == Kind::Model).collect();
    let names: Vec<_> = names.iter().map(|l| (l.a.as_str(), l.b.as_str())).collect();
    assert_eq!(names, [("azure", "gpt-4o"), ("openai", "gpt-4o"), ("openai", "o1")]);
}

#[test]
fn a_stream_gives_first_token_and_gaps_to_the_model_that_answered() {
    let b = bench(Settings::default());
    for round in 0..3 {
        b.start(2 + round, None, Kind::Llm);
        for wait in [300, 10, 20] {
            b.wait(wait);
            assert!(b.recorder.token(key(2 + round), Via::Token, true));
            assert!(!b.recorder.token(key(2 + round), Via::StreamEvent, true));
        }
        if round == 0 {
            // Before the first response has named its model the gaps wait: a snapshot never takes back.
            let waits = model(&b.recorder.snapshot(), "gpt-4o").expect("in flight");
            assert_eq!((waits.in_flight, waits.peak, measure(&waits, Measure::Gap).count()), (1, 1, 0));
        }
        b.end(2 + round, Outcome::Ok, "gpt-4o-2024", Some(USED));
        let s = b.recorder.snapshot();
        let data = model(&s, "gpt-4o-2024").expect("counted");
        assert_eq!(measure(&data, Measure::FirstToken).count(), round + 1);
        assert_eq!(measure(&data, Measure::Gap).count(), 2 * (round + 1));
        assert_eq!(
            (counter(&data, Counter::Streamed), counter(&data, Counter::TokenEvents)),
            (round + 1, 3 * (round + 1))
        );
        assert_eq!(s.dropped.len(), 0, "{:?}", s.dropped);
        assert_eq!(model(&s, "gpt-4o"), None);
    }
}

#[test]
fn gaps_of_a_request_that_another_model_answers_are_said_to_be_mislaid() {
    let b = bench(Settings::default());
    for (n, answer) in [(2, "a"), (3, "b"), (4, "b")] {
        b.start(n, None, Kind::Llm);
        for _ in 0..3 {
            b.recorder.token(key(n), Via::Token, true);
        }
        b.end(n, Outcome::Ok, answer, None);
    }
    let s = b.recorder.snapshot();
    assert_eq!(dropped(&s, Dropped::GapsMislaid), 2);
    let gaps = |name| model(&s, name).map(|d| measure(&d, Measure::Gap).count());
    assert_eq!((gaps("a"), gaps("b")), (Some(4), Some(2)));
}

#[test]
fn a_stream_that_breaks_before_its_model_is_named_mislays_no_gaps() {
    let b = bench(Settings::default());
    for (n, answer) in [(2, ""), (3, "a"), (4, "")] {
        b.start(n, None, Kind::Llm);
        for _ in 0..3 {
            b.wait(1);
            b.recorder.token(key(n), Via::Token, true);
        }
        b.end(n, Outcome::Cancelled, answer, None);
    }
    let s = b.recorder.snapshot();
    assert_eq!(s.dropped.len(), 0, "{:?}", s.dropped);
    assert_eq!(model(&s, "a").map(|d| measure(&d, Measure::Gap).count()), Some(6));
}

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
fn a_cache_hit_is_saved_not_spent() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.end(2, Outcome::CacheHit, "gpt-4o", Some(USED));
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::CacheHit), counter(&data, Counter::SavedTotal)), (1, 120));
    assert_eq!(
        (
            counter(&data, Counter::Total),
            counter(&data, Counter::UnpricedCalls),
            measure(&data, Measure::Latency).count()
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_call_with_tokens_and_no_price_is_unpriced() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.start(3, None, Kind::Llm);
    b.end(3, Outcome::Error, "gpt-4o", None);
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    assert_eq!((counter(&data, Counter::PricedCalls), counter(&data, Counter::UnpricedCalls)), (0, 1));
    assert_eq!(data.windows[0].counts, [2, 100, 20, 1]);
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
fn beyond_max_series_all_goes_to_other_and_is_said() {
    let b = bench(Settings { max_series: 2, ..Settings::default() });
    for name in ["a", "b", "c", "d"] {
        b.recorder.count(Kind::Tool, name, Outcome::Ok, Some(1_000_000));
    }
    b.recorder.count(Kind::Fix, "x", Outcome::Error, None);
    let s = b.recorder.snapshot();
    let at = |kind, a: &str| s.series[&LabelSet { kind, a: a.into(), b: String::new() }].counters;
    assert_eq!(at(Kind::Tool, "other")[Outcome::Ok as usize], 2);
    assert_eq!(at(Kind::Fix, "other")[Outcome::Error as usize], 1);
    assert_eq!(dropped(&s, Dropped::SeriesCapped), 3);
}

#[test]
fn long_names_and_clamped_durations_are_said() {
    let b = bench(Settings::default());
    b.recorder.count(Kind::Tool, &"x".repeat(300), Outcome::Ok, Some(u64::MAX / 2));
    b.recorder.dropped(Dropped::HookErrors, 3);
    let s = b.recorder.snapshot();
    assert_eq!(
        (dropped(&s, Dropped::LabelsCut), dropped(&s, Dropped::Clamped), dropped(&s, Dropped::HookErrors)),
        (1, 1, 3)
    );
}

#[test]
fn settings_outside_their_range_are_refused_by_name() {
    let bad = [
        (Settings { max_series: 0, ..Settings::default() }, "max_series"),
        (Settings { max_runs: 0, ..Settings::default() }, "max_runs"),
        (Settings { significant_digits: 4, ..Settings::default() }, "significant_digits"),
        (Settings { max_run_age: Duration::ZERO, ..Settings::default() }, "max_run_age"),
    ];
    for (settings, name) in bad {
        let error = Recorder::new(settings, Clock::monotonic()).expect_err("refused").to_string();
        assert!(error.contains(name) && error.contains("allowed"), "{error}");
    }
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

/// A blocking budget of 1,000 tokens an hour.
fn budgeted(settings: Settings) -> Bench {
    let b = bench(settings);
    let terms = Terms {
        unit: Unit::Tokens,
        limit: 1000,
        period: Period::Hour,
        blocking: true,
        thresholds: vec![500, 1000],
        unpriced: Unpriced::Allow,
    };
    assert_eq!(b.recorder.open_budget(&terms), Ok(0));
    b
}

const FREE: Price = Price::Rates { input: 0, output: 0, call: 0, text: 0 };
const DEMAND: Demand = Demand { budgets: 1, input: 100, output: Some(500), answers: 1, price: FREE };

fn standing(b: &Bench) -> (u64, u64) {
    let (Standing { spent, reserved, .. }, _) = b.recorder.standing(0).expect("open");
    (spent, reserved)
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

fn series(s: &Snapshot, kind: Kind, a: &str, b: &str) -> SeriesData {
    let labels = LabelSet { kind, a: a.into(), b: b.into() };
    s.series.get(&labels).cloned().unwrap_or_default()
}

impl Bench {
    fn begin_with(&self, n: u64, parent: Option<u64>, labels: &[(&str, &str)], retried: bool) {
        let (key, parent, name, provider, model) = (key(n), parent.map(key), "name", "openai", "gpt-4o");
        let (kind, demand) = (Kind::Llm, None);
        let begin =
            Begin { key, parent, kind, name, provider, model, demand, labels, retried, piped: false, witness: 0 };
        self.recorder.run_started(&begin).expect("no budget");
    }
}

/// The row of a label's value for the calls of the usual model.
fn label(s: &Snapshot, key: &str, value: &str) -> SeriesData {
    series(s, Kind::Label, key, &[value, "openai", "gpt-4o"].join("\u{1F}"))
}

#[test]
fn a_call_counts_under_each_of_its_labels() {
    let b = bench(Settings::default());
    b.begin_with(2, None, &[("team", "search"), ("tier", "gold"), ("x", "1"), ("y", "2")], false);
    b.wait(3);
    b.finish(&End { usage: Some(USED), cost: Some(77), ..End::new(key(2), Kind::Llm) });
    b.begin_with(3, None, &[("team", "search")], false);
    b.wait(4_000_000);
    let s = b.recorder.snapshot();
    let team = label(&s, "team", "search");
    assert_eq!((outcome_of(&team, Outcome::Ok), outcome_of(&team, Outcome::Abandoned)), (1, 1));
    assert_eq!((counter(&team, Counter::Total), counter(&team, Counter::Cost)), (120, 77));
    assert_eq!((measure(&team, Measure::Latency).count(), team.windows[2].counts), (1, [1, 0, 0, 0]));
    assert_eq!(counter(&label(&s, "tier", "gold"), Counter::PricedCalls), 1);
    assert_eq!(label(&s, "y", "2"), SeriesData::default());
    assert_eq!(dropped(&s, Dropped::LabelsOver), 1);
    // The money of a call flows once, however many labels it has.
    assert_eq!(b.recorder.spent_lately()[2].2, 0);
}

/// The calls of each row of a label.
fn rows(s: &Snapshot, key: &str) -> Vec<(String, u64)> {
    let rows = s.series.iter().filter(|(row, _)| row.kind == Kind::Label && row.a == key);
    rows.map(|(row, data)| (row.b.replace('\u{1F}', "|"), data.counters[..6].iter().sum())).collect()
}

#[test]
fn a_label_has_a_row_for_each_model_that_answered() {
    let b = bench(Settings::default());
    let crossed = ("team\u{1F}tier", "search\u{1F}gold");
    // The second call begins under the model that answered the first.
    for n in 2..4 {
        b.begin_with(n, None, &[("team", "search"), crossed], false);
        b.end(n, Outcome::Ok, "gpt-4o-2024", Some(USED));
    }
    b.begin_with(4, None, &[("team", "search"), crossed], false);
    b.end(4, Outcome::Ok, "gpt-4o-mini", Some(USED));
    // What is abandoned counts as of the model that was requested, as it does there.
    b.begin_with(5, None, &[("team", ""), ("team\u{1F}tier", "\u{1F}gold")], false);
    b.wait(4_000_000);
    let s = b.recorder.snapshot();
    let row = |text: &str, n| (text.to_owned(), n);
    let of =
        |value: &str| [row(&format!("{value}|openai|gpt-4o-2024"), 2), row(&format!("{value}|openai|gpt-4o-mini"), 1)];
    let [first, second] = of("search");
    assert_eq!(rows(&s, "team"), [row("|openai|gpt-4o", 1), first, second]);
    let [first, second] = of("search|gold");
    assert_eq!(rows(&s, "team\u{1F}tier"), [row("|gold|openai|gpt-4o", 1), first, second]);
}

#[test]
fn an_end_without_a_start_counts_under_each_label_without_a_value() {
    let b = bench(Settings::default());
    let labels = ["team", "team\u{1F}tier"];
    let end = End { provider: "openai", model: "gpt-4o", usage: Some(USED), ..End::new(key(2), Kind::Llm) };
    b.finish(&End { labels: &labels, ..end });
    let s = b.recorder.snapshot();
    assert_eq!(rows(&s, "team"), [("|openai|gpt-4o".to_owned(), 1)]);
    assert_eq!(rows(&s, "team\u{1F}tier"), [("||openai|gpt-4o".to_owned(), 1)]);
}

#[test]
fn a_label_of_many_values_leaves_room_for_the_other_labels_and_for_models() {
    let b = bench(Settings { max_series: 40, ..Settings::default() });
    for n in 2..102 {
        let (request, both) = (format!("{n}"), format!("{n}\u{1F}gold"));
        b.begin_with(n, None, &[("request", &request), ("request\u{1F}tier", &both), ("team", "search")], false);
        b.end(n, Outcome::Ok, "gpt-4o", Some(USED));
    }
    let s = b.recorder.snapshot();
    // Three quarters of 40 series are for labels, 10 for each of them.
    let (one, two) = (rows(&s, "request"), rows(&s, "request\u{1F}tier"));
    assert_eq!((one.len(), two.len()), (11, 11));
    assert!(one.contains(&("other|openai|gpt-4o".to_owned(), 90)));
    assert!(two.contains(&("other|other|openai|gpt-4o".to_owned(), 90)));
    assert_eq!(counter(&label(&s, "team", "search"), Counter::Total), 100 * USED[2]);
    assert_eq!(dropped(&s, Dropped::SeriesCapped), 180);
    assert!(model(&s, "gpt-4o").is_some());
}

#[test]
fn a_label_without_room_for_a_row_of_a_model_counts_under_other() {
    // Component, model and the place of the label's rows.
    let b = bench(Settings { max_series: 3, ..Settings::default() });
    b.begin_with(2, None, &[("team", "search")], false);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    assert_eq!(rows(&b.recorder.snapshot(), "team"), [("other".to_owned(), 1)]);
}

#[test]
fn failures_say_who_and_how_and_what_they_cost() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    let failed = |n| End { outcome: Outcome::Error, error: Some("RateLimitError 429"), ..End::new(key(n), Kind::Llm) };
    b.finish(&End { usage: Some(USED), cost: Some(9), ..failed(2) });
    b.start(3, None, Kind::Tool);
    b.finish(&failed(3));
    b.begin_with(4, None, &[], true);
    b.finish(&End { outcome: Outcome::Cancelled, usage: Some(USED), cost: Some(5), ..End::new(key(4), Kind::Llm) });
    b.finish(&End { provider: "openai", model: "gpt-4o", ..failed(5) });
    let s = b.recorder.snapshot();
    let of = |who| outcome_of(&series(&s, Kind::Error, who, "RateLimitError 429"), Outcome::Error);
    assert_eq!((of("openai/gpt-4o"), of("tool name")), (2, 1));
    let data = model(&s, "gpt-4o").expect("counted");
    let money = [Counter::Cost, Counter::CostError, Counter::CostCancelled, Counter::RetriedCost];
    assert_eq!(money.map(|c| counter(&data, c)), [14, 9, 5, 5]);
    assert_eq!(counter(&data, Counter::RetriedCalls), 1);
}

#[test]
fn a_failed_call_is_made_good_by_a_later_one_under_the_same_parent() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Chain);
    for (n, outcome) in [(3, Outcome::Error), (4, Outcome::Error), (5, Outcome::Ok), (6, Outcome::Ok)] {
        b.start(n, Some(2), Kind::Llm);
        b.wait(1);
        b.end(n, outcome, "gpt-4o", None);
    }
    let recovered = counter(&model(&b.recorder.snapshot(), "gpt-4o").expect("counted"), Counter::Recovered);
    assert_eq!(recovered, 1, "one call was made good; the first attempt's retry failed too");
}

#[test]
fn a_stream_tells_its_visible_output_its_longest_gap_and_its_speed() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    for (wait, visible) in [(100, false), (20, false), (50, true), (30, true)] {
        b.wait(wait);
        b.recorder.token(key(2), Via::Token, visible);
    }
    b.wait(7);
    b.finish(&End { usage: Some(USED), queue: Some(5_000_000), truncated: true, ..End::new(key(2), Kind::Llm) });
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    let max = |m| measure(&data, m).quantile_micros(0.5).map(|micros| micros / 1000);
    assert_eq!((max(Measure::FirstToken), max(Measure::FirstVisibleToken)), (Some(100), Some(170)));
    // Two digits: within one part in a hundred.
    assert_eq!((max(Measure::LongestGap), max(Measure::StreamDuration)), (Some(50), Some(100)));
    // 100 ms for the 19 output tokens after the first.
    assert_eq!((max(Measure::TimePerToken), max(Measure::Queue)), (Some(5), Some(5)));
    assert_eq!(counter(&data, Counter::Truncated), 1);
}

#[test]
fn a_stream_that_pauses_for_a_day_has_a_gap_of_a_day() {
    let b = bench(Settings { max_run_age: Duration::from_secs(1_000_000), ..Settings::default() });
    b.start(2, None, Kind::Llm);
    for millis in [1, 86_400_000, 60_000] {
        b.wait(millis);
        b.recorder.token(key(2), Via::Token, true);
    }
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    let data = model(&b.recorder.snapshot(), "gpt-4o").expect("counted");
    let longest = measure(&data, Measure::LongestGap).quantile_micros(1.0).expect("one gap");
    // Three digits: within one part in a thousand.
    assert!(longest.abs_diff(86_400_000_000) < 86_400_000, "{longest}");
}

#[test]
fn calls_at_once_are_counted_under_the_model_that_answers() {
    let b = bench(Settings::default());
    for round in 0..2 {
        for n in 0..3 {
            b.start(2 + n, None, Kind::Llm);
        }
        let s = b.recorder.snapshot();
        let name = if round == 0 { "gpt-4o" } else { "gpt-4o-2024" };
        let data = model(&s, name).expect("in flight");
        assert_eq!((data.in_flight, data.peak, s.in_flight, s.peak), (3, 3, 3, 3));
        for n in 0..3 {
            b.end(2 + n, Outcome::Ok, "gpt-4o-2024", Some(USED));
        }
    }
    b.start(9, None, Kind::Llm);
    b.wait(4_000_000);
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o-2024").expect("counted");
    assert_eq!((data.in_flight, data.peak, s.peak), (0, 3, 3));
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

#[test]
fn silent_streams_and_the_pulse_of_models_are_told() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.wait(10);
    b.recorder.token(key(2), Via::Token, true);
    b.wait(2000);
    assert!(b.recorder.silent(Duration::from_secs(3)).is_empty());
    let silent = b.recorder.silent(Duration::from_secs(1));
    let [(labels, began, last, stream)] = silent.as_slice() else { panic!("one") };
    assert_eq!((labels.b.as_str(), last - began, stream.events), ("gpt-4o", 10_000_000, 1));
    b.recorder.stalled("openai", "gpt-4o");
    b.finish(&End { usage: Some(USED), cost: Some(3), ..End::new(key(2), Kind::Llm) });
    let [pulse] = b.recorder.pulse().try_into().expect("one model");
    assert_eq!((pulse.calls, pulse.errors, pulse.tokens, pulse.cost, pulse.duration), (1, 0, 120, 3, 2_010_000_000));
    assert_eq!(counter(&model(&b.recorder.snapshot(), "gpt-4o").expect("counted"), Counter::Stalls), 1);
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
