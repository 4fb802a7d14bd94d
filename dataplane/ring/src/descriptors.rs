//! The order in which the kernel releases the resources of a killed process, as far as a restart waits for them.
//!
//! The kernel closes descriptors from the highest number down, and waits for a grace period of RCU at some of them, 10 to
//! 20 ms each. So a resource with a high number is free early. Each [`Release`] has a range of numbers; other descriptors
//! have low numbers, and are closed last.
//!
//! Attachments of the XDP program are released at the same time, from another table (`attachment.rs`). The kernel holds its
//! RTNL lock while it waits at the last one, and at a drop behind the programs. A process that starts needs this lock to read an
//! interface, to attach and to bind. While the lock is held, the kernel closes AF_XDP sockets with an expedited grace period.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// The numbers of descriptors that [`make_room`] makes room for: the usual limit of a process.
const NUMBERS: libc::c_int = 1024;

/// The time of a resource's release, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The control socket: released at once, and the first resource that a start needs.
    ControlSocket,
    /// AF_XDP sockets: up to a grace period each, and one more until their queue is free.
    RingSocket,
    /// Packet sockets: a grace period each. A restart does not wait for them.
    PacketSocket,
}

impl Release {
    /// The lowest number of such descriptors. Sockets of more queues than have room here take the numbers of the release
    /// before, which only makes a restart slower.
    const fn lowest(self) -> libc::c_int {
        match self {
            Release::ControlSocket => 960,
            Release::RingSocket => 576,
            Release::PacketSocket => 512,
        }
    }
}

/// Makes the kernel's table of descriptors large enough for all releases. Called before the process has a second thread:
/// afterwards the kernel waits for a grace period of RCU when it enlarges the table.
pub fn make_room() {
    // SAFETY: no pointers; a failure has no effect. Standard input is open: the standard library opens it if it is not.
    let highest = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_DUPFD_CLOEXEC, NUMBERS - 1) };
    if highest >= 0 {
        // SAFETY: the descriptor is new and valid, and has no other owner.
        drop(unsafe { OwnedFd::from_raw_fd(highest) });
    }
}

/// Gives a descriptor a number of its release. It keeps its number if the limit of descriptors is lower; a restart then takes
/// longer.
pub fn place(descriptor: OwnedFd, release: Release) -> OwnedFd {
    // SAFETY: no pointers; the result is checked before use.
    let placed = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, release.lowest()) };
    if placed < 0 {
        return descriptor;
    }
    // SAFETY: the descriptor is new and valid, and has no other owner.
    unsafe { OwnedFd::from_raw_fd(placed) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _, pipe};

    use super::*;

    #[test]
    fn resources_that_a_restart_needs_first_are_closed_first() {
        let releases = [Release::ControlSocket, Release::RingSocket, Release::PacketSocket];
        let numbers = releases.map(|release| {
            let placed = place(File::open("/").expect("a folder").into(), release);
            assert!((release.lowest()..NUMBERS).contains(&placed.as_raw_fd()), "{release:?}");
            placed.as_raw_fd()
        });
        assert!(numbers.is_sorted_by(|first, next| first > next), "{numbers:?}");
    }

    #[test]
    fn a_placed_descriptor_is_the_same_open_file() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut writer = File::from(place(writer.into(), Release::PacketSocket));
        writer.write_all(b"placed").expect("written");
        drop(writer);
        let mut text = String::new();
        // The end of the file shows that no other descriptor of it is open.
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "placed");
    }
}
