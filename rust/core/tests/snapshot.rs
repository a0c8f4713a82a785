//! The laws of snapshots, and their encoding.
#![cfg(not(loom))]

use langmeter_core::{
    Begin, Clock, Dropped, End, Kind, LabelSet, ManualClock, Origin, Outcome, Recorder, RunKey, SeriesData, Settings,
    Snapshot, Via,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

/// One step of a history: which model, how long, how it ended, how many tokens.
type Step = (u8, u64, usize, u64);

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..3_u8, 1..5_000_000_u64, 0..Outcome::ALL.len(), 0..4_u64), 0..12)
}

struct Machine {
    recorder: Recorder,
    clock: ManualClock,
    next: u64,
}

impl Machine {
    fn new(digits: u8) -> Self {
        let clock = ManualClock::default();
        let settings = Settings { max_series: 16, max_runs: 16, significant_digits: digits, ..Settings::default() };
        let recorder = Recorder::new(settings, Clock::Manual(clock.clone())).expect("recorder");
        Self { recorder, clock, next: 2 }
    }

    fn run(&mut self, steps: &[Step]) -> Snapshot {
        for &(model, micros, outcome, tokens) in steps {
            let key = RunKey::new(self.next);
            self.next += 1;
            let name = format!("m{model}");
            let (name, provider, model) = ("chat", "openai", name.as_str());
            let begin = Begin {
                key,
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
            self.recorder.run_started(&begin).expect("no budget");
            for _ in 0..tokens {
                self.clock.advance(Duration::from_micros(micros));
                self.recorder.token(key, Via::Token, true);
            }
            let mut usage = [tokens; 19];
            usage[2] = 2 * tokens;
            let outcome = Outcome::ALL[outcome];
            let cost = (tokens > 1).then_some(tokens);
            self.recorder.run_ended(&End {
                outcome,
                provider: "openai",
                model: name,
                usage: Some(usage),
                cost,
                ..End::new(key, Kind::Llm)
            });
        }
        self.recorder.snapshot()
    }
}

fn of(steps: &[Step]) -> Snapshot {
    Machine::new(3).run(steps)
}

/// The part that adds: all but the moment (time covered, windows) and whose it is.
fn counts(s: &Snapshot) -> (i64, BTreeMap<String, u64>, BTreeMap<LabelSet, SeriesData>) {
    let bare = |d: &SeriesData| SeriesData { windows: Vec::new(), ..d.clone() };
    (s.in_flight, s.dropped.clone(), s.series.iter().map(|(l, d)| (l.clone(), bare(d))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_are_a_commutative_monoid(a in history(), b in history(), c in history()) {
        let (a, b, c) = (of(&a), of(&b), of(&c));
        let zero = Snapshot::default();
        prop_assert_eq!(a.plus(&b), b.plus(&a));
        prop_assert_eq!(a.plus(&b).plus(&c), a.plus(&b.plus(&c)));
        prop_assert_eq!(a.plus(&zero), a.clone());
        prop_assert_eq!(zero.plus(&a), a);
    }

    #[test]
    fn a_difference_undoes_a_sum(a in history(), b in history()) {
        let (a, b) = (of(&a), of(&b));
        prop_assert_eq!(counts(&a.plus(&b).minus(&b).expect("b is a part")), counts(&a));
        prop_assert_eq!(counts(&a.minus(&a).expect("itself")), counts(&Snapshot::default()));
        prop_assert_eq!(counts(&a.minus(&Snapshot::default()).expect("zero")), counts(&a));
    }

    #[test]
    fn a_difference_is_what_happened_between(a in history(), b in history()) {
        let mut machine = Machine::new(3);
        let before = machine.run(&a);
        let after = machine.run(&b);
        let between = after.minus(&before).expect("earlier");
        prop_assert_eq!(counts(&between), counts(&of(&b)));
        prop_assert_eq!((between.started_at, between.taken_at), (before.taken_at, after.taken_at));
        let calls: u64 = between.series.iter().filter(|(l, _)| l.kind == Kind::Model).flat_map(|(_, d)| d.counters.iter().take(6)).sum();
        prop_assert_eq!(between.windows().iter().map(|w| w.counts[0]).max().unwrap_or(0), calls);
    }

    #[test]
    fn what_was_counted_is_the_part_that_adds(a in history(), b in history()) {
        let (a, b) = (of(&a), of(&b));
        let sum = a.plus(&b).counted();
        prop_assert_eq!(a.counted().plus(&b.counted()), sum.clone());
        prop_assert_eq!(sum.counted(), sum.clone());
        prop_assert!(sum.windows().is_empty() && (sum.in_flight, sum.peak) == (0, 0));
        prop_assert_eq!(sum.series.values().map(|d| d.counters[0]).sum::<u64>(), a.plus(&b).series.values().map(|d| d.counters[0]).sum());
    }

    #[test]
    fn bytes_round_trip(a in history(), digits in 2..=3_u8) {
        let s = Machine::new(digits).run(&a);
        prop_assert_eq!(Snapshot::from_bytes(&s.to_bytes().expect("encodes")), Ok(s));
    }

    #[test]
    fn any_damaged_byte_is_noticed(a in history(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = of(&a).to_bytes().expect("encodes");
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Snapshot::from_bytes(&bytes).is_err(), "byte {} ^ {}", at, flip);
    }

    #[test]
    fn cut_or_foreign_bytes_are_refused(a in history(), keep in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = of(&a).to_bytes().expect("encodes");
        prop_assert!(Snapshot::from_bytes(&bytes[..keep.index(bytes.len())]).is_err());
        prop_assert!(Snapshot::from_bytes(&junk).is_err());
    }
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let mut bytes = of(&[(0, 5, 0, 2)]).to_bytes().expect("encodes");
    bytes[4] = 9;
    let error = Snapshot::from_bytes(&bytes).expect_err("newer").to_string();
    assert!(error.contains("format 9") && error.contains("upgrade"), "{error}");
    bytes[4] = 0;
    assert!(Snapshot::from_bytes(&bytes).is_err());
}

#[test]
fn what_is_no_earlier_snapshot_is_refused_with_the_figure() {
    let mut machine = Machine::new(3);
    let (few, many) = (machine.run(&[(0, 5, 0, 2)]), machine.run(&[(0, 5, 0, 2), (1, 5, 1, 0)]));
    let error = few.minus(&many).expect_err("later").to_string();
    assert!(error.contains("is 1 on the left and 2 on the right"), "{error}");
    // A sum belongs to several recorders: only counts decide.
    let other = of(&[(2, 5, 0, 2)]);
    let error = few.plus(&other).minus(&many.plus(&other)).expect_err("later").to_string();
    assert!(error.contains("of llm chat is 2 on the left and 3 on the right"), "{error}");
    machine.recorder.dropped(Dropped::Other, 2);
    let lossy = machine.recorder.snapshot();
    let error = many.minus(&lossy).expect_err("more dropped").to_string();
    assert!(error.contains("dropped other is 0 on the left and 2"), "{error}");
    machine.recorder.dropped(Dropped::Other, 3);
    let error = lossy.minus(&machine.recorder.snapshot()).expect_err("more dropped").to_string();
    assert!(error.contains("is 2 on the left and 5"), "{error}");
}

#[test]
fn a_difference_of_two_recorders_is_refused_by_name_whatever_the_figures() {
    let decoded = |s: &Snapshot| Snapshot::from_bytes(&s.to_bytes().expect("encodes")).expect("decodes");
    let step = (0, 5, 0, 2);
    let (few, many, none) = (of(&[step; 2]), of(&[step; 3]), of(&[]));
    for (after, before) in [(&many, &few), (&few, &many), (&many, &none), (&none, &many), (&none, &of(&[]))] {
        for (after, before) in [(after.clone(), before.clone()), (decoded(after), decoded(before))] {
            let error = after.minus(&before).expect_err("two recorders").to_string();
            assert!(error.contains("restarted"), "{error}");
        }
    }
    // A difference is of its recorder.
    let mut machine = Machine::new(3);
    let first = machine.run(&[step]);
    let rest = machine.run(&[step]).minus(&first).expect("earlier");
    assert!(rest.minus(&few).is_err() && many.minus(&rest).is_err());
}

#[test]
fn the_empty_snapshot_parts_of_a_sum_and_a_forks_parent_are_subtracted() {
    let (a, b) = (of(&[(0, 5, 0, 2); 2]), of(&[(1, 7, 1, 3)]));
    assert_eq!(counts(&a.minus(&Snapshot::default()).expect("empty")), counts(&a));
    assert_eq!(counts(&a.plus(&b).minus(&b).expect("a part")), counts(&a));
    let mut machine = Machine::new(3);
    let parent = machine.run(&[(0, 5, 0, 2)]);
    machine.recorder.reset_after_fork();
    let child = machine.run(&[(0, 5, 0, 2)]);
    assert_eq!(counts(&child.minus(&parent).expect("a child")), counts(&child));
    assert!(parent.minus(&child).is_err());
}

#[test]
fn rates_cover_what_the_recorder_has_lived_and_merge_by_the_longer_life() {
    let mut young = Machine::new(3);
    let young = young.run(&[(0, 10_000_000, 0, 1)]);
    let mut old = Machine::new(3);
    old.clock.advance(Duration::from_secs(500));
    let old = old.run(&[(0, 1, 0, 1)]);
    let covered = |s: &Snapshot| s.windows().iter().map(|w| (w.seconds, w.covered / 1_000_000_000)).collect::<Vec<_>>();
    assert_eq!(covered(&young), [(60, 10), (300, 10), (900, 10)]);
    assert_eq!(covered(&young.plus(&old)), [(60, 60), (300, 300), (900, 500)]);
    assert_eq!(young.plus(&old).windows()[2].counts, [2, 2, 2, 0]);
}

#[test]
fn a_sum_of_two_recorders_is_nobodys_alone() {
    let (a, b) = (of(&[(0, 5, 0, 2)]), of(&[(0, 5, 0, 2)]));
    assert!(matches!(a.origin, Origin::One { .. }));
    assert_eq!(a.plus(&b).origin, Origin::Many);
    assert_eq!(a.plus(&a).origin, a.origin);
    assert_eq!(Snapshot::default().origin, Origin::None);
}
