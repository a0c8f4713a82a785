//! The arena: one run of atomic 64-bit cells.
//!
//! The only file that names an ordering. Cells are addressed by index and hold no pointer and no process-local handle, so
//! that a part of them can be mapped from a file.
//!
//! An index outside the arena reads 0 and writes nothing. Callers compute indices from the layout, so this does not
//! happen; a branch is cheaper than a panic in the user's LLM call.

use super::memory::Memory;
use crate::error::Error;
use crate::stops::stop;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a cache line.
pub const LINE: usize = 8;

/// One atomic cell that lives outside an arena (the manual clock).
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Adds, wrapping.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::AcqRel);
    }
}

/// A fixed number of atomic cells, all zero at first.
///
/// Consistency: `get`, `set`, `add` and `or` are relaxed; a reader that read a cell before never sees an older value of
/// that cell. A thread that `observe`s a value sees everything that the thread which `publish`ed it wrote before.
/// `claim` is the only way to take ownership.
#[derive(Debug)]
pub struct Cells(pub(super) Memory);

impl Cells {
    /// Reserves `len` zeroed cells; pages cost nothing until touched.
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        Memory::zeroed(len).map(Self)
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.0.cells().len()
    }

    /// Whether the arena has no cells.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Zeroes all cells except those of `keep` by giving the memory back to the system; returns false where the system
    /// cannot do that. Call it only while no thread records.
    pub fn forget(&self, keep: std::ops::Range<usize>) -> bool {
        let saved: Vec<u64> = keep.clone().map(|i| self.get(i)).collect();
        if !self.0.forget() {
            return false;
        }
        keep.zip(saved).filter(|(_, value)| *value != 0).for_each(|(i, value)| self.set(i, value));
        true
    }

    #[inline]
    fn at(&self, i: usize) -> Option<&AtomicU64> {
        self.0.cells().get(i)
    }

    /// Relaxed load.
    #[inline]
    pub fn get(&self, i: usize) -> u64 {
        self.at(i).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Relaxed store.
    #[inline]
    pub fn set(&self, i: usize, value: u64) {
        stop!(Write);
        if let Some(c) = self.at(i) {
            c.store(value, Ordering::Relaxed);
        }
    }

    /// Relaxed wrapping add; returns the value before.
    #[inline]
    pub fn add(&self, i: usize, n: u64) -> u64 {
        stop!(Write);
        self.at(i).map_or(0, |c| c.fetch_add(n, Ordering::Relaxed))
    }

    /// Relaxed wrapping subtract; returns the value before.
    #[inline]
    pub fn sub(&self, i: usize, n: u64) -> u64 {
        stop!(Write);
        self.at(i).map_or(0, |c| c.fetch_sub(n, Ordering::Relaxed))
    }

    /// Relaxed bitwise or.
    #[inline]
    pub fn or(&self, i: usize, bits: u64) {
        stop!(Write);
        if let Some(c) = self.at(i) {
            c.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Relaxed bitwise and.
    #[inline]
    pub fn and(&self, i: usize, bits: u64) {
        stop!(Write);
        if let Some(c) = self.at(i) {
            c.fetch_and(bits, Ordering::Relaxed);
        }
    }

    /// Calls `f(cell, value)` for each of `len` neighbours from `first` that is not 0, ascending; relaxed, bounds
    /// checked once.
    #[inline]
    pub fn occupied(&self, first: usize, len: usize, mut f: impl FnMut(usize, u64)) {
        let cells = self.0.cells().get(first..first.saturating_add(len)).unwrap_or_default();
        for (i, cell) in (first..).zip(cells) {
            let value = cell.load(Ordering::Relaxed);
            if value != 0 {
                f(i, value);
            }
        }
    }

    /// Acquire load: sees what was written before the matching `publish` or `claim`.
    #[inline]
    pub fn observe(&self, i: usize) -> u64 {
        self.at(i).map_or(0, |c| c.load(Ordering::Acquire))
    }

    /// Release store.
    #[inline]
    pub fn publish(&self, i: usize, value: u64) {
        stop!(Write);
        if let Some(c) = self.at(i) {
            c.store(value, Ordering::Release);
        }
    }

    /// Wrapping add, acquire and release; returns the value before.
    #[inline]
    pub fn add_acquire_release(&self, i: usize, n: u64) -> u64 {
        stop!(Write);
        self.at(i).map_or(0, |c| c.fetch_add(n, Ordering::AcqRel))
    }

    /// Swap, acquire and release; returns the value before.
    #[inline]
    pub fn swap(&self, i: usize, value: u64) -> u64 {
        stop!(Write);
        self.at(i).map_or(0, |c| c.swap(value, Ordering::AcqRel))
    }

    /// Wrapping add, release; returns the value before.
    #[inline]
    pub fn add_release(&self, i: usize, n: u64) -> u64 {
        stop!(Write);
        self.at(i).map_or(0, |c| c.fetch_add(n, Ordering::Release))
    }

    /// Relaxed add that saturates at the largest value of a cell; returns false where it saturated.
    #[inline]
    pub fn add_saturating(&self, i: usize, n: u64) -> bool {
        stop!(Write);
        self.at(i).is_none_or(|c| {
            let old = c.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(old.saturating_add(n)));
            old.is_ok_and(|old| old.checked_add(n).is_some())
        })
    }

    /// Raises the cell to `value` if it holds less (maximum); acquire and release.
    #[inline]
    pub fn maximum(&self, i: usize, value: u64) {
        stop!(Write);
        if let Some(c) = self.at(i) {
            c.fetch_max(value, Ordering::AcqRel);
        }
    }

    /// Compare-and-swap, acquire and release; the error is the value that the cell held instead.
    #[inline]
    pub fn claim(&self, i: usize, from: u64, to: u64) -> Result<(), u64> {
        stop!(Write);
        self.at(i).map_or(Err(0), |c| c.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).map(drop))
    }

    /// Relaxed compare-and-swap, for a cell that guards no other cell.
    #[inline]
    pub fn exchange(&self, i: usize, from: u64, to: u64) -> Result<(), u64> {
        stop!(Write);
        self.at(i).map_or(Err(0), |c| c.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).map(drop))
    }
}

