//! Readers, without a dataplane.

use knockplane_policy::event::Gap;
use serde_json::json;

use super::filter::{EventFilter, WantedEvents};
use super::*;
use crate::json::events::EventJson;

const START: StartId = StartId(7);

fn events() -> Events {
    let events = Events::new(Dataplane::new("/nonexistent/dataplane.sock"));
    events.add(EventBatch { start: START, ..EventBatch::default() });
    events
}

fn all() -> EventFilter {
    EventFilter::Wanted(Box::<WantedEvents>::default())
}

fn line(number: u64, total: u64) -> PacketLine {
    let line = json!({
        "number": number, "after": 0, "time_ns": 1, "rule": "0a1b2c3d", "rule_number": "ip filter 3", "total": total,
        "prefix": "", "chain": "input", "side": "outside", "network": {}, "protocol": "tcp", "source": "192.0.2.1",
        "source_port": 1, "destination": "192.0.2.2", "destination_port": 2, "line": "x",
    });
    serde_json::from_value(line).unwrap()
}

fn total(total: u64) -> RuleTotal {
    let line = line(1, 1);
    RuleTotal { rule: Some(line.rule), rule_number: Some(line.rule_number), total }
}

fn packets(packets: Vec<PacketLine>, totals: Vec<RuleTotal>) -> EventBatch {
    EventBatch { start: START, packets, totals, ..EventBatch::default() }
}

/// All events of a reader until its end, and the numbers of lines that are shown and omitted.
async fn read(mut reader: reader::EventReader) -> (Vec<EventJson>, u64, u64) {
    let mut read = Vec::new();
    while let Some(event) = reader.next().await {
        read.push(event);
    }
    let shown = read.iter().filter(|event| event.packet.is_some()).count() as u64;
    let omitted = read.iter().filter_map(|event| event.omitted).map(|omitted| omitted.lines).sum();
    (read, shown, omitted)
}

#[tokio::test]
async fn packets_are_shown_or_counted_for_each_reader() {
    let events = events();
    let early = events.reader(all());
    // The dataplane has shown ten of thirty.
    events.add(packets((1..=10).map(|number| line(number, 2 * number)).collect(), vec![total(30)]));
    let late = events.reader(all());
    let more = PACKETS as u64 + 100;
    events.add(packets((1..=more).map(|number| line(10 + number, 30 + number)).collect(), vec![total(30 + more)]));
    let since = events.reader_after(EventId::packet(START, 0, 10 + more - 5), all());
    events.close();
    let (_, shown, omitted) = read(early).await;
    assert_eq!((shown + omitted, shown), (30 + more, PACKETS as u64));
    let (_, shown, omitted) = read(late).await;
    assert_eq!((shown + omitted, shown), (more, PACKETS as u64));
    let (_, shown, omitted) = read(since).await;
    assert_eq!((shown, omitted), (5, 0));
}

#[tokio::test]
async fn changes_by_operators_are_in_order_and_those_that_are_gone_are_a_gap() {
    let events = events();
    let slow = events.reader(all());
    let record = |_| {
        events.record(OperatorChange::of(
            OperatorAction::ListAdd,
            RecordedOperator { uid: Some(0), ..RecordedOperator::default() },
        ))
    };
    let ids: Vec<EventId> = (0..OPERATORS + 7).map(record).collect();
    assert!(ids.windows(2).all(|pair| pair[0].behind != pair[1].behind), "each id once");
    let continued = events.reader_after(ids[OPERATORS], all());
    events.close();
    let (read_all, ..) = read(slow).await;
    assert_eq!(read_all[0].gap.as_ref().map(|gap| gap.operator_changes), Some(7));
    let shown: Vec<_> = read_all[1..].iter().filter_map(|event| event.id.clone()).collect();
    assert_eq!(shown, ids[7..].iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(read(continued).await.0.len(), 6);
}

#[tokio::test]
async fn a_new_start_of_the_dataplane_is_a_gap_and_a_start() {
    let events = events();
    let reader = events.reader(all());
    events.add(EventBatch { start: StartId(8), restored: 3, ..EventBatch::default() });
    let missed = EventItem::Gap { missed: Gap { first: 1, last: 9 }, found: 0 };
    events.add(EventBatch { start: StartId(8), last: 9, items: vec![missed], ..EventBatch::default() });
    assert_eq!(events.id("9").unwrap(), EventId::of(StartId(8), 9));
    let error = events.id("10").unwrap_err();
    assert!(error.contains("there is no event 10 yet: the last one is 0000000000000008-9"), "{error}");
    events.close();
    let (read, ..) = read(reader).await;
    assert_eq!(read.iter().map(|event| &*event.kind).collect::<Vec<_>>(), ["gap", "start", "gap"]);
    let gap = read[0].gap.as_ref().unwrap();
    assert_eq!((&*gap.start, gap.first, gap.last), ("0000000000000007", 1, None));
    assert_eq!(read[1].start.as_ref().map(|start| start.restored), Some(3));
}
