//! The arena: atomic cells by index, in memory and partly in a file, and the phaser by which a reader waits for writers.

mod cells;
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
mod file;
mod memory;
mod phaser;
mod region;

pub use cells::*;
#[cfg(all(target_os = "linux", not(any(loom, miri))))]
pub use file::is_held;
pub use phaser::*;
pub use region::{PAGE, Region};
