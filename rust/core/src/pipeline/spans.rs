//! Spans of runs that have ended, kept until their root ends: a ring in the arena, linked by root.

use crate::arena::Cells;
use crate::series::SeriesId;

/// Spans kept; a power of two.
const CAPACITY: u64 = if cfg!(loom) { 2 } else { 65_536 };
/// Most spans of one root; the tree of a larger one is not reported.
pub const MAX_SPANS: usize = 512;
/// The header: number of spans ever pushed, on a line of its own.
const HEADER: usize = 8;
/// Cells of a span: one cache line.
const SPAN: usize = 8;

// Cells of a span.
const SEQUENCE: usize = 0;
const KEY: usize = 1;
const PARENT: usize = 2;
const ROOT: usize = 3;
const WHO: usize = 4;
const START: usize = 5;
const END: usize = 6;
const PREV: usize = 7;

/// Bit of `SEQUENCE`: a writer is still writing the span.
const BUSY: u64 = 1 << 63;
/// Bit of `WHO`, above component and model.
const PIPED: u64 = 1 << 63;
const LOW: u64 = 0xFFFF_FFFF;

/// A run from start to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Key of the run.
    pub key: u64,
    /// Key of its parent.
    pub parent: u64,
    /// Key of the run at the top.
    pub root: u64,
    /// Series of its name.
    pub component: SeriesId,
    /// Series of the model that answered.
    pub model: Option<SeriesId>,
    /// Whether it is a step of a sequence other than the first (LangChain tags it `seq:step:N`): when streamed, it begins
    /// with the first chunk of its upstream step and lasts at least as long.
    pub piped: bool,
    /// Clock reading at its start, nanoseconds.
    pub start: u64,
    /// Clock reading at its end; `u64::MAX` for a run without an end event.
    pub end: u64,
}

/// The ring in the arena.
///
/// Each root holds the handle of its newest span, and each span the handle of the one before it: 32 bits, 0 is none.
/// A run that ends under a root does
///
/// ```text
/// handle = push(span, head)
/// while the root's head cannot be exchanged from `head` to `handle`:
///     head = what was found; relink(handle, head)
/// ```
///
/// so that a head only ever names a span that is complete. Spans are never freed: the oldest one is overwritten, and a
/// root whose spans were overwritten has no tree.
///
/// A slot is a seqlock with many writers: a writer claims the sequence number, publishes the cells, then publishes the
/// number; a reader that reads the same number before and after has read that span. A writer whose slot is held by
/// another (one of the two slept for a whole lap) loses its span: the handle then names nothing and its tree is not
/// reported. A thread that dies while writing costs one span a lap.
#[derive(Debug, Clone, Copy)]
pub struct Spans {
    base: usize,
}

impl Spans {
    /// Cells of the ring.
    #[allow(clippy::cast_possible_truncation)] // 65,536
    pub const CELLS: usize = HEADER + CAPACITY as usize * SPAN;

    /// The ring whose cells begin at `base`, preferably a multiple of 8.
    pub const fn at(base: usize) -> Self {
        Self { base }
    }

    #[allow(clippy::cast_possible_truncation)] // below `CAPACITY`
    const fn place(self, ticket: u64) -> usize {
        let position = (ticket % CAPACITY) as usize;
        self.base.wrapping_add(HEADER).wrapping_add(position.wrapping_mul(SPAN))
    }

    /// Stores a span in front of `prev`, the handle of its root's newest span; returns its handle. Lock-free.
    #[allow(clippy::cast_possible_truncation)] // a handle is the low half of the ticket
    #[inline]
    pub fn push(self, cells: &Cells, span: &Span, prev: u32) -> u32 {
        let mut ticket = cells.add(self.base, 1).wrapping_add(1);
        while ticket & LOW == 0 {
            ticket = cells.add(self.base, 1).wrapping_add(1);
        }
        let place = self.place(ticket);
        let seen = cells.observe(place.wrapping_add(SEQUENCE));
        // A slot being written counts as later.
        if seen < ticket && cells.claim(place.wrapping_add(SEQUENCE), seen, ticket | BUSY).is_ok() {
            let model = span.model.map_or(0, |m| (m as u64).wrapping_add(1) << 32);
            let piped = if span.piped { PIPED } else { 0 };
            for (cell, value) in [
                (KEY, span.key),
                (PARENT, span.parent),
                (ROOT, span.root),
                (WHO, span.component as u64 | model | piped),
                (START, span.start),
                (END, span.end),
                (PREV, u64::from(prev)),
            ] {
                // Published: a reader of one of these finds the slot busy, or later, when it looks again.
                cells.publish(place.wrapping_add(cell), value);
            }
            cells.publish(place.wrapping_add(SEQUENCE), ticket);
        }
        ticket as u32
    }

    /// Links a span that no root holds yet to another previous span.
    pub fn relink(self, cells: &Cells, handle: u32, prev: u32) {
        let place = self.place(u64::from(handle));
        let seen = cells.observe(place.wrapping_add(SEQUENCE));
        let mine = seen & (BUSY | LOW) == u64::from(handle);
        if mine && cells.claim(place.wrapping_add(SEQUENCE), seen, seen | BUSY).is_ok() {
            cells.publish(place.wrapping_add(PREV), u64::from(prev));
            cells.publish(place.wrapping_add(SEQUENCE), seen);
        }
    }

