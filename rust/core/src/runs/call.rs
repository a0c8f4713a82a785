//! The record of a model call in flight: its tokens.

use super::packing::{LOW_32, NOTHING, Tag, WHO, gap_bits, series_in, update};
use super::{Token, Via};
use crate::arena::Line;

/// Clock reading of the last token, or `NOTHING` | tag | witness.
const LAST: usize = 4;
/// Short tag | first visible output | first output of any kind | first chunk of any kind, 18 bits each, see `in_brief`.
const FIRST: usize = 5;
/// `BY_TOKEN` | tag | how often the start came again, 8 bits | deliveries of token events, 32 bits.
const EVENTS: usize = 6;
/// In `EVENTS`: this run reports its tokens by `on_llm_new_token`.
const BY_TOKEN: u64 = 1 << 63;
const ECHOES: u32 = 32;

/// The cells of a model call that change after its start.
#[derive(Clone, Copy)]
pub(super) struct CallRecord<'a> {
    line: Line<'a>,
    tag: Tag,
}

/// What a model call has given so far.
#[derive(Clone, Copy)]
pub(super) struct Output {
    /// Clock reading of the last token.
    pub last: u64,
    /// Nanoseconds from the start to the first chunk, the first output, the first visible output.
    pub firsts: [Option<u64>; 3],
    /// Token events, each counted once however often it was delivered.
    pub events: u64,
}

impl<'a> CallRecord<'a> {
    pub const fn new(line: Line<'a>, tag: Tag) -> Self {
        Self { line, tag }
    }

    /// Writes the cells of a run that starts.
    #[inline]
    pub fn begin(self, witness: u64) {
        self.line.swap::<FIRST>(self.tag.short_cell());
        self.line.swap::<EVENTS>(self.tag.cell());
        // After the events: a write meant for the slot's last run that sees this of the next one sees their tag changed.
        self.line.swap::<LAST>(NOTHING | self.tag.cell() | witness);
    }

    /// Counts a delivery of a token at `now` of the run that started at `start`; `who` and `ids` are its cells, and
    /// `still` says whether they are all of one run.
    #[inline]
    pub fn token(
        self,
        (start, who, ids): (u64, u64, u64),
        (now, via, visible): (u64, Via, bool),
        shared: bool,
        still: impl FnOnce() -> bool,
    ) -> Token {
        let mut events = self.line.observe::<EVENTS>();
        let before = self.line.observe::<LAST>();
        if !still() || !self.tag.is_in(events) {
            return Token::Unknown;
        }
        if via == Via::StreamEvent && events & BY_TOKEN != 0 {
            return Token::Echo;
        }
        let by_token = if via == Via::Token { BY_TOKEN } else { 0 };
        while let Err(other) = self.line.exchange::<EVENTS>(events, events.wrapping_add(1) | by_token) {
            if !self.tag.is_in(other) {
                return Token::Unknown;
            }
            events = other;
        }
        if is_echo(events) {
            return Token::Echo;
        }
        if self.line.exchange::<LAST>(before, now).is_err() {
            return Token::Counted;
        }
        let is_first = before & NOTHING != 0;
        // Once the first visible output has its time, the others have theirs.
        if is_first || (visible && self.line.get::<FIRST>() >> (2 * BRIEF_BITS) & BRIEF == 0) {
            self.first_output(now.saturating_sub(start), visible);
        }
        if is_first {
            return Token::First;
        }
        if shared {
            return Token::Counted; // the token before may be that of another run with this id
        }
        let gap = now.saturating_sub(before);
        self.longer_gap(who, gap_bits(gap));
        Token::Next { series: series_in(ids, 2), gap }
    }

    #[cold]
    fn first_output(self, since: u64, visible: bool) {
        let since = in_brief(since);
        update::<FIRST>(self.line, |first| {
            let first = with_brief(with_brief(first, 0, since), 1, since);
            self.tag.is_short_in(first).then_some(if visible { with_brief(first, 2, since) } else { first })
        });
    }

    #[inline]
    fn longer_gap(self, who: u64, gap: u64) {
        if gap > who & LOW_32 {
            update::<WHO>(self.line, |who| {
                let longer = gap > who & LOW_32 && Tag::of_who(who) == self.tag;
                longer.then_some(who & !LOW_32 | gap)
            });
        }
    }

    /// Notes the time of a chunk that is not output, where it is the first chunk.
    pub fn chunk(self, since: u64) {
        let none = self.tag.short_cell();
        if self.line.get::<FIRST>() == none {
            // Whoever was first if two were.
            let _ = self.line.exchange::<FIRST>(none, with_brief(none, 0, in_brief(since)));
        }
    }

