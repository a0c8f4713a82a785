//! What each event leaves in a snapshot.
#![cfg(not(loom))]

use langmeter_core::budget::{Period, Refused, Standing, Terms, Unit};
use langmeter_core::{
    Begin, Clock, Counter, Demand, Dropped, End, Kind, LabelSet, ManualClock, Outcome, Recorder, RunKey, SeriesData,
    Settings, Snapshot, Usage, Via,
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

const USED: Usage = [100, 20, 120, 40, 5, 1, 8, 0, 0, 0, 0, 0];

impl Bench {
    fn start(&self, n: u64, parent: Option<u64>, kind: Kind) {
        self.begin(n, parent, kind, None).expect("no budget");
    }

    fn begin(&self, n: u64, parent: Option<u64>, kind: Kind, demand: Option<Demand>) -> Result<(), Refused> {
        let (name, provider, model) = ("name", "openai", "gpt-4o");
        self.recorder.run_started(&Begin { key: key(n), parent: parent.map(key), kind, name, provider, model, demand })
    }

    fn end(&self, n: u64, outcome: Outcome, model: &str, usage: Option<Usage>) {
        self.finish(&End { key: key(n), kind: Kind::Llm, outcome, provider: "openai", model, usage, cost: None });
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
        key: key(2),
        kind: Kind::Llm,
        outcome: Outcome::Ok,
        provider: "openai",
        model: "gpt-4o-2024",
        usage: Some(USED),
        cost: Some(77),
    });
    let s = b.recorder.snapshot();
    assert_eq!(model(&s, "gpt-4o"), None);
    let data = model(&s, "gpt-4o-2024").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), s.in_flight), (1, 0));
    let used: Vec<u64> = Counter::ALL.iter().take(USED.len()).map(|c| counter(&data, *c)).collect();
    assert_eq!(used, USED);
    assert_eq!((counter(&data, Counter::Cost), counter(&data, Counter::PricedCalls)), (77, 1));
    assert_eq!(counter(&data, Counter::UnpricedCalls), 0);
    assert_eq!((data.latency.count(), data.latency.quantile_micros(0.5)), (1, Some(250_111)));
    assert_eq!(data.windows[0].counts, [1, 100, 20, 0]);
    let component = &s.series[&LabelSet { kind: Kind::Llm, a: "name".into(), b: String::new() }];
    assert_eq!((outcome_of(component, Outcome::Ok), component.latency.count()), (1, 1));
    assert!(!b.recorder.is_empty());
}

#[test]
fn what_the_response_does_not_name_is_as_requested() {
    let b = bench(Settings::default());
    for (n, provider, name) in [(2, "", ""), (3, "azure", ""), (4, "", "o1")] {
        b.start(n, None, Kind::Llm);
        let end =
            End { key: key(n), kind: Kind::Llm, outcome: Outcome::Ok, provider, model: name, usage: None, cost: None };
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
            assert!(b.recorder.token(key(2 + round), Via::Token));
            assert!(!b.recorder.token(key(2 + round), Via::StreamEvent));
        }
        if round == 0 {
            // Before the first response has named its model the gaps wait: a snapshot never takes back.
            assert_eq!(b.recorder.snapshot().series.len(), 0);
        }
        b.end(2 + round, Outcome::Ok, "gpt-4o-2024", Some(USED));
        let s = b.recorder.snapshot();
        let data = model(&s, "gpt-4o-2024").expect("counted");
        assert_eq!(data.time_to_first_token.count(), round + 1);
        assert_eq!(data.inter_token_latency.count(), 2 * (round + 1));
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
            b.recorder.token(key(n), Via::Token);
        }
        b.end(n, Outcome::Ok, answer, None);
    }
    let s = b.recorder.snapshot();
    assert_eq!(dropped(&s, Dropped::GapsMislaid), 2);
    let gaps = |name| model(&s, name).map(|d| d.inter_token_latency.count());
    assert_eq!((gaps("a"), gaps("b")), (Some(4), Some(2)));
}

#[test]
fn a_stream_that_breaks_before_its_model_is_named_mislays_no_gaps() {
    let b = bench(Settings::default());
    for (n, answer) in [(2, ""), (3, "a"), (4, "")] {
        b.start(n, None, Kind::Llm);
        for _ in 0..3 {
            b.wait(1);
            b.recorder.token(key(n), Via::Token);
        }
        b.end(n, Outcome::Cancelled, answer, None);
    }
    let s = b.recorder.snapshot();
    assert_eq!(s.dropped.len(), 0, "{:?}", s.dropped);
    assert_eq!(model(&s, "a").map(|d| d.inter_token_latency.count()), Some(6));
}