    /// Returns the spans of a root, newest first; None when one of them was overwritten, or there are more than
    /// [`MAX_SPANS`].
    pub fn of_root(self, cells: &Cells, head: u32, root: u64) -> Option<Vec<Span>> {
        let (mut spans, mut handle) = (Vec::new(), head);
        while handle != 0 {
            let (span, prev) = self.read(cells, handle)?;
            if span.root != root || spans.len() == MAX_SPANS {
                return None;
            }
            spans.push(span);
            handle = prev;
        }
        Some(spans)
    }

    #[allow(clippy::cast_possible_truncation)] // halves of a cell
    fn read(self, cells: &Cells, handle: u32) -> Option<(Span, u32)> {
        let line = cells.line(self.place(u64::from(handle)))?;
        let seen = line.observe::<SEQUENCE>();
        if seen & (BUSY | LOW) != u64::from(handle) {
            return None;
        }
        let who = line.observe::<WHO>();
        let span = Span {
            key: line.observe::<KEY>(),
            parent: line.observe::<PARENT>(),
            root: line.observe::<ROOT>(),
            component: (who & LOW) as SeriesId,
            model: ((who & !PIPED) >> 32).checked_sub(1).map(|m| m as SeriesId),
            piped: who & PIPED != 0,
            start: line.observe::<START>(),
            end: line.observe::<END>(),
        };
        let prev = line.observe::<PREV>();
        (line.get::<SEQUENCE>() == seen).then_some((span, prev as u32))
    }

