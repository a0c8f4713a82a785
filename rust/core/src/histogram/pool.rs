//! Pool of bucket blocks.

use super::Layout;
use crate::arena::Cells;

/// Number of blocks handed out, and one block that was returned.
const TAKEN: usize = 0;
const SPARE: usize = 1;
const HEADER: usize = 8;

/// Blocks of 64 buckets in the arena, which histograms take as values fall into them, and keep.
///
/// Blocks are numbered from 1: 0 is none, as in a fresh arena.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    base: usize,
    blocks: usize,
}

impl Pool {
    /// Cells of a pool of `blocks` blocks.
    pub const fn cells(blocks: usize) -> usize {
        HEADER.saturating_add(blocks.saturating_mul(Layout::BLOCK))
    }

    /// The pool whose cells begin at `base`, preferably a multiple of 8.
    pub const fn at(base: usize, blocks: usize) -> Self {
        Self { base, blocks }
    }

    /// Takes a block, all zero; None when there is none left.
    pub(super) fn take(self, cells: &Cells) -> Option<u64> {
        let spare = cells.swap(self.base.wrapping_add(SPARE), 0);
        if spare != 0 {
            return Some(spare);
        }
        let taken = self.base.wrapping_add(TAKEN);
        // The counter stays at the end: an empty pool is asked repeatedly.
        let n = if cells.get(taken) < self.blocks as u64 { cells.add(taken, 1) } else { u64::MAX };
        (n < self.blocks as u64).then(|| n.wrapping_add(1))
    }

    /// Returns a block that was not written. Of two blocks returned at the same moment one is lost.
    pub(super) fn give_back(self, cells: &Cells, block: u64) {
        cells.swap(self.base.wrapping_add(SPARE), block);
    }

    /// The first bucket of a block.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // at most `blocks`
    pub(super) const fn first(self, block: u64) -> usize {
        let before = (block as usize).wrapping_sub(1).wrapping_mul(Layout::BLOCK);
        self.base.wrapping_add(HEADER).wrapping_add(before)
    }

    /// Back to zero; call it only while no thread records.
    pub fn clear(self, cells: &Cells) {
        let taken =
            usize::try_from(cells.get(self.base.wrapping_add(TAKEN))).map_or(self.blocks, |n| n.min(self.blocks));
        for cell in self.base..self.base.wrapping_add(Self::cells(taken)) {
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
            }
        }
    }
}
