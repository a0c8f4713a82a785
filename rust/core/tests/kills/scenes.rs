//! What the processes do that are killed.

use langmeter_core::histogram::Layout;
use langmeter_core::{Begin, Clock, End, Kind, ManualClock, Outcome, Recorder, RunKey, Settings, Usage, Via};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const USED: Usage = [100, 20, 120, 40, 5, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const DAY: u64 = 86_400_000;

/// A recorder and the clock by which it measures.
#[derive(Clone)]
pub struct Bench {
    clock: ManualClock,
    pub recorder: Arc<Recorder>,
}

impl Bench {
    pub fn new() -> Self {
        let clock = ManualClock::default();
        let settings = Settings { max_series: 64, max_runs: 64, ..Settings::default() };
        let recorder = Recorder::new(settings, Clock::Manual(clock.clone())).expect("recorder");
        Self { clock, recorder: Arc::new(recorder) }
    }

    pub fn attach(&self, path: &Path) {
        self.recorder.attach(path, 0o600).expect("a file");
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    fn start(&self, run: u64, kind: Kind, parent: Option<u64>, model: &str) {
        let begin = Begin {
            parent: parent.map(RunKey::new),
            provider: "openai",
            model,
            labels: &[("team", "search"), ("tier", "free")],
            retried: run.is_multiple_of(5),
            ..Begin::new(RunKey::new(run), kind, "step")
        };
        self.recorder.run_started(&begin).expect("no budget");
    }

    fn token(&self, run: u64, millis: u64) {
        self.wait(millis);
        self.recorder.token(RunKey::new(run), Via::Token, true);
    }

    fn end(&self, run: u64, kind: Kind, outcome: Outcome, model: &str) {
        self.wait(40);
        let (key, failed) = (RunKey::new(run), outcome != Outcome::Ok);
        let (usage, cost) = ((!failed).then_some(USED), (!failed).then_some(7));
        let error = failed.then_some("RateLimitError 429");
        self.recorder.run_ended(&End {
            outcome,
            provider: "openai",
            model,
            usage,
            cost,
            error,
            labels: &["team"],
            ..End::new(key, kind)
        });
    }

    /// A whole call of a model.
    pub fn call(&self, run: u64, model: &str) {
        self.start(run, Kind::Llm, None, model);
        self.end(run, Kind::Llm, Outcome::Ok, model);
    }
}

pub type Step = Box<dyn Fn(&Bench) + Send + Sync>;

fn step(act: impl Fn(&Bench) + Send + Sync + 'static) -> Step {
    Box::new(act)
}

fn tools(bench: &Bench, numbers: std::ops::Range<u64>) {
    numbers.for_each(|n| bench.recorder.count(Kind::Tool, &format!("tool{n}"), Outcome::Ok, Some(n << 30)));
}

/// What a child does. Each step is one event, so that each figure is one of two.
pub struct Scene {
    pub name: &'static str,
    /// Steps before the point is armed; their bytes are written too.
    pub before: Vec<Step>,
    pub steps: Vec<Step>,
    /// Steps that are done while the snapshot of the last step reads; their durations wait for its end.
    pub meanwhile: Vec<Step>,
}

/// The scenes.
pub fn scenes() -> Vec<Scene> {
    let end = |b: &Bench, run: u64, outcome: Outcome| b.end(run, Kind::Llm, outcome, "gpt-4o");
    let events: Vec<Step> = vec![
        step(|b| b.start(2, Kind::Llm, None, "gpt-4o")),
        step(|b| b.token(2, 300)),
        step(|b| b.token(2, 20)),
        step(|b| b.token(2, 21)),
        step(move |b| end(b, 2, Outcome::Ok)),
        step(|b| b.start(3, Kind::Llm, None, "gpt-4o")),
        step(move |b| end(b, 3, Outcome::Ok)),
        step(|b| b.start(4, Kind::Llm, None, "router")),
        step(|b| b.token(4, 9)),
        step(move |b| end(b, 4, Outcome::Ok)),
        step(|b| b.start(5, Kind::Llm, None, "gpt-4o")),
        step(move |b| end(b, 5, Outcome::Error)),
        step(|b| b.start(10, Kind::Chain, None, "")),
        step(|b| b.start(11, Kind::Llm, Some(10), "gpt-4o")),
        step(move |b| end(b, 11, Outcome::Cancelled)),
        step(|b| b.end(10, Kind::Chain, Outcome::Ok, "")),
        step(move |b| end(b, 99, Outcome::Ok)),
        step(move |b| end(b, 99, Outcome::Ok)),
        step(|b| b.recorder.count(Kind::Fix, "patch", Outcome::Error, Some(1_000_000))),
        step(|b| b.recorder.stalled("openai", "gpt-4o")),
        step(|b| b.recorder.in_hook("on_llm_end", 900)),
        step(|b| b.start(12, Kind::Llm, None, "gpt-4o")),
        // The call is too old: the snapshot abandons it.
        step(|b| {
            b.wait(DAY);
            b.recorder.snapshot();
        }),
        step(move |b| end(b, 12, Outcome::Ok)),
    ];
    let deferred: Vec<Step> = vec![
        step(|b| b.start(20, Kind::Llm, None, "gpt-4o")),
        step(move |b| end(b, 20, Outcome::Ok)),
        step(|b| b.start(21, Kind::Llm, None, "gpt-4o")),
        step(|b| b.token(21, 30)),
        step(|b| b.token(21, 31)),
        step(move |b| end(b, 21, Outcome::Ok)),
        // Into a bucket that another waiting duration is in, and into one of a series that is new.
        step(|b| b.start(22, Kind::Llm, None, "gpt-4o")),
        step(move |b| end(b, 22, Outcome::Ok)),
        step(|b| b.start(23, Kind::Llm, None, "new")),
        step(|b| b.end(23, Kind::Llm, Outcome::Ok, "new")),
    ];
    let snapshot = || vec![step(|b| drop(b.recorder.snapshot()))];
    // All but the last few of the first pieces: 1,024 blocks of histograms, and 24 series with the `other` of 13 kinds.
    let full = step(|b| {
        for (hook, blocks) in [("hook0", 448), ("hook1", 448), ("hook2", 120)] {
            (0..blocks).for_each(|n| b.recorder.in_hook(hook, Layout::THREE.lowest(n * Layout::BLOCK)));
        }
        tools(b, 0..7);
    });
    let growing: Vec<Step> = vec![
        step(|b| tools(b, 8..9)),
        step(|b| tools(b, 9..10)),
        step(|b| (10..40).for_each(|octave| b.recorder.in_hook("hook3", 1 << octave.min(36)))),
        step(|b| tools(b, 10..24)),
        step(|b| assert!(b.recorder.grow_file())),
    ];
    let scene = |name, before, steps, meanwhile| Scene { name, before, steps, meanwhile };
    vec![
        scene("events", vec![], events, vec![]),
        scene("deferred", vec![step(|b| b.call(2, "gpt-4o"))], snapshot(), deferred),
        scene("growing", vec![full], growing, vec![]),
    ]
}
