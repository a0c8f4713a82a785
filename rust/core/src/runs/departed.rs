//! The keys of runs that have left, ended or reaped, as long as they are remembered.

use super::packing::{BUDGETED, SHARED, WHO};
use super::{EMPTY, ENDING, LOST, Left, REAPING, RunKey, RunTable};
use crate::arena::Cells;
use crate::budget::Reservation;

/// Rings of keys. A key is remembered in the ring that its hash chooses, over the next 256 keys of that ring. For
/// 4,000 later ends to use up one ring, it would have to get twice its share: 11 standard deviations.
const RINGS: usize = if cfg!(loom) { 1 } else { 32 };
const RING: usize = if cfg!(loom) { 2 } else { 256 };
/// Cells in which two ends of a run that was not in flight, come at once, meet.
const MEETINGS: usize = if cfg!(loom) { 1 } else { 64 };
const KEYS: usize = RINGS * RING;
/// Cells of what a reaped run was charged: its budgets, pico-dollars, tokens.
const CHARGED: usize = 3;
/// Cells: cursors of the rings of ended and of reaped runs | meetings | ended | reaped | charges of the reaped.
pub(super) const CELLS: usize = RINGS * 2 + MEETINGS + KEYS * (2 + CHARGED);
/// Bits of a remembered key that say how many echoes of its end are to come.
const ECHOES: u64 = ENDING | REAPING;

impl RunTable {
    #[allow(clippy::cast_possible_truncation)] // a position
    const fn ring(key: RunKey) -> usize {
        // Not the low bits, by which a table's sets are chosen: runs of one set end together.
        (key.mixed() >> 24) as usize % RINGS
    }

    /// The first cell of the ring of a key.
    const fn ring_of(self, key: RunKey, mark: u64) -> usize {
        let before = if mark == ENDING { 0 } else { KEYS };
        let first = self.left.wrapping_add(RINGS * 2 + MEETINGS).wrapping_add(before);
        first.wrapping_add(Self::ring(key).wrapping_mul(RING))
    }

    /// Remembers that a run has left, and of a reaped one what it is charged; `echoes` of the end are to come.
    #[inline]
    pub(super) fn remember_as(self, cells: &Cells, key: RunKey, mark: u64, held: &Reservation, echoes: u64) {
        let (cursors, ring) = (self.left.wrapping_add(if mark == ENDING { 0 } else { RINGS }), self.ring_of(key, mark));
        #[allow(clippy::cast_possible_truncation)] // a position
        let next = || ring.wrapping_add(cells.add(cursors.wrapping_add(Self::ring(key)), 1) as usize % RING);
        if mark == ENDING {
            return cells.publish(next(), key.0 | echoes.min(3) << 62);
        }
        self.forget(cells, key);
        for _ in 0..RING {
            // Claimed first, so that the charge of one run never stands beside the key of another.
            let cell = next();
            let before = cells.get(cell);
            if before != LOST && cells.claim(cell, before, LOST).is_ok() {
                let [cost, tokens] = held.input;
                for (i, n) in [held.budgets, cost, tokens].into_iter().enumerate() {
                    cells.publish(self.charge(cell).wrapping_add(i), n);
                }
                return cells.publish(cell, key.0);
            }
        }
    }

    /// Forgets how earlier runs with this id left: the end of this one is still to come.
    fn forget(self, cells: &Cells, key: RunKey) {
        for mark in [ENDING, REAPING] {
            while let Some(cell) = self.remembered(cells, key, mark) {
                let value = cells.observe(cell);
                if value & !ECHOES == key.0 {
                    let _ = cells.claim(cell, value, EMPTY);
                }
            }
        }
        let _ = cells.claim(self.meeting(key), key.0, EMPTY);
    }

    #[allow(clippy::cast_possible_truncation)] // a position
    const fn meeting(self, key: RunKey) -> usize {
        self.left.wrapping_add(RINGS * 2).wrapping_add((key.mixed() >> 24) as usize % MEETINGS)
    }

