//! Pool of bucket blocks.

use super::Layout;
use crate::arena::{Cells, Region};

/// Number of blocks handed out, one block that was returned, and the header of the region.
const TAKEN: usize = 0;
const SPARE: usize = 1;
const REGION: usize = 2;
const _: () = assert!(REGION + Region::CELLS <= Pool::HEADER);
/// Blocks of a piece of a file: 512 KiB.
const PIECE: usize = 1024;

/// Blocks of 64 buckets in the arena, which histograms take as values fall into them, and keep.
///
/// Blocks are numbered from 1: 0 is none, as in a fresh arena.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    header: usize,
    first: usize,
    blocks: usize,
    pub(crate) region: Region,
}

impl Pool {
    /// The most blocks of a pool: 8 GiB of them.
    pub const MOST: usize = (1 << 24) - 1;
    /// Cells of its header.
    pub const HEADER: usize = 8;

    /// Cells of a pool of `blocks` blocks, with its header.
    pub const fn cells(blocks: usize) -> usize {
        Self::HEADER.saturating_add(Self::block_cells(blocks))
    }

    /// Cells of its blocks alone.
    pub const fn block_cells(blocks: usize) -> usize {
        blocks.saturating_mul(Layout::BLOCK)
    }

    /// The pool whose cells begin at `base`, preferably a multiple of 8.
    pub const fn at(base: usize, blocks: usize) -> Self {
        Self::apart(base, base.saturating_add(Self::HEADER), blocks)
    }

    /// The pool whose header begins at `header`, and its blocks at `first`.
    pub const fn apart(header: usize, first: usize, blocks: usize) -> Self {
        let region = Region::at(header.saturating_add(REGION), first, Layout::BLOCK, blocks, PIECE);
        Self { header, first, blocks, region }
    }

    /// Blocks that were handed out.
    pub fn taken(self, cells: &Cells) -> u64 {
        cells.get(self.header.wrapping_add(TAKEN)).min(self.blocks as u64)
    }

    /// Takes a block, all zero; None when there is none left.
    pub(super) fn take(self, cells: &Cells) -> Option<u64> {
        let spare = cells.swap(self.header.wrapping_add(SPARE), 0);
        if spare != 0 {
            return Some(spare);
        }
        let taken = self.header.wrapping_add(TAKEN);
        // The counter stays at the end: an empty pool is asked repeatedly.
        let n = if cells.get(taken) < self.blocks as u64 { cells.add(taken, 1) } else { u64::MAX };
        self.region.has(cells, n).then(|| n.wrapping_add(1))
    }

    /// Returns a block that was not written. Of two blocks returned at the same moment one is lost.
    pub(super) fn give_back(self, cells: &Cells, block: u64) {
        cells.swap(self.header.wrapping_add(SPARE), block);
    }

    /// The first bucket of a block.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // at most `blocks`
    pub(super) const fn first(self, block: u64) -> usize {
        let before = (block as usize).wrapping_sub(1).wrapping_mul(Layout::BLOCK);
        self.first.wrapping_add(before)
    }

    /// Back to zero; call it only while no thread records.
    pub fn clear(self, cells: &Cells) {
        let taken = usize::try_from(self.taken(cells)).unwrap_or(self.blocks);
        let header = self.header..self.header.wrapping_add(Self::HEADER);
        for cell in header.chain(self.first..self.first.wrapping_add(Self::block_cells(taken))) {
            if cells.get(cell) != 0 {
                cells.set(cell, 0);
            }
        }
    }
}
