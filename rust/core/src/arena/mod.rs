//! The arena: atomic cells by index, and the phaser by which a reader waits for writers.

mod cells;
mod phaser;

pub use cells::*;
pub use phaser::*;
