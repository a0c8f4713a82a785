//! The file of a recorder: what only adds lies in it, so that other processes read it, and nothing is lost with this one.

use super::layout::{FILE, HEADER, Places};
use super::{Recorder, Settings};
use crate::arena::{Cells, PAGE};
use crate::clock::Clock;
use crate::error::Error;
use crate::histogram::{Histogram, Layout};
use crate::runs::RunTable;
use crate::series::SeriesTable;
use crate::snapshot::Snapshot;
use crate::stops::stop;
use std::path::Path;
use std::sync::OnceLock;

/// The first cell: "LANGMETR".
const MAGIC: u64 = u64::from_le_bytes(*b"LANGMETR");
/// Version of the header. A change of the cells behind it changes the hash of the layout instead.
const VERSION: u64 = 1;

// Cells of the header; `PUBLISHED` holds the version, and is written last.
const MAGIC_AT: usize = 0;
const LAYOUT: usize = 1;
const SHARED: usize = 2;
const PAGE_SIZE: usize = 3;
const BOOT: [usize; 2] = [4, 5];
const ANCHOR: usize = 6;
const UNIX: usize = 7;
const ID: usize = 8;
const MAX_SERIES: usize = 9;
const DIGITS: usize = 10;
const PID: usize = 11;
const PUBLISHED: usize = 15;
const _: () = assert!(PUBLISHED < FILE);

impl Recorder {
    /// Lets the recorder count into a new file. Call it before the first event, or right after `reset_after_fork`.
    ///
    /// The file is made under another name and renamed once it is whole: a name that ends in `.arena` is locked by its
    /// process for as long as that lives. The recorder stays in memory where this fails.
    pub fn attach(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let new = path.with_extension("new");
        let failed = |error: &std::io::Error| Error::File { path: path.display().to_string(), why: error.to_string() };
        self.cells.attach(&new, mode).map_err(|error| failed(&error))?;
        let header: Vec<u64> = (FILE..HEADER).map(|cell| self.cells.get(cell)).collect();
        let restore =
            || (FILE..).zip(&header).filter(|(_, value)| **value != 0).for_each(|(cell, n)| self.cells.set(cell, *n));
        let result = self.cells.back(0..self.blocks).and_then(|()| {
            restore();
            self.series_blocks.begin(&self.cells)?;
            self.pool.region.begin(&self.cells)?;
            self.write_header();
            stop!(Headed);
            std::fs::rename(&new, path)
        });
        stop!(Renamed);
        result.map_err(|error| {
            self.cells.detach(0..self.shared);
            restore();
            drop(std::fs::remove_file(&new));
            failed(&error)
        })
    }

    fn write_header(&self) {
        let [high, low] = boot();
        let (anchor, unix) = self.clock.origin().unwrap_or_default();
        let values = [
            (MAGIC_AT, MAGIC),
            (LAYOUT, self.places().hash()),
            (SHARED, self.shared as u64),
            (PAGE_SIZE, PAGE as u64),
            (BOOT[0], high),
            (BOOT[1], low),
            (ANCHOR, anchor),
            (UNIX, unix),
            (ID, self.id),
            (MAX_SERIES, self.settings.max_series),
            (DIGITS, self.settings.significant_digits.into()),
            (PID, std::process::id().into()),
        ];
        for (cell, value) in values {
            self.cells.set(cell, value);
        }
        self.cells.publish(PUBLISHED, VERSION);
    }

    fn places(&self) -> Places {
        let slots = usize::try_from(self.settings.max_series).unwrap_or(0);
        Places::new(slots, self.settings.max_runs, self.layout, self.coarse)
    }

    /// Whether the recorder counts into a file.
    pub fn is_in_file(&self) -> bool {
        self.cells.is_attached()
    }

    /// Allocates more of the file ahead of need; for a task beside the calls. Returns false where the file could not grow:
    /// then what is new is in memory only.
    pub fn grow_file(&self) -> bool {
        if !self.is_in_file() {
            return true;
        }
        let series = self.series_blocks.grow_ahead(&self.cells, self.series.used(&self.cells));
        self.pool.region.grow_ahead(&self.cells, self.pool.taken(&self.cells)) && series
    }

    /// Returns what the file of a recorder has counted. `dead`: its process is gone; then its calls in flight are
    /// abandoned ones, and the durations that waited for a snapshot are counted too.
    ///
    /// Beside a recorder that counts on, each figure is read for itself: an event may be in one and not yet in another. No
    /// figure falls from one reading to the next.
    pub fn read_file(path: &Path, dead: bool) -> Result<Snapshot, Error> {
        let mut snapshot = Snapshot::default();
        Self::add_file(&mut snapshot, path, dead)?;
        Ok(snapshot)
    }

