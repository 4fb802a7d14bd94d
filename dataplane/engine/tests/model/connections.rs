//! Models of connections that the kernel carries: a worker lets the kernel carry a connection, while another worker or the
//! manager changes it, and while the program forwards a packet of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader};
use knockplane_engine::headers::{max_frame, read};
use knockplane_policy::carried::{CarriedConnection, ConnectionRecord};
use knockplane_policy::packet::{FragmentPart, Packet, Side, Vlan, protocol};
use knockplane_policy::rule::{ConnectionState, Tracking};
use knockplane_policy::strangers::KnownSources;
use knockplane_policy::time::Time;
use shuttle::sync::Arc;
use shuttle::thread;

use crate::state::connections::{
    ConnectionTable, DecidedConnection, HashedKey, Observation, PreparedConnection, Storage, TrackingResult,
};
use crate::state::lists::ListId;
use crate::{Model, OTHER, SOURCE};

use self::Protocol::{Tcp, Udp};

pub(super) const MODELS: [Model; 13] = [
    ("a verdict in the kernel ends when an end closes its connection", || verdicts_end(Carried::new(Tcp), close)),
    ("so when an end resets it", || verdicts_end(Carried::new(Tcp), reset)),
    ("so when it begins again", || verdicts_end(Carried::new(Tcp), begin_again)),
    ("so when the manager cuts it", || verdicts_end(Carried::new(Tcp), cut)),
    ("so when it is removed", || verdicts_end(Carried::new(Udp), |table| forget(table, SOURCE))),
    ("so when it is fasttracked", || verdicts_end(Carried::new(Udp), fasttrack)),
    ("so when it is assigned to a door", || verdicts_end(Carried::new(Udp), assign_to_door)),
    ("so when another connection takes its slot", || verdicts_end(Carried::full(), take_slot)),
    ("so if it was the first verdict", || verdicts_end(Carried::not_yet(Tcp), close)),
    ("a verdict has the direction of its connection, which begins again the other way round", directions_are_exact),
    ("a connection that has expired is not carried, also if the program was interrupted", expired_is_not_carried),
    ("so if another connection takes its slot", || expires(&Carried::full(), take_slot)),
    ("so if the connections are counted", || expires(&Carried::new(Udp), count)),
];

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// The time of the packets of a connection.
const BEGUN: Time = second(1);
/// The time of changes.
const NOW: Time = second(2);
/// The times just before and after a connection of UDP expires.
const LAST: Time = second(180);
const EXPIRED: Time = second(181);

const fn second(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

#[derive(Clone, Copy)]
enum Protocol {
    Tcp,
    Udp,
}

/// A table with one set and with its records. Counts its connections if there are known sources.
pub(super) fn connections(known: Option<&KnownSources>) -> Arc<ConnectionTable> {
    let table = ConnectionTable::new(8, [1, 2]);
    known.into_iter().for_each(|known| table.set_sources(known));
    Arc::new(table)
}

fn observe(table: &ConnectionTable, packet: &Packet<'_>, now: Time) -> TrackingResult {
    let how = Observation { tracking: &Tracking::default(), payload_matchers: None, storage: Storage::Now };
    table.observe(packet, &table.prepare(packet, Vlan::NONE), Some(FragmentPart::Whole), now, &how)
}

/// A datagram of a client, or the answer to it.
fn datagram(client: IpAddr, is_reply: bool) -> Packet<'static> {
    let (source, destination, side) =
        if is_reply { (SERVER, client, Side::Inside) } else { (client, SERVER, Side::Outside) };
    let ports = if is_reply { (53, 4000) } else { (4000, 53) };
    Packet { ports: Some(ports), ..Packet::bare(side, source, destination, protocol::UDP) }
}

/// Tracks a datagram of this client, which begins a connection.
pub(super) fn accept(table: &ConnectionTable, client: IpAddr) {
    assert_eq!(observe(table, &datagram(client, false), BEGUN).state, ConnectionState::New);
}

pub(super) fn forget(table: &ConnectionTable, client: IpAddr) {
    table.forget(&key(table, client), NOW);
}

