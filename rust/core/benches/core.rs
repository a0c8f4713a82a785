//! Times of the core, beside what else could hold the runs in flight.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use langmeter_core::budget::{Period, Terms, Unit, Unpriced};
use langmeter_core::histogram::{self, Layout};
use langmeter_core::{
    Begin, Cells, Clock, Demand, End, Kind, Outcome, Price, Recorder, RunKey, Settings, Span, Spans, Tree, Via,
};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn recorder() -> Recorder {
    Recorder::new(Settings::default(), Clock::monotonic()).expect("recorder")
}

/// Keys as uuid7 gives them: evenly spread.
fn key(n: u64) -> RunKey {
    RunKey::new(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn begin(recorder: &Recorder, n: u64, parent: Option<u64>, kind: Kind, model: &str, demand: Option<Demand>) {
    let (name, provider) = ("ChatOpenAI", "openai");
    let begin = Begin {
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
    };
    recorder.run_started(&begin).expect("within the budget");
}

fn start(recorder: &Recorder, n: u64, model: &str) {
    begin(recorder, n, None, Kind::Llm, model, None);
}

fn end(recorder: &Recorder, n: u64, model: &str) {
    let usage = Some([100, 20, 120, 40, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (key, outcome) = (key(n), Outcome::Ok);
    recorder.run_ended(&End { outcome, provider: "openai", model, usage, cost: Some(5), ..End::new(key, Kind::Llm) });
}

fn hot(c: &mut Criterion) {
    let layout = Layout::THREE;
    let own = histogram::Recorder::cells(layout).next_multiple_of(8);
    let blocks = layout.blocks();
    let cells = Cells::zeroed(own + histogram::Pool::cells(blocks)).expect("cells");
    let held = histogram::Recorder::at(layout, 0, histogram::Pool::at(own, blocks));
    let mut nanos = 1_000_000_u64;
    c.bench_function("record on a held handle", |b| {
        b.iter(|| {
            nanos = nanos.wrapping_mul(5).wrapping_add(12_345) % 4_000_000_000;
            held.record(&cells, black_box(nanos))
        });
    });

    let r = recorder();
    start(&r, 1, "gpt-4o");
    c.bench_function("token event", |b| b.iter(|| r.token(black_box(key(1)), Via::Token, true)));

    let mut n = 2;
    c.bench_function("start + end", |b| {
        b.iter(|| {
            n += 1;
            start(&r, n, "gpt-4o");
            end(&r, n, "gpt-4o-2024-08-06");
        });
    });

    let demand = Demand {
        budgets: 0b11,
        input: 900,
        output: Some(500),
        answers: 1,
        price: Price::Rates { input: 2_500_000, output: 10_000_000, call: 0, text: 2_500_000 },
    };
    for unit in [Unit::Cost, Unit::Tokens] {
        let terms = Terms {
            unit,
            limit: u64::MAX / 2,
            period: Period::Day,
            blocking: true,
            thresholds: vec![u64::MAX / 4],
            unpriced: Unpriced::Allow,
        };
        r.open_budget(&terms).expect("opens");
    }
    c.bench_function("start + end on two budgets", |b| {
        b.iter(|| {
            n += 1;
            begin(&r, n, None, Kind::Llm, "gpt-4o", Some(demand));
            end(&r, n, "gpt-4o-2024-08-06");
        });
    });

    // A slice of a budget that processes share: judged by the end of its lease too.
    let shared = recorder();
    let terms = Terms {
        unit: Unit::Cost,
        limit: 1,
        period: Period::Total,
        blocking: true,
        thresholds: vec![],
        unpriced: Unpriced::Allow,
    };
    let budget = shared.open_budget(&terms).expect("opens");
    shared.lease(budget, u64::MAX / 2, u64::MAX - 1, 0).expect("opened");
    for (name, demand) in [("no budget", None), ("a leased budget", Some(Demand { budgets: 1, ..demand }))] {
        c.bench_function(&format!("start + end on {name}"), |b| {
            b.iter(|| {
                n += 1;
                begin(&shared, n, None, Kind::Llm, "gpt-4o", demand);
                end(&shared, n, "gpt-4o-2024-08-06");
            });
        });
    }

    c.bench_function("clock", |b| {
        let clock = Clock::monotonic();
        b.iter(|| black_box(clock.now()));
    });
}

/// What one run of 8 tokens costs in the table of runs alone, and in two maps instead of it.
fn tables(c: &mut Criterion) {
    struct Run {
        start: u64,
        last: AtomicU64,
    }
    let mut group = c.benchmark_group("insert + 8 updates + remove");
    let mut n = 0_u64;
    let mut next = || {
        n += 1;
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 2
    };

    let cells = Cells::zeroed(langmeter_core::RunTable::cells(65_536)).expect("cells");
    let table = langmeter_core::RunTable::at(0, 65_536);
    group.bench_function("set-associative table", |b| {
        b.iter(|| {
            let key = RunKey::new(next());
            let run = langmeter_core::Start {
                key,
                parent: None,
                now: 5,
                kind: Kind::Llm,
                component: 1,
                model: 2,
                gaps: 2,
                held: langmeter_core::budget::Reservation::default(),
                labels: langmeter_core::Labels::default(),
                retried: false,
                piped: false,
                witness: 0,
            };
            table.start(&cells, &run, |_| ());
            for t in 0..8 {
                black_box(table.token(&cells, key, t, Via::Token, true));
            }
            black_box(table.take(&cells, key, 9))
        });
    });

    let shards: Vec<Mutex<HashMap<u64, Run>>> = (0..64).map(|_| Mutex::new(HashMap::new())).collect();
    group.bench_function("sharded mutex map", |b| {
        let shard = |k: u64| &shards[(k % 64) as usize];
        b.iter(|| {
            let k = next();
            shard(k).lock().expect("lock").insert(k, Run { start: 5, last: AtomicU64::new(5) });
            for t in 0..8 {
                let map = shard(k).lock().expect("lock");
                map.get(&k).map(|r| r.last.swap(t, Relaxed));
            }
            shard(k).lock().expect("lock").remove(&k).map(|r| r.start)
        });
    });

    let papaya: papaya::HashMap<u64, Run> = papaya::HashMap::new();
    group.bench_function("papaya", |b| {
        b.iter(|| {
            let k = next();
            papaya.pin().insert(k, Run { start: 5, last: AtomicU64::new(5) });
            for t in 0..8 {
                papaya.pin().get(&k).map(|r| r.last.swap(t, Relaxed));
            }
            papaya.pin().remove(&k).map(|r| r.start)
        });
    });
    group.finish();
}

/// A run of 8 tokens, in one thread and in two at a time on series of their own.
fn threads(c: &mut Criterion) {
    let r = recorder();
    let runs = |first: u64, n: u64, model: &str| {
        for i in first..first + n {
            start(&r, i, model);
            for _ in 0..8 {
                r.token(key(i), Via::Token, true);
            }
            end(&r, i, model);
        }
    };
    let mut group = c.benchmark_group("runs of 8 tokens");
    group.throughput(Throughput::Elements(1));
    let mut first = 1_u64;
    group.bench_function("one thread", |b| {
        b.iter_custom(|n| {
            first += n;
            let t = Instant::now();
            runs(first, n, "a");
            t.elapsed()
        });
    });
    group.bench_function("two threads", |b| {
        b.iter_custom(|n| {
            first += n;
            let half = n / 2 + 1;
            let t = Instant::now();
            std::thread::scope(|s| {
                s.spawn(|| runs(first, half, "a"));
                s.spawn(|| runs(first + (1 << 40), half, "b"));
            });
            t.elapsed()
        });
    });
    group.finish();
}

fn rare(c: &mut Criterion) {
    let r = recorder();
    let mut n = 1_u64;
    for model in 0..100 {
        let name = format!("model-{model}");
        for _ in 0..1000 {
            n += 1;
            start(&r, n, &name);
            r.token(key(n), Via::Token, true);
            r.token(key(n), Via::Token, true);
            end(&r, n, &name);
        }
    }
    // Latencies of a service: lognormal over three octaves, put straight into the arena by `count`.
    let mut x = 1_u64;
    for i in 0..100_000_u64 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let nanos = 200_000_000 + (x >> 33) % 3_000_000_000;
        r.count(Kind::Tool, &format!("tool-{}", i % 100), Outcome::Ok, Some(nanos));
    }
    c.bench_function("snapshot of 100 models and 100 tools", |b| b.iter(|| black_box(r.snapshot())));
    let s = r.snapshot();
    c.bench_function("encode it", |b| b.iter(|| black_box(s.to_bytes())));
    c.bench_function("merge two", |b| b.iter(|| black_box(s.plus(&s))));

    let names: Vec<String> = (0..1000).map(|n| format!("model-{n}")).collect();
    let few = Settings { max_series: 1000, ..Settings::default() };
    let capped = Recorder::new(few, Clock::monotonic()).expect("recorder");
    for name in &names {
        capped.count(Kind::Tool, name, Outcome::Ok, None);
    }
    c.bench_function("a name beyond the 1,000 of a full series table", |b| {
        b.iter(|| capped.count(Kind::Tool, black_box("unknown"), Outcome::Ok, None));
    });
    c.bench_function("forget 1,000 series after a fork", |b| {
        b.iter_batched(
            || {
                for (i, name) in names.iter().cycle().take(10_000).enumerate() {
                    n += 1;
                    start(&capped, n, name);
                    capped.count(Kind::Tool, name, Outcome::Ok, Some(1_000_000 * i as u64));
                    end(&capped, n, name);
                }
            },
            |()| capped.reset_after_fork(),
            BatchSize::PerIteration,
        );
    });

    let full = recorder();
    (1..=65_536).for_each(|n| start(&full, n, "m"));
    let mut n = 100_000;
    c.bench_function("start at capacity, evicting the oldest", |b| {
        b.iter(|| {
            n += 1;
            start(&full, n, "m");
        });
    });
    c.bench_function("end with an orphan among 65,536 runs", |b| {
        b.iter_batched(
            || {
                n += 2;
                begin(&full, n, None, Kind::Chain, "", None);
                begin(&full, n + 1, Some(n), Kind::Llm, "m", None);
                n
            },
            |n| {
                let end = End { outcome: Outcome::Cancelled, ..End::new(key(n), Kind::Chain) };
                full.run_ended(&end);
            },
            BatchSize::PerIteration,
        );
    });
}

/// Runs under a root: every other one a step of the root, the one after it the model call inside; `wide` steps
/// run side by side.
fn steps(runs: u64, wide: u64) -> (Span, Vec<Span>) {
    let span = |key: u64, parent, component, start, end| Span {
        key: 1000 + key,
        parent,
        root: 1000,
        component,
        model: (component == 9).then_some(10),
        piped: false,
        start,
        end,
    };
    let step = |i: u64| {
        let (start, parent) = (100 * (i / 2 / wide), if i.is_multiple_of(2) { 1000 } else { 1000 + i });
        let end = start + 100 - i % 7;
        if i.is_multiple_of(2) {
            span(i + 1, parent, 1 + usize::try_from(i / 2 % 8).expect("small"), start, end)
        } else {
            span(i + 1, parent, 9, start + 2, end - 2)
        }
    };
    (span(0, 0, 0, 0, 100 * (runs / 2 / wide) + 200), (0..runs).map(step).collect())
}

/// What a root's end adds for the runs that were under it, and each of those for itself.
fn trees(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree");
    let cells = Cells::zeroed(Spans::CELLS).expect("cells");
    let ring = Spans::at(0);
    let (_, few) = steps(10, 1);
    let mut head = 0;
    group.bench_function("keep a span", |b| b.iter(|| head = ring.push(&cells, black_box(&few[0]), head)));
    let mut head = 0;
    for span in &few {
        head = ring.push(&cells, span, head);
    }
    group.bench_function("read 10 spans", |b| b.iter(|| black_box(ring.of_root(&cells, black_box(head), 1000))));
    for (name, runs, wide) in [
        ("10 runs in sequence", 10, 1),
        ("10 runs, two branches", 10, 2),
        ("100 runs, two branches", 100, 2),
        ("512 runs, two branches", 512, 2),
    ] {
        let (root, spans) = steps(runs, wide);
        group.bench_function(name, |b| {
            b.iter(|| {
                let tree = Tree::new(black_box(&root), black_box(&spans));
                tree.critical_path(|component, model, ns| {
                    black_box((component, model, ns));
                });
                tree.saved_if_twice_as_fast(|series, ns| {
                    black_box((series, ns));
                });
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = hot, tables, threads, trees, rare
}
criterion_main!(benches);