    /// Forgets every span and every writer; call it only while no thread records.
    pub fn clear(self, cells: &Cells) {
        for ticket in 0..cells.get(self.base).saturating_add(1).min(CAPACITY) {
            cells.set(self.place(ticket).wrapping_add(SEQUENCE), 0);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ring() -> (Cells, Spans) {
        (Cells::zeroed(Spans::CELLS + 8).expect("cells"), Spans::at(8))
    }

    fn span(key: u64, root: u64) -> Span {
        Span { key, parent: root, root, component: 7, model: Some(0), piped: key % 2 == 1, start: key, end: key + 10 }
    }

    #[test]
    fn the_spans_of_a_root_come_back_newest_first_and_whole() {
        let (cells, ring) = ring();
        let first = Span { model: None, component: 1_000_005, end: u64::MAX, ..span(1, 9) };
        let head = ring.push(&cells, &first, 0);
        let other = ring.push(&cells, &span(4, 8), 0);
        let head = ring.push(&cells, &Span { model: Some(1_000_005), ..span(2, 9) }, head);
        let both = vec![Span { model: Some(1_000_005), ..span(2, 9) }, first];
        assert_eq!(ring.of_root(&cells, head, 9), Some(both));
        assert_eq!(ring.of_root(&cells, other, 8), Some(vec![span(4, 8)]));
        assert_eq!(ring.of_root(&cells, 0, 8), Some(vec![]));
    }

    #[test]
    fn a_handle_of_another_root_or_of_nothing_gives_no_tree() {
        let (cells, ring) = ring();
        let head = ring.push(&cells, &span(1, 9), 0);
        assert_eq!(ring.of_root(&cells, head, 8), None);
        assert_eq!(ring.of_root(&cells, head + 1, 9), None);
    }

    #[test]
    fn a_span_that_made_room_takes_its_tree_with_it_and_only_its_own() {
        let (cells, ring) = ring();
        let old = ring.push(&cells, &span(1, 9), 0);
        let new = ring.push(&cells, &span(2, 8), 0);
        let late = (3..).take(65_535).fold(0, |_, key| ring.push(&cells, &span(key, key), 0));
        assert_eq!(ring.of_root(&cells, old, 9), None);
        assert_eq!(ring.of_root(&cells, new, 8), Some(vec![span(2, 8)]));
        assert_eq!(late, 65_537);
        // Too late: the slot now holds another span, and keeps it.
        ring.relink(&cells, old, new);
        assert_eq!(ring.of_root(&cells, late, 65_537), Some(vec![span(65_537, 65_537)]));
    }

    #[test]
    fn a_tree_of_512_spans_is_told_and_one_of_513_is_not() {
        let (cells, ring) = ring();
        let head = (1..=512).fold(0, |head, key| ring.push(&cells, &span(key, 9), head));
        assert_eq!(ring.of_root(&cells, head, 9).map(|spans| spans.len()), Some(512));
        let head = ring.push(&cells, &span(513, 9), head);
        assert_eq!(ring.of_root(&cells, head, 9), None);
    }

    #[test]
    fn a_handle_is_never_none_even_after_four_billion_spans() {
        let (cells, ring) = ring();
        cells.set(8, LOW - 1);
        let last = ring.push(&cells, &span(1, 9), 0);
        let next = ring.push(&cells, &span(2, 9), last);
        assert_eq!((last, next), (u32::MAX, 1));
        assert_eq!(ring.of_root(&cells, next, 9), Some(vec![span(2, 9), span(1, 9)]));
    }

    #[test]
    fn a_place_that_another_is_writing_or_has_written_later_is_not_taken() {
        let (cells, ring) = ring();
        let place = ring.place(1);
        for taken in [1 | BUSY, 1 + CAPACITY] {
            cells.set(8, 0);
            cells.set(place, taken);
            let lost = ring.push(&cells, &span(1, 9), 0);
            ring.relink(&cells, lost, 3);
            assert_eq!((lost, cells.get(place), cells.get(place + KEY)), (1, taken, 0));
            assert_eq!(ring.of_root(&cells, lost, 9), None);
        }
        // A writer that died there is forgotten too.
        cells.set(place, 1 | BUSY);
        ring.clear(&cells);
        let head = (2..).take(65_536).fold(0, |_, key| ring.push(&cells, &span(key, 9), 0));
        assert_eq!((head, ring.of_root(&cells, head, 9)), (65_537, Some(vec![span(65_537, 9)])));
    }

    #[test]
    fn two_threads_hammer_one_root_and_every_span_is_there() {
        let (cells, ring) = ring();
        let cells = &cells;
        let attach = |key: u64| {
            let mut head = cells.get(0);
            let handle = ring.push(cells, &span(key, 9), u32::try_from(head).expect("a handle"));
            while let Err(found) = cells.claim(0, head, u64::from(handle)) {
                head = found;
                ring.relink(cells, handle, u32::try_from(head).expect("a handle"));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=256).for_each(attach));
            scope.spawn(|| (257..=512).for_each(attach));
        });
        let head = u32::try_from(cells.get(0)).expect("a handle");
        let mut keys: Vec<_> = ring.of_root(cells, head, 9).expect("a tree").iter().map(|s| s.key).collect();
        keys.sort_unstable();
        assert_eq!(keys, (1..=512).collect::<Vec<_>>());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// The root's head is the first cell.
    fn ring() -> (Arc<Cells>, Spans) {
        (Arc::new(Cells::zeroed(Spans::CELLS + 8).expect("cells")), Spans::at(8))
    }

    fn span(key: u64, root: u64) -> Span {
        Span { key, parent: key, root, component: 3, model: None, piped: false, start: key, end: key }
    }

    fn attach(cells: &Cells, ring: Spans, key: u64) {
        let mut head = cells.observe(0);
        let handle = ring.push(cells, &span(key, 9), u32::try_from(head).expect("a handle"));
        while let Err(found) = cells.claim(0, head, u64::from(handle)) {
            head = found;
            ring.relink(cells, handle, u32::try_from(head).expect("a handle"));
        }
    }

    fn tree(cells: &Cells, ring: Spans) -> Option<Vec<Span>> {
        ring.of_root(cells, u32::try_from(cells.observe(0)).expect("a handle"), 9)
    }

    #[test]
    fn two_children_that_end_at_once_are_both_in_the_tree_and_a_reader_sees_whole_ones() {
        loom::model(|| {
            let (cells, ring) = ring();
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || attach(&cells, ring, 1))
            };
            let reader = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || {
                    let seen = tree(&cells, ring).expect("a head never names a span that is not there");
                    assert!(seen.iter().all(|s| *s == span(s.key, 9)), "{seen:?}");
                })
            };
            attach(&cells, ring, 2);
            there.join().expect("joins");
            reader.join().expect("joins");
            let mut spans = tree(&cells, ring).expect("both");
            spans.sort_by_key(|s| s.key);
            assert_eq!(spans, [span(1, 9), span(2, 9)]);
        });
    }

    #[test]
    fn a_span_that_is_overwritten_meanwhile_is_read_whole_or_not_at_all() {
        loom::model(|| {
            let (cells, ring) = ring();
            let head = ring.push(&cells, &span(1, 9), 0);
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || {
                    // A lap, and the same root: only the sequence tells.
                    ring.push(&cells, &span(2, 9), 0);
                    ring.push(&cells, &span(3, 9), 0)
                })
            };
            let seen = ring.of_root(&cells, head, 9);
            assert!(seen.is_none() || seen == Some(vec![span(1, 9)]), "{seen:?}");
            let last = there.join().expect("joins");
            assert_eq!(ring.of_root(&cells, head, 9), None);
            assert_eq!(ring.of_root(&cells, last, 9), Some(vec![span(3, 9)]));
        });
    }

    #[test]
    fn writers_a_lap_apart_never_mix_their_spans() {
        loom::model(|| {
            let (cells, ring) = ring();
            let push = move |cells: &Cells, key| (ring.push(cells, &span(key, 9), 0), key);
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || push(&cells, 1))
            };
            let here = [push(&cells, 2), push(&cells, 3)];
            let there = there.join().expect("joins");
            let mut whole = 0;
            for (handle, key) in [here[0], here[1], there] {
                if let Some(spans) = ring.of_root(&cells, handle, 9) {
                    assert_eq!(spans, [span(key, 9)]);
                    whole += 1;
                }
            }
            assert!((1..=2).contains(&whole), "{whole} spans in two places");
        });
    }
}
