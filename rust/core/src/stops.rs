//! Points at which a test kills its process; they exist with the feature `stops` alone.

/// Passes a point, in a build with the feature `stops`; else it is nothing.
macro_rules! stop {
    ($point:ident) => {
        #[cfg(feature = "stops")]
        $crate::stops::pass($crate::stops::Stop::$point);
    };
}
pub(crate) use stop;

#[cfg(feature = "stops")]
pub use points::{Stop, arm, meanwhile, pass, passed};

#[cfg(feature = "stops")]
mod points {
    use crate::metrics::named;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    named! {
        /// A step of recording into a file, of its growth, or of reading it.
        Stop {
            /// Before a cell of an arena is written, each time.
            Write = "write",
            /// A new file has its name.
            Opened = "opened",
            /// Its lock is held.
            Locked = "locked",
            /// Before bytes of a file are allocated.
            Allocating = "allocating",
            /// They are allocated, and not mapped yet.
            Allocated = "allocated",
            /// They are mapped.
            Mapped = "mapped",
            /// The header of the file is written.
            Headed = "headed",
            /// The file has its last name.
            Renamed = "renamed",
            /// A thread is the one that makes a region grow.
            Growing = "growing",
            /// The region has grown.
            Grown = "grown",
            /// A series is taken, without its text.
            SeriesTaken = "series_taken",
            /// Its text is written, and not found by its key yet.
            TextWritten = "text_written",
            /// Its key is there, and readers do not see it yet.
            KeyWritten = "key_written",
            /// A run is in flight in private memory alone.
            Started = "started",
            /// A run has left private memory, and nothing of its end is counted.
            Taken = "taken",
            /// An event has begun to count.
            Entered = "entered",
            /// An event has counted everything.
            Counted = "counted",
            /// A duration has a place in the list of those that wait for a snapshot.
            PlaceTaken = "place_taken",
            /// It is in the list.
            Deferred = "deferred",
            /// It is in its histogram, and still in the list.
            Filed = "filed",
            /// A snapshot reads, and events wait for it in places of their own.
            Reading = "reading",
            /// A file is open for a reader.
            FileOpened = "file_opened",
            /// It is mapped, and not checked.
            FileMapped = "file_mapped",
            /// It is of this layout and whole.
            FileChecked = "file_checked",
            /// One of its series is read.
            SeriesRead = "series_read",
        }
    }

    const POINTS: usize = Stop::ALL.len();
    static PASSED: [AtomicU64; POINTS] = [const { AtomicU64::new(0) }; POINTS];
    /// The point at which the process ends, plus one, and how often it is passed before.
    static ARMED: AtomicUsize = AtomicUsize::new(0);
    static LEFT: AtomicU64 = AtomicU64::new(0);
    /// What is done while a snapshot reads, once.
    static MEANWHILE: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

    /// Counts passages from now on, and kills the process at the n-th of one point; never where `n` is 0.
    pub fn arm(stop: Stop, n: u64) {
        for passed in &PASSED {
            passed.store(0, Ordering::SeqCst);
        }
        LEFT.store(n, Ordering::SeqCst);
        ARMED.store((stop as usize).saturating_add(1), Ordering::SeqCst);
    }

    /// Calls a function once, when the next snapshot reads: what it records is deferred.
    pub fn meanwhile(call: impl FnOnce() + Send + 'static) {
        if let Ok(mut slot) = MEANWHILE.lock() {
            *slot = Some(Box::new(call));
        }
    }

    /// Returns how often each point was passed since `arm`, in their order.
    pub fn passed() -> Vec<u64> {
        PASSED.iter().map(|n| n.load(Ordering::SeqCst)).collect()
    }

    /// Passes a point.
    pub fn pass(stop: Stop) {
        if let Some(passed) = PASSED.get(stop as usize) {
            passed.fetch_add(1, Ordering::Relaxed);
        }
        let is_armed = ARMED.load(Ordering::Relaxed) == (stop as usize).saturating_add(1);
        if is_armed && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park(); // the signal is on its way
            }
        }
        if stop == Stop::Reading
            && let Some(call) = MEANWHILE.lock().ok().and_then(|mut slot| slot.take())
        {
            call();
        }
    }
}
