//! The attachment of a program to an interface: a descriptor, whose close detaches the program.
//!
//! The kernel closes the descriptors of a killed process one after the other. It waits for a grace period of RCU when it
//! detaches the last link of a program, and again for each AF_XDP socket. Descriptors of another table are closed at the same
//! time, so a restart waits for one of these, not for their sum: [`Attachment::keep_apart`] moves links to a thread with a
//! table of its own. It also begins before the kernel frees the memory of the process.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::{mem, ptr};

/// One link.
#[derive(Debug)]
pub(crate) enum Attachment {
    /// In the table of this process's other descriptors.
    Here(OwnedFd),
    /// In the table of a thread, with those of other interfaces.
    Apart {
        /// Detaches the programs when the last interface drops it.
        _held: Arc<Held>,
    },
}

impl Attachment {
    /// Replaces the program of the interface at once: no frame is lost.
    ///
    /// # Errors
    /// If the kernel refuses the program, or if the link is apart.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let Attachment::Here(link) = self else { return Err(io::Error::from(io::ErrorKind::Unsupported)) };
        // SAFETY: both descriptors are open. The call needs no options.
        match unsafe { libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), ptr::null()) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }

    /// Moves links to a table of their own.
    ///
    /// # Errors
    /// Without a thread, or if the kernel refuses a second table. The links then stay.
    pub(crate) fn keep_apart<const N: usize>(attachments: [&mut Attachment; N]) -> io::Result<()> {
        let links = attachments.iter().filter_map(|attachment| match attachment {
            Attachment::Here(link) => Some(link.as_raw_fd()),
            Attachment::Apart { .. } => None,
        });
        let held = Arc::new(Held::start(links.collect())?);
        for attachment in attachments {
            // The close in this table detaches nothing: the other table has the link as well.
            *attachment = Attachment::Apart { _held: Arc::clone(&held) };
        }
        Ok(())
    }
}

/// The thread that holds links in a table of its own.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its end ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Starts the thread, and returns when it holds the links and no other descriptor.
    fn start(links: Vec<RawFd>) -> io::Result<Held> {
        let (began, begun) = channel();
        let (end, ended) = channel::<()>();
        let hold = move || match own_table(links) {
            Ok(links) => {
                _ = began.send(Ok(()));
                // It only returns when the sender is dropped.
                _ = ended.recv();
                drop(links);
            }
            Err(error) => _ = began.send(Err(error)),
        };
        let thread = thread::Builder::new().name("links".to_owned()).spawn(hold)?;
        begun.recv().map_err(io::Error::other)??;
        Ok(Held { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It closes the links before it ends. It does not panic.
            _ = thread.join();
        }
    }
}

/// Gives this thread a table of descriptors with these links only.
fn own_table(mut links: Vec<RawFd>) -> io::Result<Vec<OwnedFd>> {
    block_signals()?;
    // SAFETY: no pointers. The call affects this thread only, which has used no descriptor yet.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    links.sort_unstable();
    let mut first = 0;
    for &link in &links {
        close_range(first, i64::from(link) - 1)?;
        first = link + 1;
    }
    close_range(first, i64::from(RawFd::MAX))?;
    // SAFETY: the table is a copy which belongs to this thread, and has these descriptors: they were open in the process until
    // now. They have no other owner in this table.
    Ok(links.into_iter().map(|link| unsafe { OwnedFd::from_raw_fd(link) }).collect())
}

/// Closes the descriptors of this thread's own table from `first` to `last`. Linux 5.9 has this call, as it has links of XDP
/// programs.
fn close_range(first: RawFd, last: i64) -> io::Result<()> {
    if i64::from(first) > last {
        return Ok(());
    }
    // SAFETY: no pointers. The descriptors are copies, which nobody uses.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last as libc::c_uint, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps signals from this thread. Their handlers write to descriptors that its table does not have.
fn block_signals() -> io::Result<()> {
    // SAFETY: a set of signals is plain memory, which the call fills.
    let all = unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    };
    // SAFETY: the set lives across the call; the old set is not requested.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read as _, Write as _, pipe};

    use super::*;

    /// The numbers of descriptors in the table of the thread of this name, if this process has one.
    fn descriptors(name: &str) -> Option<Vec<RawFd>> {
        let tasks = fs::read_dir("/proc/self/task").expect("this process").flatten();
        let task = tasks
            .map(|task| task.path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))?;
        let numbers = fs::read_dir(task.join("fd")).ok()?.flatten();
        Some(numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    #[test]
    fn links_alone_are_in_the_other_table_until_the_last_interface_drops_them() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let (other_reader, other) = pipe().expect("a pipe");
        let numbers = [writer.as_raw_fd(), other.as_raw_fd()];
        let [mut one, mut two] = [OwnedFd::from(writer), other.into()].map(Attachment::Here);
        Attachment::keep_apart([&mut one, &mut two]).expect("a thread");
        let mut held = descriptors("links").expect("the thread runs");
        held.sort_unstable();
        assert_eq!(held, numbers, "no other descriptor");
        // This table has the number no more, and the pipe is still open.
        let mut there = File::options().write(true).open(format!("/proc/self/fd/{}", numbers[0]));
        assert!(there.as_mut().map(|file| file.write_all(b"x")).is_err(), "closed in this table");
        drop(one);
        assert!(descriptors("links").is_some(), "the other interface uses it");
        drop(two);
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0, "both writers are closed when the drop returns");
        drop(other_reader);
    }
}
