//! Durations in HDR histograms: layout (arithmetic), recorder (atomic cells), snapshot (plain data).

mod layout;
mod recorder;
mod snapshot;

pub use layout::{Layout, MAX_MICROS};
pub use recorder::{Recorder, in_micros};
pub use snapshot::Histogram;
