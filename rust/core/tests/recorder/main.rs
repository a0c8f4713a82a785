//! What each event leaves in a snapshot.
#![cfg(not(loom))]

mod budgets;
mod calls;
mod common;
mod labels;
mod runs;
