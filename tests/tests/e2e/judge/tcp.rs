//! TCP between two hosts, one connection after the other: flags, in order and not; sequence numbers, in the windows and
//! not.
//!
//! The two ends keep count, so that what they say has the numbers that real ends would say it with. Where nftables and
//! the filter are known to differ (docs/nftables.md), nothing is asked.

use super::bytes::Inner;
use super::packets::turned;
use crate::dice::Dice;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;

/// What is asked.
#[derive(Clone, Copy, Default)]
pub(super) struct Manners {
    /// Every first SYN passes, so that it is known which connections there are: SYNs and SYN-ACKs come out of turn, and ICMP
    /// errors are about segments.
    pub(super) is_known: bool,
    /// The same ports again, for another connection. Not where only some packets are tracked, so that nobody knows what
    /// is over.
    pub(super) reuses: bool,
    /// Numbers out of the windows. Not where connections are taken up in their middle: nftables then has no windows.
    pub(super) strays: bool,
}

/// A connection between two hosts, and the ones after it.
pub(super) struct Tcp {
    ports: (u16, u16),
    step: usize,
    /// The originator's next port.
    fresh: u16,
    /// The next connection has other ports; every second one has those of the one before.
    is_second: bool,
    /// No SYN comes any more on these ports: docs/nftables.md says what the judges know to see differently.
    is_spoilt: bool,
    /// The numbers of the ends are not known for sure any more.
    is_beyond: bool,
    phase: Phase,
    isns: [u32; 2],
    /// What each end sends next.
    next: [u32; 2],
    has_finished: [bool; 2],
    scales: [Option<u8>; 2],
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Nothing is known of it.
    Unknown,
    /// This end has sent a SYN.
    Asked(usize),
    /// It was answered.
    Open,
    /// It was taken up in its middle.
    Learned,
}

/// An ordinary TCP connection: who speaks (0 begins), and the flags.
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

/// Flags out of order, sensible ones and others.
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

