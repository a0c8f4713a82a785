//! Durations in HDR histograms: layout (arithmetic), recorder and pool (atomic cells), snapshot (plain data).

mod layout;
mod pool;
mod recorder;
mod snapshot;

pub use layout::{Layout, MAX_MICROS};
pub use pool::Pool;
pub use recorder::{Kept, Reader, Recorder, in_micros};
pub use snapshot::Histogram;
