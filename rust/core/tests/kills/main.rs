//! A process that is killed at any step loses no count that it has reported, and counts none twice.
//!
//! `cargo test --features stops --test kills`. This program starts itself once for each kill: the child does the steps of a
//! scene, writes a byte after each, and ends by SIGKILL when it passes a point for the n-th time. What its file then shows is
//! compared, figure by figure, with what the same steps leave in memory.
#![cfg(all(target_os = "linux", not(loom)))]

mod scenes;

use langmeter_core::histogram::Histogram;
use langmeter_core::stops::{Stop, arm, meanwhile, passed};
use langmeter_core::{Counter, Kind, LabelSet, Outcome, Recorder, SeriesData, Snapshot, is_held};
use scenes::{Bench, Scene, Step, scenes};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const OUTCOMES: usize = Outcome::ALL.len();
/// Threads of the scene that counts in several.
const THREADS: u8 = 3;

type Series = BTreeMap<LabelSet, SeriesData>;

// ---- the child -------------------------------------------------------------------------------------------

fn report(byte: u8) {
    let mut out = std::io::stdout().lock();
    out.write_all(&[byte]).and_then(|()| out.flush()).expect("a pipe");
}

/// Does a scene; `point` of it ends the process at its n-th passage, unless n is 0.
fn child(scene: &str, path: &Path, point: Stop, n: u64) {
    let armed = || arm(point, n);
    match scene {
        "threads" => threads(path, armed),
        "reading" => {
            armed();
            read_both(path);
        }
        _ => play(scene, path, armed),
    }
    // How often each point was passed.
    report(b'\n');
    println!("{}", passed().iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
}

fn play(name: &str, path: &Path, armed: impl Fn()) {
    let scene = scenes().into_iter().find(|scene| scene.name == name).expect("a scene");
    if scene.before.is_empty() {
        armed(); // from the first cell of the file on
    }
    let bench = Bench::new();
    bench.attach(path);
    let act = |step: &Step, bench: &Bench| {
        step(bench);
        report(b'.');
    };
    if !scene.before.is_empty() {
        scene.before.iter().for_each(|step| act(step, &bench));
        armed();
    }
    if !scene.meanwhile.is_empty() {
        let (steps, bench) = (scene.meanwhile, bench.clone());
        meanwhile(move || steps.iter().for_each(|step| act(step, &bench)));
    }
    scene.steps.iter().for_each(|step| act(step, &bench));
}

/// Threads that count and one that takes snapshots and lets the file grow, until the process is killed.
fn threads(path: &Path, armed: impl Fn()) {
    let bench = Bench::new();
    bench.attach(path);
    armed();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let bench = &bench;
            scope.spawn(move || {
                for n in 0..200 {
                    bench.call(1000 * u64::from(thread) + n + 2, &format!("m{thread}"));
                    report(b'0' + thread);
                }
            });
        }
        for _ in 0..50 {
            bench.recorder.snapshot();
            bench.recorder.grow_file();
        }
    });
}

fn read_both(path: &Path) {
    for dead in [true, false] {
        Recorder::read_file(path, dead).expect("readable");
    }
}

