//! The recorder of langmeter: events land in one flat, bounded arena of atomic cells and leave as one
//! immutable, mergeable [`Snapshot`]. Knows no Python.

#![deny(unsafe_code)] // but for one cast in `cells`
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

pub mod budget;
mod cells;
mod clock;
mod error;
mod figures;
pub mod histogram;
pub mod money;
mod phaser;
mod recorder;
mod runs;
mod series;
mod snapshot;
mod spans;
pub mod tokenizer;
mod tree;
mod window;

pub use cells::Cells;
pub use clock::{Clock, ManualClock};
pub use error::Error;
pub use figures::{COUNTERS, Counter, Dropped, MEASURES, Measure, Outcome, Usage};
pub use recorder::{AskedSeries, Begin, Demand, End, Price, Pulse, Recorder, Repriced, Requested, Series, Settings};
pub use runs::{Labels, Reserving, RunKey, RunTable, Start, Started, Streaming, Via};
pub use series::{Kind, LabelSet, OTHER, SeriesId, SeriesTable};
pub use snapshot::{Anomaly, Origin, SeriesData, Snapshot, WindowCounts};
pub use spans::{MAX_SPANS, Span, Spans};
pub use tree::Tree;
pub use window::{WINDOWS, Window};