fn key(table: &ConnectionTable, client: IpAddr) -> HashedKey {
    match table.prepare(&datagram(client, false), Vlan::NONE) {
        PreparedConnection::Connection { key, .. } => key,
        _ => unreachable!("a datagram has a connection"),
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Whether the server sends a segment, its flags, its number, and the number that it acknowledges.
type Segment = (bool, u8, u32, u32);

const HANDSHAKE: [Segment; 4] =
    [(false, SYN, 1000, 0), (true, SYN | ACK, 5000, 1001), (false, ACK, 1001, 5001), (true, ACK, 5001, 1001)];
const CLOSE: [Segment; 1] = [(false, FIN | ACK, 1001, 5001)];
const RESET: [Segment; 1] = [(false, RST | ACK, 1001, 5001)];
const AGAIN: [Segment; 2] = [RESET[0], (false, SYN, 91000, 0)];
/// Both ends close, and the server begins the connection again.
const SWAPPED: [Segment; 7] = [
    CLOSE[0],
    (true, FIN | ACK, 5001, 1002),
    (false, ACK, 1002, 5002),
    (true, SYN, 95000, 0),
    (false, SYN | ACK, 91000, 95001),
    (true, ACK, 95001, 91001),
    (false, ACK, 91001, 95001),
];

/// Tracks segments. Returns the result of the last one.
fn segments(table: &ConnectionTable, segments: &[Segment], now: Time) -> TrackingResult {
    let results = segments.iter().map(|segment| {
        let frame = frame(segment);
        let side = if segment.0 { Side::Inside } else { Side::Outside };
        observe(table, &read(side, &frame, max_frame(1500)).expect("a packet"), now)
    });
    results.last().expect("one or more")
}

fn frame(&(is_servers, flags, sequence, acknowledgement): &Segment) -> Vec<u8> {
    let [client, server] = [SOURCE, SERVER].map(|end| match end {
        IpAddr::V4(end) => end.octets(),
        IpAddr::V6(_) => unreachable!("both ends have IPv4"),
    });
    let ((source, source_port), (destination, port)) =
        if is_servers { ((server, 80), (client, 4000)) } else { ((client, 4000), (server, 80)) };
    let mut header = TcpHeader::new(source_port, port, sequence, 1024);
    let has = |flag: u8| flags & flag != 0;
    (header.fin, header.syn, header.rst, header.ack) = (has(FIN), has(SYN), has(RST), has(ACK));
    header.acknowledgment_number = acknowledgement;
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, destination, 64).tcp_header(header);
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).expect("memory");
    frame
}

/// A carried connection.
struct Carried {
    table: Arc<ConnectionTable>,
    records: std::sync::Arc<Vec<CarriedConnection>>,
    /// What a worker has decided about the client's packets.
    decided: DecidedConnection,
    /// The verdict that another worker has written, if it has.
    verdict: Option<ConnectionRecord>,
}

impl Carried {
    /// An established connection, for which no worker has written a verdict.
    fn not_yet(protocol: Protocol) -> Carried {
        let table = connections(None);
        let records: std::sync::Arc<Vec<_>> =
            std::sync::Arc::new((0..16).map(|_| CarriedConnection::default()).collect());
        table.set_carried(&(std::sync::Arc::clone(&records) as _));
        let seen = match protocol {
            Tcp => {
                segments(&table, &HANDSHAKE, BEGUN);
                segments(&table, &HANDSHAKE[2..3], BEGUN)
            }
            Udp => {
                let [_, _, seen] =
                    [false, true, false].map(|is_reply| observe(&table, &datagram(SOURCE, is_reply), BEGUN));
                seen
            }
        };
        assert_eq!(seen.state, ConnectionState::Established);
        let decided = seen.flow.expect("a connection").decided().expect("its own");
        Carried { table, records, decided, verdict: None }
    }

    /// An established connection, for which a worker has written a verdict.
    fn new(protocol: Protocol) -> Carried {
        let mut carried = Carried::not_yet(protocol);
        carried.verdict = carried.table.carry(&carried.decided, BEGUN);
        assert!(carried.verdict.is_some());
        carried
    }

    /// The same for UDP, in a table without room: the other connections are established, and have packets at `LAST`.
    fn full() -> Carried {
        let carried = Carried::new(Udp);
        for number in 1..16 {
            let client = IpAddr::V4(Ipv4Addr::new(198, 51, 100, number));
            for is_reply in [false, true] {
                observe(&carried.table, &datagram(client, is_reply), LAST);
            }
        }
        carried
    }

