//! Promiscuous mode: the interface receives frames for all addresses, which an inline filter needs. Source: packet(7).

use std::io;
use std::mem;
use std::os::fd::AsRawFd as _;
use std::sync::PoisonError;

use super::{Device, socket};
use crate::descriptors::{Release, place};
use crate::error::RingError;

impl Device {
    /// Makes the interface receive frames for all addresses. The kernel counts such requests: this request does not
    /// affect those of other processes. It ends when this value is dropped or the process ends.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or if the interface has been removed.
    pub fn promiscuous(&self) -> Result<(), RingError> {
        let failed = |error| {
            RingError::system(format!("promiscuous mode on {}", self.name), error, "run as root or with CAP_NET_RAW")
        };
        // Protocol 0: the socket itself receives nothing.
        let packet = place(socket(libc::AF_PACKET, libc::SOCK_RAW).map_err(failed)?, Release::PacketSocket);
        let membership = libc::packet_mreq {
            mr_ifindex: self.index as i32,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        // SAFETY: the option takes a packet_mreq of this size, which lives across the call.
        let result = unsafe {
            libc::setsockopt(
                packet.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const membership).cast(),
                mem::size_of_val(&membership) as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // An earlier request ends after this one has begun.
        *self.promiscuous.lock().unwrap_or_else(PoisonError::into_inner) = Some(packet);
        Ok(())
    }
}