    /// Whether the start of this run with this witness is its last event; then counts that it came again.
    pub fn started_again(self, witness: u64) -> bool {
        let (last, first) = (self.line.get::<LAST>(), self.line.get::<FIRST>());
        let untouched = last == NOTHING | self.tag.cell() | witness && first == self.tag.short_cell();
        untouched && add_echo::<EVENTS>(self.line, self.tag)
    }

    /// Returns when the last token came, else about when the first chunk did; None where nothing has come.
    pub fn heard(self, start: u64) -> Option<u64> {
        let last = self.line.get::<LAST>();
        let chunk = || brief_in(self.line.get::<FIRST>(), 0).map(|since| start.saturating_add(since));
        (last & NOTHING == 0).then_some(last).or_else(chunk)
    }

    /// Whether a token has come.
    pub fn streamed(self) -> bool {
        self.line.get::<LAST>() & NOTHING == 0
    }

    /// Returns how often the start came again.
    pub fn echoes(self) -> u64 {
        echoes_in(self.line.get::<EVENTS>())
    }

    /// Returns what has come; None before the first token.
    #[inline]
    pub fn output(self) -> Option<Output> {
        let last = self.line.get::<LAST>();
        if last & NOTHING != 0 {
            return None;
        }
        let (first, events) = (self.line.get::<FIRST>(), self.line.get::<EVENTS>());
        let (deliveries, copies) = (events & LOW_32, echoes_in(events).wrapping_add(1));
        let events = if copies == 1 { deliveries } else { deliveries.div_ceil(copies) };
        Some(Output { last, firsts: [brief_in(first, 0), brief_in(first, 1), brief_in(first, 2)], events })
    }
}

/// How often the start came again, by an `EVENTS` or a `FAILED_MODEL` cell.
pub(super) const fn echoes_in(cell: u64) -> u64 {
    cell >> ECHOES & 0xFF
}

/// Counts in an `EVENTS` or a `FAILED_MODEL` cell that the start came again; false where nothing but starts must have
/// come, and something has.
pub(super) fn add_echo<const CELL: usize>(line: Line<'_>, tag: Tag) -> bool {
    let again = |cell: u64| {
        let most = if echoes_in(cell) < 0xFF { 1 << ECHOES } else { 0 };
        (tag.is_in(cell) && cell & LOW_32 == 0).then_some(cell.wrapping_add(most))
    };
    update::<CELL>(line, again).is_some()
}

/// Whether a delivery after those counted in `events` is of an event already counted.
#[inline]
const fn is_echo(events: u64) -> bool {
    let echoes = echoes_in(events);
    echoes != 0 && is_repeated(events & LOW_32, echoes)
}

#[cold]
const fn is_repeated(deliveries: u64, echoes: u64) -> bool {
    // Never 0: at least one echo.
    !matches!(deliveries.checked_rem(echoes.wrapping_add(1)), Some(0))
}

/// Bits of one of the three times in `FIRST`.
const BRIEF_BITS: u32 = 18;
const BRIEF: u64 = (1 << BRIEF_BITS) - 1;
/// Bits of its leading digits; the rest says how many digits follow.
const DIGITS: u32 = 13;

/// Returns microseconds to 1 part in 8,192, at least one, in 18 bits.
pub(super) const fn in_brief(nanos: u64) -> u64 {
    let micros = nanos.saturating_add(500) / 1000;
    let micros = if micros == 0 { 1 } else { micros };
    let more = u64::BITS.saturating_sub(micros.leading_zeros()).saturating_sub(DIGITS);
    if more >= 1 << (BRIEF_BITS - DIGITS) {
        return BRIEF;
    }
    let rounded = micros.saturating_add((1 << more) >> 1) >> more;
    // Rounded up to the next power of two: one digit more.
    let (digits, more) = if rounded >> DIGITS == 0 { (rounded, more) } else { (rounded >> 1, more.wrapping_add(1)) };
    digits | (more as u64) << DIGITS
}

/// Returns the n-th of the three times in a `FIRST` cell, nanoseconds; None where it is not set.
pub(super) fn brief_in(first: u64, n: u32) -> Option<u64> {
    let brief = first >> n.wrapping_mul(BRIEF_BITS) & BRIEF;
    let micros = (brief & ((1 << DIGITS) - 1)) << (brief >> DIGITS);
    (brief != 0).then(|| micros.saturating_mul(1000))
}

/// Returns a `FIRST` cell with its n-th time set, unless it is.
pub(super) const fn with_brief(first: u64, n: u32, brief: u64) -> u64 {
    let at = n.wrapping_mul(BRIEF_BITS);
    if first >> at & BRIEF == 0 { first | brief << at } else { first }
}