    /// Of this new verdict and the earlier one, those by which the program carries a packet.
    fn that_count(&self, written: Option<ConnectionRecord>, now: Time) -> impl Iterator<Item = ConnectionRecord> {
        [written, self.verdict].into_iter().flatten().filter(move |verdict| counts(&self.records, *verdict, now))
    }
}

/// The lifetime of a connection of UDP, as the kernel knows it.
static LIFETIME: LazyLock<Duration> = LazyLock::new(|| Tracking::default().udp_stream);

/// Whether the program carries a packet by this verdict. `track` of `bpf/fast_path.h`, without TCP.
fn counts(records: &[CarriedConnection], verdict: ConnectionRecord, now: Time) -> bool {
    let record = &records[verdict.record as usize];
    record.epoch() == verdict.epoch && now.since(Time::from_nanos(record.last())) < *LIFETIME
}

/// A worker decides about a packet, and lets the kernel carry the connection while the change happens. Afterwards, neither
/// its verdict nor an earlier one counts.
fn verdicts_end(carried: Carried, change: fn(&ConnectionTable)) {
    let (table, decided) = (Arc::clone(&carried.table), carried.decided);
    let worker = thread::spawn(move || table.carry(&decided, NOW));
    change(&carried.table);
    let written = worker.join().expect("no panic");
    assert_eq!(carried.that_count(written, NOW).next(), None, "a verdict that does not hold");
}

fn close(table: &ConnectionTable) {
    segments(table, &CLOSE, NOW);
}

fn reset(table: &ConnectionTable) {
    segments(table, &RESET, NOW);
}

fn begin_again(table: &ConnectionTable) {
    assert_eq!(segments(table, &AGAIN, NOW).state, ConnectionState::New);
}

fn cut(table: &ConnectionTable) {
    let connection = table.of(SOURCE, 1, NOW).oldest[0];
    assert!(table.cut(&connection, NOW, &Tracking::default()).is_some());
}

fn fasttrack(table: &ConnectionTable) {
    table.fasttrack(&key(table, SOURCE), NOW);
}

fn assign_to_door(table: &ConnectionTable) {
    table.set_door(&datagram(SOURCE, false), &key(table, SOURCE), ListId(3), NOW);
}

fn count(table: &ConnectionTable) {
    table.count(EXPIRED);
}

fn take_slot(table: &ConnectionTable) {
    observe(table, &datagram(OTHER, false), EXPIRED);
}

fn directions_are_exact() {
    let carried = Carried::not_yet(Tcp);
    let (table, decided) = (Arc::clone(&carried.table), carried.decided);
    let worker = thread::spawn(move || table.carry(&decided, NOW));
    let seen = segments(&carried.table, &SWAPPED, NOW);
    let is_reply = seen.flow.expect("a connection").back;
    assert_eq!((seen.state, is_reply), (ConnectionState::Established, Some(true)));
    let written = worker.join().expect("no panic");
    assert!(carried.that_count(written, NOW).all(|verdict| Some(verdict.is_reply) == is_reply), "the other direction");
}

/// The program forwards a packet just before the connection expires. It has checked the verdict, and is interrupted before
/// it records the packet.
fn forward_last(carried: &Carried) -> thread::JoinHandle<()> {
    let (records, verdict) = (std::sync::Arc::clone(&carried.records), carried.verdict.expect("a verdict"));
    assert!(counts(&records, verdict, LAST));
    thread::spawn(move || records[verdict.record as usize].forward(LAST.as_nanos()))
}

/// A packet of the connection comes up after it has expired.
fn expired_is_not_carried() {
    let carried = Carried::new(Udp);
    let program = forward_last(&carried);
    let state = observe(&carried.table, &datagram(SOURCE, false), EXPIRED).state;
    program.join().expect("no panic");
    let is_known = state == ConnectionState::Established;
    assert!(is_known || carried.that_count(None, EXPIRED).next().is_none(), "{state:?}, and carried");
}

/// A change finds the connection expired or not. Afterwards, the program carries no connection that the table does not know.
fn expires(carried: &Carried, change: fn(&ConnectionTable)) {
    let program = forward_last(carried);
    change(&carried.table);
    program.join().expect("no panic");
    let state = observe(&carried.table, &datagram(SOURCE, false), EXPIRED).state;
    let is_known = state == ConnectionState::Established;
    assert!(is_known || carried.that_count(None, EXPIRED).next().is_none(), "{state:?}, and carried");
}
