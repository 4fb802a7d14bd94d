//! TCP between two hosts, one connection after the other, with flags in and out of order, and sequence numbers inside
//! and outside the windows.
//!
//! The two ends track their numbers, so that their segments have the numbers of real ones. Known differences between
//! nftables and the filter (docs/nftables.md) are avoided.

use super::bytes::Inner;
use super::packets::turned;
use crate::random::Random;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;

/// The kinds of segments to send.
#[derive(Clone, Copy, Default)]
pub(super) struct Variations {
    /// Whether every first SYN passes, so that both know which connections exist. Then SYNs and SYN-ACKs are also sent
    /// out of order, and ICMP errors quote segments.
    pub(super) is_known: bool,
    /// Whether the same ports are used for another connection. False if only some packets are tracked, because then the
    /// end of a connection is not known.
    pub(super) reuses: bool,
    /// Whether there are numbers outside the windows. False if tracking begins in the middle of connections, because
    /// then nftables has no windows.
    pub(super) strays: bool,
}

/// A connection between two hosts, and the connections after it.
pub(super) struct Tcp {
    ports: (u16, u16),
    step: usize,
    /// The originator's next port.
    fresh: u16,
    /// Whether the next connection has other ports; every second one has those of the connection before.
    is_second: bool,
    /// Whether no further SYN is sent on these ports: see docs/nftables.md for the known differences.
    is_spoilt: bool,
    /// Whether the numbers of the ends are not known for certain.
    is_beyond: bool,
    phase: Phase,
    isns: [u32; 2],
    /// The next number of each end.
    next: [u32; 2],
    has_finished: [bool; 2],
    scales: [Option<u8>; 2],
}

/// The phase of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// No connection is known.
    Unknown,
    /// This end has sent a SYN.
    Asked(usize),
    /// The SYN was answered.
    Open,
    /// Tracking began in the middle of the connection.
    Learned,
}

/// An ordinary TCP connection: sender (0 is the originator) and flags.
const SCRIPT: &[(usize, u8)] = &[
    (0, SYN),
    (1, SYN | ACK),
    (0, ACK),
    (0, PSH | ACK),
    (1, ACK),
    (1, PSH | ACK),
    (0, ACK),
    (0, FIN | ACK),
    (1, ACK),
    (1, FIN | ACK),
    (0, ACK),
];

/// Flags out of order, valid and invalid ones.
const NOISE: &[u8] = &[
    SYN,
    SYN,
    SYN | ACK,
    SYN | ACK,
    ACK,
    ACK,
    ACK | PSH,
    FIN | ACK,
    FIN | ACK,
    RST,
    RST | ACK,
    FIN,
    0,
    SYN | FIN,
    SYN | RST,
    FIN | PSH | URG,
    URG,
    ACK | URG,
    0x3f,
    0xc0 | SYN,
    SYN | URG,
    PSH,
];

/// The window that all segments offer. Scaled or not, it is larger than the data in flight.
const WINDOW: u16 = 40_000;
/// A distance that is inside a scaled window, and far outside an unscaled one.
const IN_SCALED: u32 = 100_000;
/// Distances far outside any window of the test. At half of all numbers, the order reverses.
const FAR: &[u32] = &[700_000, 1 << 20, 1 << 30, (1 << 31) - 2_000_000];
/// The frame's number is in its last bytes.
const MARK: usize = 8;

impl Tcp {
    pub(super) fn new(ports: (u16, u16)) -> Tcp {
        Tcp {
            ports,
            step: 0,
            fresh: 10_000,
            is_second: true,
            is_spoilt: false,
            is_beyond: false,
            phase: Phase::Unknown,
            isns: [1, 2],
            next: [1, 2],
            has_finished: [false; 2],
            scales: [None; 2],
        }
    }

    /// The next sender and its segment, with this much padding.
    pub(super) fn step(&mut self, random: &mut Random, variations: Variations, filling: &mut usize) -> (usize, Inner) {
        let in_order = random.percent(70);
        let (speaker, flags) = match in_order {
            true => SCRIPT[self.step],
            false => self.noise(random, variations),
        };
        let kind = flags & (SYN | ACK | RST | FIN);
        let begins = in_order && self.step == 0;
        if kind == SYN && (self.is_spoilt || begins) {
            self.is_spoilt |= !variations.reuses;
            self.begin(random, begins);
        }
        self.is_spoilt |= !in_order && matches!(kind, SYN | 0x11) || flags & RST != 0;
        if in_order {
            self.step = (self.step + 1) % SCRIPT.len();
        }
        if flags & SYN != 0 {
            // No padding, so that retransmitted SYNs end at the same number.
            *filling = 0;
        }
        let can_stray = variations.strays && !self.is_beyond;
        let off = if can_stray && random.percent(15) { self.stray(random, speaker, flags) } else { (0, 0) };
        let inner = self.segment(random, speaker, flags, *filling + MARK, off);
        // After a gap and after a RST, the ends' numbers are not those of the script.
        self.is_beyond |= flags & RST != 0 || off.0 == IN_SCALED;
        // The ends are also not in the state that the script expects.
        self.is_spoilt |= self.is_beyond || off != (0, 0);
        if off == (0, 0) {
            self.go_on(speaker, kind, *filling + MARK);
        }
        (speaker, inner)
    }

