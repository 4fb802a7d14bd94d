use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use knockplane_policy::carried::{CarriedConnection, ConnectionRecord};
use knockplane_policy::packet::Side;

use super::*;

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn observe(
    flows: &ConnectionTable,
    packet: &Packet<'_>,
    part: Option<FragmentPart>,
    now: Time,
    storage: Storage,
) -> TrackingResult {
    let how = Observation { tracking: &Tracking::default(), payload_matchers: None, storage };
    flows.observe(packet, &flows.prepare(packet, Vlan::NONE), part, now, &how)
}

/// Tracks a datagram between a client and the server, in one of the two directions.
fn sees(flows: &ConnectionTable, number: u32, back: bool, now: Time) -> ConnectionState {
    let (source, destination) = if back { (SERVER, client(number)) } else { (client(number), SERVER) };
    let ports = if back { (53, 4000) } else { (4000, 53) };
    let packet = Packet { ports: Some(ports), ..Packet::bare(Side::Outside, source, destination, protocol::UDP) };
    observe(flows, &packet, Some(FragmentPart::Whole), now, Storage::Now).state
}

#[test]
fn a_flood_of_new_connections_pushes_out_none_that_was_seen_both_ways() {
    let flows = ConnectionTable::new(1000, [1, 2]);
    for number in 0..200 {
        sees(&flows, number, false, at(0));
        assert_eq!(sees(&flows, number, true, at(0)), ConnectionState::Established);
    }
    for number in 1_000..50_000 {
        sees(&flows, number, false, at(1));
    }
    for number in 0..200 {
        assert_eq!(sees(&flows, number, false, at(2)), ConnectionState::Established, "{number}");
    }
    assert_eq!(flows.refused(), 0);
}

#[test]
fn of_those_seen_one_way_the_quiet_ones_give_way() {
    let flows = ConnectionTable::new(8, [1, 2]);
    assert_eq!(flows.sets.len(), 1);
    for number in 0..WAYS as u32 {
        sees(&flows, number, false, at(u64::from(number)));
    }
    sees(&flows, 0, false, at(20));
    sees(&flows, 100, false, at(20));
    // The next connection in line was evicted, so its reply begins a new connection; the first connection had another
    // packet.
    assert_eq!(sees(&flows, 1, true, at(20)), ConnectionState::New);
    assert_eq!(sees(&flows, 0, true, at(20)), ConnectionState::Established);
}

#[test]
fn without_room_a_newcomer_is_invalid_and_counted() {
    let flows = ConnectionTable::new(8, [1, 2]);
    for number in 0..WAYS as u32 {
        sees(&flows, number, false, at(0));
        sees(&flows, number, true, at(0));
    }
    assert_eq!(sees(&flows, 100, false, at(1)), ConnectionState::Invalid);
    assert_eq!(flows.refused(), 1);
    // These connections have expired.
    assert_eq!(sees(&flows, 100, false, at(181)), ConnectionState::New);
}

#[test]
fn workers_share_a_connection_and_lose_no_byte_of_it() {
    let flows = ConnectionTable::new(1000, [1, 2]);
    std::thread::scope(|scope| {
        for back in [false, true] {
            let flows = &flows;
            scope.spawn(move || {
                for packet in 0..20_000 {
                    sees(flows, packet % 7, back, at(1));
                }
            });
        }
    });
    for number in 0..7 {
        let packet =
            Packet { ports: Some((4000, 53)), ..Packet::bare(Side::Outside, client(number), SERVER, protocol::UDP) };
        let seen = observe(&flows, &packet, None, at(1), Storage::Now);
        let packets = (0..20_000).filter(|packet| packet % 7 == number).count() as u64;
        assert_eq!(seen.flow.map(|flow| flow.bytes), Some((2 * packets + 1) * 20));
        assert_eq!(seen.state, ConnectionState::Established);
    }
    assert_eq!(flows.known(at(1)).len(), 7);
}

#[test]
fn the_connections_of_an_address_are_counted_and_its_oldest_and_newest_shown() {
    let flows = ConnectionTable::new(1000, [1, 2]);
    for number in 0..20 {
        sees(&flows, number, false, at(3 * u64::from(number)));
    }
    let now = at(57);
    sees(&flows, 19, true, now);
    let ends = |flows: &[ConnectionInfo]| flows.iter().map(|flow| flow.originator.0).collect::<Vec<_>>();
    let of_server = flows.of(SERVER, 3, now);
    // The first connections had no reply, and were evicted.
    let known = of_server.count;
    assert!((10..20).contains(&known), "{known}");
    let first = 20 - known as u32;
    assert_eq!(ends(&of_server.oldest), [client(first), client(first + 1), client(first + 2)]);
    assert_eq!(ends(&of_server.newest), [client(19), client(18), client(17)]);
    let ConnectionInfo { responder, state, protocol, expiry, .. } = of_server.newest[0];
    assert_eq!((responder, state, protocol), ((SERVER, 53), ConnectionState::Established, protocol::UDP));
    assert!(expiry > now);
    let of_client = flows.of(client(19), 3, now);
    assert_eq!((of_client.count, of_client.oldest.len(), of_client.newest.len()), (1, 1, 0), "each is shown once");
    assert_eq!(flows.of(client(50), 3, now), AddressConnections::default());
}

