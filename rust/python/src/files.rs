//! Files of recorders: read by other processes.

use crate::snapshot::Snapshot;
use langmeter_core as core;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

/// (path, whether it is gone, what is wrong).
type Failure = (PathBuf, bool, String);

/// Files that a thread reads at least: starting one takes as long as reading two.
const SHARE: usize = 8;

/// Returns the sum of what files of recorders have counted, and those that could not be read. `dead` says that their
/// processes are gone; None to find out for each.
#[pyfunction]
#[pyo3(signature = (paths, *, dead=None))]
#[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
pub fn read_files(py: Python<'_>, paths: Vec<PathBuf>, dead: Option<bool>) -> (Snapshot, Vec<Failure>) {
    let (sum, failures) = py.detach(|| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let share = paths.len().div_ceil(threads).max(SHARE);
        std::thread::scope(|scope| {
            let mut parts = paths.chunks(share);
            let first = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|part| scope.spawn(move || read_all(part, dead))).collect();
            let (mut sum, mut failures) = read_all(first, dead);
            for (part, thread) in paths.chunks(share).skip(1).zip(others) {
                // A panic in there is a fault of ours; its files are read here.
                let (snapshot, failed) = thread.join().unwrap_or_else(|_| read_all(part, dead));
                sum.add(&snapshot);
                failures.extend(failed);
            }
            (sum, failures)
        })
    });
    (Snapshot(sum), failures)
}

fn read_all(paths: &[PathBuf], dead: Option<bool>) -> (core::Snapshot, Vec<Failure>) {
    let (mut sum, mut failures) = (core::Snapshot::default(), Vec::new());
    for path in paths {
        if let Err(error) = add(&mut sum, path, dead) {
            failures.push((path.clone(), !path.exists(), error.to_string()));
        }
    }
    (sum, failures)
}

#[cfg(target_os = "linux")]
fn add(sum: &mut core::Snapshot, path: &Path, dead: Option<bool>) -> Result<(), core::Error> {
    let dead = dead.unwrap_or_else(|| core::is_held(path).is_ok_and(|held| !held));
    core::Recorder::add_file(sum, path, dead)
}

#[cfg(not(target_os = "linux"))]
fn add(_sum: &mut core::Snapshot, path: &Path, _dead: Option<bool>) -> Result<(), core::Error> {
    Err(core::Error::File { path: path.display().to_string(), why: "read on Linux only".to_owned() })
}

/// Returns whether the process that made a file of a recorder lives.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the signature PyO3 wants
pub fn is_held(path: PathBuf) -> PyResult<bool> {
    #[cfg(target_os = "linux")]
    let held = core::is_held(&path);
    #[cfg(not(target_os = "linux"))]
    let held = std::fs::metadata(&path).map(|_| false);
    Ok(held?)
}
