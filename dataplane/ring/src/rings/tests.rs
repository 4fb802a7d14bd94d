//! The rings on plain memory against [`Model`]. No test makes a system call, so that an interpreter or a sanitizer can
//! run them; docs/memory-tests.md describes how.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::model::{HEADROOM, Model};
use super::*;

const CHUNK: usize = 2048;

/// `PROPTEST_CASES` cases, or 256; only a few in an interpreter, which is slow.
fn cases() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if cfg!(miri) { ProptestConfig { cases: 8, ..default } } else { default }
}

fn rings(ring_size: u32, position: u32) -> Rings<Model> {
    let (umem, rings, model) = Model::new(ring_size, CHUNK, position);
    Rings::new(umem, rings, model)
}

/// A frame that differs from all others.
fn frame(number: usize) -> Vec<u8> {
    let mut frame = number.to_ne_bytes().to_vec();
    frame.resize(14 + number % 50, number as u8);
    frame
}

/// Every chunk is in exactly one place, and the rings have recorded that place.
fn assert_conserved(rings: &Rings<Model>) {
    let batch = rings.batch[..rings.batch_count].iter().map(|frame| frame.address);
    let ours = rings.free.iter().copied().chain(batch).map(|address| address / CHUNK as u64);
    let mut places = vec![0; rings.umem.chunks()];
    for chunk in ours.chain(rings.kernel.chunks()) {
        places[chunk as usize] += 1;
    }
    assert!(places.iter().all(|places| *places == 1), "chunks that are in no place, or in several: {places:?}");
    for (side, port) in rings.ports.iter().enumerate() {
        let socket = &rings.kernel.sockets[side];
        let chunk = |address: &u64| (address / CHUNK as u64) as usize;
        let receiving: Vec<_> = socket.fill.entries().iter().chain(&socket.filled).map(chunk).collect();
        let received = socket.rx.entries().len();
        assert_eq!(port.receiving.len(), receiving.len() + received);
        assert!(receiving.iter().all(|chunk| port.receiving.contains(*chunk)));
        let sending = socket.tx.entries().len() + socket.sending.len() + socket.completion.entries().len();
        assert_eq!(port.sending.len(), sending);
    }
    assert_eq!(rings.lost(), 0);
}

/// One step of one of the two sides.
#[derive(Clone, Debug)]
enum Step {
    /// A number of frames arrive, each with a number of parts.
    Arrive {
        side: Side,
        parts: Vec<usize>,
    },
    /// A batch is received and settled. Bits beyond the batch are ignored.
    Turn {
        side: Side,
        forward: u64,
        reply: u64,
        has_reply: u64,
    },
    Kick {
        side: Side,
        budget: usize,
    },
    Complete {
        side: Side,
        count: usize,
    },
    Send {
        side: Side,
        bytes: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Side::Outside), Just(Side::Inside)];
    let step = prop_oneof![
        3 => (side(), prop::collection::vec(prop_oneof![9 => Just(1_usize), 1 => 2..4_usize], 1..80))
            .prop_map(|(side, parts)| Step::Arrive { side, parts }),
        3 => (side(), any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(side, forward, reply, has_reply)| Step::Turn { side, forward, reply, has_reply }),
        2 => (side(), 0..70_usize).prop_map(|(side, budget)| Step::Kick { side, budget }),
        2 => (side(), 0..70_usize).prop_map(|(side, count)| Step::Complete { side, count }),
        1 => (side(), 0..2000_usize).prop_map(|(side, bytes)| Step::Send { side, bytes }),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 20 } else { 120 })
}

/// The rings and their expected state.
struct Run {
    rings: Rings<Model>,
    /// Frames that have arrived, in order, each with the bytes of its parts.
    arrived: [VecDeque<Vec<Vec<u8>>>; 2],
    /// Frames that must leave, in order.
    leaving: [Vec<Vec<u8>>; 2],
    numbers: usize,
}