/// What all offer. Scaled or not, more than ever is on its way.
const WINDOW: u16 = 40_000;
/// In the window if it is scaled, and far out of it if not.
const IN_SCALED: u32 = 100_000;
/// Far out of any window here; with half of all numbers ahead there is no more.
const FAR: &[u32] = &[700_000, 1 << 20, 1 << 30, (1 << 31) - 2_000_000];
/// Of the last bytes of a frame, its number.
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

    /// Who speaks, and what, with so much filling.
    pub(super) fn word(&mut self, dice: &mut Dice, manners: Manners, filling: &mut usize) -> (usize, Inner) {
        let in_order = dice.percent(70);
        let (speaker, flags) = match in_order {
            true => SCRIPT[self.step],
            false => self.noise(dice, manners),
        };
        let kind = flags & (SYN | ACK | RST | FIN);
        let begins = in_order && self.step == 0;
        if kind == SYN && (self.is_spoilt || begins) {
            self.is_spoilt |= !manners.reuses;
            self.begin(dice, begins);
        }
        self.is_spoilt |= !in_order && matches!(kind, SYN | 0x11) || flags & RST != 0;
        if in_order {
            self.step = (self.step + 1) % SCRIPT.len();
        }
        if flags & SYN != 0 {
            // So that SYNs that come again end at the same number.
            *filling = 0;
        }
        let can_stray = manners.strays && !self.is_beyond;
        let off = if can_stray && dice.percent(15) { self.stray(dice, speaker, flags) } else { (0, 0) };
        let inner = self.segment(dice, speaker, flags, *filling + MARK, off);
        // Beyond a gap, and behind what a RST says, ends are not where they would be.
        self.is_beyond |= flags & RST != 0 || off.0 == IN_SCALED;
        // Nor are they as far as the script says.
        self.is_spoilt |= self.is_beyond || off != (0, 0);
        if off == (0, 0) {
            self.go_on(speaker, kind, *filling + MARK);
        }
        (speaker, inner)
    }

    /// Another connection, which has other ports if it must or if the ones of before were used twice.
    fn begin(&mut self, dice: &mut Dice, begins: bool) {
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
            [(); 2].map(|()| dice.of(&[0, u32::MAX - 200, (1 << 31) - 300, 5_000_000]) + dice.below(100) as u32);
        self.next = self.isns;
        self.scales = dice.of(&[[None; 2], [Some(2), Some(3)], [Some(2), Some(3)], [Some(7), None], [None, Some(4)]]);
    }

    /// Flags out of order that both judges understand alike.
    fn noise(&self, dice: &mut Dice, manners: Manners) -> (usize, u8) {
        loop {
            let (speaker, flags) = (dice.below(2), dice.of(NOISE));
            let kind = flags & (SYN | ACK | RST | FIN);
            let is_syn = matches!(kind, SYN | 0x12);
            let differs = match self.phase {
                // A challenge, which nftables takes for an answer, and a RST that acknowledges nothing.
                Phase::Asked(asker) if manners.is_known => speaker != asker && matches!(kind, ACK | RST),
                Phase::Asked(_) => is_syn || matches!(kind, ACK | RST | 0x14),
                // Who begins anew where nothing is known for sure.
                Phase::Learned => is_syn,
                // What is over for one of them is not for the other.
                Phase::Open => is_syn && (!manners.is_known || self.has_finished.contains(&true)),
                Phase::Unknown => is_syn && !manners.is_known,
            };
            if !differs {
                return (speaker, flags);
            }
        }
    }

    /// How far numbers are off, of what is sent and of what is acknowledged.
    fn stray(&self, dice: &mut Dice, speaker: usize, flags: u8) -> (u32, u32) {
        let kind = flags & (SYN | ACK | RST | FIN);
        if self.phase != Phase::Open || !matches!(kind, ACK | RST | 0x11 | 0x14) {
            return (0, 0);
        }
        let ahead = dice.of(&[IN_SCALED, FAR[0], FAR[1], FAR[2], FAR[3]]);
        // RSTs are looked at only before anything is closed, and behind a SYN not at all.
        let is_closing = self.has_finished.contains(&true) || self.is_spoilt || self.step < 3;
        match kind {
            RST | 0x14 if is_closing => (0, 0),
            RST | 0x14 => match dice.below(4) {
                // In the window, but not exactly the next one; behind what is acknowledged.
                0 => (1 + dice.below(5_000) as u32, 0),
                1 if self.step > 6 => (0_u32.wrapping_sub(30_000 + dice.below(5_000) as u32), 0),
                _ => (dice.of(FAR), 0),
            },
            _ if dice.percent(50) && self.has_finished == [false; 2] => (ahead, 0),
            ACK | 0x11 if !self.has_finished[speaker] => (0, dice.of(&[1, 100, 70_000, 1 << 30])),
            _ => (0, 0),
        }
    }

    fn segment(&self, dice: &mut Dice, speaker: usize, flags: u8, length: usize, off: (u32, u32)) -> Inner {
        let is_fin = u32::from(flags & FIN != 0);
        let sequence = match flags & SYN != 0 {
            true => self.isns[speaker],
            // Nothing is behind a FIN: what was sent comes again.
            false if self.has_finished[speaker] && flags & RST == 0 => {
                self.next[speaker].wrapping_sub(length as u32 + is_fin)
            }
            false => self.next[speaker],
        };
        let other = 1 - speaker;
        let acknowledgement = match flags & ACK != 0 {
            // Who was never heard is not acknowledged.
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
            mss: (flags & SYN != 0 && dice.percent(50)).then(|| dice.of(&[536, 1300, 1460])),
            scale: self.scales[speaker].filter(|_| flags & SYN != 0),
        }
    }

    /// What follows for the numbers, if both judges take the segment.
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

    /// Who has sent a segment that an ICMP error may be about, and the segment.
    pub(super) fn on_its_way(&self, dice: &mut Dice) -> (usize, Inner) {
        let sender = if let Phase::Asked(asker) = self.phase { asker } else { dice.below(2) };
        (sender, self.segment(dice, sender, ACK, 0, (0, 0)))
    }
}