    /// The cell that remembers a key.
    fn remembered(self, cells: &Cells, key: RunKey, mark: u64) -> Option<usize> {
        let ring = self.ring_of(key, mark);
        (ring..ring.wrapping_add(RING)).find(|cell| cells.observe(*cell) & !ECHOES == key.0)
    }

    /// The cells of what was charged for the run whose key stands in this cell of a ring.
    const fn charge(self, cell: usize) -> usize {
        let keys = self.left.wrapping_add(RINGS * 2 + MEETINGS);
        let position = cell.wrapping_sub(keys.wrapping_add(KEYS));
        keys.wrapping_add(KEYS * 2).wrapping_add(position.wrapping_mul(CHARGED))
    }

    /// Returns the budgets that a reaped run belonged to and what they were charged for it, while it is remembered: a
    /// reservation that holds nothing.
    pub fn charged_for_reaped(self, cells: &Cells, key: RunKey) -> Reservation {
        let mark = key.0 | REAPING;
        let charge = |budgets, cost, tokens| Reservation { budgets, cost: 0, tokens: 0, input: [cost, tokens] };
        // Still on its way out: what it held is still in its slot.
        let leaving = self.find_as(cells, key, |value| value == mark).and_then(|slot| {
            let budgeted = self.run(cells, slot)?.observe::<WHO>() & BUDGETED != 0;
            let held = |i: usize| if budgeted { cells.observe(self.held(slot).wrapping_add(i)) } else { 0 };
            let charged = charge(held(0), held(4), held(5));
            (cells.observe(self.key_cell(slot)) == mark).then_some(charged)
        });
        let remembered = || {
            let cell = self.remembered(cells, key, REAPING)?;
            let charged = |i: usize| cells.observe(self.charge(cell).wrapping_add(i));
            let charged = charge(charged(0), charged(1), charged(2));
            (cells.observe(cell) == key.0).then_some(charged)
        };
        leaving.or_else(remembered).unwrap_or_default()
    }

    /// Remembers the end of a run that was not in flight; false where another thread has just done so for the same
    /// end.
    pub fn remember(self, cells: &Cells, key: RunKey) -> bool {
        let first = cells.swap(self.meeting(key), key.0) != key.0;
        if first {
            self.remember_as(cells, key, ENDING, &Reservation::default(), 0);
        }
        first
    }

    /// Takes one of the echoes that an end of this id still has to come; false when none is.
    pub(super) fn take_echo(self, cells: &Cells, key: RunKey) -> bool {
        let ring = self.ring_of(key, ENDING);
        (ring..ring.wrapping_add(RING)).any(|cell| {
            let value = cells.observe(cell);
            let echoes = value >> 62;
            value & !ECHOES == key.0
                && echoes > 0
                && cells.claim(cell, value, key.0 | echoes.wrapping_sub(1) << 62).is_ok()
        })
    }

    /// Whether an end of this id is one that has come before; then it counts as having come.
    pub fn end_is_echo(self, cells: &Cells, key: RunKey) -> bool {
        match self.find(cells, key).and_then(|slot| self.run(cells, slot)) {
            Some(run) => run.get::<WHO>() & SHARED != 0 && self.take_echo(cells, key),
            None => self.left(cells, key) == Some(Left::Ended),
        }
    }

    /// Returns how a run that is not in flight left; None when it never was, or is forgotten after more than 4,000
    /// later ends, or as many later reapings.
    pub fn left(self, cells: &Cells, key: RunKey) -> Option<Left> {
        let ways = [(ENDING, Left::Ended), (REAPING, Left::Reaped)];
        let remembered = || ways.into_iter().find_map(|(mark, left)| self.remembered(cells, key, mark).map(|_| left));
        let leaving = |(mark, left)| self.find_as(cells, key, |value| value == key.0 | mark).map(|_| left);
        // Remembered before the slot is empty: a run found neither remembered nor leaving is found remembered at last.
        remembered().or_else(|| ways.into_iter().find_map(leaving)).or_else(remembered)
    }
}