    /// Begins the next connection, with other ports if necessary, or if the last ports were used twice.
    fn begin(&mut self, random: &mut Random, begins: bool) {
        if self.is_spoilt || self.is_second {
            self.ports.0 = self.fresh;
            self.fresh += 1;
            (self.step, self.is_second) = (0, false);
        } else {
            self.is_second = begins;
        }
        (self.is_spoilt, self.is_beyond) = (false, false);
        self.phase = Phase::Unknown;
        self.has_finished = [false; 2];
        self.isns =
            [(); 2].map(|()| random.of(&[0, u32::MAX - 200, (1 << 31) - 300, 5_000_000]) + random.below(100) as u32);
        self.next = self.isns;
        self.scales = random.of(&[[None; 2], [Some(2), Some(3)], [Some(2), Some(3)], [Some(7), None], [None, Some(4)]]);
    }

    /// Flags out of order that both filters treat alike.
    fn noise(&self, random: &mut Random, variations: Variations) -> (usize, u8) {
        loop {
            let (speaker, flags) = (random.below(2), random.of(NOISE));
            let kind = flags & (SYN | ACK | RST | FIN);
            let is_syn = matches!(kind, SYN | 0x12);
            let differs = match self.phase {
                // A challenge, which nftables treats as an answer, and a RST that acknowledges nothing.
                Phase::Asked(asker) if variations.is_known => speaker != asker && matches!(kind, ACK | RST),
                Phase::Asked(_) => is_syn || matches!(kind, ACK | RST | 0x14),
                // A new connection where the state is not certain.
                Phase::Learned => is_syn,
                // A connection that has ended for only one of them.
                Phase::Open => is_syn && (!variations.is_known || self.has_finished.contains(&true)),
                Phase::Unknown => is_syn && !variations.is_known,
            };
            if !differs {
                return (speaker, flags);
            }
        }
    }

    /// The error of the numbers: of the sequence number and of the acknowledgement.
    fn stray(&self, random: &mut Random, speaker: usize, flags: u8) -> (u32, u32) {
        let kind = flags & (SYN | ACK | RST | FIN);
        if self.phase != Phase::Open || !matches!(kind, ACK | RST | 0x11 | 0x14) {
            return (0, 0);
        }
        let ahead = random.of(&[IN_SCALED, FAR[0], FAR[1], FAR[2], FAR[3]]);
        // RSTs are sent only before anything is closed, and never after a SYN.
        let is_closing = self.has_finished.contains(&true) || self.is_spoilt || self.step < 3;
        match kind {
            RST | 0x14 if is_closing => (0, 0),
            RST | 0x14 => match random.below(4) {
                // A number inside the window that is not exactly the next one, after the acknowledged data.
                0 => (1 + random.below(5_000) as u32, 0),
                1 if self.step > 6 => (0_u32.wrapping_sub(30_000 + random.below(5_000) as u32), 0),
                _ => (random.of(FAR), 0),
            },
            _ if random.percent(50) && self.has_finished == [false; 2] => (ahead, 0),
            ACK | 0x11 if !self.has_finished[speaker] => (0, random.of(&[1, 100, 70_000, 1 << 30])),
            _ => (0, 0),
        }
    }

    fn segment(&self, random: &mut Random, speaker: usize, flags: u8, length: usize, off: (u32, u32)) -> Inner {
        let is_fin = u32::from(flags & FIN != 0);
        let sequence = match flags & SYN != 0 {
            true => self.isns[speaker],
            // No data follows a FIN: earlier data is retransmitted.
            false if self.has_finished[speaker] && flags & RST == 0 => {
                self.next[speaker].wrapping_sub(length as u32 + is_fin)
            }
            false => self.next[speaker],
        };
        let other = 1 - speaker;
        let acknowledgement = match flags & ACK != 0 {
            // No acknowledgement of an end that has sent no segment.
            true if self.phase == Phase::Asked(speaker) && flags & RST != 0 => 0,
            true => self.next[other].wrapping_add(off.1),
            false => 0,
        };
        Inner::Tcp {
            ports: turned(self.ports, speaker),
            flags,
            sequence: sequence.wrapping_add(off.0),
            acknowledgement,
            window: WINDOW,
            mss: (flags & SYN != 0 && random.percent(50)).then(|| random.of(&[536, 1300, 1460])),
            scale: self.scales[speaker].filter(|_| flags & SYN != 0),
        }
    }

    /// Updates the numbers, if both accept the segment.
    fn go_on(&mut self, speaker: usize, kind: u8, length: usize) {
        match (kind, self.phase) {
            (SYN, Phase::Unknown) => {
                self.phase = Phase::Asked(speaker);
                self.next[speaker] = self.isns[speaker].wrapping_add(1 + length as u32);
            }
            (SYN, Phase::Asked(asker)) if asker != speaker => {
                self.next[speaker] = self.isns[speaker].wrapping_add(1 + length as u32);
            }
            (0x12, Phase::Asked(asker)) if asker != speaker => {
                self.phase = Phase::Open;
                self.next[speaker] = self.isns[speaker].wrapping_add(1 + length as u32);
            }
            (ACK | 0x11, Phase::Open | Phase::Learned) if !self.has_finished[speaker] => {
                let is_fin = kind & FIN != 0;
                self.next[speaker] = self.next[speaker].wrapping_add(length as u32 + u32::from(is_fin));
                self.has_finished[speaker] |= is_fin;
            }
            (ACK, Phase::Unknown) => {
                self.phase = Phase::Learned;
                self.next[speaker] = self.next[speaker].wrapping_add(length as u32);
            }
            (RST | 0x14, Phase::Asked(_)) => self.phase = Phase::Unknown,
            _ => {}
        }
    }

    /// The sender of a segment that an ICMP error may be about, and the segment.
    pub(super) fn in_flight(&self, random: &mut Random) -> (usize, Inner) {
        let sender = if let Phase::Asked(asker) = self.phase { asker } else { random.below(2) };
        (sender, self.segment(random, sender, ACK, 0, (0, 0)))
    }
}
