//! The virtual network of a frame: its VLAN tags and its PPPoE session.
//!
//! ```text
//! 12     14     16     18     20      22          24       26       28
//! +------+------+------+------+------+-----------+---------+--------+-----+----
//! | type | tag  | type | tag  | 8864 | 0x11 code | session | length | PPP | IP
//! +------+------+------+------+------+-----------+---------+--------+-----+----
//!   at most two tags             PPPoE session, if there is one
//! ```
//! The types and the order of tags are part of the network. The priority of a tag (PCP, DEI) is not. A tag with VLAN
//! number 0 has only a priority and is ignored. Source: IEEE 802.1Q, 6.9 and 9.6; RFC 2516 for PPPoE.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Packet;

/// The types of a tag, and the bits for each. Source: IEEE 802.1Q, 802.1ad, and the earlier type of QinQ.
const TYPES: [(u16, u16); 3] = [(CUSTOMER, 1 << 12), (SERVICE, 2 << 12), (0x9100, 3 << 12)];
const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;

/// The bits of the VLAN number, in a tag and in [`Vlan`].
const NUMBER: u16 = 0x0fff;

const PPPOE_SESSION: [u8; 2] = [0x88, 0x64];

/// Offset of an Ethernet frame's type, and of its payload if there are no tags.
const TYPE: usize = 12;
const PAYLOAD: usize = 14;

/// The virtual network of a frame. Its text is `vlan 10`, or `vlan 10/20` for two tags, the outer one first, `pppoe 7`
/// for a PPPoE session, and empty for a frame with neither.
///
/// The default type of a single tag is 0x8100, and that of the outer of two tags 0x88a8; other types follow the number:
/// `vlan 10@8100/20`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Named", try_from = "Named")]
pub struct Vlan {
    /// Type and VLAN number of each tag, the outer one first; 0 for none.
    tags: [u16; 2],
    /// The PPPoE session; 0 for none.
    session: u16,
}

impl Vlan {
    /// No tag and no session. If VLANs are not separate, every packet is in this network.
    pub const NONE: Vlan = Vlan { tags: [0; 2], session: 0 };

    /// Frames without a tag and a session, if they must be distinguished from [`Vlan::NONE`].
    pub const UNTAGGED: Vlan = Vlan { tags: [u16::MAX, 0], session: 0 };

    /// Whether this is [`Vlan::NONE`].
    #[inline]
    pub const fn is_none(self) -> bool {
        self.bits() == 0
    }

    /// A unique number below 2⁴⁸.
    #[inline]
    pub const fn bits(self) -> u64 {
        let Vlan { tags: [outer, inner], session } = self;
        (outer as u64) << 32 | (inner as u64) << 16 | session as u64
    }

    /// The inverse of [`Vlan::bits`].
    pub const fn from_bits(bits: u64) -> Vlan {
        Vlan { tags: [(bits >> 32) as u16, (bits >> 16) as u16], session: bits as u16 }
    }

    /// The PPPoE session.
    pub const fn session(self) -> Option<u16> {
        if self.session == 0 { None } else { Some(self.session) }
    }

    /// The same network with this PPPoE session.
    #[must_use]
    pub const fn in_session(self, session: u16) -> Vlan {
        Vlan { session, ..self }
    }

    /// Adds an inner tag. An unknown type and a third tag are ignored.
    fn push(&mut self, kind: u16, tag: u16) {
        let Some((_, bits)) = TYPES.iter().find(|(number, _)| *number == kind).filter(|_| tag & NUMBER != 0) else {
            return;
        };
        if let Some(place) = self.tags.iter_mut().find(|place| **place == 0) {
            *place = bits | tag & NUMBER;
        }
    }

    /// Type and number of each tag, the outer one first.
    pub fn stack(self) -> impl Iterator<Item = (u16, u16)> {
        let kind = |tag: u16| TYPES.iter().find(|(_, bits)| *bits == tag & !NUMBER).map(|(kind, _)| *kind);
        self.tags.into_iter().filter_map(move |tag| Some((kind(tag)?, tag & NUMBER)))
    }

    /// The text followed by the network, if there is one: `192.0.2.1 vlan 10`.
    pub fn behind(self, text: impl fmt::Display) -> String {
        format!("{text} {self}").trim_end().to_owned()
    }

