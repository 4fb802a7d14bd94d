//! Reads captures: pcap and pcapng files, record by record. The records contain every byte of the file.
//!
//! A record contains its bytes in the file. A copy of the file's [`head`](Capture::head), of all records that are no
//! packets, and of a selection of the packets differs from the original file only in the omitted packets: byte order,
//! resolution of time, link type and comments do not change.
//!
//! | file        | owns |
//! |-------------|------|
//! | `mod.rs`    | the common part of both formats, and the errors of a file |
//! | `pcap.rs`   | pcap: one header, then packets |
//! | `pcapng.rs` | pcapng: sections, interfaces, packets, and blocks that are passed on |
//! | `link.rs`   | from a link type to an Ethernet frame |

mod link;
mod pcap;
mod pcapng;
#[cfg(test)]
pub(super) mod sample;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::rc::Rc;

use knockplane_limits::input::{self, InputError};
use knockplane_policy::time::Time;
use pcap_parser::PcapError;
use pcap_parser::nom;

/// Bytes that suffice to recognise a capture; the longest header has fewer.
const HEAD: u64 = 4096;

/// A capture file, in memory.
#[derive(Debug)]
pub(super) struct Capture {
    bytes: Vec<u8>,
}

/// A packet of a capture, or another record of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'c> {
    Packet(Captured<'c>),
    Other(Other<'c>),
}

/// A record of a pcapng file that is no packet: interfaces, names, statistics, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other<'c> {
    /// The name of the interface that the record describes.
    pub(super) interface: Option<Rc<str>>,
    /// The bytes of the record in the file.
    pub(super) record: &'c [u8],
}

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captured<'c> {
    /// The number of the packet, counted from 1 as in Wireshark.
    pub(super) number: usize,
    /// The time of the capture, in nanoseconds since 1970.
    pub(super) at: Time,
    /// The name of the interface that captured the packet; pcapng only.
    pub(super) interface: Option<Rc<str>>,
    /// The packet as an Ethernet frame. If the link was another one, an Ethernet header replaces the link's header.
    pub(super) frame: Cow<'c, [u8]>,
    /// The bytes of the whole record in the file.
    pub(super) record: &'c [u8],
}

/// An error in a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The number of the broken packet, or of the next one; `None` for the file as a whole.
    pub(super) packet: Option<usize>,
    pub(super) message: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packet {
            Some(number) => write!(f, "packet {number}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Capture {
    /// Reads the whole file. If it does not begin as a capture, the rest is not read.
    ///
    /// # Errors
    /// The cause, if the file cannot be read or is no capture.
    pub(super) fn load(file: &Path) -> Result<Capture, Broken> {
        let broken = |error: InputError| Broken { packet: None, message: format!("it {error}") };
        let mut reader = File::open(file).map_err(|error| broken(error.into()))?;
        let mut bytes = Vec::new();
        reader.by_ref().take(HEAD).read_to_end(&mut bytes).map_err(|error| broken(error.into()))?;
        let head = Capture { bytes };
        head.records()?;
        let bytes = input::read_from(head.bytes.chain(reader), &input::CAPTURE).map_err(broken)?;
        Ok(Capture { bytes })
    }

    /// The time of the first packet; 1970 if there is none.
    pub(super) fn begin(&self) -> Time {
        let Ok((_, records)) = self.records() else { return Time::default() };
        let first = records.map_while(Result::ok).find_map(|record| match record {
            Record::Packet(captured) => Some(captured.at),
            Record::Other(_) => None,
        });
        first.unwrap_or_default()
    }

    /// The bytes before the first record, and the records.
    ///
    /// # Errors
    /// If the file is no capture.
    pub(super) fn records(&self) -> Result<(&[u8], Records<'_>), Broken> {
        let broken = |message: String| Broken { packet: None, message };
        if self.bytes.starts_with(&pcap_parser::SHB_MAGIC.to_le_bytes()) {
            return Ok((
                &[],
                Records { rest: &self.bytes, number: 0, format: Format::PcapNg(pcapng::Section::default()) },
            ));
        }
        match pcap_parser::parse_pcap_header(&self.bytes) {
            Ok((rest, header)) => {
                let format = Format::Pcap(pcap::File::new(&header).map_err(broken)?);
                let head = &self.bytes[..self.bytes.len() - rest.len()];
                Ok((head, Records { rest, number: 0, format }))
            }
            Err(nom::Err::Incomplete(_)) => Err(broken("it is no capture: it is too short".to_owned())),
            Err(_) => Err(broken("it is no capture: neither pcap nor pcapng".to_owned())),
        }
    }
}

/// The records of a capture, in the file's order. The iterator ends after the first broken record.
pub(super) struct Records<'c> {
    rest: &'c [u8],
    /// The number of packets so far.
    number: usize,
    format: Format,
}

enum Format {
    Pcap(pcap::File),
    PcapNg(pcapng::Section),
}

impl<'c> Iterator for Records<'c> {
    type Item = Result<Record<'c>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = self.number + 1;
        let read = match &mut self.format {
            Format::Pcap(file) => file.next(self.rest, number),
            Format::PcapNg(section) => section.next(self.rest, number),
        };
        match read {
            Ok((rest, record)) => {
                self.rest = rest;
                self.number += usize::from(matches!(record, Record::Packet(_)));
                Some(Ok(record))
            }
            Err(message) => {
                self.rest = &[];
                Some(Err(Broken { packet: Some(number), message }))
            }
        }
    }
}

/// Converts ticks of a clock and seconds to nanoseconds; `per_second` ticks are one second.
fn time(ticks: u64, per_second: u128, offset_seconds: i64) -> Time {
    let ns = u128::from(ticks) * 1_000_000_000 / per_second;
    let ns = i128::try_from(ns).unwrap_or(i128::MAX).saturating_add(i128::from(offset_seconds) * 1_000_000_000);
    // No packet arrives at NEVER.
    Time::from_nanos(u64::try_from(ns.max(0)).unwrap_or(u64::MAX - 1))
}

/// Whether the packet was captured whole.
fn check_length(captured: u32, original: u32) -> Result<(), String> {
    if captured < original {
        return Err(format!(
            "it is cut short, {captured} of its {original} bytes were captured: capture whole packets (tcpdump -s 0)"
        ));
    }
    Ok(())
}

/// The text for a record that cannot be read.
fn in_words<E: fmt::Debug>(error: nom::Err<PcapError<E>>) -> String {
    match error {
        nom::Err::Incomplete(_) => "the file ends in the middle of it".to_owned(),
        nom::Err::Error(PcapError::NomError(_, kind)) | nom::Err::Failure(PcapError::NomError(_, kind)) => {
            format!("the file is damaged here ({kind:?})")
        }
        nom::Err::Error(_) | nom::Err::Failure(_) => "the file is damaged here".to_owned(),
    }
}
