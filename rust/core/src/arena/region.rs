//! Regions of the arena that are used unit by unit, and backed by the file piece by piece.

use super::Cells;
use crate::stops::stop;

/// Cells of a region's header: units that may not be used yet | units that the file backs | whether a thread is growing it.
const WITHHELD: usize = 0;
const BACKED: usize = 1;
const GROWING: usize = 2;

/// A region of `units` units, of which the first ones are in use.
///
/// Without a file all units may be used at once: the system gives pages when they are touched. With one, only units whose
/// pages are allocated in the file may be: a touched page without room on the disk would kill the process (SIGBUS). More are
/// allocated ahead of need by [`Region::grow_ahead`], and by the thread that needs one where that came too late. Where the
/// file cannot grow, the rest of the units lie in memory, where readers of the file do not see them.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// The first cell of its header.
    header: usize,
    /// Where the first unit begins, at the begin of a page, and how many cells a unit has: of its two parts, which lie apart.
    parts: [(usize, usize); 2],
    units: usize,
    piece: usize,
}

impl Region {
    /// Cells of its header.
    pub const CELLS: usize = 4;

    /// The region of `units` units of `unit` cells from `first` on, which grows by `piece` units.
    pub const fn at(header: usize, first: usize, unit: usize, units: usize, piece: usize) -> Self {
        Self { header, parts: [(first, unit), (0, 0)], units, piece }
    }

    /// The same with a second part of each unit, of `unit` cells, from `first` on.
    #[must_use]
    pub const fn beside(self, first: usize, unit: usize) -> Self {
        let [part, _] = self.parts;
        Self { parts: [part, (first, unit)], ..self }
    }

    const fn cell(self, which: usize) -> usize {
        self.header.wrapping_add(which)
    }

    fn usable(self, cells: &Cells) -> u64 {
        (self.units as u64).saturating_sub(cells.observe(self.cell(WITHHELD)))
    }

    /// Whether the unit of this number may be used.
    #[inline]
    pub fn has(self, cells: &Cells, unit: u64) -> bool {
        unit < self.usable(cells) || (unit < self.units as u64 && self.grow_to(cells, unit))
    }

    /// Units that can be read: those that the file backs, where only the file is seen.
    pub fn readable(self, cells: &Cells) -> usize {
        if cells.is_read_only() {
            usize::try_from(cells.observe(self.cell(BACKED))).map_or(self.units, |n| n.min(self.units))
        } else {
            self.units
        }
    }

    /// Makes sure that a quarter of a piece is free behind the units in use. Returns whether the file backs what it should.
    pub fn grow_ahead(self, cells: &Cells, used: u64) -> bool {
        let ahead = used.saturating_add(self.piece as u64 / 4).min((self.units as u64).saturating_sub(1));
        self.has(cells, ahead) && self.usable(cells) == cells.get(self.cell(BACKED))
    }

    /// Backs the first piece of an unused region.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    pub fn begin(self, cells: &Cells) -> std::io::Result<()> {
        let units = self.piece.min(self.units);
        self.back(cells, 0, units)?;
        cells.set(self.cell(BACKED), units as u64);
        cells.publish(self.cell(WITHHELD), self.units.saturating_sub(units) as u64);
        Ok(())
    }

    /// The cell behind the last unit that the file backs.
    #[cfg(all(target_os = "linux", not(any(loom, miri))))]
    pub fn end(self, cells: &Cells) -> usize {
        let [one, other] = self.ranges(0, self.readable(cells));
        one.end.max(other.end)
    }

    #[cold]
    #[allow(clippy::cast_possible_truncation)] // at most `units`
    fn grow_to(self, cells: &Cells, unit: u64) -> bool {
        for _ in 0..WAITS {
            if unit < self.usable(cells) {
                return true;
            }
            if cells.claim(self.cell(GROWING), 0, 1).is_ok() {
                stop!(Growing);
                let usable = self.usable(cells);
                if unit >= usable {
                    let from = usable as usize;
                    let to = from.saturating_add(self.piece).max((unit as usize).saturating_add(1)).min(self.units);
                    let mut left = 0;
                    if self.back(cells, from, to).is_ok() {
                        cells.set(self.cell(BACKED), to as u64);
                        left = self.units.saturating_sub(to) as u64;
                    }
                    cells.publish(self.cell(WITHHELD), left);
                }
                stop!(Grown);
                cells.publish(self.cell(GROWING), 0);
                return true;
            }
            pause();
        }
        false
    }

    fn back(self, cells: &Cells, from: usize, to: usize) -> Backed {
        let [one, other] = self.ranges(from, to);
        cells.back(one)?;
        cells.back(other)
    }

    /// Cells of units, by whole pages: the page on which two pieces meet belongs to the first.
    fn ranges(self, from: usize, to: usize) -> [std::ops::Range<usize>; 2] {
        self.parts.map(|(first, unit)| {
            let end = |units: usize| units.saturating_mul(unit).next_multiple_of(PAGE).saturating_add(first);
            end(from)..end(to)
        })
    }
}

