//! pcap: one header, then packets. Source: draft-ietf-opsawg-pcap.

use pcap_parser::{LegacyPcapBlock, PcapError, PcapHeader, nom};

use super::link::LinkType;
use super::{CaptureRecord, Captured, check_length, in_words, time};

type Read<'c> = nom::IResult<&'c [u8], LegacyPcapBlock<'c>, PcapError<&'c [u8]>>;

/// The settings of the header that apply to all packets.
pub(super) struct PcapSettings {
    link: LinkType,
    /// Units of the fraction in one second.
    per_second: u32,
    read: for<'c> fn(&'c [u8]) -> Read<'c>,
}

impl PcapSettings {
    pub(super) fn new(header: &PcapHeader) -> Result<Self, String> {
        // The upper half is the length of the checksum behind each frame.
        let link = LinkType::of((header.network.0 & 0xffff) as u16)?;
        let per_second = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
        let read = match header {
            _ if header.is_modified_format() => pcap_parser::parse_pcap_frame_modified,
            _ if header.is_bigendian() => pcap_parser::parse_pcap_frame_be,
            _ => pcap_parser::parse_pcap_frame,
        };
        Ok(PcapSettings { link, per_second, read })
    }

    pub(super) fn next<'c>(&self, bytes: &'c [u8], number: usize) -> Result<(&'c [u8], CaptureRecord<'c>), String> {
        let (rest, packet) = (self.read)(bytes).map_err(in_words)?;
        check_length(packet.caplen, packet.origlen)?;
        let per_second = u64::from(self.per_second);
        let ticks = u64::from(packet.ts_sec) * per_second + u64::from(packet.ts_usec);
        let captured = Captured {
            number,
            at: time(ticks, per_second.into(), 0),
            interface: None,
            frame: self.link.ethernet(packet.data)?,
            record: &bytes[..bytes.len() - rest.len()],
        };
        Ok((rest, CaptureRecord::Packet(captured)))
    }
}
