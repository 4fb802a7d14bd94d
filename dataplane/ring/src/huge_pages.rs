//! Huge pages: the kernel holds memory in pages of 2 MiB instead of 4 KiB, if the process asks for them. An access to
//! large tables then seldom waits for a page table.
//!
//! The kernel decides by `/sys/kernel/mm/transparent_hugepage/enabled`: `madvise` and `always` permit huge pages,
//! `never` does not. Source: Linux, Documentation/admin-guide/mm/transhuge.rst.

use std::io;
use std::ops::Range;
use std::ptr;

/// Size of a huge page on x86-64, and on AArch64 with pages of 4 KiB.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages in this range of addresses. Pages that exist stay as they are, until the kernel replaces them in
/// the background or [`collapse`] does.
///
/// # Errors
/// If the kernel has no huge pages, or no memory is mapped in a part of the range.
pub fn advise_huge_pages(memory: Range<usize>) -> io::Result<()> {
    advise(memory, libc::MADV_HUGEPAGE)
}

/// Replaces the pages of this range by huge pages at once, and allocates those that do not exist. A thread that
/// accesses a page meanwhile waits for a copy of 2 MiB.
///
/// # Errors
/// If the kernel cannot do this (before Linux 6.1), has too little contiguous memory, or no memory is mapped in a part
/// of the range. It replaces as many pages as it can.
pub fn collapse(memory: Range<usize>) -> io::Result<()> {
    advise(memory, libc::MADV_COLLAPSE)
}

/// Makes the kernel allocate all pages of this range now, so that no access waits for them.
///
/// # Errors
/// If memory does not suffice, before Linux 5.14, or if no memory is mapped in a part of the range.
pub fn populate(memory: Range<usize>) -> io::Result<()> {
    advise(memory, libc::MADV_POPULATE_WRITE)
}

/// Gives an advice about all pages that are at least partly in a range.
pub(crate) fn advise(memory: Range<usize>, advice: libc::c_int) -> io::Result<()> {
    let changes_no_contents =
        [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE, libc::MADV_POPULATE_WRITE, libc::MADV_DONTFORK].contains(&advice);
    assert!(changes_no_contents, "advice {advice}");
    // SAFETY: the call has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let start = memory.start / page * page;
    let bytes = memory.end.next_multiple_of(page) - start;
    // SAFETY: in this process, these advices change neither contents nor protection of memory, only the pages that have
    // the contents. So each reference to the memory stays valid. If no memory is mapped in the range, the call returns
    // an error.
    match unsafe { libc::madvise(ptr::without_provenance_mut(start), bytes, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(memory: &[u8]) -> Range<usize> {
        memory.as_ptr().addr()..memory.as_ptr().addr() + memory.len()
    }

    #[test]
    fn contents_stay() {
        let memory: Vec<u8> = (0..3 * HUGE_PAGE + 7).map(|index| (index % 251) as u8).collect();
        let before = memory.clone();
        // A kernel without huge pages refuses both, and then the contents stay as well.
        let _ = advise_huge_pages(addresses(&memory));
        let _ = collapse(addresses(&memory));
        assert_eq!(memory, before);
    }

    #[test]
    fn memory_that_is_not_mapped_is_an_error() {
        advise_huge_pages(HUGE_PAGE..HUGE_PAGE + 4096).expect_err("nothing is mapped there");
    }
}
