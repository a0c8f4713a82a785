//! Durations of failed runs, and tokens by call.
#![cfg(not(loom))]

use langmeter_core::histogram::Histogram;
use langmeter_core::{
    Begin, Clock, End, Kind, LabelSet, ManualClock, Measure, Outcome, Recorder, RunKey, SeriesData, Settings, Snapshot,
    Usage,
};
use std::time::Duration;

fn run(recorder: &Recorder, clock: &ManualClock, n: u64, millis: u64, outcome: Outcome, tokens: [u64; 2]) {
    let key = RunKey::new(n);
    let begin = Begin {
        key,
        parent: None,
        kind: Kind::Llm,
        name: "chat",
        provider: "openai",
        model: "gpt-4o",
        demand: None,
        labels: &[("team", "a")],
        retried: false,
        piped: false,
        witness: 0,
    };
    assert!(recorder.run_started(&begin).is_ok());
    clock.advance(Duration::from_millis(millis));
    let [input, output] = tokens;
    let mut usage: Usage = [0; 19];
    usage[..3].copy_from_slice(&[input, output, input + output]);
    let error = matches!(outcome, Outcome::Error | Outcome::Cancelled).then_some("TimeoutError");
    recorder.run_ended(&End { outcome, usage: Some(usage), error, ..End::new(key, Kind::Llm) });
}

fn of<'a>(snapshot: &'a Snapshot, kind: Kind, a: &str, b: &str) -> &'a SeriesData {
    let labels = LabelSet { kind, a: a.into(), b: b.into() };
    snapshot.series.get(&labels).expect("series")
}

fn millis(histogram: &Histogram) -> Vec<u64> {
    histogram
        .buckets()
        .flat_map(|b| std::iter::repeat_n(b.lowest.div_ceil(1000), usize::try_from(b.count).expect("few")))
        .collect()
}

#[test]
fn failed_runs_are_in_both_distributions_and_by_their_error() {
    let clock = ManualClock::default();
    let recorder = Recorder::new(Settings::default(), Clock::Manual(clock.clone())).expect("recorder");
    let outcomes = [Outcome::Ok, Outcome::Error, Outcome::Cancelled, Outcome::Interrupted];
    for (n, outcome) in (1..).zip(outcomes) {
        run(&recorder, &clock, n, n * 8, outcome, [1, 0]);
    }
    let snapshot = recorder.snapshot();
    for (kind, a, b) in [(Kind::Model, "openai", "gpt-4o"), (Kind::Llm, "chat", "")] {
        let measures = &of(&snapshot, kind, a, b).measures;
        assert_eq!(millis(&measures[Measure::Latency as usize]), [8, 16, 24, 32]);
        assert_eq!(millis(&measures[Measure::FailedLatency as usize]), [16, 24]);
    }
    let error = of(&snapshot, Kind::Error, "openai/gpt-4o", "TimeoutError");
    assert_eq!(millis(&error.measures[Measure::Latency as usize]), [16, 24]);
}

#[test]
fn tokens_by_call_leave_out_calls_without_any_and_answers_of_the_cache() {
    let clock = ManualClock::default();
    let recorder = Recorder::new(Settings::default(), Clock::Manual(clock.clone())).expect("recorder");
    for (n, tokens) in (1..).zip([[7, 0], [200, 3], [0, 0]]) {
        run(&recorder, &clock, n, 1, Outcome::Ok, tokens);
    }
    run(&recorder, &clock, 9, 1, Outcome::CacheHit, [50, 50]);
    let snapshot = recorder.snapshot();
    let measures = &of(&snapshot, Kind::Model, "openai", "gpt-4o").measures;
    let tokens = |measure: Measure| -> Vec<u64> {
        measures[measure as usize]
            .buckets()
            .flat_map(|b| std::iter::repeat_n(b.lowest, usize::try_from(b.count).expect("few")))
            .collect()
    };
    assert_eq!((tokens(Measure::InputTokens), tokens(Measure::OutputTokens)), (vec![7, 200], vec![3]));
}

#[test]
fn a_snapshot_whose_failures_are_not_part_of_its_latency_is_refused() {
    let clock = ManualClock::default();
    let recorder = Recorder::new(Settings::default(), Clock::Manual(clock.clone())).expect("recorder");
    run(&recorder, &clock, 1, 8, Outcome::Error, [1, 1]);
    let mut snapshot = recorder.snapshot();
    assert!(snapshot.clone().validated().is_ok());
    for data in snapshot.series.values_mut() {
        data.measures[Measure::Latency as usize] = Histogram::default();
    }
    let refused = snapshot.validated().expect_err("failures beyond all").to_string();
    assert!(refused.contains("beyond latency"), "{refused}");
}
