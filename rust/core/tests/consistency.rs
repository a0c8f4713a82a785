//! What a snapshot promises while other threads record.
#![cfg(not(loom))]

use langmeter_core::{
    Begin, Clock, Counter, End, Kind, ManualClock, Measure, Outcome, Recorder, RunKey, SeriesData, Settings, Snapshot,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const OUTCOMES: usize = Outcome::ALL.len();
const THREADS: u64 = 8;

fn recorder() -> Recorder {
    Recorder::new(Settings::default(), Clock::monotonic()).expect("recorder")
}

/// A call of one of three models, by one of two teams; every seventh fails, every fifth pays nothing.
fn call(recorder: &Recorder, n: u64) {
    let key = RunKey::new(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 2);
    let pick = |names: &[&'static str]| names[usize::try_from(n).expect("small") % names.len()];
    let (name, model) = (pick(&["chat", "agent"]), pick(&["a", "b", "c"]));
    let labels = [("team", pick(&["red", "blue"])), ("all", "all")];
    let begin = Begin {
        key,
        parent: None,
        kind: Kind::Llm,
        name,
        provider: "openai",
        model,
        demand: None,
        labels: &labels,
        retried: false,
        piped: false,
        witness: 0,
    };
    recorder.run_started(&begin).expect("no budget");
    let failed = n.is_multiple_of(7);
    let mut usage = [0; Counter::Estimated as usize + 1];
    (usage[0], usage[1], usage[2]) = (100, 20, 120);
    recorder.run_ended(&End {
        outcome: if failed { Outcome::Error } else { Outcome::Ok },
        provider: "openai",
        model,
        usage: (!failed).then_some(usage),
        cost: (!failed && !n.is_multiple_of(5)).then_some(7),
        error: failed.then_some("RateLimitError 429"),
        ..End::new(key, Kind::Llm)
    });
}

/// The counters of all series of a kind, added.
fn total(snapshot: &Snapshot, of: impl Fn(Kind, &str) -> bool) -> Vec<u64> {
    let mut sum = vec![0; SeriesData::default().counters.len()];
    for (labels, data) in &snapshot.series {
        if of(labels.kind, &labels.a) {
            sum.iter_mut().zip(data.counters).for_each(|(to, n)| *to += n);
        }
    }
    sum
}

fn calls(counters: &[u64]) -> u64 {
    counters[..OUTCOMES].iter().sum()
}

/// What agrees in every snapshot, and in the difference of two.
fn agrees(snapshot: &Snapshot) {
    let models = total(snapshot, |kind, _| kind == Kind::Model);
    let components = total(snapshot, |kind, _| kind == Kind::Llm);
    let errors = total(snapshot, |kind, _| kind == Kind::Error);
    assert_eq!(models[..OUTCOMES], components[..OUTCOMES]);
    assert_eq!(errors[Outcome::Error as usize], models[Outcome::Error as usize]);
    for key in ["team", "all"] {
        let labels = total(snapshot, |kind, a| kind == Kind::Label && a == key);
        let alike = OUTCOMES + Counter::Duration as usize;
        assert_eq!(labels[..alike], models[..alike], "{key}");
    }
    let of = |c: Counter| models[OUTCOMES + c as usize];
    let ok = models[Outcome::Ok as usize];
    assert_eq!((of(Counter::Input), of(Counter::Output), of(Counter::Total)), (100 * ok, 20 * ok, 120 * ok));
    assert_eq!(of(Counter::PricedCalls) + of(Counter::UnpricedCalls), ok);
    assert_eq!(of(Counter::Cost), 7 * of(Counter::PricedCalls));
    for (labels, data) in &snapshot.series {
        let latency = data.measures[Measure::Latency as usize].count();
        if labels.kind != Kind::Error {
            assert_eq!(latency, calls(&data.counters), "{labels:?}");
        }
        for window in &data.windows {
            assert!(window.counts[0] <= calls(&data.counters), "{labels:?}");
        }
    }
}

#[test]
fn of_each_event_a_snapshot_has_everything_or_nothing() {
    let recorder = recorder();
    let (stop, next) = (AtomicBool::new(false), AtomicU64::new(1));
    let snapshots = if cfg!(miri) { 2 } else { 60 };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    call(&recorder, next.fetch_add(1, Relaxed));
                }
            });
        }
        let mut before = Snapshot::default();
        for _ in 0..snapshots {
            let now = recorder.snapshot();
            agrees(&now);
            let between = now.minus(&before).expect("an earlier snapshot of the same recorder");
            agrees(&between);
            before = now;
        }
        stop.store(true, Relaxed);
    });
    let (last, ended) = (recorder.snapshot(), next.load(Relaxed) - 1);
    agrees(&last);
    assert_eq!(calls(&total(&last, |kind, _| kind == Kind::Model)), ended);
    assert_eq!(last.in_flight, 0);
}

