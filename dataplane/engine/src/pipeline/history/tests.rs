use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

fn dropped(rule: u32) -> Refusal {
    Refusal::Dropped { reason: Reason::Rule, rule: Some((3, rule)) }
}

fn to(port: u16) -> LastPacket {
    LastPacket { side: Side::Outside, vlan: Vlan::NONE, protocol: Some(6), port: Some(port) }
}

fn stranger(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 | number).into()
}

impl HistoryWriter {
    /// SourceHistory an event if there is room for it, as a batch does.
    fn note(&mut self, source: IpAddr, refusal: Refusal, packet: LastPacket, count: u32, now: Time) {
        if self.takes() {
            self.record(source, refusal, packet, count, now);
        }
    }
}

/// One event, in a batch of its own.
fn note(recorder: &mut HistoryWriter, source: IpAddr, refusal: Refusal, port: u16, now: Time) {
    recorder.begin(now);
    recorder.note(source, refusal, to(port), 1, now);
    recorder.end(now);
}

#[test]
fn events_of_a_source_are_told_apart_by_subject_and_counted() {
    let mut recorder = HistoryWriter::new(7);
    let v6: IpAddr = "::192.0.2.1".parse().unwrap();
    let open = ListId(9);
    let failed = Refusal::Failed { open, failure: Failure::StartedOver };
    for (source, refusal, port, second) in [
        (SOURCE, dropped(4), 22, 1),
        (SOURCE, failed, 80, 2),
        (v6, dropped(4), 23, 3),
        (SOURCE, dropped(4), 8080, 4),
        (SOURCE, Refusal::Dropped { reason: Reason::ChainDefault, rule: None }, 9, 5),
    ] {
        note(&mut recorder, source, refusal, port, at(second));
    }
    let told = recorder.history().of(SOURCE);
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
        record(Refusal::Dropped { reason: Reason::ChainDefault, rule: None }, 9, 1, 5, 5),
    ];
    assert_eq!((&told.records[..], told.complete_since), (&expected[..], at(0)));
    assert_eq!(recorder.history().of(v6).records, [record(dropped(4), 23, 1, 3, 3)], "an address of another family");
    assert_eq!(recorder.history().of(stranger(1)).records, []);
}

#[test]
fn a_frame_that_cannot_be_read_and_the_inside_are_told() {
    let mut recorder = HistoryWriter::new(7);
    let refusal = Refusal::Dropped { reason: Reason::Ipv4Malformed, rule: None };
    let packet = LastPacket { side: Side::Inside, vlan: Vlan::NONE, protocol: None, port: None };
    recorder.begin(at(1));
    recorder.note(SOURCE, refusal, packet, 3, at(1));
    let [record] = recorder.history().of(SOURCE).records[..] else { panic!("one record") };
    assert_eq!((record.refusal, record.packet, record.count), (refusal, packet, 3));
}

#[test]
fn what_a_flood_displaces_is_said() {
    let mut recorder = HistoryWriter::new(7);
    note(&mut recorder, SOURCE, dropped(1), 22, at(1));
    for number in 0..20 * History::capacity() as u32 {
        note(&mut recorder, stranger(number), dropped(1), 22, at(2 + u64::from(number) / 1_000));
    }
    let told = recorder.history().of(SOURCE);
    assert_eq!(told.records, []);
    assert!(told.complete_since > at(1), "the client's record went: {told:?}");
    let last = at(2 + 20 * History::capacity() as u64 / 1_000);
    assert!(told.complete_since < last, "not everything is lost: {told:?}");
}

#[test]
fn the_oldest_record_of_a_set_gives_way() {
    let mut recorder = HistoryWriter::new(7);
    for rule in 0..=WAYS as u32 {
        note(&mut recorder, SOURCE, dropped(rule), 22, at(1 + u64::from(rule)));
    }
    let told = recorder.history().of(SOURCE);
    let mut rules: Vec<_> = told.records.iter().map(|record| record.refusal).collect();
    rules.sort_by_key(|refusal| refusal.words());
    assert_eq!(rules, (1..=WAYS as u32).map(dropped).collect::<Vec<_>>());
    assert_eq!(told.complete_since, at(1));
}

#[test]
fn a_batch_writes_so_many_records_and_says_that_it_left_some_out() {
    let mut recorder = HistoryWriter::new(7);
    recorder.begin(at(5));
    for number in 0..=RECORDS_A_BATCH {
        recorder.note(stranger(number), dropped(0), to(22), 1, at(5));
    }
    recorder.end(at(5));
    let of = |number| recorder.history().of(stranger(number));
    assert_eq!((of(0).records.len(), of(RECORDS_A_BATCH).records.len()), (1, 0));
    assert_eq!((of(0).complete_since, of(RECORDS_A_BATCH).complete_since), (at(5), at(5)));
}

#[test]
fn everything_is_written_of_the_watched_source_whatever_else_comes() {
    let mut recorder = HistoryWriter::new(7);
    let history = recorder.history();
    note(&mut recorder, SOURCE, dropped(1), 21, at(0));
    history.watch(1, SOURCE, at(30));
    assert_eq!(history.watched(1, SOURCE), SourceHistory::default(), "no packet yet");
    for second in 1..60 {
        recorder.begin(at(second));
        for number in 0..100 {
            recorder.note(stranger(number), dropped(0), to(22), 1, at(second));
        }
        recorder.note(SOURCE, dropped(1), to(22), 1, at(second));
        recorder.end(at(second));
    }
    let [record] = history.watched(1, SOURCE).records[..] else { panic!("one record") };
    assert_eq!((record.count, record.first, record.last), (29, at(1), at(29)), "until it ends");
    let [before] = history.of(SOURCE).records[..] else { panic!("what came before") };
    assert_eq!((before.count, before.packet.port), (1, Some(21)));
    assert_eq!(history.of(SOURCE).complete_since, at(59));
    history.watch(2, stranger(5), at(90));
    note(&mut recorder, stranger(5), dropped(0), 22, at(60));
    assert_eq!(
        (history.watched(1, SOURCE), history.watched(2, SOURCE)),
        (SourceHistory::default(), SourceHistory::default())
    );
    assert_eq!(history.watched(2, stranger(5)).records.len(), 1);
}

/// Every record that a reader sees is whole: its words are of one event.
#[test]
fn readers_never_see_half_a_record() {
    let mut recorder = HistoryWriter::new(7);
    let history = recorder.history();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Relaxed) {
                for record in history.of(SOURCE).records {
                    let Refusal::Dropped { rule: Some((3, rule)), .. } = record.refusal else { panic!("{record:?}") };
                    assert_eq!(record.packet.port, Some(rule as u16), "{record:?}");
                    assert_eq!(record.last.as_nanos() % 10, u64::from(rule), "{record:?}");
                    seen += 1;
                }
            }
            seen
        });
        for round in 0..200_000_u64 {
            let rule = (round % 10) as u32;
            recorder.begin(Time::from_nanos(round));
            recorder.note(SOURCE, dropped(rule), to(rule as u16), 1, Time::from_nanos(round));
        }
        done.store(true, Relaxed);
        assert!(reader.join().expect("whole records") > 0);
    });
}