#[test]
fn a_walk_in_parts_visits_each_connection_once() {
    use std::ops::ControlFlow;

    let flows = ConnectionTable::new(1000, [1, 2]);
    for number in 0..500 {
        sees(&flows, number, false, at(0));
    }
    for (sets, most) in [(1, 1), (3, 7), (7, 1_000), (usize::MAX, usize::MAX)] {
        let (mut visited, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let mut left = most;
            next = flows.walk(from, sets, at(1), |flow| {
                visited.push(flow.originator.0);
                left -= 1;
                if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        visited.sort_unstable();
        assert_eq!(visited, (0..500).map(client).collect::<Vec<_>>(), "{sets} sets, {most} connections");
    }
    assert_eq!(flows.walk(u64::MAX, 1, at(1), |_| panic!("there is nothing")), None);
}

#[test]
fn a_packet_that_is_dropped_stores_no_connection_and_evicts_none() {
    // One set of connections with packets in one direction, which others may evict.
    let flows = ConnectionTable::new(1, [1, 2]);
    let observe = |number: u32, storage| {
        let ports = Some((4000, 53));
        let packet = Packet { ports, ..Packet::bare(Side::Outside, client(number), SERVER, protocol::UDP) };
        observe(&flows, &packet, Some(FragmentPart::Whole), at(1), storage)
    };
    (0..WAYS as u32).for_each(|number| _ = observe(number, Storage::Now));
    let known = flows.known(at(1));
    for number in 100..200 {
        let seen = observe(number, Storage::Deferred);
        assert_eq!((seen.state, seen.is_deferred), (ConnectionState::New, true));
    }
    assert_eq!(flows.known(at(1)), known);
    assert!(!observe(100, Storage::Now).is_deferred);
    assert_ne!(flows.known(at(1)), known, "an accepted packet evicts one");
    assert_eq!(observe(100, Storage::Deferred).flow.map(|flow| flow.bytes), Some(40), "and its connection goes on");
}

/// A connection of UDP that the kernel carries, its records, and its verdict.
fn carried(flows: &ConnectionTable) -> (Arc<Vec<CarriedConnection>>, HashedKey, ConnectionRecord) {
    let records: Arc<Vec<_>> = Arc::new((0..WAYS).map(|_| CarriedConnection::default()).collect());
    flows.set_carried(&(Arc::clone(&records) as _));
    sees(flows, 1, false, at(1));
    sees(flows, 1, true, at(1));
    let packet = Packet { ports: Some((4000, 53)), ..Packet::bare(Side::Outside, client(1), SERVER, protocol::UDP) };
    let flow = observe(flows, &packet, Some(FragmentPart::Whole), at(1), Storage::Now).flow.unwrap();
    let verdict = flows.carry(&flow.decided().unwrap(), at(1)).unwrap();
    (records, flow.key, verdict)
}

#[test]
fn a_carried_connection_that_has_expired_ends_whatever_the_kernel_records_later() {
    let flows = ConnectionTable::new(8, [1, 2]);
    let (records, _, verdict) = carried(&flows);
    let record = &records[verdict.record as usize];
    assert_eq!(flows.count(at(180)), 1);
    assert_eq!(flows.count(at(181)), 0);
    assert_ne!(record.epoch(), verdict.epoch);
    record.begin(None, at(180).as_nanos());
    assert_eq!(flows.count(at(181)), 0);
    assert_eq!(sees(&flows, 1, false, at(181)), ConnectionState::New);
}

#[test]
fn verdicts_end_when_a_connection_is_assigned_to_a_door() {
    let flows = ConnectionTable::new(8, [1, 2]);
    let (records, key, verdict) = carried(&flows);
    let packet = Packet::bare(Side::Outside, client(1), SERVER, protocol::UDP);
    flows.set_door(&packet, &key, ListId(3), at(2));
    assert_ne!(records[verdict.record as usize].epoch(), verdict.epoch);
}

#[test]
fn an_ended_connection_has_no_packet_any_more_and_another_one_stays() {
    let flows = ConnectionTable::new(1000, [1, 2]);
    for number in 0..2 {
        sees(&flows, number, false, at(0));
        assert_eq!(sees(&flows, number, true, at(0)), ConnectionState::Established);
    }
    let [ended] = flows.of(client(0), 9, at(0)).oldest[..] else { panic!("one connection") };
    let end = || flows.end(&ended, at(1), &Tracking::default());
    assert!(matches!(end(), EndedConnection::Removed));
    assert!(matches!(end(), EndedConnection::Before));
    assert_eq!(sees(&flows, 1, false, at(1)), ConnectionState::Established);
    assert_eq!(sees(&flows, 0, false, at(1)), ConnectionState::New);
    // Another connection with the same ends is not the ended one.
    assert!(matches!(end(), EndedConnection::Before));
    assert_eq!(sees(&flows, 0, true, at(1)), ConnectionState::Established);
}
