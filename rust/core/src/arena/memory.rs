//! Memory of the cells: anonymous, and from its beginning on backed by a file where one is attached.

#[cfg(any(loom, miri))]
pub use heap::Memory;
#[cfg(not(any(loom, miri)))]
pub use mapping::Memory;

#[cfg(not(any(loom, miri)))]
mod mapping {
    use crate::error::Error;
    use memmap2::{MmapOptions, MmapRaw};
    use std::sync::atomic::AtomicU64;
    #[cfg(target_os = "linux")]
    use std::{ops::Range, os::fd::BorrowedFd};

    /// Anonymous memory, not the heap: with transparent huge pages a touched heap cell would cost 2 MiB resident, and an
    /// idle meter must stay under that in total.
    #[derive(Debug)]
    pub struct Memory {
        map: MmapRaw,
        len: usize,
        #[cfg(target_os = "linux")]
        pub file: super::super::file::Handle,
    }

    impl Memory {
        pub fn zeroed(len: usize) -> Result<Self, Error> {
            let bytes = len.saturating_mul(size_of::<AtomicU64>());
            let map = MmapOptions::new()
                .len(bytes)
                .no_reserve_swap()
                .map_anon()
                .map_err(|e| Error::Memory { bytes, cause: e.to_string() })?;
            #[cfg(target_os = "linux")]
            // Refused where the kernel has no huge pages: then there are none to avoid.
            let _ = map.advise(memmap2::Advice::NoHugePage);
            // Raw: cells are written through shared references, so no `&[u8]` to them may ever exist.
            Ok(Self::of(MmapRaw::from(map), len))
        }

        fn of(map: MmapRaw, len: usize) -> Self {
            Self {
                map,
                len,
                #[cfg(target_os = "linux")]
                file: super::super::file::Handle::default(),
            }
        }

        /// Gives the pages back to the system: they read as zero again. Only while no file is attached.
        #[cfg(target_os = "linux")]
        #[allow(unsafe_code)] // the mapping changes under references to it
        pub fn forget(&self) -> bool {
            // SAFETY: the mapping is private and anonymous, so each cell becomes a zero, which is a valid value; cells are atomics,
            // which may change under a shared reference. A store that another thread makes meanwhile may be lost; `Cells::forget`
            // excludes that, and its effect would be a different count, never undefined behaviour.
            unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed).is_ok() }
        }

        /// Other systems do not promise that the pages read as zero.
        #[cfg(not(target_os = "linux"))]
        #[allow(clippy::unused_self)] // the same signature as on Linux
        pub fn forget(&self) -> bool {
            false
        }

        #[inline]
        #[allow(unsafe_code)] // the one place where bytes become cells
        #[allow(clippy::cast_ptr_alignment)] // a mapping begins at a page
        pub fn cells(&self) -> &[AtomicU64] {
            // SAFETY: the mapping is page-aligned, `len * 8` bytes long, initialised with zeros or from a file, lives as long as
            // `self`, is only ever replaced in place (see `back`), and is reached through this function only: no other reference
            // to it exists.
            unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>().cast_const(), self.len) }
        }
    }

    #[cfg(target_os = "linux")]
    impl Memory {
        /// Maps the first `bytes` bytes of a file, to read only: a store to the cells would be a fault.
        pub fn of_file(file: BorrowedFd<'_>, bytes: usize) -> std::io::Result<Self> {
            use std::os::fd::AsRawFd;
            let map = MmapOptions::new().len(bytes).map_raw_read_only(file.as_raw_fd())?;
            Ok(Self::of(map, bytes.div_euclid(size_of::<AtomicU64>())))
        }

        /// Maps bytes of a file, which must be allocated, in the place of the same bytes of the memory. What these held is
        /// lost. The range consists of whole pages.
        #[allow(unsafe_code)] // the mapping changes under references to it
        pub fn back(&self, file: BorrowedFd<'_>, bytes: Range<usize>) -> std::io::Result<()> {
            use rustix::mm::{MapFlags, ProtFlags, mmap};
            if bytes.end > self.map.len() || bytes.is_empty() {
                return Err(std::io::ErrorKind::InvalidInput.into());
            }
            let (flags, offset) = (MapFlags::SHARED | MapFlags::FIXED, bytes.start as u64);
            // SAFETY: the range lies in the mapping, which this object owns, and is replaced in one step by pages that hold valid
            // cells too; atomics may change under a shared reference. The file is one of ours, which only grows: its pages stay.
            unsafe {
                let at = self.map.as_mut_ptr().add(bytes.start).cast();
                mmap(at, bytes.len(), ProtFlags::READ | ProtFlags::WRITE, flags, file, offset)?;
            }
            Ok(())
        }

        /// Puts zeroed private memory in the place of bytes that a file may have backed.
        #[allow(unsafe_code)] // as above
        pub fn unback(&self, bytes: Range<usize>) -> std::io::Result<()> {
            use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
            if bytes.end > self.map.len() || bytes.is_empty() {
                return Err(std::io::ErrorKind::InvalidInput.into());
            }
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            // SAFETY: as in `back`; each cell becomes a zero.
            unsafe {
                let at = self.map.as_mut_ptr().add(bytes.start).cast();
                mmap_anonymous(at, bytes.len(), ProtFlags::READ | ProtFlags::WRITE, flags)?;
            }
            let _ = self.map.advise(memmap2::Advice::NoHugePage);
            Ok(())
        }
    }
}

#[cfg(any(loom, miri))]
mod heap {
    use crate::error::Error;
    #[cfg(loom)]
    use loom::sync::atomic::AtomicU64;
    #[cfg(not(loom))]
    use std::sync::atomic::AtomicU64;

    #[derive(Debug)]
    pub struct Memory(Vec<AtomicU64>);

    impl Memory {
        #[allow(clippy::unnecessary_wraps)] // the same signature as the mapping
        pub fn zeroed(len: usize) -> Result<Self, Error> {
            Ok(Self((0..len).map(|_| AtomicU64::new(0)).collect()))
        }

        #[allow(clippy::unused_self)] // the same signature as the mapping
        pub fn forget(&self) -> bool {
            false
        }

        pub fn cells(&self) -> &[AtomicU64] {
            &self.0
        }
    }
}
