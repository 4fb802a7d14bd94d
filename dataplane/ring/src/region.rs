//! Memory that is shared with the kernel: the chunks of a UMEM, or one ring of a socket.
//!
//! A [`Region`] owns its memory and releases it when it is dropped. The origin of the memory is hidden from the rest of
//! this crate: tests run the same code on heap memory.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{self, NonNull};

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
    /// Allocates memory and its pages.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        Self::map(-1, libc::MAP_ANONYMOUS, bytes, 0)
    }

    /// Maps the ring of this socket at `offset`, one of the constants `XDP_PGOFF_*` and `XDP_UMEM_PGOFF_*`.
    ///
    /// # Errors
    /// If the socket has no ring of this size at this offset.
    pub(crate) fn of_socket(socket: BorrowedFd<'_>, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(socket.as_raw_fd(), 0, bytes, offset)
    }

    fn map(fd: libc::c_int, flags: libc::c_int, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
            // SAFETY: the caller guarantees that `mmap` made this mapping, and that no reference to it exists any more.
            unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
        }
        let flags = flags | libc::MAP_SHARED | libc::MAP_POPULATE;
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

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the constructor that allocated this memory also set `release`. Only values that own the region keep
        // pointers into it.
        unsafe { (self.release)(self.start, self.bytes) };
    }
}