#[test]
fn snapshots_that_two_threads_take_at_once_are_both_whole() {
    let recorder = recorder();
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100 {
                    agrees(&recorder.snapshot());
                }
            });
            scope.spawn(|| {
                for _ in 0..20_000 {
                    call(&recorder, next.fetch_add(1, Relaxed));
                }
            });
        }
    });
    let last = recorder.snapshot();
    agrees(&last);
    assert_eq!(calls(&total(&last, |kind, _| kind == Kind::Model)), 40_000);
}

fn start(recorder: &Recorder, n: u64, model: &str) {
    let begin = Begin {
        key: RunKey::new(n),
        parent: None,
        kind: Kind::Llm,
        name: "chat",
        provider: "openai",
        model,
        demand: None,
        labels: &[],
        retried: false,
        piped: false,
        witness: 0,
    };
    recorder.run_started(&begin).expect("no budget");
}

fn answer(recorder: &Recorder, n: u64, model: &str, outcome: Outcome) {
    let provider = if model.is_empty() { "" } else { "openai" };
    recorder.run_ended(&End { outcome, provider, model, ..End::new(RunKey::new(n), Kind::Llm) });
}

fn peak(snapshot: &Snapshot, model: &str) -> Option<(u64, i64)> {
    let of = |(labels, data): (&langmeter_core::LabelSet, &SeriesData)| {
        (labels.kind == Kind::Model && labels.b == model).then_some((data.peak, data.in_flight))
    };
    snapshot.series.iter().find_map(of)
}

#[test]
fn a_peak_stays_with_the_model_that_answered_first() {
    let recorder = Recorder::new(Settings::default(), Clock::Manual(ManualClock::default())).expect("recorder");
    (10..15).for_each(|n| start(&recorder, n, "router"));
    // Which model they are of is not known yet.
    assert_eq!(peak(&recorder.snapshot(), "router"), Some((5, 5)));
    (10..15).for_each(|n| answer(&recorder, n, "A", Outcome::Ok));
    let first = recorder.snapshot();
    assert_eq!((peak(&first, "A"), peak(&first, "router")), (Some((5, 0)), None));
    start(&recorder, 20, "router");
    answer(&recorder, 20, "B", Outcome::Ok);
    start(&recorder, 21, "router");
    let second = recorder.snapshot();
    assert_eq!(peak(&second, "A"), Some((5, 0)));
    assert!(peak(&second, "B").is_some_and(|(peak, in_flight)| (peak, in_flight) == (1, 1)));
    let sum = first.plus(&second.minus(&first).expect("earlier"));
    assert_eq!(peak(&sum, "A"), peak(&second, "A"));
}

#[test]
fn a_peak_under_a_name_that_failed_first_stays_there() {
    let recorder = Recorder::new(Settings::default(), Clock::Manual(ManualClock::default())).expect("recorder");
    (10..13).for_each(|n| start(&recorder, n, "router"));
    answer(&recorder, 10, "", Outcome::Error);
    assert_eq!(peak(&recorder.snapshot(), "router"), Some((3, 2)));
    answer(&recorder, 11, "A", Outcome::Ok);
    answer(&recorder, 12, "A", Outcome::Ok);
    assert_eq!(peak(&recorder.snapshot(), "router"), Some((3, 0)));
}

#[test]
fn money_beyond_what_a_counter_holds_stays_at_the_top_and_is_counted() {
    let recorder = Recorder::new(Settings::default(), Clock::Manual(ManualClock::default())).expect("recorder");
    let mut before = Snapshot::default();
    for n in 2..7 {
        start(&recorder, n, "dear");
        let end = End::new(RunKey::new(n), Kind::Llm);
        recorder.run_ended(&End { cost: Some(1 << 63), billed: Some(u64::MAX - 1), outcome: Outcome::Error, ..end });
        let now = recorder.snapshot();
        now.minus(&before).expect("nothing fell");
        before = now;
    }
    let models = total(&before, |kind, _| kind == Kind::Model);
    for money in [Counter::Cost, Counter::CostError, Counter::Billed] {
        assert_eq!(models[OUTCOMES + money as usize], u64::MAX);
    }
    assert_eq!(models[OUTCOMES + Counter::PricedCalls as usize], 5);
    // The second to the fifth of two costs, and the second to the fifth bill.
    assert_eq!(before.dropped.get("money_saturated"), Some(&12));
}
