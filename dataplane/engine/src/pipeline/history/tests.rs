use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

fn dropped(rule: u32) -> HistoryCause {
    HistoryCause::Dropped { reason: Reason::Rule, rule: Some((3, rule)) }
}

fn to(port: u16) -> LastPacket {
    LastPacket { side: Side::Outside, vlan: Vlan::NONE, protocol: Some(6), port: Some(port) }
}

fn stranger(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 | number).into()
}

impl HistoryWriter {
    /// Records an event if there is room for it, as a batch does.
    fn note(&mut self, source: IpAddr, refusal: HistoryCause, packet: LastPacket, count: u32, now: Time) {
        if self.has_room() {
            self.record(RefusedPackets { source, refusal, last: packet, count, arrived: now });
        }
    }
}

/// Records one event, in a separate batch.
fn note(writer: &mut HistoryWriter, source: IpAddr, refusal: HistoryCause, port: u16, now: Time) {
    writer.begin_batch(now);
    writer.note(source, refusal, to(port), 1, now);
    writer.end_batch(now);
}

#[test]
fn each_subject_of_a_source_has_a_record_that_counts() {
    let mut writer = HistoryWriter::new(7);
    let v6: IpAddr = "::192.0.2.1".parse().unwrap();
    let open = ListId(9);
    let failed = HistoryCause::Failed { open, failure: Failure::StartedOver };
    for (source, refusal, port, second) in [
        (SOURCE, dropped(4), 22, 1),
        (SOURCE, failed, 80, 2),
        (v6, dropped(4), 23, 3),
        (SOURCE, dropped(4), 8080, 4),
        (SOURCE, HistoryCause::Dropped { reason: Reason::ChainDefault, rule: None }, 9, 5),
    ] {
        note(&mut writer, source, refusal, port, at(second));
    }
    let told = writer.history().of(SOURCE);
    let record = |refusal, port, count, first, last| HistoryRecord {
        refusal,
        packet: to(port),
        count,
        first: at(first),
        last: at(last),
    };
    let expected = [
        record(dropped(4), 8080, 2, 1, 4),
        record(failed, 80, 1, 2, 2),
        record(HistoryCause::Dropped { reason: Reason::ChainDefault, rule: None }, 9, 1, 5, 5),
    ];
    assert_eq!((&told.records[..], told.complete_since), (&expected[..], at(0)));
    assert_eq!(writer.history().of(v6).records, [record(dropped(4), 23, 1, 3, 3)], "an address of another family");
    assert_eq!(writer.history().of(stranger(1)).records, []);
}

#[test]
fn a_record_names_a_malformed_frame_and_the_inside() {
    let mut writer = HistoryWriter::new(7);
    let refusal = HistoryCause::Dropped { reason: Reason::Ipv4Malformed, rule: None };
    let packet = LastPacket { side: Side::Inside, vlan: Vlan::NONE, protocol: None, port: None };
    writer.begin_batch(at(1));
    writer.note(SOURCE, refusal, packet, 3, at(1));
    let [record] = writer.history().of(SOURCE).records[..] else { panic!("one record") };
    assert_eq!((record.refusal, record.packet, record.count), (refusal, packet, 3));
}

#[test]
fn a_history_says_since_when_it_is_complete_after_a_flood() {
    let mut writer = HistoryWriter::new(7);
    note(&mut writer, SOURCE, dropped(1), 22, at(1));
    for number in 0..20 * History::capacity() as u32 {
        note(&mut writer, stranger(number), dropped(1), 22, at(2 + u64::from(number) / 1_000));
    }
    let told = writer.history().of(SOURCE);
    assert_eq!(told.records, []);
    assert!(told.complete_since > at(1), "the record of the client was replaced: {told:?}");
    let last = at(2 + 20 * History::capacity() as u64 / 1_000);
    assert!(told.complete_since < last, "not everything is lost: {told:?}");
}

