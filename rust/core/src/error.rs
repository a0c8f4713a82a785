//! The error type of the core.

/// What the core refuses, with the value, the allowed range and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting outside its range.
    #[error("{name} = {value} is out of range: allowed is {allowed}")]
    OutOfRange {
        /// Name of the setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// The allowed range, in words.
        allowed: &'static str,
    },
    /// The operating system would not give the address space.
    #[error(
        "could not reserve {bytes} bytes of address space for the recorder ({cause}); \
         lower max_series, max_runs or significant_digits, or allow overcommit"
    )]
    Memory {
        /// Bytes of address space requested.
        bytes: usize,
        /// Message of the system.
        cause: String,
    },
    /// A file of a recorder that cannot be made, or not be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// Message of the system, or what is wrong with it.
        why: String,
    },
    /// Bytes or text that are not a snapshot, or are damaged.
    #[error("not a langmeter snapshot: {0}")]
    Malformed(String),
    /// A snapshot of a newer langmeter.
    #[error("snapshot format {found} is newer than {known}, the newest this langmeter reads; upgrade langmeter")]
    Version {
        /// Version in the bytes.
        found: u16,
        /// Newest known version.
        known: u16,
    },
    /// `b - a` of snapshots from two processes.
    #[error(
        "cannot subtract the snapshot of another process of the same forks; add them, or subtract one's own earlier one"
    )]
    Stranger,
    /// `b - a` of snapshots from two recorders.
    #[error(
        "cannot subtract the snapshot of another recorder: the process was restarted, or another meter was made; \
         what came after is the later snapshot itself, and both together are their sum"
    )]
    Restarted,
    /// `b - a` where `a` is not contained in `b`.
    #[error(
        "cannot subtract: {what} is {left} on the left and {right} on the right; \
         b - a needs an `a` that was taken earlier from the same recorder, or is a part of the sum `b`"
    )]
    NotEarlier {
        /// Name of the first count that would go below zero.
        what: String,
        /// Its value on the left.
        left: u64,
        /// Its value on the right.
        right: u64,
    },
}