    /// The text of the tags: `10`, `10/20`, `10@8100/20`; `None` without tags.
    pub fn tags(self) -> Option<String> {
        let stack: Vec<_> = self.stack().collect();
        let usual = if stack.len() == 2 { [SERVICE, CUSTOMER] } else { [CUSTOMER; 2] };
        let names = stack.iter().zip(usual).map(|((kind, number), usual)| match *kind == usual {
            true => number.to_string(),
            false => format!("{number}@{kind:04x}"),
        });
        Some(names.collect::<Vec<_>>().join("/")).filter(|names| !names.is_empty())
    }
}

impl Vlan {
    /// The tags in messages: those of [`Vlan::tags`], or `untagged` for [`Vlan::UNTAGGED`].
    pub fn label(self) -> Option<String> {
        if self == Vlan::UNTAGGED { Some(UNTAGGED.to_owned()) } else { self.tags() }
    }

    /// The network with this [`Vlan::label`] and [`Vlan::session`].
    ///
    /// # Errors
    /// The valid forms of a label.
    pub fn labelled(label: Option<&str>, session: Option<u16>) -> Result<Vlan, &'static str> {
        let tags = match label {
            None => Vlan::NONE,
            Some(UNTAGGED) => Vlan::UNTAGGED,
            Some(text) => text.parse::<Vlan>()?,
        };
        Ok(tags.in_session(session.unwrap_or_default()))
    }
}

impl Packet<'_> {
    /// The virtual network of its frame, from the frame's bytes.
    #[inline]
    pub fn vlan(&self) -> Vlan {
        if usize::from(self.network) <= PAYLOAD { Vlan::NONE } else { self.read_vlan() }
    }

    #[cold]
    fn read_vlan(&self) -> Vlan {
        of_header(self.frame.get(..self.network.into()).unwrap_or_default())
    }
}

/// The virtual network of a frame that is not a valid packet, as far as its headers show it.
#[cold]
pub fn of_frame(frame: &[u8]) -> Vlan {
    // The longest headers: Ethernet, two tags, PPPoE.
    of_header(&frame[..frame.len().min(PAYLOAD + 2 * 4 + 8)])
}

/// Reads the network from the bytes before the IP header.
fn of_header(header: &[u8]) -> Vlan {
    let mut vlan = Vlan::NONE;
    let mut rest = header.get(TYPE..).unwrap_or_default();
    for _ in 0..2 {
        let [k0, k1, t0, t1, behind @ ..] = rest else { break };
        let kind = u16::from_be_bytes([*k0, *k1]);
        if !TYPES.iter().any(|(number, _)| *number == kind) {
            break;
        }
        vlan.push(kind, u16::from_be_bytes([*t0, *t1]));
        rest = behind;
    }
    match rest {
        [k0, k1, _, _, s0, s1, ..] if [*k0, *k1] == PPPOE_SESSION => vlan.in_session(u16::from_be_bytes([*s0, *s1])),
        _ => vlan,
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = self.tags().map(|tags| format!("vlan {tags}"));
        let session = self.session().map(|session| format!("pppoe {session}"));
        f.write_str(&tags.into_iter().chain(session).collect::<Vec<_>>().join(" "))
    }
}

/// The text of the tags: `10`, `10/20`, `10@8100/20`.
impl FromStr for Vlan {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Vlan, Self::Err> {
        const WRONG: &str = "expected a VLAN from 1 to 4095, as `10`, or two, the outer one first, as `10/20`; another type of \
                             tag than usual stands behind it, as `10@8100/20`";
        let parts: Vec<&str> = text.split('/').collect();
        let usual: &[u16] = match parts.len() {
            1 => &[CUSTOMER],
            2 => &[SERVICE, CUSTOMER],
            _ => return Err(WRONG),
        };
        let mut vlan = Vlan::NONE;
        for (part, usual) in parts.iter().zip(usual) {
            let (number, kind) = match part.split_once('@') {
                Some((number, kind)) => (number, u16::from_str_radix(kind, 16).map_err(|_| WRONG)?),
                None => (*part, *usual),
            };
            let number = number.parse::<u16>().ok().filter(|number| (1..=NUMBER).contains(number)).ok_or(WRONG)?;
            if !TYPES.iter().any(|(known, _)| *known == kind) {
                return Err(WRONG);
            }
            vlan.push(kind, number);
        }
        Ok(vlan)
    }
}

/// The form in messages: fields of the object that contains it, absent for [`Vlan::NONE`].
#[derive(Serialize, Deserialize)]
struct Named {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vlan: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pppoe: Option<u16>,
}

/// [`Vlan::UNTAGGED`] in messages.
const UNTAGGED: &str = "untagged";

impl From<Vlan> for Named {
    fn from(vlan: Vlan) -> Named {
        Named { vlan: vlan.label(), pppoe: vlan.session() }
    }
}

