//! The recorder of langmeter: events land in one flat, bounded arena of atomic cells and leave as one
//! immutable, mergeable [`Snapshot`]. Knows no Python.

#![deny(unsafe_code)] // but for mappings and descriptors in `arena`
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))] // tests place small numbers

mod arena;
pub mod budget;
mod clock;
pub mod defects;
mod error;
pub mod histogram;
mod metrics;
mod pipeline;
pub mod rate_card;
mod recorder;
mod runs;
mod series;
mod snapshot;
pub mod statistics;
#[doc(hidden)]
pub mod stops;
pub mod tokenizer;
mod window;

pub use arena::Cells;
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
pub use arena::is_held;
pub use clock::{Clock, ManualClock};
pub use error::Error;
pub use metrics::{COUNTERS, Counter, Dropped, MEASURES, Measure, Outcome, Usage};
pub use pipeline::{MAX_SPANS, Span, Spans, Tree};
pub use recorder::{
    AskedSeries, AttemptFigures, Begin, Demand, End, FixPulse, Price, Pulse, Receipt, Recorder, Repriced, Requested,
    Series, Settings,
};
pub use runs::{Labels, Reserving, RunKey, RunTable, Start, Started, Streaming, Via};
pub use series::{Kind, LabelSet, OTHER, SEPARATOR, SeriesId, SeriesTable, cut};
pub use snapshot::{Anomaly, Origin, SeriesData, Snapshot, VERSION as SNAPSHOT_FORMAT, WindowCounts};
pub use window::{WINDOWS, Window};
