//! The packets of a trace as a capture file: pcapng, with an interface for each side, and a comment for each packet.
//!
//! Each packet reaches the file at once, so that the file is whole whenever the trace ends.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use knockplane_policy::packet::Side;
use knockplane_policy::wire::trace::{TRACED_BYTES, TracedPacket};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::{DataLink, PcapError};

use super::super::Failed;
use crate::Exit;

/// The resolution of times: 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// A capture file that is being written.
pub(super) struct CaptureFile {
    file: PathBuf,
    writer: PcapNgWriter<File>,
}

impl CaptureFile {
    /// Creates the file, with its interfaces: outside, then inside.
    pub(super) fn create(file: &Path) -> Result<CaptureFile, Failed> {
        let failed = |error: PcapError| failed(file, &error);
        let created = File::create(file).map_err(|error| failed(PcapError::IoError(error)))?;
        let mut writer = PcapNgWriter::new(created).map_err(failed)?;
        for side in Side::ALL {
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: TRACED_BYTES as u32,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(side.name())),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            };
            writer.write_pcapng_block(interface).map_err(failed)?;
        }
        Ok(CaptureFile { file: file.to_owned(), writer })
    }

    /// Writes a packet with a comment.
    pub(super) fn write(&mut self, packet: &TracedPacket, comment: &str) -> Result<(), Failed> {
        let block = EnhancedPacketBlock {
            interface_id: packet.side.index() as u32,
            timestamp: Duration::from_nanos(packet.at),
            original_len: u32::try_from(packet.length).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&packet.bytes),
            options: vec![EnhancedPacketOption::Comment(Cow::Borrowed(comment))],
        };
        self.writer.write_pcapng_block(block).map(|_| ()).map_err(|error| failed(&self.file, &error))
    }
}

fn failed(file: &Path, error: &PcapError) -> Failed {
    Failed::new(Exit::Runtime, format!("{}: it cannot be written: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use knockplane_policy::reason::{Reason, Verdict};
    use pcap_parser::traits::PcapNGPacketBlock as _;
    use pcap_parser::{Block, OptionCode};

    use super::*;
    use crate::cli::capture::{Capture, CaptureRecord};

    fn packet(side: Side, bytes: &[u8], length: usize) -> TracedPacket {
        TracedPacket {
            at: 1_700_000_000_123_456_789,
            side,
            verdict: Verdict::Drop,
            reason: Reason::Rule,
            generation: 1,
            facts: None,
            bytes: bytes.to_vec(),
            length,
        }
    }

    #[test]
    fn another_reader_finds_frames_interfaces_times_and_comments() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pcapng");
        let mut writer = CaptureFile::create(&file).unwrap();
        writer.write(&packet(Side::Inside, &[7; 61], 61), "drop: a rule decided, line 5").unwrap();
        let capture = Capture::load(&file).unwrap();
        let packets: Vec<_> = capture
            .records()
            .unwrap()
            .1
            .map(Result::unwrap)
            .filter_map(|record| match record {
                CaptureRecord::Packet(captured) => Some(captured),
                CaptureRecord::Other(_) => None,
            })
            .collect();
        let [captured] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!(
            (captured.at.as_nanos(), captured.interface.as_deref()),
            (1_700_000_000_123_456_789, Some("inside"))
        );
        assert_eq!(&captured.frame[..], [7; 61]);
        let (_, block) = pcap_parser::parse_block_le(captured.record).unwrap();
        let Block::EnhancedPacket(block) = block else { panic!("{block:?}") };
        let comment = block.options.iter().find(|option| option.code == OptionCode::Comment).expect("a comment");
        assert_eq!(comment.value(), b"drop: a rule decided, line 5".as_slice());
        writer.write(&packet(Side::Outside, &[7; 512], 1_400), "").unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - u32::from_le_bytes(*bytes.last_chunk().unwrap()) as usize;
        let Block::EnhancedPacket(block) = pcap_parser::parse_block_le(&bytes[last..]).unwrap().1 else { panic!() };
        assert_eq!((block.caplen, block.orig_len(), block.if_id), (512, 1_400, 0));
    }
}