impl Run {
    fn new(ring_size: u32, position: u32) -> Self {
        let rings = rings(ring_size, position);
        Run { rings, arrived: Default::default(), leaving: Default::default(), numbers: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Arrive { side, parts } => {
                for count in parts {
                    let parts: Vec<_> = (0..*count).map(|part| frame(self.numbers + part)).collect();
                    self.numbers += count;
                    if self.rings.kernel.arrive(*side, &parts, self.numbers as u64) {
                        self.arrived[side.index()].push_back(parts);
                    }
                }
            }
            Step::Turn { side, forward, reply, has_reply } => {
                self.turn(*side, *forward, *reply & !*forward, *has_reply)
            }
            Step::Kick { side, budget } => {
                self.rings.kernel.budget = *budget;
                self.rings.kick(*side);
            }
            Step::Complete { side, count } => self.rings.kernel.complete(*side, *count),
            Step::Send { side, bytes } => {
                let bytes = vec![7; *bytes];
                let (room, free) = (self.room(*side), self.rings.free.len());
                let is_sent = self.rings.send(*side, &bytes);
                assert_eq!(is_sent, room > 0 && free > 0 && bytes.len() <= CHUNK - HEADROOM as usize);
                if is_sent {
                    self.leaving[side.index()].push(bytes);
                }
            }
        }
    }

    /// Number of frames that the side's transmit ring can take, at most the number that may be in flight.
    fn room(&self, side: Side) -> usize {
        let socket = &self.rings.kernel.sockets[side.index()];
        let in_flight = socket.sending.len() + socket.completion.entries().len() + socket.tx.entries().len();
        let size = socket.tx.room() + socket.tx.entries().len();
        socket.tx.room().min(size - in_flight)
    }

    fn turn(&mut self, side: Side, forward: u64, reply: u64, has_reply: u64) {
        let descriptors = self.rings.kernel.sockets[side.index()].rx.entries().len().min(BATCH);
        let count = self.rings.receive(side);
        assert_conserved(&self.rings);
        let drops = self.rings.drops();
        assert_eq!(drops.duplicate, Dropped::default());
        // Whole frames arrive in order. Frames of several parts are dropped and counted.
        let frames: Vec<_> = self.rings.frames().iter().map(|frame| frame.to_vec()).collect();
        assert_eq!(frames.len(), count);
        let (mut whole, mut multi_buffer, mut seen) = (0, 0, 0);
        let arrived = &mut self.arrived[side.index()];
        while seen < descriptors {
            let parts = arrived.front_mut().expect("no frame comes from nowhere");
            if parts.len() == 1 && !parts[0].is_empty() {
                assert_eq!(frames[whole], parts[0]);
                whole += 1;
                seen += 1;
                arrived.pop_front();
            } else {
                // An empty item represents the parts in an earlier batch.
                let rest = parts.iter().filter(|part| !part.is_empty()).count();
                let taken = rest.min(descriptors - seen);
                parts.iter_mut().filter(|part| !part.is_empty()).take(taken).for_each(Vec::clear);
                seen += taken;
                if taken == rest {
                    multi_buffer += 1;
                    arrived.pop_front();
                }
            }
        }
        assert_eq!((whole, multi_buffer), (count, drops.multi_buffer.frames));
        let batch = lowest_bits(count);
        let wanted = Dispositions { forward: forward & batch, reply: reply & batch };
        let (room, reply_room) = (self.room(side.opposite()), self.room(side));
        let answer = |index: usize| (has_reply >> index & 1 != 0).then_some(&b"a reply that is longer than most"[..]);
        let settled = self.rings.settle(wanted, answer);
        let forwarded: Vec<_> = bits(wanted.forward).take(room).collect();
        assert_eq!(bits(settled.forwarded).collect::<Vec<_>>(), forwarded);
        assert_eq!(settled.forwarded_bytes, forwarded.iter().map(|index| frames[*index].len()).sum::<usize>());
        self.leaving[side.opposite().index()].extend(forwarded.iter().map(|index| frames[*index].clone()));
        let replied: Vec<_> = bits(wanted.reply & has_reply).take(reply_room).collect();
        assert_eq!(bits(settled.replied).collect::<Vec<_>>(), replied);
        let replies = replied.iter().filter_map(|index| answer(*index)).map(<[u8]>::to_vec);
        assert_eq!(settled.replied_bytes, replies.clone().map(|reply| reply.len()).sum::<usize>());
        self.leaving[side.index()].extend(replies);
    }