    /// Adds the same to a sum; nothing of it where that fails.
    pub fn add_file(sum: &mut Snapshot, path: &Path, dead: bool) -> Result<(), Error> {
        let name = || path.display().to_string();
        let wrong = |why: &str| Error::File { path: name(), why: why.to_owned() };
        let cells = Cells::of_file(path, HEADER).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => wrong("not a file of a langmeter recorder: it is too short"),
            _ => wrong(&error.to_string()),
        })?;
        match cells.observe(PUBLISHED) {
            _ if cells.get(MAGIC_AT) != MAGIC => return Err(wrong("not a file of a langmeter recorder")),
            VERSION => {}
            newer if newer > VERSION => {
                return Err(wrong(&format!(
                    "made by a newer langmeter (file version {newer}, this one reads {VERSION}); upgrade langmeter"
                )));
            }
            _ => return Err(wrong("not whole yet")),
        }
        let recorder = Self::over(cells).ok_or_else(|| {
            wrong("made by another version of langmeter, whose layout differs; use one version in all processes of a directory")
        })?;
        let (cells, pool) = (&recorder.cells, recorder.pool.region);
        if cells.len() < recorder.series_blocks.end(cells).max(pool.end(cells)) {
            return Err(wrong("truncated: it is shorter than its header says"));
        }
        stop!(FileChecked);
        recorder.add_shared(sum, dead);
        if dead {
            recorder.add_deferred(sum);
        }
        Ok(())
    }

    /// The recorder whose cells these are; None where its layout is another.
    fn over(cells: Cells) -> Option<Self> {
        let settings = Settings {
            max_series: cells.get(MAX_SERIES),
            significant_digits: u8::try_from(cells.get(DIGITS)).ok()?,
            max_runs: 1,
            ..Settings::default()
        };
        let slots = SeriesTable::check(settings.max_series).ok()?;
        let layouts = [Layout::new(settings.significant_digits).ok()?, Layout::TWO];
        let places = Places::new(slots, RunTable::check(settings.max_runs).ok()?, layouts[0], layouts[1]);
        if cells.get(LAYOUT) != places.hash() || cells.get(PAGE_SIZE) != PAGE as u64 {
            return None;
        }
        let origin = (cells.get(ANCHOR), cells.get(UNIX));
        let same_boot = BOOT.map(|cell| cells.get(cell)) == boot() && origin != (0, 0);
        let id = cells.get(ID);
        // On another boot's clock nothing can be dated but its beginning.
        let clock = if same_boot { Clock::of_origin(origin) } else { Clock::of_origin((u64::MAX, origin.1)) };
        Some(Self { id, ..places.recorder(cells, settings, layouts, clock) })
    }

    /// Adds the durations that waited for the end of a snapshot when the process died.
    fn add_deferred(&self, snapshot: &mut Snapshot) {
        for (id, measure, micros) in self.deferred_durations() {
            #[allow(clippy::cast_possible_truncation)] // at most 28,671
            let bucket = |layout: Layout| layout.index(micros.max(1)) as u32;
            let layout = if measure.precise().is_some() { self.layout } else { self.coarse };
            if let Some(labels) = self.series.labels(&self.cells, id) {
                let to = snapshot.series.entry(labels).or_default();
                to.add_to(measure, Histogram::from_buckets(layout, vec![(bucket(layout), 1)]));
            }
        }
    }
}

