//! Packets that do not restart a strict knock although they match no step of it: packets to ports that doors open.
//!
//! A client with an open door uses it: mosh sends packets continuously, and ssh is often started before the knock. Such
//! packets are no evidence of a wrong order of the steps, so the knock continues.
//!
//! | a packet to                               | is exempt at a door |
//! |-------------------------------------------|---------------------|
//! | ports that the door itself opens          | always |
//! | ports that another door opens             | while that door is open for its source and destination |
//! | anything, at a door that opens everything | while the door itself is open for its source and destination |
//!
//! A step is never exempt. Exemptions must not help a port scan, because an exempt packet between two steps does not
//! restart the knock. Therefore ports are exempt only under two conditions. They are at most half of their protocol's
//! ports. And a scan in ascending or descending port order, over TCP and UDP one after the other or alternating, meets
//! another port between any two consecutive steps. If the conditions fail, ports of other doors are not exempt. If they
//! fail for the door's own ports alone, these are exempt only while the door is open.

use super::{Door, KnockStep, Opening, Opens};
use crate::packet::Packet;

/// Maximum number of exempt ports of a protocol. At this number, a scan in random order meets two given steps in
/// sequence twice as often, for each pair of steps.
const MOST_PORTS: usize = 32_768;

/// Exemptions at a door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exempt {
    /// Openings that are always exempt.
    pub always: Vec<Opening>,
    /// Openings that are exempt while the source has a grant of the door with this list. No openings mean all packets.
    pub granted: Vec<(String, Vec<Opening>)>,
}

impl Exempt {
    /// The exemptions at one of these doors.
    pub fn at(door: &Door, doors: &[Door]) -> Exempt {
        let own = narrow(door);
        let others: Vec<&Door> = doors.iter().filter(|other| other.name != door.name).collect();
        let together: Vec<Opening> = others.iter().flat_map(|other| narrow(other)).chain(own.clone()).collect();
        let mut exempt = Exempt { always: Vec::new(), granted: vec![(door.open_list(), door.opens.clone())] };
        if hides_no_scan(&door.knock, &own) {
            exempt.always = own;
        }
        if hides_no_scan(&door.knock, &together) {
            let others = others.into_iter().map(|other| (other.open_list(), narrow(other)));
            exempt.granted.extend(others.filter(|(_, openings)| !openings.is_empty()));
        }
        exempt
    }

    /// Whether a packet that matches no step is exempt. `has_grant` returns whether the packet's source is in this door
    /// list.
    pub fn covers(&self, packet: &Packet<'_>, has_grant: impl Fn(&str) -> bool) -> bool {
        let granted = |(list, openings): &(String, Vec<Opening>)| include(openings, packet) && has_grant(list);
        self.always.iter().any(|opening| opening.is(packet)) || self.granted.iter().any(granted)
    }
}

/// Whether the packet matches one of these openings; true if there are none.
pub fn include(openings: &[Opening], packet: &Packet<'_>) -> bool {
    openings.is_empty() || openings.iter().any(|opening| opening.is(packet))
}

/// The door's openings, without whole protocols that have ports.
fn narrow(door: &Door) -> Vec<Opening> {
    let is_narrow = |opening: &&Opening| opening.protocol == Opens::Icmp || !opening.ports.0.is_empty();
    door.opens.iter().filter(is_narrow).cloned().collect()
}

/// Whether a port scan still meets other ports between the steps if these openings are exempt.
fn hides_no_scan(knock: &[KnockStep], openings: &[Opening]) -> bool {
    let is_open = |protocol, port| openings.iter().any(|it| it.protocol == protocol && it.ports.contains(port));
    let is_small = |protocol| (1..=u16::MAX).filter(|port| is_open(protocol, *port)).count() <= MOST_PORTS;
    let steps: Vec<(Opens, Option<u16>)> = knock.iter().map(place).collect();
    let sizes = steps.iter().any(|(protocol, _)| *protocol == Opens::Icmp);
    if sizes && openings.iter().any(|opening| opening.protocol == Opens::Icmp) {
        // A scan could try all sizes of pings.
        return false;
    }
    let is_step = |(protocol, port)| steps.contains(&(protocol, Some(port)));
    let is_exempt = |at: (Opens, u16)| is_open(at.0, at.1) && !is_step(at);
    let is_hidden = |one: u32, other: u32, scan: Scan| {
        let between = || (one.min(other) + 1..one.max(other)).map(|place| scan.port(place));
        // Port 0 does not exist.
        between().all(|at| at.1 == 0 || is_step(at) || is_exempt(at)) && between().any(is_exempt)
    };
    let ports: Vec<(Opens, u16)> = steps.iter().filter_map(|(protocol, port)| Some((*protocol, (*port)?))).collect();
    is_small(Opens::Tcp)
        && is_small(Opens::Udp)
        && ports
            .windows(2)
            .all(|pair| Scan::ALL.into_iter().all(|scan| !is_hidden(scan.place(pair[0]), scan.place(pair[1]), scan)))
}

