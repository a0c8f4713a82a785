//! One hot operation, n times: `instructions OP N`, for counting instructions under callgrind.
//! The difference between two N is the price of the operation, whatever the machine's mood.

use langmeter_core::budget::{Period, Terms, Unit, Unpriced};
use langmeter_core::histogram::{self, Layout};
use langmeter_core::{
    Begin, Cells, Clock, Demand, End, Kind, ManualClock, Outcome, Price, Recorder, RunKey, Settings, Via,
};
use std::hint::black_box;

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let (Some(op), Some(Ok(n))) = (args.next(), args.next().map(|n| n.parse::<u64>())) else {
        return Err("usage: instructions record|token|run|budgets N".into());
    };
    // The clock by hand: reading the machine's is a call into the kernel's page that callgrind cannot follow.
    let settings = Settings { max_series: 16, max_runs: 1024, ..Settings::default() };
    let recorder = Recorder::new(settings, Clock::Manual(ManualClock::default())).map_err(|e| e.to_string())?;
    let start = |i: u64, demand: Option<Demand>| {
        let (name, provider, model) = ("ChatOpenAI", "openai", "gpt-4o");
        let begin = Begin {
            key: RunKey::new(i),
            parent: None,
            kind: Kind::Llm,
            name,
            provider,
            model,
            demand,
            labels: &[],
            retried: false,
            piped: false,
            witness: 0,
        };
        recorder.run_started(&begin).is_ok()
    };
    match op.as_str() {
        "record" => {
            let (own, blocks) = (histogram::Recorder::cells(Layout::THREE), Layout::THREE.blocks());
            let cells = Cells::zeroed(own + histogram::Pool::cells(blocks)).map_err(|e| e.to_string())?;
            let held = histogram::Recorder::at(Layout::THREE, 0, histogram::Pool::at(own, blocks));
            for i in 0..n {
                black_box(held.record(&cells, black_box(i.wrapping_mul(1000))));
            }
        }
        "token" => {
            start(2, None);
            for _ in 0..n {
                black_box(recorder.token(black_box(RunKey::new(2)), Via::Token, true));
            }
        }
        "run" | "budgets" => {
            let mut demand = None;
            if op == "budgets" {
                for unit in [Unit::Cost, Unit::Tokens] {
                    let (limit, thresholds) = (u64::MAX / 2, vec![u64::MAX / 4]);
                    let terms = Terms {
                        unit,
                        limit,
                        period: Period::Day,
                        blocking: true,
                        thresholds,
                        unpriced: Unpriced::Allow,
                    };
                    recorder.open_budget(&terms).map_err(|e| e.to_string())?;
                }
                let price = Price::Rates { input: 2_500_000, output: 10_000_000, call: 0, text: 2_500_000 };
                demand = Some(Demand { budgets: 0b11, input: 900, output: Some(500), answers: 1, price });
            }
            for i in 2..n.saturating_add(2) {
                start(i, demand);
                let usage = Some([100, 20, 120, 40, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                let (key, outcome, model) = (RunKey::new(i), Outcome::Ok, "gpt-4o-2024-08-06");
                let end = End { outcome, provider: "openai", model, usage, cost: Some(5), ..End::new(key, Kind::Llm) };
                black_box(recorder.run_ended(&end));
            }
        }
        other => return Err(format!("unknown operation {other}")),
    }
    Ok(())
}
