//! A run: as it starts, as it leaves, and what may be asked of it between.

use super::packing::{SERIES_BITS, series_in};
use super::{ENDING, LOST};
use crate::budget::Reservation;
use crate::series::{Kind, SeriesId};

/// Who a run is: 62 bits of its 128-bit id, spread evenly (61 of them are random for a uuid7 folded modulo
/// 2^61 - 1; among 65,536 runs in flight two agree with a probability of 1e-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunKey(pub(super) u64);

impl RunKey {
    /// From the folded id: 62 bits of it. 0 and 1 are the table's own and move elsewhere.
    pub const fn new(folded: u64) -> Self {
        let key = folded & (ENDING - 1);
        Self(if key <= LOST { key | (1 << 61) } else { key })
    }

    /// As a cell.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Two independent halves of 32 bits.
    #[allow(clippy::cast_possible_truncation)] // both halves are taken
    pub(super) const fn mixed(self) -> u64 {
        let wide = (self.0 as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (wide as u64) ^ ((wide >> 64) as u64)
    }
}

/// Which hook a token came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// `on_llm_new_token`.
    Token,
    /// `on_stream_event`, which most integrations fire after `on_llm_new_token` for the same token.
    StreamEvent,
}

/// How a run that is not in flight left, if that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It ended.
    Ended,
    /// It was reaped.
    Reaped,
}

/// What a token event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// No such run in flight.
    Unknown,
    /// A token already counted, by the other hook or because it is delivered twice.
    Echo,
    /// The first of its run.
    First,
    /// A later one.
    Next {
        /// The series its gap belongs to.
        series: SeriesId,
        /// Nanoseconds since the token before.
        gap: u64,
    },
    /// A later one whose gap is not known: another thread's token of the same run took it, or another run has the
    /// same id.
    Counted,
}

/// A run as it starts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Its key.
    pub key: RunKey,
    /// Its parent's.
    pub parent: Option<RunKey>,
    /// Clock reading.
    pub now: u64,
    /// What it is.
    pub kind: Kind,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the requested model.
    pub model: SeriesId,
    /// Series that its gaps between tokens belong to.
    pub gaps: SeriesId,
    /// What it holds of budgets.
    pub held: Reservation,
    /// Its labels' series.
    pub labels: Labels,
    /// It says that it is a second attempt or a later one.
    pub retried: bool,
    /// It is a step of a sequence but its first.
    pub piped: bool,
    /// 40 bits of the thread and the objects that the start came with, by which a start that is delivered twice is
    /// told from another run with the same id; 0 where they are not known: then a second start is never another run.
    pub witness: u64,
}

/// What a start was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The start of a run.
    New,
    /// The start of a run while another one with the same id is in flight.
    SharesId,
    /// A start that had come before: nothing has changed.
    Echo,
}

/// Up to three series that count what carries a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Labels(pub(super) u64);

impl Labels {
    /// How many a run carries at most.
    pub const MOST: usize = 3;

    /// From series; those beyond the third are left out.
    pub fn new(series: impl IntoIterator<Item = SeriesId>) -> Self {
        let packed = |bits: u64, (at, id): (u32, SeriesId)| bits | (id as u64).wrapping_add(1) << at;
        Self([0, SERIES_BITS, 2 * SERIES_BITS].into_iter().zip(series).fold(0, packed))
    }

    /// From `get`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As a cell.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The series.
    pub fn iter(self) -> impl Iterator<Item = SeriesId> {
        (0..3).filter_map(move |n| series_in(self.0, n).checked_sub(1))
    }
}

/// Where a run stands in its tree as it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// At the top; the newest of the spans under it, 0 when there is none.
    Root(u32),
    /// Under this root.
    Under(Root),
    /// Its ancestor has ended.
    Lost,
}

/// The top of a tree of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    pub(super) slot: usize,
    pub(super) key: u64,
}

impl Root {
    /// Its key.
    pub const fn key(self) -> RunKey {
        RunKey(self.key)
    }
}

/// The newest of the spans under a root, when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest(pub(super) u64);

impl Newest {
    /// Its handle; 0 when there is none.
    #[allow(clippy::cast_possible_truncation)] // the low half
    pub const fn span(self) -> u32 {
        self.0 as u32
    }
}

/// A run that its ancestor's end left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Its key.
    pub key: RunKey,
    /// Its parent's.
    pub parent: RunKey,
    /// When it started.
    pub start: u64,
    /// What it is.
    pub kind: Kind,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the requested model.
    pub model: SeriesId,
    /// It is a step of a sequence but its first.
    pub piped: bool,
}

/// What a model run in flight asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Series of the requested model.
    pub model: SeriesId,
    /// When it started.
    pub start: u64,
    /// Its budgets, a bit each.
    pub budgets: u64,
    /// Its labels' series.
    pub labels: Labels,
    /// Whether a token has come.
    pub streamed: bool,
    /// Budgets took it for a call without a price when it began.
    pub unpriced: bool,
}

/// A model call in flight that holds a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserving {
    /// The run.
    pub key: RunKey,
    /// When it started.
    pub start: u64,
    /// When its last token came, else about when its first chunk did; None before both.
    pub heard: Option<u64>,
    /// An ancestor that was in flight when it started no longer is.
    pub orphaned: bool,
    /// Its budgets, a bit each.
    pub budgets: u64,
}

/// A stream in flight, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streaming {
    /// The run.
    pub key: RunKey,
    /// Series of the requested model.
    pub model: SeriesId,
    /// Series that its gaps go to.
    pub gaps: SeriesId,
    /// When it started.
    pub start: u64,
    /// Its last token.
    pub last: u64,
    /// Token events.
    pub events: u64,
}

/// A run as it leaves the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its key.
    pub key: RunKey,
    /// Its parent's.
    pub parent: Option<RunKey>,
    /// When it started.
    pub start: u64,
    /// When its first chunk came, were it without any output: nanoseconds after the start.
    pub first_chunk: Option<u64>,
    /// When its first token came, as `first_chunk`.
    pub first_token: Option<u64>,
    /// When the first output that is not reasoning came, as `first_chunk`.
    pub first_visible: Option<u64>,
    /// When its last token came.
    pub last_token: Option<u64>,
    /// Its longest gap between tokens, nanoseconds, to the microsecond.
    pub longest_gap: u64,
    /// What it is.
    pub kind: Kind,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the requested model.
    pub model: SeriesId,
    /// Series that its gaps went to.
    pub gaps: SeriesId,
    /// Token events.
    pub events: u64,
    /// Children that had started and not ended.
    pub children: u64,
    /// What it held of budgets.
    pub held: Reservation,
    /// Its labels' series.
    pub labels: Labels,
    /// It or an ancestor is a second attempt or a later one.
    pub retried: bool,
    /// It is a step of a sequence but its first.
    pub piped: bool,
    /// Another run with its id was in flight at the same time: its times are not known.
    pub shared: bool,
    /// Of a run that is not a model call: the model of a call under it that failed and that none made good.
    pub failed: Option<SeriesId>,
    /// Nanoseconds during which none of its children ran.
    pub own: u64,
    /// Where it stands.
    pub branch: Branch,
}

impl Run {
    /// Nanoseconds from its first token to its last; None where there were not two.
    pub fn streaming(&self) -> Option<u64> {
        let first = self.start.saturating_add(self.first_token?);
        (self.events > 1).then(|| self.last_token.map_or(0, |last| last.saturating_sub(first)))
    }
}
