//! Pipelines: spans of runs that have ended, and the tree that they make under a root.

#[cfg(all(test, not(loom)))]
mod oracle;
mod spans;
mod tree;

pub use spans::{MAX_SPANS, Span, Spans};
pub use tree::Tree;