// ---- the parent ------------------------------------------------------------------------------------------

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(worker: usize) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = base.join(format!("langmeter-kills-{}-{worker}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("a.arena")
    }

    fn empty(&self) {
        for entry in std::fs::read_dir(&self.0).expect("folder") {
            std::fs::remove_file(entry.expect("entry").path()).expect("removed");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn run(scene: &str, path: &Path, point: Stop, n: u64) -> Output {
    let arguments = [scene.to_owned(), path.display().to_string(), point.name().to_owned(), n.to_string()];
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("child").args(arguments).stdin(Stdio::null()).output().expect("a child")
}

/// How often a scene passes each point.
fn passages(scene: &str, path: &Path) -> Vec<u64> {
    let output = run(scene, path, Stop::Write, 0);
    assert!(output.status.success(), "{scene}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.split('\n').nth(1).expect("a line of passages");
    line.split(' ').map(|n| n.parse().expect("a number")).collect()
}

/// The figures after each number of reported steps.
fn expected(scene: &Scene) -> Vec<Series> {
    let bench = Bench::new();
    let mut states = vec![Series::new()];
    for step in scene.before.iter().chain(&scene.meanwhile).chain(&scene.steps) {
        step(&bench);
        states.push(bench.recorder.snapshot().series);
    }
    states
}

fn is_between(n: u64, a: u64, b: u64) -> bool {
    (a.min(b)..=a.max(b)).contains(&n)
}

/// Whether a counter of a dead process is what it was before a step, or after it, or between the two while it counts. Calls in
/// flight are abandoned; one that leaves is for a moment in neither figure.
fn is_counted(i: usize, [n, a, b]: [&SeriesData; 3]) -> bool {
    if i != Outcome::Abandoned as usize {
        return is_between(n.counters[i], a.counters[i], b.counters[i]);
    }
    let [a, b] = [a, b].map(|data| (data.counters[i], u64::try_from(data.in_flight).expect("some")));
    let least = a.0.min(b.0) + a.1.min(b.1);
    (least..=(a.0 + a.1).max(b.0 + b.1)).contains(&n.counters[i])
}

fn counts(histogram: &Histogram) -> BTreeMap<u64, u64> {
    histogram.buckets().map(|bucket| (bucket.lowest, bucket.count)).collect()
}

/// Checks each figure of a file against those before and after the step that its process was in.
fn check(what: &str, file: &Snapshot, before: &Series, after: &Series) {
    let zero = SeriesData::default();
    let names: BTreeSet<_> = file.series.keys().chain(before.keys()).chain(after.keys()).collect();
    for labels in names {
        let [n, a, b] = [&file.series, before, after].map(|series| series.get(labels).unwrap_or(&zero));
        for i in 0..n.counters.len() {
            let values = [n, a, b].map(|data| data.counters[i]);
            assert!(is_counted(i, [n, a, b]), "{what}: counter {i} of {labels:?} of file, before, after: {values:?}");
        }
        for i in 0..n.measures.len() {
            let [n, a, b] = [n, a, b].map(|data| counts(&data.measures[i]));
            for value in n.keys().chain(a.keys()).chain(b.keys()) {
                let [n, a, b] = [&n, &a, &b].map(|counts| counts.get(value).copied().unwrap_or(0));
                assert!(
                    is_between(n, a, b),
                    "{what}: {value} µs {n} times in measure {i} of {labels:?}, not {a} to {b}"
                );
            }
        }
    }
    assert_eq!(file.in_flight, 0, "{what}");
}

fn killed(what: &str, output: &Output) {
    let status = output.status;
    assert_eq!(status.signal(), Some(9), "{what}: {status} {}", String::from_utf8_lossy(&output.stderr));
}

/// Kills a scene at the n-th passage of a point, and checks what is left.
fn kill(folder: &Folder, scene: &Scene, states: &[Series], point: Stop, n: u64) {
    let mut what = format!("{} killed at {} {n}", scene.name, point.name());
    folder.empty();
    let output = run(scene.name, &folder.file(), point, n);
    killed(&what, &output);
    let steps = output.stdout.len();
    write!(what, ", in step {steps}").expect("text");
    let path = folder.file();
    if !path.exists() {
        // Not renamed yet: it never looks like the file of a dead process.
        assert_eq!(steps, 0, "{what}");
        return;
    }
    assert!(!is_held(&path).expect("there"), "{what}");
    for dead in [false, true] {
        let file = Recorder::read_file(&path, dead).unwrap_or_else(|error| panic!("{what}: {error}"));
        if dead {
            let after = states.get(steps + 1).unwrap_or(&states[steps]);
            check(&what, &file, &states[steps], after);
        }
    }
}

/// Kills threads that count beside snapshots: each call that a thread reported is there once, and of the next at most one.
fn kill_threads(folder: &Folder, n: u64) {
    let what = format!("threads killed at write {n}");
    folder.empty();
    let output = run("threads", &folder.file(), Stop::Write, n);
    killed(&what, &output);
    let file = Recorder::read_file(&folder.file(), true).expect("readable");
    for thread in 0..THREADS {
        let text = String::from_utf8_lossy(&output.stdout);
        let reported = text.matches(char::from(b'0' + thread)).count() as u64;
        let name = LabelSet { kind: Kind::Model, a: "openai".into(), b: format!("m{thread}") };
        let data = file.series.get(&name).cloned().unwrap_or_default();
        let ok = data.counters[Outcome::Ok as usize];
        let input = data.counters[OUTCOMES + Counter::Input as usize];
        let latency = data.measures[0].count();
        assert!(is_between(ok, reported, reported + 1), "{what}: {ok} calls of {reported}");
        assert!(is_between(input, 100 * reported, 100 * (reported + 1)), "{what}: {input} tokens of {reported} calls");
        assert!(is_between(latency, reported, reported + 1), "{what}: {latency} durations of {reported}");
        let all: u64 = data.counters[..OUTCOMES].iter().sum();
        assert!(is_between(all, reported, reported + 1), "{what}: {all} calls of {reported}");
    }
}

/// Kills a reader: the file stays as it is.
fn kill_reader(folder: &Folder, bytes: &[u8], point: Stop, n: u64) {
    let what = format!("reader killed at {} {n}", point.name());
    killed(&what, &run("reading", &folder.file(), point, n));
    assert!(std::fs::read(folder.file()).expect("there") == bytes, "{what}");
    assert!(!is_held(&folder.file()).expect("there"), "{what}");
}

type Kill = Box<dyn Fn(&Folder) + Send + Sync>;

/// Every kill, and the points at which there is one.
fn kills(folder: &Folder) -> (Vec<Kill>, Vec<u64>) {
    let mut kills: Vec<Kill> = Vec::new();
    let mut points = vec![0; Stop::ALL.len()];
    for scene in scenes() {
        folder.empty();
        let states = Arc::new(expected(&scene));
        let scene = Arc::new(scene);
        for ((point, passages), sum) in Stop::ALL.iter().zip(passages(scene.name, &folder.file())).zip(&mut points) {
            for n in 1..=passages {
                let (scene, states) = (Arc::clone(&scene), Arc::clone(&states));
                *sum += 1;
                kills.push(Box::new(move |folder| kill(folder, &scene, &states, *point, n)));
            }
        }
    }
    for n in 1..=300 {
        kills.push(Box::new(move |folder| kill_threads(folder, n * 61)));
    }
    (kills, points)
}

/// Runs a job for each number below `count`, on each processor.
fn on_each_processor(count: usize, job: impl Fn(&Folder, usize) + Sync) {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (next, job) = (&next, &job);
            scope.spawn(move || {
                let folder = Folder::new(worker);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    job(&folder, n);
                }
            });
        }
    });
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, scene, path, point, n] = arguments.as_slice()
        && mode == "child"
    {
        let point = Stop::ALL.iter().copied().find(|stop| stop.name() == point).expect("a point");
        child(scene, Path::new(path), point, n.parse().expect("a number"));
        exit(0);
    }
    let begun = Instant::now();
    let folder = Folder::new(usize::MAX);
    let (kills, mut points) = kills(&folder);
    on_each_processor(kills.len(), |folder, n| kills[n](folder));
    // Readers, of the last file.
    folder.empty();
    passages("events", &folder.file());
    let bytes = std::fs::read(folder.file()).expect("there");
    let mut readers = 0;
    for ((point, passages), sum) in Stop::ALL.iter().zip(passages("reading", &folder.file())).zip(&mut points) {
        for n in 1..=passages {
            kill_reader(&folder, &bytes, *point, n);
            *sum += 1;
            readers += 1;
        }
    }
    let missing: Vec<_> =
        Stop::ALL.iter().zip(&points).filter(|(_, kills)| **kills == 0).map(|(stop, _)| stop.name()).collect();
    assert!(missing.is_empty(), "points without a kill: {missing:?}");
    println!("{} processes killed in {:.1} s", kills.len() + readers, begun.elapsed().as_secs_f64());
}