/// Eight neighbouring cells, bounds checked once.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a>(&'a [AtomicU64; 8]);

impl Cells {
    /// The line that begins at `i`; None where the arena ends before the line does.
    #[inline]
    pub fn line(&self, i: usize) -> Option<Line<'_>> {
        self.0.cells().get(i..)?.first_chunk().map(Line)
    }
}

impl<'a> Line<'a> {
    #[inline]
    fn at<const I: usize>(self) -> &'a AtomicU64 {
        const { assert!(I < 8, "a line has eight cells") };
        let [a, b, c, d, e, f, g, h] = self.0;
        match I {
            0 => a,
            1 => b,
            2 => c,
            3 => d,
            4 => e,
            5 => f,
            6 => g,
            _ => h,
        }
    }

    /// Relaxed load.
    #[inline]
    pub fn get<const I: usize>(self) -> u64 {
        self.at::<I>().load(Ordering::Relaxed)
    }

    /// Acquire load.
    #[inline]
    pub fn observe<const I: usize>(self) -> u64 {
        self.at::<I>().load(Ordering::Acquire)
    }

    /// Release store.
    #[inline]
    pub fn publish<const I: usize>(self, value: u64) {
        self.at::<I>().store(value, Ordering::Release);
    }

    /// Swap, acquire and release: for a cell that another thread may still exchange. (Beside an exchange a plain store is
    /// enough for the language's memory model, but not for loom's.)
    #[inline]
    pub fn swap<const I: usize>(self, value: u64) {
        self.at::<I>().swap(value, Ordering::AcqRel);
    }

    /// Compare-and-swap, acquire and release.
    #[inline]
    pub fn claim<const I: usize>(self, from: u64, to: u64) -> Result<(), u64> {
        self.at::<I>().compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    /// Relaxed compare-and-swap, for a cell that guards no other cell.
    #[inline]
    pub fn exchange<const I: usize>(self, from: u64, to: u64) -> Result<(), u64> {
        self.at::<I>().compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).map(drop)
    }

    /// Returns the position of the first matching cell among the first `ways`; acquire.
    #[inline]
    pub fn find(self, ways: usize, wanted: impl Fn(u64) -> bool) -> Option<usize> {
        self.0.iter().take(ways).position(|c| wanted(c.load(Ordering::Acquire)))
    }

    /// Returns the position of the first matching cell among the first `ways`, leaving out one position; acquire.
    #[inline]
    pub fn find_beside(self, except: usize, ways: usize, wanted: impl Fn(u64) -> bool) -> Option<usize> {
        self.0.iter().take(ways).enumerate().position(|(i, c)| i != except && wanted(c.load(Ordering::Acquire)))
    }

    /// Returns the position of the first cell with this value from `from` on among the first `ways`; relaxed.
    #[inline]
    pub fn find_relaxed(self, from: usize, ways: usize, value: u64) -> Option<usize> {
        let at = self.0.iter().take(ways).skip(from).position(|c| c.load(Ordering::Relaxed) == value)?;
        Some(at.wrapping_add(from))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn cells_are_zero_at_first_and_ignore_an_index_outside() {
        let cells = Cells::zeroed(3).expect("3 cells");
        assert_eq!((cells.get(0), cells.get(2)), (0, 0));
        cells.set(3, 7);
        assert_eq!((cells.add(3, 1), cells.sub(9, 1), cells.get(3), cells.observe(3)), (0, 0, 0, 0));
        cells.or(3, 1);
        cells.publish(3, 1);
        assert_eq!(cells.claim(3, 0, 1), Err(0));
        assert_eq!(cells.exchange(3, 0, 1), Err(0));
        cells.maximum(3, 1);
        assert_eq!((cells.add_release(3, 1), cells.add_acquire_release(3, 1), cells.swap(3, 1)), (0, 0, 0));
        assert!(cells.add_saturating(3, 1));
    }

    #[test]
    fn a_saturating_add_stops_at_the_top_and_says_so() {
        let cells = Cells::zeroed(1).expect("1 cell");
        assert!(cells.add_saturating(0, u64::MAX - 1));
        assert!(cells.add_saturating(0, 1));
        assert!(!cells.add_saturating(0, 1));
        assert_eq!(cells.get(0), u64::MAX);
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn forgotten_cells_are_zero_but_those_that_are_kept() {
        let cells = Cells::zeroed(5000).expect("cells");
        (0..5000).for_each(|i| cells.set(i, 7));
        assert!(cells.forget(1000..1003));
        let left: Vec<_> = (0..5000).filter(|i| cells.get(*i) != 0).collect();
        assert_eq!(left, [1000, 1001, 1002]);
        cells.set(4000, 1);
        assert_eq!((cells.get(1000), cells.get(4000)), (7, 1));
    }

    #[test]
    fn a_claim_is_won_once() {
        let cells = Cells::zeroed(1).expect("1 cell");
        assert_eq!(cells.claim(0, 0, 5), Ok(()));
        assert_eq!(cells.claim(0, 0, 6), Err(5));
    }

    #[test]
    #[cfg(not(miri))]
    fn more_address_space_than_there_is_is_a_clear_error() {
        let error = Cells::zeroed(usize::MAX / 16).expect_err("2^59 cells");
        assert!(error.to_string().contains("lower max_series"), "{error}");
    }
}