#[test]
fn a_new_record_replaces_the_oldest_one_of_its_set() {
    let mut writer = HistoryWriter::new(7);
    for rule in 0..=WAYS as u32 {
        note(&mut writer, SOURCE, dropped(rule), 22, at(1 + u64::from(rule)));
    }
    let told = writer.history().of(SOURCE);
    let mut rules: Vec<_> = told.records.iter().map(|record| record.refusal).collect();
    rules.sort_by_key(|refusal| refusal.words());
    assert_eq!(rules, (1..=WAYS as u32).map(dropped).collect::<Vec<_>>());
    assert_eq!(told.complete_since, at(1));
}

#[test]
fn a_batch_writes_a_limited_number_of_records_and_notes_that_it_left_some_out() {
    let mut writer = HistoryWriter::new(7);
    writer.begin_batch(at(5));
    for number in 0..=RECORDS_A_BATCH {
        writer.note(stranger(number), dropped(0), to(22), 1, at(5));
    }
    writer.end_batch(at(5));
    let of = |number| writer.history().of(stranger(number));
    assert_eq!((of(0).records.len(), of(RECORDS_A_BATCH).records.len()), (1, 0));
    assert_eq!((of(0).complete_since, of(RECORDS_A_BATCH).complete_since), (at(5), at(5)));
}

#[test]
fn all_events_of_the_watched_source_are_written_during_a_flood() {
    let mut writer = HistoryWriter::new(7);
    let history = writer.history();
    note(&mut writer, SOURCE, dropped(1), 21, at(0));
    history.watch(1, SOURCE, at(30));
    assert_eq!(history.watched(1, SOURCE), SourceHistory::default(), "no packet yet");
    for second in 1..60 {
        writer.begin_batch(at(second));
        for number in 0..100 {
            writer.note(stranger(number), dropped(0), to(22), 1, at(second));
        }
        writer.note(SOURCE, dropped(1), to(22), 1, at(second));
        writer.end_batch(at(second));
    }
    let [record] = history.watched(1, SOURCE).records[..] else { panic!("one record") };
    assert_eq!((record.count, record.first, record.last), (29, at(1), at(29)), "until it ends");
    let [before] = history.of(SOURCE).records[..] else { panic!("what came before") };
    assert_eq!((before.count, before.packet.port), (1, Some(21)));
    assert_eq!(history.of(SOURCE).complete_since, at(59));
    history.watch(2, stranger(5), at(90));
    note(&mut writer, stranger(5), dropped(0), 22, at(60));
    assert_eq!(
        (history.watched(1, SOURCE), history.watched(2, SOURCE)),
        (SourceHistory::default(), SourceHistory::default())
    );
    assert_eq!(history.watched(2, stranger(5)).records.len(), 1);
}

#[test]
fn a_visit_finds_every_record_with_its_source() {
    let mut writer = HistoryWriter::new(7);
    for (number, port) in [(1, 22), (2, 23), (2, 24)] {
        note(&mut writer, stranger(number), dropped(u32::from(port)), port, at(1));
    }
    let mut visited = Vec::new();
    writer.history().visit(|source, record| visited.push((source, record.packet.port)));
    visited.sort_unstable();
    assert_eq!(visited, [(stranger(1), Some(22)), (stranger(2), Some(23)), (stranger(2), Some(24))]);
}

/// Checks that all words of a record that a reader receives belong to one event.
#[test]
fn readers_never_see_a_partly_written_record() {
    let mut writer = HistoryWriter::new(7);
    let history = writer.history();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Relaxed) {
                for record in history.of(SOURCE).records {
                    let HistoryCause::Dropped { rule: Some((3, rule)), .. } = record.refusal else {
                        panic!("{record:?}")
                    };
                    assert_eq!(record.packet.port, Some(rule as u16), "{record:?}");
                    assert_eq!(record.last.as_nanos() % 10, u64::from(rule), "{record:?}");
                    seen += 1;
                }
            }
            seen
        });
        for round in 0..200_000_u64 {
            let rule = (round % 10) as u32;
            writer.begin_batch(Time::from_nanos(round));
            writer.note(SOURCE, dropped(rule), to(rule as u16), 1, Time::from_nanos(round));
        }
        done.store(true, Relaxed);
        assert!(reader.join().expect("whole records") > 0);
    });
}
