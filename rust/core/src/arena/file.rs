//! The file that backs the first part of an arena: opened, locked, allocated.

use super::region::PAGE;
use super::{Cells, memory::Memory};
use crate::stops::stop;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, open};
use rustix::io::{Errno, retry_on_intr};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

const BYTES: usize = size_of::<u64>();

/// The descriptor of an attached file, -1 for none. It holds the lock on the file: who has it is alive.
///
/// Not a mutex around the descriptor: a fork may leave one held, and the child has to close the file first of all.
#[derive(Debug)]
pub struct Handle {
    fd: AtomicI32,
    read_only: bool,
}

impl Default for Handle {
    fn default() -> Self {
        Self { fd: AtomicI32::new(-1), read_only: false }
    }
}

impl Handle {
    fn take(&self) -> Option<OwnedFd> {
        let fd: RawFd = self.fd.swap(-1, Ordering::AcqRel);
        #[allow(unsafe_code)] // an integer becomes the owner again
        // SAFETY: the descriptor comes from `into_raw_fd` of an owner, and the swap gives it to one caller only.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl Cells {
    /// Opens a new file of this name, locked, in which nothing is allocated yet; the cells' memory is as before.
    pub fn attach(&self, path: &Path, mode: u32) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = open(path, flags, Mode::from_raw_mode(mode))?;
        stop!(Opened);
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        stop!(Locked);
        let before = self.0.file.fd.swap(file.into_raw_fd(), Ordering::AcqRel);
        debug_assert_eq!(before, -1, "a file is attached already");
        Ok(())
    }

    /// Whether a file is attached.
    pub fn is_attached(&self) -> bool {
        self.0.file.fd.load(Ordering::Acquire) >= 0
    }

    /// Whether the cells are those of another process' file.
    pub const fn is_read_only(&self) -> bool {
        self.0.file.read_only
    }

    /// Closes the file, which releases its lock, and puts zeroed memory in the place of `cells`, whole pages.
    pub fn detach(&self, cells: Range<usize>) {
        if let Some(file) = self.0.file.take() {
            // It fails where the process has too many mappings. Then the file goes on being written, and its lock is gone.
            let _ = self.0.unback(in_bytes(&cells));
            drop(file);
        }
    }

    /// Allocates the same bytes of the file as those of `cells`, whole pages, and maps them there. Does nothing without a
    /// file.
    pub fn back(&self, cells: Range<usize>) -> io::Result<()> {
        let fd = self.0.file.fd.load(Ordering::Acquire);
        if fd < 0 || cells.is_empty() {
            return Ok(());
        }
        #[allow(unsafe_code)] // an integer is lent as a descriptor
        // SAFETY: the descriptor is closed by `detach` only, which no thread calls while others record.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let bytes = in_bytes(&cells);
        stop!(Allocating);
        allocated(file, &bytes)?;
        stop!(Allocated);
        self.0.back(file, bytes)?;
        stop!(Mapped);
        Ok(())
    }

    /// Maps a file to read it. Its length has to be whole cells, and `least` at least.
    pub fn of_file(path: &Path, least: usize) -> io::Result<Self> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
        stop!(FileOpened);
        let bytes = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        if bytes / BYTES < least {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut memory = Memory::of_file(file.as_fd(), bytes)?;
        memory.file.read_only = true;
        stop!(FileMapped);
        Ok(Self(memory))
    }
}

fn in_bytes(cells: &Range<usize>) -> Range<usize> {
    debug_assert!(cells.start.is_multiple_of(PAGE) && cells.end.is_multiple_of(PAGE), "{cells:?} are not whole pages");
    cells.start.saturating_mul(BYTES)..cells.end.saturating_mul(BYTES)
}

/// Allocates bytes of a file. Where the file system cannot, zeros are written: what is written has its place too.
fn allocated(file: BorrowedFd<'_>, bytes: &Range<usize>) -> io::Result<()> {
    let (from, len) = (bytes.start as u64, bytes.len() as u64);
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), from, len)) {
        Err(Errno::OPNOTSUPP) => {}
        other => return Ok(other?),
    }
    let zeros = [0_u8; 1 << 12];
    let mut at = bytes.start;
    while at < bytes.end {
        let chunk = zeros.get(..bytes.end.saturating_sub(at).min(zeros.len())).unwrap_or_default();
        at = at.saturating_add(retry_on_intr(|| rustix::io::pwrite(file, chunk, at as u64))?);
    }
    Ok(())
}

/// Whether a process holds the lock of a file: it lives.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
