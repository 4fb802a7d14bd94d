//! Memory that is shared with the kernel: the chunks of a UMEM, or one ring of a socket.
//!
//! A [`Region`] owns its memory and releases it when it is dropped. The origin of the memory is hidden from the rest of
//! this crate: tests run the same code on heap memory.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{self, NonNull};

use crate::huge_pages::{HUGE_PAGE, advise, advise_huge_pages};

/// The smallest size of a page.
const PAGE: usize = 4096;

/// A page or more of zeros, readable and writable.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    bytes: usize,
    /// The function that releases the memory. Each constructor has its own.
    release: unsafe fn(NonNull<u8>, usize),
}

// SAFETY: the memory belongs to the region and not to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Allocates memory and its pages: huge pages, if the kernel gives them to memory that asks for them. Then a frame
    /// takes fewer entries of the TLB.
    ///
    /// The mapping is private, because the kernel gives shared memory no huge pages by default. It pins the pages of a
    /// UMEM, so it and the process access the same pages. A child process does not get them.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        // A huge page needs an aligned address, so the mapping is larger at first.
        let spare = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let length = bytes.checked_add(spare).ok_or(io::ErrorKind::OutOfMemory)?;
        let Region { start, .. } =
            *ManuallyDrop::new(Self::map(-1, libc::MAP_ANONYMOUS | libc::MAP_PRIVATE, length, 0)?);
        let before = if spare > 0 { start.as_ptr().align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: less than a huge page lies before the next aligned address, and the mapping has one to spare.
        let region = Region { start: unsafe { start.add(before) }, bytes, release: unmap };
        for (offset, bytes) in [(0, before), (before + bytes, spare - before)] {
            if bytes > 0 {
                // SAFETY: this part of the mapping is outside the region, and nothing refers to it.
                unsafe { unmap(start.add(offset), bytes) };
            }
        }
        // Without huge pages, and in a kernel without this advice, the region works as well.
        _ = advise_huge_pages(region.addresses());
        advise(region.addresses(), libc::MADV_DONTFORK)?;
        region.populate()?;
        Ok(region)
    }

    /// The addresses of the region.
    fn addresses(&self) -> Range<usize> {
        let start = self.start.addr().get();
        start..start + self.bytes
    }

    /// Makes the kernel allocate all pages of a new region.
    fn populate(&self) -> io::Result<()> {
        match advise(self.addresses(), libc::MADV_POPULATE_WRITE) {
            // Linux before 5.14.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                for page in (0..self.bytes).step_by(PAGE) {
                    // SAFETY: the byte is within the region, which nothing refers to yet. The write is volatile, so it
                    // is not omitted although the byte is already 0.
                    unsafe { self.start.add(page).write_volatile(0) };
                }
                Ok(())
            }
            populated => populated,
        }
    }

    /// Maps the ring of this socket at `offset`, one of the constants `XDP_PGOFF_*` and `XDP_UMEM_PGOFF_*`.
    ///
    /// # Errors
    /// If the socket has no ring of this size at this offset.
    pub(crate) fn of_socket(socket: BorrowedFd<'_>, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(socket.as_raw_fd(), libc::MAP_SHARED | libc::MAP_POPULATE, bytes, offset)
    }

    /// Maps the values of this array map, which has the flag `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// If the map is of another kind, or smaller.
    pub(crate) fn of_map(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map(map.as_raw_fd(), libc::MAP_SHARED, bytes, 0)
    }

    fn map(fd: libc::c_int, flags: libc::c_int, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: the kernel chooses an address at which nothing is mapped.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unasked");
        Ok(Region { start, bytes, release: unmap })
    }

    /// Allocates heap memory, for tests without a kernel.
    #[cfg(test)]
    pub(crate) fn plain(bytes: usize) -> Self {
        use std::alloc::{Layout, alloc_zeroed, dealloc};
        fn layout(bytes: usize) -> Layout {
            Layout::from_size_align(bytes, 4096).expect("a size that fits into memory")
        }
        unsafe fn free(start: NonNull<u8>, bytes: usize) {
            // SAFETY: the caller guarantees that this memory was allocated below, with the same layout.
            unsafe { dealloc(start.as_ptr(), layout(bytes)) };
        }
        assert!(bytes > 0);
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout(bytes)) }).expect("memory");
        Region { start, bytes, release: free }
    }

    /// A second view of the same memory, for the other end of a ring. Its drop releases nothing.
    ///
    /// # Safety
    /// The region that is borrowed outlives the returned one.
    #[cfg(test)]
    pub(crate) unsafe fn borrowed(&self) -> Self {
        unsafe fn keep(_: NonNull<u8>, _: usize) {}
        Region { start: self.start, bytes: self.bytes, release: keep }
    }

    /// The start of the region.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The length in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A pointer to `count` values of `T` at this offset in bytes. It is valid until the region is dropped.
    ///
    /// # Panics
    /// If the values do not lie within the region, or are not aligned.
    pub(crate) fn at<T>(&self, offset: usize, count: usize) -> NonNull<T> {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.bytes), "{count} values at {offset} of {} bytes", self.bytes);
        // SAFETY: the offset is within the region, as was just checked.
        let pointer = unsafe { self.start.add(offset) }.cast::<T>();
        assert!(pointer.is_aligned(), "values at {offset} are not aligned");
        pointer
    }
}

/// Releases a mapping, or pages of one.
///
/// # Safety
/// `mmap` made this mapping, and no reference to it exists any more.
unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: as the caller guarantees.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the constructor that allocated this memory also set `release`. Only values that own the region keep
        // pointers into it.
        unsafe { (self.release)(self.start, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_zeros_that_can_be_written() {
        for bytes in [PAGE, HUGE_PAGE - PAGE, HUGE_PAGE, 3 * HUGE_PAGE + PAGE] {
            let region = Region::anonymous(bytes).expect("memory");
            assert_eq!(region.bytes(), bytes);
            assert!(bytes < HUGE_PAGE || region.start().as_ptr().align_offset(HUGE_PAGE) == 0);
            for offset in [0, bytes / 2, bytes - 1] {
                let byte = region.at::<u8>(offset, 1);
                // SAFETY: the byte is within the region, and this thread alone refers to it.
                unsafe {
                    assert_eq!(byte.read(), 0);
                    byte.write(7);
                    assert_eq!(byte.read(), 7);
                }
            }
        }
    }
}