/// The id of this boot of the machine; zeros where the system does not tell. It is read once.
fn boot() -> [u64; 2] {
    static BOOT_ID: OnceLock<[u64; 2]> = OnceLock::new();
    *BOOT_ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let half = |range: std::ops::Range<usize>| {
            digits.get(range).and_then(|part| u64::from_str_radix(part, 16).ok()).unwrap_or(0)
        };
        [half(0..16), half(16..32)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::is_held;
    use crate::metrics::Measure;
    use crate::metrics::Outcome;
    use crate::recorder::{Begin, End};
    use crate::runs::RunKey;
    use crate::series::{Kind, LabelSet};
    use std::path::PathBuf;

    /// A folder that is removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("langmeter-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("folder");
            Self(folder)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(format!("{name}.arena"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn recorder(path: &Path) -> Recorder {
        let recorder = Recorder::new(Settings::default(), Clock::monotonic()).expect("recorder");
        recorder.attach(path, 0o600).expect("file");
        recorder
    }

    fn start(recorder: &Recorder, run: u64, model: &str) {
        let begin = Begin {
            key: RunKey::new(run),
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

    fn call(recorder: &Recorder, run: u64, model: &str) {
        start(recorder, run, model);
        recorder.run_ended(&End { cost: Some(5), ..End::new(RunKey::new(run), Kind::Llm) });
    }

    fn model(name: &str) -> LabelSet {
        LabelSet { kind: Kind::Model, a: "openai".into(), b: name.into() }
    }

    #[test]
    fn the_file_shows_what_the_recorder_counts_while_it_grows() {
        let folder = Folder::new("grows");
        let path = folder.file("a");
        let recorder = recorder(&path);
        let mut calls = 0;
        for round in 0..3 {
            for n in 0..300_u64 {
                calls += 1;
                call(&recorder, calls, &format!("m{n}"));
                recorder.in_hook(&format!("hook{n}"), 1 << (n % 30));
            }
            assert!(recorder.grow_file());
            let (own, file) = (recorder.snapshot(), Recorder::read_file(&path, false).expect("readable"));
            // Windows cover the time up to the reading.
            assert!(file.counted().series == own.counted().series, "round {round}");
            assert_eq!((file.origin, file.started_at, file.peak), (own.origin, own.started_at, own.peak));
        }
        let snapshot = Recorder::read_file(&path, false).expect("readable");
        assert_eq!(snapshot.series[&model("m7")].counters[Outcome::Ok as usize], 3);
    }

    #[test]
    fn a_file_outlives_its_recorder_and_what_was_in_flight_is_abandoned() {
        let folder = Folder::new("outlives");
        let path = folder.file("a");
        let recorder = recorder(&path);
        call(&recorder, 1, "m");
        start(&recorder, 2, "m");
        assert!(is_held(&path).expect("there"));
        let alive = Recorder::read_file(&path, false).expect("readable");
        assert_eq!((alive.in_flight, alive.series[&model("m")].in_flight), (1, 1));
        drop(recorder);
        assert!(!is_held(&path).expect("there"));
        let dead = Recorder::read_file(&path, true).expect("readable");
        let data = &dead.series[&model("m")];
        assert_eq!((dead.in_flight, data.in_flight, data.counters[Outcome::Abandoned as usize]), (0, 0, 1));
        assert_eq!((data.counters[Outcome::Ok as usize], data.measures[Measure::Latency as usize].count()), (1, 1));
    }

    #[test]
    fn a_forked_child_counts_from_zero_in_memory_and_the_file_keeps_its_figures() {
        let folder = Folder::new("forked");
        let (path, other) = (folder.file("a"), folder.file("b"));
        let recorder = recorder(&path);
        call(&recorder, 1, "m");
        let before = recorder.snapshot();
        recorder.reset_after_fork();
        assert!(recorder.is_empty() && !recorder.is_in_file());
        recorder.attach(&other, 0o600).expect("a file of its own");
        call(&recorder, 2, "m");
        assert!(Recorder::read_file(&path, true).expect("readable").counted().series == before.counted().series);
        let own = Recorder::read_file(&other, false).expect("readable");
        assert_eq!(own.series[&model("m")].counters[Outcome::Ok as usize], 1);
        assert_ne!(own.origin, before.origin);
    }

    #[test]
    fn files_that_are_foreign_newer_or_truncated_are_refused_by_name() {
        let folder = Folder::new("refused");
        let path = folder.file("a");
        call(&recorder(&path), 1, "m");
        let whole = std::fs::read(&path).expect("bytes");
        let changed = |at: usize, value: u64| {
            let mut bytes = whole.clone();
            bytes[at * 8..at * 8 + 8].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        let files = [
            (b"hello".to_vec(), "too short"),
            (changed(MAGIC_AT, 7), "not a file of a langmeter recorder"),
            (changed(PUBLISHED, 0), "not whole yet"),
            (changed(PUBLISHED, 9), "newer langmeter (file version 9"),
            (changed(LAYOUT, 7), "another version of langmeter"),
            (changed(MAX_SERIES, 0), "another version of langmeter"),
            (changed(DIGITS, 3000), "another version of langmeter"),
            (whole[..1 << 20].to_vec(), "truncated"),
        ];
        for (bytes, why) in files {
            std::fs::write(&path, bytes).expect("written");
            let error = Recorder::read_file(&path, false).expect_err(why).to_string();
            assert!(error.contains(why) && error.contains("a.arena"), "{error}");
        }
        assert!(Recorder::read_file(&folder.file("none"), false).is_err());
    }

    #[test]
    fn a_recorder_that_gets_no_file_counts_in_memory() {
        let folder = Folder::new("none");
        let recorder = Recorder::new(Settings::default(), Clock::monotonic()).expect("recorder");
        let error = recorder.attach(&folder.0.join("missing/a.arena"), 0o600).expect_err("no such folder");
        assert!(error.to_string().contains("missing/a.arena"), "{error}");
        call(&recorder, 1, "m");
        assert!(!recorder.is_in_file() && recorder.grow_file());
        assert_eq!(recorder.snapshot().series[&model("m")].counters[Outcome::Ok as usize], 1);
        // It may be tried again as long as nothing was counted.
        recorder.reset_after_fork();
        recorder.attach(&folder.file("a"), 0o600).expect("file");
        assert_eq!(std::fs::read_dir(&folder.0).expect("folder").count(), 1);
    }

    #[test]
    fn durations_that_waited_for_a_snapshot_are_counted_in_the_file_of_the_dead() {
        let folder = Folder::new("waited");
        let path = folder.file("a");
        let recorder = recorder(&path);
        assert!(recorder.phaser.begin(&recorder.cells));
        recorder.phaser.flip(&recorder.cells);
        call(&recorder, 1, "m");
        let latency = |dead: bool| {
            let snapshot = Recorder::read_file(&path, dead).expect("readable");
            snapshot.series[&model("m")].measures[Measure::Latency as usize].count()
        };
        assert_eq!((latency(false), latency(true)), (0, 1));
    }
}