#[test]
fn what_a_run_asked_for_is_known_until_it_ends() {
    let b = bench(Settings::default());
    b.wait(5);
    b.start(2, None, Kind::Llm);
    b.start(3, None, Kind::Chain);
    let (labels, at) = b.recorder.requested(key(2)).expect("in flight");
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
        (counter(&data, Counter::Total), counter(&data, Counter::UnpricedCalls), data.latency.count()),
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
    b.recorder.token(key(4), Via::Token);
    b.finish(&End {
        key: key(2),
        kind: Kind::Chain,
        outcome: Outcome::Cancelled,
        provider: "",
        model: "",
        usage: None,
        cost: None,
    });
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
    b.finish(&End { key, kind, outcome, provider: "", model: "", usage: None, cost: None });
    b.end(3, Outcome::Cancelled, "", Some(USED));
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Cancelled), outcome_of(&data, Outcome::Abandoned)), (1, 0));
    assert_eq!((data.latency.count(), s.dropped.len()), (1, 0));
}

#[test]
fn duplicates_and_strays_are_counted_and_change_nothing_else() {
    let b = bench(Settings::default());
    b.start(2, None, Kind::Llm);
    b.start(2, None, Kind::Llm);
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    assert!(!b.recorder.token(key(9), Via::Token));
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), counter(&data, Counter::Total)), (1, 120));
    for what in [Dropped::DuplicateStart, Dropped::DuplicateEnd, Dropped::StrayTokens] {
        assert_eq!(dropped(&s, what), 1, "{}", what.name());
    }
}

#[test]
fn an_end_without_a_start_counts_the_call_once() {
    let b = bench(Settings::default());
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    b.end(2, Outcome::Ok, "gpt-4o", Some(USED));
    let chain =
        End { key: key(3), kind: Kind::Chain, outcome: Outcome::Ok, provider: "", model: "", usage: None, cost: None };
    b.finish(&chain);
    let s = b.recorder.snapshot();
    let data = model(&s, "gpt-4o").expect("counted");
    assert_eq!((outcome_of(&data, Outcome::Ok), counter(&data, Counter::Input), data.latency.count()), (1, 100, 0));
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
    b.recorder.count(Kind::Tool, &"x".repeat(300), Outcome::Ok, Some(1));
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
        b.recorder.token(key(n), Via::Token);
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
                    let begin = Begin { key: run, parent: None, kind: Kind::Llm, name, provider, model, demand: None };
                    recorder.run_started(&begin).expect("no budget");
                    for _ in 0..3 {
                        recorder.token(run, Via::Token);
                    }
                    let usage = Some(USED);
                    let end = End {
                        key: run,
                        kind: Kind::Llm,
                        outcome: Outcome::Ok,
                        provider: "openai",
                        model: "m",
                        usage,
                        cost: Some(1),
                    };
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
        (data.latency.count(), data.time_to_first_token.count(), data.inter_token_latency.count()),
        (n, n, 2 * n)
    );
    assert_eq!(s.in_flight, 0);
}

/// A blocking budget of 1,000 tokens an hour.
fn budgeted(settings: Settings) -> Bench {
    let b = bench(settings);
    let terms =
        Terms { unit: Unit::Tokens, limit: 1000, period: Period::Hour, blocking: true, thresholds: vec![500, 1000] };
    assert_eq!(b.recorder.open_budget(&terms), Ok(0));
    b
}

const DEMAND: Demand = Demand { budgets: 1, input: 100, output: Some(500), answers: 1, rates: [0; 3] };

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
    assert_eq!(standing(&b), (0, 600));
    b.wait(10_001);
    b.recorder.snapshot();
    assert_eq!(standing(&b), (0, 0));
    // Its ancestor has ended.
    b.start(9, None, Kind::Chain);
    start(10, Some(9));
    b.end(9, Outcome::Ok, "", None);
    start(11, None);
    assert_eq!(standing(&b), (0, 600));
    b.recorder.reset_after_fork();
    assert_eq!(standing(&b), (0, 0));
}

#[test]
fn the_run_that_makes_room_gives_back_what_it_holds() {
    let b = budgeted(Settings { max_runs: 1, ..Settings::default() });
    b.begin(2, None, Kind::Llm, Some(Demand { output: Some(0), ..DEMAND })).expect("fits");
    b.begin(3, None, Kind::Llm, Some(DEMAND)).expect("fits");
    assert_eq!(standing(&b), (0, 600));
}

#[test]
fn without_a_limit_of_its_own_a_call_is_expected_to_give_as_much_as_ever() {
    let b = bench(Settings::default());
    let terms = Terms { unit: Unit::Cost, limit: u64::MAX, period: Period::Total, blocking: true, thresholds: vec![] };
    b.recorder.open_budget(&terms).expect("opens");
    let demand = Demand { output: None, rates: [3, 10, 7], ..DEMAND };
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
        b.finish(&End { key, kind, outcome, provider: "", model: "", usage: Some(USED), cost: Some(2_000_400) });
        b.wait(100_000);
    }
    assert_eq!(
        b.recorder.spent_lately(),
        [(60, 60_000_000_000, 0), (300, 300_000_000_000, 4000), (900, 300_000_000_000, 6000)]
    );
}
