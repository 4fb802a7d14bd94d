//! The engine with frames that no host builds, in any order, from both sides, under any rules.
//!
//! Frames begin as packets between few addresses and are then damaged: bytes are changed, removed, repeated, joined to
//! other frames, or replaced by random bytes. The reference evaluator receives the packet that the engine's reader
//! reads from the frame, so that the comparison detects a wrongly accepted frame. A second engine with room for very
//! few entries receives the same frames: there the test checks the bounds.

use knockplane_engine::headers;
use knockplane_engine::pipeline::{BATCH, Context, Decider, OutOfOrder};
use knockplane_engine::state::State;
use knockplane_policy::door;
use knockplane_policy::eval::Evaluator;
use knockplane_policy::frames::FrameClass;
use knockplane_policy::packet::Side;
use knockplane_policy::reason::Verdict;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::time::Time;
use proptest::prelude::*;

use crate::common::{Engine, SECRET, cases};
use crate::neighbours::oracle;
use crate::reference::{pause, rules, settings, spec};

/// Largest packet, without Ethernet.
const MTU: usize = 1500;

/// The capacity of the engine with room for very few entries.
const FEW: usize = 8;

/// Damage to a well-formed frame.
#[derive(Clone, Debug)]
enum Damage {
    None,
    /// These bytes, counted from the Ethernet type.
    Bytes(Vec<(usize, u8)>),
    Cut(usize),
    /// Appends a copy of its bytes.
    Twice,
    /// Truncates or extends it to this number of bytes.
    Long(usize),
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop_oneof![
        3 => Just(Damage::None),
        4 => prop::collection::vec((12..90_usize, any::<u8>()), 1..4).prop_map(Damage::Bytes),
        1 => (0..90_usize).prop_map(Damage::Cut),
        1 => Just(Damage::Twice),
        1 => (0..2000_usize).prop_map(Damage::Long),
    ];
    let broken = (spec(), damage).prop_map(|(spec, damage)| {
        let mut frame = spec.frame();
        match damage {
            Damage::None => {}
            Damage::Bytes(bytes) => {
                for (place, byte) in bytes {
                    let length = frame.len();
                    frame[place % length] = byte;
                }
            }
            Damage::Cut(length) => frame.truncate(length),
            Damage::Twice => frame.extend_from_within(..),
            Damage::Long(length) => frame.resize(length, 0x45),
        }
        frame
    });
    let noise = (any::<[u8; 12]>(), prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 5]))
        .prop_flat_map(|(addresses, kind)| {
            prop::collection::vec(any::<u8>(), 0..120)
                .prop_map(move |bytes| [&addresses[..], &kind.to_be_bytes(), &bytes].concat())
        });
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![8 => broken, 1 => noise, 1 => bytes, 2 => neighbours()]
}

/// ARP and neighbour discovery, well-formed or not, with claims of the addresses that packets have.
fn neighbours() -> impl Strategy<Value = Vec<u8>> {
    let arp = (oracle::arp(), 0..3_u8, any::<bool>()).prop_map(|(mut arp, last, zero)| {
        arp.sender.1 = [10, 0, 0, last].into();
        arp.padding.fill(u8::from(!zero));
        arp.frame()
    });
    let discovery = (oracle::discovery(), 0..3_u16).prop_map(|(mut message, last)| {
        let address = [0xfd00, 0, 0, 0, 0, 0, 0, last].into();
        if message.kind == 136 {
            message.source = address;
        }
        message.frame()
    });
    prop_oneof![arp, discovery]
}

/// The frames of one turn, sometimes more than a batch can contain.
fn turns() -> impl Strategy<Value = Vec<(std::time::Duration, Side, Vec<Vec<u8>>)>> {
    let side = prop::sample::select(Side::ALL.to_vec());
    let frames = prop_oneof![
        9 => prop::collection::vec(frame(), 0..12),
        1 => prop::collection::vec(frame(), BATCH - 1..BATCH + 2),
    ];
    prop::collection::vec((pause(), side, frames), 1..8)
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn whatever_arrives_is_decided_once_and_as_the_reference_says(
        rules in rules(), settings in settings(), turns in turns(),
    ) {
        let mut engine = Engine::new(rules.clone(), &settings);
        let rules = door::rules(&settings, rules);
        let mut plain = Evaluator::new(&rules, &settings, SECRET[0]);
        let mut now = Time::from_nanos(5);
        for (pause, side, frames) in &turns {
            now = now + *pause;
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let decisions = engine.decide(*side, &frames, now).to_vec();
            prop_assert_eq!(decisions.len(), frames.len().min(BATCH), "one decision a frame");
            for (place, (frame, decision)) in frames.iter().zip(decisions).enumerate() {
                let reply = engine.decider.reply(place);
                match headers::read(*side, frame, headers::max_frame(MTU)) {
                    Ok(packet) => {
                        let expected = plain.evaluate(&packet, now);
                        prop_assert_eq!((decision.verdict, decision.reason), (expected.verdict, expected.reason));
                        let reply = reply.map(|reply| &reply[usize::from(packet.network)..]);
                        prop_assert_eq!(reply, expected.replies.first().map(Vec::as_slice));
                    }
                    Err(reason) => {
                        let expected = match FrameClass::of(reason) {
                            Some(class) => plain.evaluate_frame(&headers::class_frame(*side, class, frame), now),
                            None => (Verdict::Drop, reason),
                        };
                        prop_assert_eq!((decision.verdict, decision.reason), expected, "by its class alone");
                        prop_assert_eq!(reply, None);
                    }
                }
                prop_assert!(reply.is_none() || decision.verdict == Verdict::Drop, "what is answered is not forwarded");
            }
        }
        assert_bounded(&rules, &settings, &turns);
    }
}

/// Checks with very little room that no table grows, and that every frame gets a decision.
fn assert_bounded(rules: &RuleSet, settings: &Settings, turns: &[(std::time::Duration, Side, Vec<Vec<u8>>)]) {
    let Engine { table, state, counters, logged, .. } = Engine::with_room(rules.clone(), settings, FEW);
    let mut decider = Decider::new(headers::max_frame(MTU), SECRET[0]);
    let mut now = Time::from_nanos(5);
    for (pause, side, frames) in turns {
        now = now + *pause;
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let context = Context { table: &table, state: &state, counters: &counters, logged: &logged, wall: 0 };
        assert_eq!(decider.decide_arrived(*side, &frames, |_| now, context).len(), frames.len().min(BATCH));
        for (place, frame) in frames.iter().take(BATCH).enumerate() {
            if let Some(pending) = decider.pending(place) {
                let first = OutOfOrder { side: *side, frame, arrived: now, pending, is_last: false };
                let pending = decider.re_evaluate(first, context);
                decider.re_evaluate(OutOfOrder { pending, is_last: true, ..first }, context);
            }
        }
        assert_within(&state, now);
    }
}

fn assert_within(state: &State, now: Time) {
    let entries: u64 = state.lists.summaries().iter().map(|list| list.entries).sum();
    assert!(entries <= state.lists.capacity() as u64, "{entries} entries");
    if let Some(flows) = state.connections() {
        assert!(flows.count(now) <= 4 * FEW.next_multiple_of(16) as u64, "{} connections", flows.count(now));
    }
}