impl TryFrom<Named> for Vlan {
    type Error = &'static str;

    fn try_from(Named { vlan, pppoe }: Named) -> Result<Vlan, Self::Error> {
        Vlan::labelled(vlan.as_deref(), pppoe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with these bytes after the Ethernet addresses.
    fn vlan(behind: &[u8]) -> Vlan {
        of_frame(&[&[2; 12], behind].concat())
    }

    #[test]
    fn tags_are_a_network_by_type_number_and_order_and_not_by_priority() {
        let cases: [(&[u8], &str); 12] = [
            (&[0x08, 0x00, 0x45, 0], ""),
            (&[0x81, 0x00, 0, 10, 0x08, 0x00], "vlan 10"),
            (&[0x81, 0x00, 0xf0, 10, 0x08, 0x00], "vlan 10"),
            (&[0x81, 0x00, 0xe0, 0, 0x08, 0x00], ""),
            (&[0x88, 0xa8, 0, 10, 0x08, 0x00], "vlan 10@88a8"),
            (&[0x88, 0xa8, 0, 10, 0x81, 0x00, 0, 20, 0x08, 0x00], "vlan 10/20"),
            (&[0x88, 0xa8, 0, 20, 0x81, 0x00, 0, 10, 0x08, 0x00], "vlan 20/10"),
            (&[0x81, 0x00, 0, 10, 0x81, 0x00, 0, 20, 0x08, 0x00], "vlan 10@8100/20"),
            (&[0x91, 0x00, 0, 10, 0x88, 0xa8, 0, 20, 0x08, 0x00], "vlan 10@9100/20@88a8"),
            (&[0x88, 0xa8, 0x60, 0, 0x81, 0x00, 0, 20, 0x08, 0x00], "vlan 20"),
            (&[0x88, 0x64, 0x11, 0, 0x12, 0x34, 0, 9, 0, 0x21, 0x45], "pppoe 4660"),
            (&[0x81, 0x00, 0x0f, 0xff, 0x88, 0x64, 0x11, 0, 0, 7, 0, 9, 0, 0x21], "vlan 4095 pppoe 7"),
        ];
        let mut seen = Vec::new();
        for (behind, name) in cases {
            let vlan = vlan(behind);
            assert_eq!(vlan.to_string(), name, "{behind:02x?}");
            assert_eq!(Vlan::from_bits(vlan.bits()), vlan);
            let told = serde_json::to_string(&vlan).unwrap();
            assert_eq!(serde_json::from_str::<Vlan>(&told).unwrap(), vlan, "{told}");
            seen.push((vlan, name));
        }
        for (one, its_name) in &seen {
            assert!(seen.iter().all(|(other, name)| (one == other) == (its_name == name)), "{its_name}");
        }
    }

    #[test]
    fn a_packet_without_tags_is_in_no_vlan_and_truncated_headers_are_read_to_their_end() {
        let bare = Packet::bare(super::super::Side::Outside, [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 6);
        assert!(bare.vlan().is_none() && !Vlan::UNTAGGED.is_none() && Vlan::UNTAGGED.to_string().is_empty());
        let told = [Vlan::NONE, Vlan::UNTAGGED].map(|vlan| serde_json::to_string(&vlan).unwrap());
        assert_eq!(told, ["{}", r#"{"vlan":"untagged"}"#]);
        assert_eq!(told.map(|told| serde_json::from_str::<Vlan>(&told).unwrap()), [Vlan::NONE, Vlan::UNTAGGED]);
        let frame = [&[2; 12][..], &[0x88, 0xa8, 0, 10, 0x81, 0x00, 0, 20, 0x88, 0x64, 0x11, 0, 0, 7]].concat();
        let names: Vec<String> = (0..=frame.len()).map(|length| of_frame(&frame[..length]).to_string()).collect();
        assert_eq!(
            (&names[15][..], &names[16][..], &names[20][..], &names[25][..], &names[26][..]),
            ("", "vlan 10@88a8", "vlan 10/20", "vlan 10/20", "vlan 10/20 pppoe 7")
        );
    }

    #[test]
    fn a_text_that_is_not_a_vlan_is_refused() {
        assert_eq!("10@8100/20".parse::<Vlan>().unwrap().to_string(), "vlan 10@8100/20");
        for wrong in ["", "0", "4096", "-1", "ten", "10/", "10/0", "10/20/30", "10@0800", "10@", "@8100", "10 "] {
            assert!(wrong.parse::<Vlan>().is_err(), "{wrong}");
        }
    }
}