fn place(step: &KnockStep) -> (Opens, Option<u16>) {
    match step {
        KnockStep::Tcp { port, .. } => (Opens::Tcp, Some(*port)),
        KnockStep::Udp { port, .. } => (Opens::Udp, Some(*port)),
        KnockStep::Icmp { .. } => (Opens::Icmp, None),
    }
}

/// The order in which a scan visits the ports, ascending or descending.
#[derive(Clone, Copy)]
enum Scan {
    TcpFirst,
    UdpFirst,
    InTurn,
}

impl Scan {
    const ALL: [Scan; 3] = [Scan::TcpFirst, Scan::UdpFirst, Scan::InTurn];

    fn place(self, (protocol, port): (Opens, u16)) -> u32 {
        let (port, is_udp) = (u32::from(port), protocol == Opens::Udp);
        match self {
            Scan::TcpFirst => port | u32::from(is_udp) << 16,
            Scan::UdpFirst => port | u32::from(!is_udp) << 16,
            Scan::InTurn => port << 1 | u32::from(is_udp),
        }
    }

    fn port(self, place: u32) -> (Opens, u16) {
        let (port, is_udp) = match self {
            Scan::TcpFirst => (place, place >> 16 == 1),
            Scan::UdpFirst => (place, place >> 16 == 0),
            Scan::InTurn => (place >> 1, place & 1 == 1),
        };
        (if is_udp { Opens::Udp } else { Opens::Tcp }, port as u16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cases::cases;
    use crate::door::progress::{Outcome, StepSet, next};
    use crate::door::tests::doors;
    use crate::packet::{Side, protocol};
    use crate::time::Time;

    fn exempt(json: &str) -> Exempt {
        let doors = doors(json);
        Exempt::at(&doors[0], &doors)
    }

    fn is(exempt: &Exempt, to: &str, grants: &[&str]) -> bool {
        let (name, port) = to.split_once('/').unwrap_or((to, "0"));
        let number = match name {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            _ => protocol::ICMP,
        };
        let bare = Packet::bare(Side::Outside, [192, 0, 2, 1].into(), [203, 0, 113, 1].into(), number);
        let ports = (number != protocol::ICMP).then(|| (40_000, port.parse().unwrap()));
        exempt.covers(&Packet { ports, ..bare }, |list| grants.contains(&list))
    }

    #[test]
    fn only_what_the_door_opens_is_exempt() {
        let exempt =
            exempt(r#"[{"name":"a","knock":["tcp/7000","udp/9"],"opens":["tcp/22","udp/60000-61000","icmp"]}]"#);
        for to in ["tcp/22", "udp/60000", "udp/61000", "icmp"] {
            assert!(is(&exempt, to, &[]), "{to}");
        }
        for to in ["udp/22", "tcp/23", "tcp/60001", "udp/61001"] {
            assert!(!is(&exempt, to, &["door-a"]), "{to}");
        }
    }

    #[test]
    fn everything_is_exempt_only_while_the_door_is_open() {
        for opens in ["", r#","opens":["tcp"]"#, r#","opens":["tcp/1-40000"]"#] {
            let exempt = exempt(&format!(r#"[{{"name":"a","knock":["tcp/7000","udp/9"]{opens}}}]"#));
            assert!(!is(&exempt, "tcp/22", &["door-b"]) && is(&exempt, "tcp/22", &["door-a"]), "{opens}");
        }
    }

    #[test]
    fn what_other_doors_open_is_exempt_while_they_are_open_unless_it_is_everything() {
        let exempt = exempt(
            r#"[{"name":"a","knock":["tcp/7000","udp/9"],"opens":["tcp/22"]},{"name":"b","knock":["udp/1"]},
                {"name":"c","knock":["udp/2"],"opens":["tcp/443"]},{"name":"d","knock":["udp/3"],"opens":["tcp","udp/53"]}]"#,
        );
        assert!(is(&exempt, "tcp/443", &["door-c"]) && !is(&exempt, "tcp/443", &["door-a", "door-b", "door-d"]));
        assert!(is(&exempt, "udp/53", &["door-d"]) && !is(&exempt, "udp/53", &["door-b"]));
        assert!(is(&exempt, "tcp/22", &[]));
    }

    #[test]
    fn ports_that_lead_a_scan_from_one_step_to_the_next_are_not_exempt() {
        let hides = |knock: &str, opens: &str| {
            let json = format!(r#"[{{"name":"a","knock":[{knock}],"opens":[{opens}]}}]"#);
            exempt(&json).always.is_empty()
        };
        assert!(hides(r#""udp/60100","udp/60500","udp/60900""#, r#""udp/60000-61000""#), "up");
        assert!(hides(r#""tcp/23","tcp/21""#, r#""tcp/22""#), "down");
        assert!(!hides(r#""tcp/7","tcp/9","tcp/8""#, r#""tcp/10""#), "a single step needs no packet in between");
        assert!(hides(r#""tcp/9","udp/11""#, r#""tcp/10-11","udp/9-10""#), "in turn");
        assert!(hides(r#""tcp/60000","udp/9""#, r#""tcp/60001-65535","udp/1-8""#), "TCP, then UDP");
        assert!(hides(r#""icmp size=99","icmp size=199""#, r#""icmp""#), "sizes");
        assert!(!hides(r#""tcp/7000","tcp/9000""#, r#""tcp/7001-8998""#) && !hides(r#""tcp/1","tcp/2""#, r#""tcp/9""#));
        // Ports of other doors count as well.
        let both = |opens: &str| {
            let other = r#"{"name":"b","knock":["udp/1"],"opens":["tcp/8000-8999"]}"#;
            let json = format!(r#"[{{"name":"a","knock":["tcp/7000","tcp/9000"],"opens":[{opens}]}},{other}]"#);
            let exempt = exempt(&json);
            (is(&exempt, "tcp/7500", &[]), is(&exempt, "tcp/8500", &["door-b"]))
        };
        assert_eq!((both(r#""tcp/7001-7998""#), both(r#""tcp/7001-7999""#)), ((true, true), (true, false)));
    }

    #[test]
    fn a_scan_order_is_checked_in_both_directions() {
        for scan in Scan::ALL {
            for port in
                [(Opens::Tcp, 1), (Opens::Udp, 1), (Opens::Tcp, 65_535), (Opens::Udp, 65_535), (Opens::Tcp, 300)]
            {
                assert_eq!(scan.port(scan.place(port)), port);
            }
        }
    }

    proptest! {
        #![proptest_config(cases(300))]

        /// Few different ports, so that most exempt ranges are close to the steps.
        #[test]
        fn exemptions_help_no_port_scan(
            knock in prop::collection::vec((prop::bool::ANY, 1_u16..12), 2..4),
            opens in prop::collection::vec((prop::bool::ANY, 1_u16..12, 0_u16..6), 1..4),
            downwards in prop::bool::ANY,
            order in 0_usize..3,
        ) {
            let name = |is_udp: bool| if is_udp { "udp" } else { "tcp" };
            let knock: Vec<_> = knock.iter().map(|(udp, port)| format!("\"{}/{port}\"", name(*udp))).collect();
            let opens: Vec<_> =
                opens.iter().map(|(udp, from, more)| format!("\"{}/{from}-{}\"", name(*udp), from + more)).collect();
            let json = format!(r#"[{{"name":"a","knock":[{}],"opens":[{}]}}]"#, knock.join(","), opens.join(","));
            let doors = doors(&json);
            let exempt = Exempt::at(&doors[0], &doors);
            let scan = Scan::ALL[order];
            let mut places: Vec<_> = [Opens::Tcp, Opens::Udp]
                .into_iter()
                .flat_map(|protocol| (1..=20).chain(65_530..=65_535).map(move |port| (protocol, port)))
                .collect();
            places.sort_by_key(|port| scan.place(*port));
            if downwards {
                places.reverse();
            }
            let opened = |exempt: &Exempt| {
                let mut progress = None;
                places.iter().any(|(protocol, port)| {
                    let number = if *protocol == Opens::Udp { protocol::UDP } else { protocol::TCP };
                    let bare = Packet::bare(Side::Outside, [192, 0, 2, 1].into(), [203, 0, 113, 1].into(), number);
                    let packet = Packet { ports: Some((40_000, *port)), ..bare };
                    let fits = StepSet::of(&doors[0].knock, &packet);
                    if fits == StepSet(0) && exempt.covers(&packet, |_| false) {
                        return false;
                    }
                    match next(doors[0].shape(), progress, fits, 0, Time::default()) {
                        Outcome::Opened => return true,
                        Outcome::Stepped(at) => progress = Some(at),
                        Outcome::StartedOver(at) => progress = at,
                        Outcome::Nothing | Outcome::Repeated => {}
                    }
                    false
                })
            };
            prop_assert!(!opened(&exempt) || opened(&Exempt::default()), "{json}");
        }
    }
}