/// Cells of a page; of one of 64 KiB, which some ARM kernels have.
pub const PAGE: usize = 8192;
/// How often a thread waits 50 µs for another that is growing the region: 0.1 s in all.
const WAITS: u32 = if cfg!(loom) { 8 } else { 2000 };

#[cfg(all(target_os = "linux", not(any(loom, miri))))]
type Backed = std::io::Result<()>;
#[cfg(any(not(target_os = "linux"), loom, miri))]
type Backed = Result<(), ()>;

#[cfg(any(not(target_os = "linux"), loom, miri))]
impl Cells {
    /// Whether the cells are those of another process' file: never here.
    #[allow(clippy::unused_self)] // the same signature as with files
    pub const fn is_read_only(&self) -> bool {
        false
    }

    #[allow(clippy::unused_self, clippy::needless_pass_by_value, clippy::unnecessary_wraps)] // the same signature as with files
    fn back(&self, _cells: std::ops::Range<usize>) -> Backed {
        Ok(())
    }
}

#[cfg(not(loom))]
fn pause() {
    std::thread::sleep(std::time::Duration::from_micros(50));
}

#[cfg(loom)]
fn pause() {
    loom::thread::yield_now();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_all_units_may_be_used() {
        let cells = Cells::zeroed(2 * PAGE).expect("cells");
        let region = Region::at(0, PAGE, 100, 5, 2);
        assert!(region.has(&cells, 4) && !region.has(&cells, 5));
        assert_eq!(region.readable(&cells), 5);
    }

    #[test]
    fn withheld_units_come_by_pieces_and_at_least_as_many_as_are_needed() {
        let cells = Cells::zeroed(2 * PAGE).expect("cells");
        let region = Region::at(0, PAGE, 100, 9, 2);
        cells.set(WITHHELD, 7);
        assert_eq!(region.usable(&cells), 2);
        assert!(region.has(&cells, 1));
        assert_eq!(region.usable(&cells), 2);
        assert!(region.has(&cells, 2));
        assert_eq!(region.usable(&cells), 4);
        assert!(region.has(&cells, 8) && !region.has(&cells, 9));
        assert_eq!(region.usable(&cells), 9);
    }

    #[test]
    fn a_thread_does_not_wait_for_ever_for_another_that_grows() {
        let cells = Cells::zeroed(2 * PAGE).expect("cells");
        let region = Region::at(0, PAGE, 100, 9, 2);
        cells.set(WITHHELD, 7);
        cells.set(GROWING, 1);
        assert!(!region.has(&cells, 2));
    }

    #[test]
    fn pieces_are_whole_pages_and_meet() {
        let region = Region::at(0, PAGE, 5000, 9, 2);
        let (part, none) = (|from, to| region.ranges(from, to)[0].clone(), region.ranges(2, 4)[1].clone());
        assert_eq!((part(0, 2), part(2, 4), none), (PAGE..3 * PAGE, 3 * PAGE..4 * PAGE, 0..0));
        let both = region.beside(9 * PAGE, PAGE).ranges(2, 4);
        assert_eq!(both, [3 * PAGE..4 * PAGE, 11 * PAGE..13 * PAGE]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn two_threads_that_need_a_piece_at_once_get_one_piece() {
        loom::model(|| {
            let cells = Arc::new(Cells::zeroed(8).expect("cells"));
            let region = Region::at(0, 8, 1, 6, 2);
            cells.set(WITHHELD, 4);
            let other = {
                let cells = Arc::clone(&cells);
                loom::thread::spawn(move || region.has(&cells, 2))
            };
            assert!(region.has(&cells, 3));
            assert!(other.join().expect("joins"));
            assert_eq!((region.usable(&cells), cells.get(GROWING)), (4, 0));
        });
    }
}
