//! A moment that a reader can choose: writers are in one of two phases, and never wait.

use crate::arena::Cells;

/// Writers that ever entered the current phase; the top bit says which of the two it is.
const ENTERED: usize = 0;
/// Writers that ever left each of the phases.
const LEFT: [usize; 2] = [1, 2];
/// Writers that had entered each of the phases when it was last closed.
const CLOSED_AT: [usize; 2] = [3, 4];
/// Whether a reader is at work.
const READING: usize = 5;

const PHASE: u64 = 1 << 63;
/// How often a reader looks before it sleeps between two looks, and how often after that: 0.1 s in all.
const LOOKS: u32 = 1000;
const SLEEPS: u32 = 2000;

/// One of the two phases: 0 between readings, 1 while a reader reads.
pub type Phase = usize;

/// The phases of writers in the arena: the `WriterReaderPhaser` of HdrHistogram.
///
/// A writer enters and leaves by one add each; the add that enters also tells it its phase, so that no writer is ever
/// between the two. A reader closes phase 0, waits until the writers that had entered it have left, and then finds
/// everything that they wrote, while later writers write elsewhere (phase 1). Then it opens phase 0 again.
///
/// Writers are wait-free. There is one reader at a time; a second one waits, for 0.1 s at most.
#[derive(Debug, Clone, Copy)]
pub struct Phaser {
    base: usize,
}

impl Phaser {
    /// Cells that it takes, best of one cache line.
    pub const CELLS: usize = 6;

    /// The phaser whose cells begin at `base`.
    pub const fn at(base: usize) -> Self {
        Self { base }
    }

    const fn cell(self, which: usize) -> usize {
        self.base.wrapping_add(which)
    }

    /// Enters as a writer and returns the phase.
    #[inline]
    pub fn enter(self, cells: &Cells) -> Phase {
        usize::from(cells.add_acquire_release(self.cell(ENTERED), 1) & PHASE != 0)
    }

    /// Leaves the phase that `enter` returned.
    #[inline]
    pub fn leave(self, cells: &Cells, phase: Phase) {
        let [zero, one] = LEFT;
        cells.add_release(self.cell(if phase == 0 { zero } else { one }), 1);
    }

    /// Becomes the one reader; false when another one has been at work all the time.
    pub fn begin(self, cells: &Cells) -> bool {
        patiently(|| cells.claim(self.cell(READING), 0, 1).is_ok())
    }

    /// Lets the next reader begin.
    pub fn finish(self, cells: &Cells) {
        cells.publish(self.cell(READING), 0);
    }

    /// Opens the other phase and closes the current one. Only for the one reader, and only where no writer is left in
    /// the other phase.
    pub fn flip(self, cells: &Cells) {
        let [closed_0, closed_1] = CLOSED_AT;
        let to_one = cells.get(self.cell(ENTERED)) & PHASE == 0;
        let (old, new, phase) = if to_one { (closed_0, closed_1, PHASE) } else { (closed_1, closed_0, 0) };
        let entered = cells.swap(self.cell(ENTERED), phase | cells.get(self.cell(new)));
        cells.set(self.cell(old), entered & !PHASE);
    }

    /// Waits until every writer has left a closed phase; false when one of them has stayed all the time.
    pub fn drained(self, cells: &Cells, phase: Phase) -> bool {
        let ([left_0, left_1], [closed_0, closed_1]) = (LEFT, CLOSED_AT);
        let (left, closed) = if phase == 0 { (left_0, closed_0) } else { (left_1, closed_1) };
        patiently(|| cells.observe(self.cell(left)) == cells.get(self.cell(closed)))
    }
}

#[cfg(not(loom))]
fn patiently(mut done: impl FnMut() -> bool) -> bool {
    for look in 0..LOOKS.saturating_add(SLEEPS) {
        if done() {
            return true;
        }
        if look < LOOKS {
            std::hint::spin_loop();
        } else {
            // The writer was sent to sleep in the middle of an event: it needs the processor more.
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
    done()
}

#[cfg(loom)]
fn patiently(mut done: impl FnMut() -> bool) -> bool {
    let _ = (LOOKS, SLEEPS);
    while !done() {
        loom::thread::yield_now();
    }
    true
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn phaser() -> (Cells, Phaser) {
        (Cells::zeroed(Phaser::CELLS).expect("cells"), Phaser::at(0))
    }

    #[test]
    fn a_closed_phase_is_drained_when_all_that_entered_it_have_left() {
        let (cells, phaser) = phaser();
        for _ in 0..3 {
            assert!(phaser.begin(&cells));
            let (a, b) = (phaser.enter(&cells), phaser.enter(&cells));
            assert_eq!((a, b), (0, 0));
            phaser.leave(&cells, a);
            phaser.flip(&cells);
            assert!(!phaser.drained(&cells, 0));
            let late = phaser.enter(&cells);
            assert_eq!(late, 1);
            phaser.leave(&cells, b);
            assert!(phaser.drained(&cells, 0));
            phaser.flip(&cells);
            assert_eq!(phaser.enter(&cells), 0);
            phaser.leave(&cells, 0);
            assert!(!phaser.drained(&cells, 1));
            phaser.leave(&cells, late);
            assert!(phaser.drained(&cells, 1));
            phaser.finish(&cells);
        }
    }

    #[test]
    fn a_second_reader_gives_up_while_another_is_at_work() {
        let (cells, phaser) = phaser();
        assert!(phaser.begin(&cells));
        assert!(!phaser.begin(&cells));
        phaser.finish(&cells);
        assert!(phaser.begin(&cells));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two counters a phase, after the phaser.
    const BANK: [usize; 2] = [8, 10];

    #[test]
    fn a_reader_finds_every_event_whole_or_not_at_all() {
        loom::model(|| {
            let cells = Arc::new(Cells::zeroed(12).expect("cells"));
            let phaser = Phaser::at(0);
            let write = move |cells: &Cells| {
                let phase = phaser.enter(cells);
                cells.add(BANK[phase], 1);
                cells.add(BANK[phase] + 1, 1);
                phaser.leave(cells, phase);
            };
            let read = move |cells: &Cells| {
                assert!(phaser.begin(cells) && phaser.drained(cells, 1));
                let [zero, one] = BANK;
                let before = (cells.get(one), cells.get(one + 1));
                phaser.flip(cells);
                assert!(phaser.drained(cells, 0));
                let now = (before.0 + cells.get(zero), before.1 + cells.get(zero + 1));
                phaser.flip(cells);
                phaser.finish(cells);
                now
            };
            let there = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || write(&cells))
            };
            let reader = {
                let cells = Arc::clone(&cells);
                thread::spawn(move || read(&cells))
            };
            write(&cells);
            let seen = reader.join().expect("joins");
            assert_eq!(seen.0, seen.1);
            there.join().expect("joins");
            assert_eq!(read(&cells), (2, 2));
        });
    }
}