    /// Makes the kernel send and complete all frames. Then every chunk is free or in a fill ring.
    fn drain(&mut self) {
        self.rings.kernel.budget = usize::MAX;
        for _ in 0..3 {
            for side in Side::ALL {
                while !self.rings.kernel.sockets[side.index()].rx.entries().is_empty() {
                    self.turn(side, 0, 0, 0);
                }
                self.rings.kick(side);
                self.rings.kernel.complete(side, usize::MAX);
            }
        }
        assert_eq!(self.rings.in_flight(), 0);
        for side in Side::ALL {
            let port = &self.rings.ports[side.index()];
            assert_eq!(port.receiving.len(), port.rings.fill.size(), "the fill ring is full");
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    /// For any steps of both sides, every chunk is in exactly one place after each step. Frames arrive and leave in
    /// order and with their bytes, and no frame is left at the end. The positions begin shortly before they wrap.
    #[test]
    fn every_chunk_is_in_one_place(
        size in 0..5_u32,
        before_wrap in 0..200_u32,
        steps in steps(),
    ) {
        let mut run = Run::new(4 << size, 0_u32.wrapping_sub(before_wrap));
        for step in &steps {
            run.step(step);
            assert_conserved(&run.rings);
        }
        run.drain();
        assert_conserved(&run.rings);
        prop_assert_eq!(&run.rings.kernel.left, &run.leaving);
    }

    /// A descriptor that is not a frame within a chunk, with headroom for the time stamp, stops the process.
    #[test]
    fn a_received_descriptor_outside_its_chunk_stops_the_process(
        address in prop_oneof![any::<u64>(), 0..CHUNK as u64 * 100],
        length in prop_oneof![any::<u32>(), 0..4096_u32],
    ) {
        let mut rings = rings(8, 0);
        let chunks = rings.umem.chunks() as u64;
        let offset = address % CHUNK as u64;
        let is_a_frame = address < chunks * CHUNK as u64 && (8..=CHUNK as u64).contains(&offset)
            && u64::from(length) + offset <= CHUNK as u64;
        rings.kernel.sockets[0].rx.push(Descriptor { address, length, options: 0 });
        let outcome = stops(|| { rings.receive(Side::Outside); });
        prop_assert_eq!(outcome, !is_a_frame);
    }

    /// A completion without a frame that is being sent stops the process.
    #[test]
    fn a_completion_of_another_chunk_stops_the_process(
        address in prop_oneof![any::<u64>(), 0..CHUNK as u64 * 100],
    ) {
        let mut rings = rings(8, 0);
        assert!(rings.send(Side::Inside, &frame(1)));
        rings.kernel.wake_sender(Side::Inside);
        let sent = rings.kernel.sockets[1].sending.pop_front().expect("the frame was taken").address;
        rings.kernel.sockets[1].completion.push(address);
        let outcome = stops(|| rings.kick(Side::Inside));
        prop_assert_eq!(outcome, address / CHUNK as u64 != sent / CHUNK as u64);
    }

    /// A kernel position whose distance from this end's position is larger than the ring stops the process.
    #[test]
    fn a_position_out_of_range_stops_the_process(by in 1..u32::MAX - 100, position in any::<u32>()) {
        let mut one = rings(8, position);
        one.kernel.sockets[0].rx.corrupt_producer(by);
        let outcome = stops(|| { one.receive(Side::Outside); });
        prop_assert!(outcome);
        let mut one = rings(8, position);
        assert!(one.send(Side::Outside, &frame(1)));
        one.kernel.sockets[0].completion.corrupt_producer(by);
        prop_assert!(stops(|| one.kick(Side::Outside)));
        let mut one = rings(8, position);
        assert!(one.send(Side::Outside, &frame(1)));
        one.kernel.sockets[0].tx.corrupt_consumer(by);
        prop_assert!(stops(|| one.kick(Side::Outside)));
        let mut one = rings(8, position);
        one.kernel.arrive(Side::Outside, &[frame(1)], 0);
        one.kernel.sockets[0].fill.corrupt_consumer(by);
        one.receive(Side::Outside);
        one.settle(Dispositions::default(), |_| None);
        prop_assert!(stops(|| one.kick(Side::Outside)));
    }
}

/// Whether the process would stop: a panic ends it.
fn stops(act: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(act)).is_err()
}

#[test]
fn a_chunk_that_is_delivered_twice_is_dropped_and_counted() {
    let mut rings = rings(8, 0);
    for number in 0..3 {
        rings.kernel.arrive(Side::Outside, &[frame(number)], 0);
    }
    let again = rings.kernel.sockets[0].rx.entries()[1];
    rings.kernel.sockets[0].rx.push(again);
    // The duplicate is in the same batch.
    assert_eq!(rings.receive(Side::Outside), 3);
    let once = Dropped { frames: 1, bytes: frame(1).len() };
    assert_eq!(rings.drops().duplicate, once);
    assert_eq!(*rings.frames(), [&frame(0)[..], &frame(1), &frame(2)]);
    rings.settle(Dispositions { forward: 0b010, reply: 0 }, |_| None);
    assert_conserved(&rings);
    // The duplicate arrives while the other side sends the chunk.
    rings.kernel.arrive(Side::Outside, &[frame(3)], 0);
    rings.kernel.sockets[0].rx.push(again);
    assert_eq!(rings.receive(Side::Outside), 1);
    assert_eq!((rings.drops().duplicate, rings.frames()[0]), (once, &frame(3)[..]));
    rings.settle(Dispositions::default(), |_| None);
    assert_conserved(&rings);
    // The duplicate arrives when the chunk is free, and when it was delivered only on the other side.
    rings.kick(Side::Inside);
    rings.kernel.complete(Side::Inside, 1);
    rings.reap(Side::Inside);
    for side in Side::ALL {
        rings.kernel.sockets[side.index()].rx.push(again);
        assert_eq!((rings.receive(side), rings.drops().duplicate), (0, once));
        assert_conserved(&rings);
    }
    assert_eq!(rings.kernel.left[1], [frame(1)]);
}

#[test]
fn a_duplicate_part_does_not_join_frames() {
    let mut rings = rings(8, 0);
    rings.kernel.arrive(Side::Outside, &[frame(0)], 0);
    let again = Descriptor { options: libc::XDP_PKT_CONTD, ..rings.kernel.sockets[0].rx.entries()[0] };
    rings.kernel.sockets[0].rx.push(again);
    rings.kernel.arrive(Side::Outside, &[frame(1)], 0);
    assert_eq!(rings.receive(Side::Outside), 2);
    assert_eq!(*rings.frames(), [&frame(0)[..], &frame(1)]);
    assert_eq!((rings.drops().duplicate.frames, rings.drops().multi_buffer.frames), (1, 0));
    rings.settle(Dispositions::default(), |_| None);
    assert_conserved(&rings);
}

#[test]
fn a_full_transmit_ring_drops_the_last_frames_of_a_batch() {
    let mut rings = rings(16, u32::MAX - 3);
    // The kernel does not send: the reader of the other side is slow.
    rings.kernel.budget = 0;
    for (first, sent) in [(0, 10), (10, 6), (20, 0)] {
        for number in first..first + 10 {
            assert!(rings.kernel.arrive(Side::Outside, &[frame(number)], 0));
        }
        assert_eq!(rings.receive(Side::Outside), 10);
        let settled = rings.settle(Dispositions { forward: lowest_bits(10), reply: 0 }, |_| None);
        assert_eq!(settled.forwarded, lowest_bits(sent));
        rings.kick(Side::Inside);
        rings.kick(Side::Outside);
        assert_conserved(&rings);
    }
    assert_eq!(rings.in_flight(), 16);
    // A full ring on this side does not keep the other side from receiving and sending.
    assert!(rings.kernel.arrive(Side::Inside, &[frame(30)], 0));
    assert_eq!(rings.receive(Side::Inside), 1);
    assert_eq!(rings.settle(Dispositions { forward: 1, reply: 0 }, |_| None).forwarded, 1);
    rings.kernel.budget = usize::MAX;
    for side in Side::ALL {
        rings.kick(side);
        rings.kernel.complete(side, usize::MAX);
        rings.kick(side);
    }
    assert_eq!(rings.in_flight(), 0);
    assert_conserved(&rings);
    assert_eq!(rings.kernel.left[1], (0..16).map(frame).collect::<Vec<_>>());
}

#[test]
fn frames_that_are_not_completed_count_against_the_ring() {
    let mut rings = rings(8, 0);
    for number in 0..8 {
        assert!(rings.send(Side::Inside, &frame(number)));
    }
    rings.kick(Side::Inside);
    // The transmit ring is empty, and the kernel still has the chunks.
    assert_eq!(rings.kernel.sockets[1].tx.entries(), []);
    assert!(!rings.send(Side::Inside, &frame(8)));
    rings.kernel.complete(Side::Inside, 1);
    rings.kick(Side::Inside);
    assert!(rings.send(Side::Inside, &frame(8)));
    assert_conserved(&rings);
}

#[test]
fn a_kick_gives_up_on_a_kernel_that_sends_nothing() {
    let mut rings = rings(16, 0);
    rings.kernel.budget = 0;
    for number in 0..10 {
        assert!(rings.send(Side::Inside, &frame(number)));
    }
    rings.kick(Side::Inside);
    assert_eq!(rings.kernel.wakes.0, FRUITLESS_KICKS as usize);
    // A kernel that sends a few frames at a time is kicked until the ring is empty.
    (rings.kernel.budget, rings.kernel.wakes.0) = (2, 0);
    rings.kick(Side::Inside);
    assert_eq!((rings.kernel.wakes.0, rings.kernel.left[1].len()), (5, 10));
    // A driver with zero-copy is kicked once.
    (rings.kernel.is_zero_copy, rings.kernel.wakes.0) = (true, 0);
    for number in 0..4 {
        assert!(rings.send(Side::Inside, &frame(number)));
    }
    rings.kick(Side::Inside);
    assert_eq!(rings.kernel.wakes.0, 1);
}

#[test]
fn an_empty_fill_ring_is_refilled_when_chunks_come_back() {
    let mut rings = rings(8, u32::MAX);
    let mut number = 0;
    while rings.kernel.arrive(Side::Outside, &[frame(number)], 0) {
        number += 1;
    }
    assert_eq!((number, rings.kernel.sockets[0].fill.entries().len()), (8, 0));
    assert_eq!(rings.receive(Side::Outside), 8);
    assert_eq!(rings.receive_is_refused(), "the batch before was not settled");
    rings.settle(Dispositions::default(), |_| None);
    rings.kick(Side::Outside);
    assert_eq!(rings.kernel.sockets[0].fill.entries().len(), 8);
    assert_conserved(&rings);
}

impl Rings<Model> {
    /// The message with which a second batch is refused.
    fn receive_is_refused(&mut self) -> String {
        let refused = catch_unwind(AssertUnwindSafe(|| self.receive(Side::Outside))).expect_err("a batch is unsettled");
        let message = refused.downcast_ref::<String>().cloned().unwrap_or_default();
        message.split(": ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default().to_owned()
    }
}

#[test]
fn frames_carry_the_time_of_their_arrival() {
    let mut rings = rings(8, 0);
    for number in 0..3 {
        rings.kernel.arrive(Side::Inside, &[frame(number)], 1000 + number as u64);
    }
    assert_eq!(rings.receive(Side::Inside), 3);
    assert_eq!(rings.arrivals()[..3], [1000, 1001, 1002]);
    rings.settle(Dispositions::default(), |_| None);
}

#[test]
fn a_reply_that_is_longer_than_its_chunk_is_not_sent() {
    let mut rings = rings(8, 0);
    for number in 0..2 {
        rings.kernel.arrive(Side::Outside, &[frame(number)], 0);
    }
    assert_eq!(rings.receive(Side::Outside), 2);
    let replies = [vec![1; CHUNK - HEADROOM as usize + 1], vec![2; CHUNK - HEADROOM as usize]];
    let settled = rings.settle(Dispositions { forward: 0, reply: 0b11 }, |index| Some(&replies[index]));
    assert_eq!((settled.replied, settled.replied_bytes), (0b10, replies[1].len()));
    rings.kick(Side::Outside);
    assert_eq!(rings.kernel.left[0], [replies[1].clone()]);
    assert_conserved(&rings);
}

#[test]
fn a_settlement_that_contradicts_itself_or_the_batch_is_refused() {
    for wanted in [Dispositions { forward: 1, reply: 1 }, Dispositions { forward: 2, reply: 0 }] {
        let mut rings = rings(8, 0);
        rings.kernel.arrive(Side::Outside, &[frame(0)], 0);
        assert_eq!(rings.receive(Side::Outside), 1);
        assert!(
            stops(|| {
                rings.settle(wanted, |_| None);
            }),
            "{wanted:?}"
        );
    }
}
