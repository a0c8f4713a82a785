//! A recorder with a clock by hand, and what its snapshots hold.

use langmeter_core::budget::{Period, Refused, Standing, Terms, Unit, Unpriced};
use langmeter_core::histogram::Histogram;
use langmeter_core::{
    Begin, Clock, Counter, Demand, Dropped, End, Kind, LabelSet, ManualClock, Measure, Outcome, Price, Recorder,
    RunKey, SeriesData, Settings, Snapshot, Usage,
};
use std::time::Duration;

pub struct Bench {
    pub clock: ManualClock,
    pub recorder: Recorder,
}

pub fn bench(settings: Settings) -> Bench {
    let clock = ManualClock::default();
    let recorder = Recorder::new(settings, Clock::Manual(clock.clone())).expect("recorder");
    Bench { clock, recorder }
}

pub fn key(n: u64) -> RunKey {
    RunKey::new(n)
}

pub const USED: Usage = [100, 20, 120, 40, 5, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Bench {
    pub fn start(&self, n: u64, parent: Option<u64>, kind: Kind) {
        self.begin(n, parent, kind, None).expect("no budget");
    }

    pub fn begin(&self, n: u64, parent: Option<u64>, kind: Kind, demand: Option<Demand>) -> Result<(), Refused> {
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

    pub fn end(&self, n: u64, outcome: Outcome, model: &str, usage: Option<Usage>) {
        self.finish(&End { outcome, provider: "openai", model, usage, ..End::new(key(n), Kind::Llm) });
    }

    pub fn finish(&self, end: &End<'_>) {
        self.recorder.run_ended(end);
    }

    pub fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

pub fn model(snapshot: &Snapshot, name: &str) -> Option<SeriesData> {
    let labels = LabelSet { kind: Kind::Model, a: "openai".into(), b: name.into() };
    snapshot.series.get(&labels).cloned()
}

pub fn outcome_of(data: &SeriesData, outcome: Outcome) -> u64 {
    data.counters[outcome as usize]
}

pub fn counter(data: &SeriesData, counter: Counter) -> u64 {
    data.counters[Outcome::ALL.len() + counter as usize]
}

pub fn measure(data: &SeriesData, measure: Measure) -> &Histogram {
    &data.measures[measure as usize]
}

pub fn dropped(snapshot: &Snapshot, what: Dropped) -> u64 {
    snapshot.dropped.get(what.name()).copied().unwrap_or(0)
}

/// A blocking budget of 1,000 tokens an hour.
pub fn budgeted(settings: Settings) -> Bench {
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

pub const FREE: Price = Price::Rates { input: 0, output: 0, call: 0, text: 0 };

pub const DEMAND: Demand = Demand { budgets: 1, input: 100, output: Some(500), answers: 1, price: FREE };

pub fn standing(b: &Bench) -> (u64, u64) {
    let (Standing { spent, reserved, .. }, _) = b.recorder.standing(0).expect("open");
    (spent, reserved)
}

pub fn series(s: &Snapshot, kind: Kind, a: &str, b: &str) -> SeriesData {
    let labels = LabelSet { kind, a: a.into(), b: b.into() };
    s.series.get(&labels).cloned().unwrap_or_default()
}

impl Bench {
    pub fn begin_with(&self, n: u64, parent: Option<u64>, labels: &[(&str, &str)], retried: bool) {
        let (key, parent, name, provider, model) = (key(n), parent.map(key), "name", "openai", "gpt-4o");
        let (kind, demand) = (Kind::Llm, None);
        let begin =
            Begin { key, parent, kind, name, provider, model, demand, labels, retried, piped: false, witness: 0 };
        self.recorder.run_started(&begin).expect("no budget");
    }
}

/// The row of a label's value for the calls of the usual model.
pub fn label(s: &Snapshot, key: &str, value: &str) -> SeriesData {
    series(s, Kind::Label, key, &[value, "openai", "gpt-4o"].join("\u{1F}"))
}

/// The calls of each row of a label.
pub fn rows(s: &Snapshot, key: &str) -> Vec<(String, u64)> {
    let rows = s.series.iter().filter(|(row, _)| row.kind == Kind::Label && row.a == key);
    rows.map(|(row, data)| (row.b.replace('\u{1F}', "|"), data.counters[..6].iter().sum())).collect()
}
