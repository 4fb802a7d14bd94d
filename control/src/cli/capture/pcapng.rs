//! pcapng: sections, interfaces, packets, and blocks that are copied unchanged. Source: draft-ietf-opsawg-pcapng.

use std::rc::Rc;

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block, EnhancedPacketBlock, InterfaceDescriptionBlock, OptionCode};

use super::link::Link;
use super::{Captured, Other, Record, check_length, in_words, time};

/// The type of packet blocks before they were enhanced. Source: as above, 11.
const OBSOLETE_PACKET: u32 = 2;

/// The settings of the blocks so far that apply to later blocks.
#[derive(Default)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

struct Interface {
    link: Result<Link, String>,
    name: Option<Rc<str>>,
    /// Ticks in a second; `None` if the number is too large.
    per_second: Option<u128>,
    offset_seconds: i64,
}

impl Section {
    pub(super) fn next<'c>(&mut self, bytes: &'c [u8], number: usize) -> Result<(&'c [u8], Record<'c>), String> {
        let read = if self.big_endian { pcap_parser::parse_block_be } else { pcap_parser::parse_block_le };
        let (rest, block) = read(bytes).map_err(in_words)?;
        let record = &bytes[..bytes.len() - rest.len()];
        let mut interface = None;
        match block {
            Block::SectionHeader(header) => {
                *self = Section { big_endian: header.big_endian(), interfaces: Vec::new() };
            }
            Block::InterfaceDescription(block) => {
                let described = Interface::of(&block, self.big_endian);
                interface = described.name.clone();
                self.interfaces.push(described);
            }
            Block::EnhancedPacket(packet) => return Ok((rest, self.packet(&packet, number, record)?)),
            Block::SimplePacket(_) => return Err("it has no time, which rules go by".to_owned()),
            Block::Unknown(block) if block.block_type == OBSOLETE_PACKET => {
                return Err("it is of an obsolete kind: convert the file with `editcap -F pcap`".to_owned());
            }
            _ => {}
        }
        Ok((rest, Record::Other(Other { interface, record })))
    }

    fn packet<'c>(
        &self,
        packet: &EnhancedPacketBlock<'c>,
        number: usize,
        record: &'c [u8],
    ) -> Result<Record<'c>, String> {
        let interface = self
            .interfaces
            .get(packet.if_id as usize)
            .ok_or_else(|| format!("the file does not describe its interface, {}", packet.if_id))?;
        check_length(packet.caplen, packet.orig_len())?;
        let per_second = interface.per_second.ok_or("its interface's clock is finer than can be")?;
        let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
        let data: &'c [u8] = packet.data;
        let data = data.get(..packet.caplen as usize).unwrap_or(data);
        Ok(Record::Packet(Captured {
            number,
            at: time(ticks, per_second, interface.offset_seconds),
            interface: interface.name.clone(),
            frame: interface.link.as_ref().map_err(Clone::clone)?.ethernet(data)?,
            record,
        }))
    }
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        let offset = block.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset
            .and_then(|option| option.value().first_chunk::<8>())
            .map_or(0, |bytes| if big_endian { i64::from_be_bytes(*bytes) } else { i64::from_le_bytes(*bytes) });
        Interface {
            link: Link::of((block.linktype.0 & 0xffff) as u16),
            name: block.if_name().and_then(Result::ok).map(Rc::from),
            per_second: ticks(block.if_tsresol),
            offset_seconds: offset,
        }
    }
}

/// Ticks in a second: a power of ten, or of two if the highest bit is set.
fn ticks(resolution: u8) -> Option<u128> {
    let exponent = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { 1_u128.checked_shl(exponent) }
}
