use std::fs;
use std::sync::Arc;

use knockplane_engine::state::events::ring::{Cursor, Received};
use knockplane_engine::state::events::{Cause, EventEntry, ListEvent};
use knockplane_policy::event::Origin;
use tempfile::TempDir;

use super::*;
use crate::state_dir::{LISTS, OLD_LISTS, StateDir};
use knockplane_limits::predecessor::Deadline;

fn change(list: &str, set: &str, until: Option<u64>) -> OperatorChange {
    let (set, until) = (set.parse::<AddressSet>().unwrap(), until.map(Time::from_nanos));
    let entry = OperatorEntry { comment: format!("{set}, by hand"), set, until };
    OperatorChange { list: list.to_owned(), bounds: entry.set.bounds(), entry: Some(entry) }
}

fn removal(list: &str, set: &str) -> OperatorChange {
    OperatorChange { entry: None, ..change(list, set, None) }
}

fn all(entries: &StaticEntryStore) -> Vec<String> {
    entries
        .lists()
        .flat_map(|(list, entries)| entries.values().map(move |entry| format!("{list} {}", entry.set)))
        .collect()
}

/// The bytes of a file with only these entries.
fn stored_bytes(entries: &StaticEntryStore) -> u64 {
    let of_list = |(name, entries): (&str, &BTreeMap<Bounds, OperatorEntry>)| {
        list_bytes(name) + entries.values().map(OperatorEntry::stored_bytes).sum::<u64>()
    };
    entries.lists().map(of_list).sum()
}

fn open(folder: &TempDir) -> Arc<StateDir> {
    Arc::new(StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap())
}

/// A state directory with a file of these changes (one record for each), the bytes of the file, and the entries after
/// each change.
fn written(changes: Vec<OperatorChange>) -> (TempDir, Arc<StateDir>, Vec<u8>, Vec<Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut entries = StaticEntryStore::load(&state).unwrap();
    let mut after = vec![Vec::new()];
    for change in changes {
        entries.change(vec![change]).unwrap();
        after.push(all(&entries));
    }
    let file = fs::read(state.file(LISTS)).unwrap();
    (folder, state, file, after)
}

/// The first bytes of the records, and the end of the last one.
fn places(file: &[u8]) -> Vec<usize> {
    let mut place = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut places = vec![place];
    while let Some(length) = file.get(place..place + 4) {
        // The upper bit is a flag.
        place += 32 + (u32::from_be_bytes(length.try_into().unwrap()) & u32::MAX >> 1) as usize;
        places.push(place);
    }
    places
}

fn five() -> Vec<OperatorChange> {
    vec![
        change("a", "192.0.2.1", None),
        change("b", "2001:db8::/32", None),
        removal("a", "192.0.2.1"),
        change("a", "192.0.2.3-192.0.2.9", None),
        change("b", "192.0.2.0/24", None),
    ]
}

#[test]
fn static_entries_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut entries = StaticEntryStore::load(&state).unwrap();
    let changes = [
        ("b", "192.0.2.0/24", None),
        ("a", "2001:db8::7", None),
        ("a", "192.0.2.1-192.0.2.9", None),
        ("a", "::/0", Some(5)),
    ];
    entries.change(changes.map(|(list, set, until)| change(list, set, until)).into()).unwrap();
    assert_eq!(all(&entries), ["a 192.0.2.1-192.0.2.9", "a ::/0", "a 2001:db8::7", "b 192.0.2.0/24"]);
    let again = StaticEntryStore::load(&state).unwrap();
    assert_eq!(all(&again), ["a 192.0.2.1-192.0.2.9", "a 2001:db8::7", "b 192.0.2.0/24"]);
    assert_eq!(again.list("b").unwrap(), entries.list("b").unwrap(), "comments too");

    let told = StoredEntries::load(&state).unwrap().install(&Lists::new(2).unwrap(), &[], &[]).unwrap_err().to_string();
    assert!(told.contains("holds 3 entries") && told.contains("raise `list-capacity`"), "{told}");
    let lists = Lists::new(3).unwrap();
    StoredEntries::load(&state).unwrap().install(&lists, &[], &[]).unwrap();
    let is_in =
        |list, address: [u8; 4]| lists.membership(address.into(), 0, Time::default()).contains(lists.id(list).unwrap());
    assert!(is_in("b", [192, 0, 2, 77]) && is_in("a", [192, 0, 2, 9]) && !is_in("a", [192, 0, 2, 10]));

    let mut entries = again;
    entries.change(vec![removal("b", "192.0.2.0/24")]).unwrap();
    assert!(entries.list("b").is_none() && StaticEntryStore::load(&state).unwrap().list("b").is_none());
}

/// Covers changes in any order, replaced comments, entries that get a timeout, and rewrites of the file in between.
#[test]
fn a_restart_finds_the_last_state_of_each_entry() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut entries = StaticEntryStore::load(&state).unwrap();
    let mut random = 1_u64;
    let mut dice = move |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    for round in 0..200 {
        let changes = (0..1 + dice(4)).map(|_| {
            let (list, host) = (["a", "b"][dice(2) as usize], dice(20));
            let mut change = change(list, &format!("10.0.0.{host}"), Some(u64::MAX).filter(|_| dice(4) == 0));
            if let Some(entry) = &mut change.entry {
                entry.comment = format!("round {round}");
            }
            if dice(3) == 0 { OperatorChange { entry: None, ..change } } else { change }
        });
        entries.change(changes.collect()).unwrap();
        if dice(20) == 0 {
            entries.write_anew().unwrap();
        }
        let again = StaticEntryStore::load(&state).unwrap();
        let stored = |entries: &StaticEntryStore| {
            let lists = entries.lists().flat_map(|(list, entries)| entries.values().map(move |entry| (list, entry)));
            let stored = lists.filter(|(_, entry)| entry.until.is_none());
            stored.map(|(list, entry)| (list.to_owned(), entry.clone())).collect::<Vec<_>>()
        };
        assert_eq!(stored(&again), stored(&entries), "round {round}");
        assert_eq!(again.live_bytes, stored_bytes(&again));
        // The load has opened the file again. Both values have the same content.
        entries = StaticEntryStore { lists: entries.lists, next_expiry: entries.next_expiry, ..again };
        entries.live_bytes = stored_bytes(&entries);
    }
}

#[test]
fn a_change_that_cannot_be_stored_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut entries = StaticEntryStore::load(&state).unwrap();
    entries.change(vec![change("a", "192.0.2.1", None)]).unwrap();
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let twice = vec![change("a", "192.0.2.2", None), change("a", "192.0.2.2", Some(1)), change("b", "::", None)];
    assert!(entries.change(twice).is_err());
    assert_eq!(all(&entries), ["a 192.0.2.1"]);
}

/// Truncates the file within each of its last three records. The records before that place are valid, and new changes
/// follow them.
#[test]
fn an_interrupted_change_is_cut_off() {
    let (_folder, state, file, after) = written(five());
    let places = places(&file);
    for length in places[2]..file.len() {
        fs::write(state.file(LISTS), &file[..length]).unwrap();
        let whole = places.iter().filter(|place| **place <= length).count() - 1;
        let mut entries = StaticEntryStore::load(&state).unwrap();
        assert_eq!(all(&entries), after[whole], "{length} of {} bytes", file.len());
        assert!(entries.damage().is_none());
        entries.change(vec![change("c", "::7", None)]).unwrap();
        let again = StaticEntryStore::load(&state).unwrap();
        assert_eq!(all(&again), all(&entries), "{length} bytes, and a change");
    }
    // The length of a file can reach the disk before its content.
    fs::write(state.file(LISTS), [&file[..], &[0; 100]].concat()).unwrap();
    assert_eq!(all(&StaticEntryStore::load(&state).unwrap()), after[5]);
    assert_eq!(fs::read(state.file(LISTS)).unwrap(), file);
}

/// The entries that are in force if these records are damaged, computed from the changes.
fn in_force(changes: &[(&str, &str, bool)], is_damaged: impl Fn(usize) -> bool, header: bool) -> Vec<String> {
    let mut entries = Vec::new();
    for (number, (list, set, adds)) in changes.iter().enumerate() {
        let entry = format!("{list} {set}");
        match is_damaged(number) {
            true if *adds && !header => {}
            true => entries.clear(),
            false if *adds => entries.push(entry),
            false => entries.retain(|other| *other != entry),
        }
    }
    entries.sort();
    entries
}

/// Each bit of each of six records: no removed entry returns. Only the entries of the damaged record are lost if it
/// removed none. The damage is told, and the damaged file is kept.
#[test]
fn damage_brings_no_removed_entry_back() {
    let changes = [
        ("a", "192.0.2.1", true),
        ("b", "198.51.100.0/24", true),
        ("a", "192.0.2.1", false),
        ("a", "192.0.2.3-192.0.2.9", true),
        ("b", "198.51.100.0/24", false),
        ("b", "192.0.2.0/24", true),
    ];
    let of = |(list, set, adds): &(&str, &str, bool)| if *adds { change(list, set, None) } else { removal(list, set) };
    let (_folder, state, file, _) = written(changes.iter().map(of).collect());
    let places = places(&file);
    for bit in 8 * places[0]..8 * file.len() {
        let record = places.iter().rposition(|place| *place <= bit / 8).unwrap();
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(state.file(LISTS), &damaged).unwrap();
        assert!(StoredEntries::peek(&state).is_ok() && fs::read(state.file(LISTS)).unwrap() == damaged, "unchanged");
        let entries = StaticEntryStore::load(&state).unwrap();
        let found = all(&entries);
        let expected = in_force(&changes, |number| number == record, bit / 8 < places[record] + 32);
        assert_eq!(found, expected, "bit {bit} in record {record}");
        let told = entries.damage().expect("it is told");
        assert!(told.contains(&format!("lists.state is damaged at byte {}: ", places[record])), "{told}");
        let aside = state.file(&format!("{LISTS}.aside-1"));
        assert_eq!(fs::read(&aside).unwrap(), damaged, "the damaged file is kept");
        fs::remove_file(aside).unwrap();
        let again = StaticEntryStore::load(&state).unwrap();
        assert!(again.damage().is_none() && all(&again) == found, "the new file is intact");
    }
    // Runs of damaged bytes, over the borders of records: in zeros, and cut out of the file.
    for begin in (places[0]..file.len() - 1).step_by(3) {
        for end in [begin + 1, begin + 7, begin + 40, begin + 90, file.len() - 1] {
            let end = end.clamp(begin + 1, file.len() - 1);
            let mut zeros = file.clone();
            zeros[begin..end].fill(0);
            let cut = [&file[..begin], &file[end..]].concat();
            for damaged in [zeros, cut] {
                if damaged == file {
                    continue;
                }
                fs::write(state.file(LISTS), &damaged).unwrap();
                let entries = StaticEntryStore::load(&state).unwrap();
                let length = fs::metadata(state.file(LISTS)).unwrap().len() as usize;
                for (entry, removed_by) in [("a 192.0.2.1", 2), ("b 198.51.100.0/24", 4)] {
                    // Only if all from the removal on is cut off, as after an interrupted change.
                    let is_cut_off = entries.damage().is_none() && length <= places[removed_by];
                    let is_there = all(&entries).iter().any(|other| other == entry);
                    assert!(!is_there || is_cut_off || begin >= places[removed_by + 1], "{begin}..{end}: {entry}");
                }
                _ = fs::remove_file(state.file(&format!("{LISTS}.aside-1")));
            }
        }
    }
}

/// The sectors of a last record, of which the disk wrote only the first ones before a power failure.
#[test]
fn a_last_record_that_ends_in_unwritten_sectors_is_cut_off() {
    // Records of some length, so that the last one is in two sectors, and once its header too.
    for padding in 0..140 {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let mut entries = StaticEntryStore::load(&state).unwrap();
        let mut long = change("a", "192.0.2.1", None);
        long.entry.as_mut().unwrap().comment = "x".repeat(350 + padding);
        entries.change(vec![long]).unwrap();
        entries.change(vec![change("a", "192.0.2.2", None)]).unwrap();
        let before = fs::metadata(state.file(LISTS)).unwrap().len() as usize;
        entries.change(vec![removal("a", "192.0.2.1")]).unwrap();
        let mut file = fs::read(state.file(LISTS)).unwrap();
        let sector = 512;
        if !(before < sector && sector < file.len()) {
            continue;
        }
        file[sector..].fill(0);
        fs::write(state.file(LISTS), &file).unwrap();
        let entries = StaticEntryStore::load(&state).unwrap();
        assert!(entries.damage().is_none(), "{padding}: {:?}", entries.damage());
        assert_eq!(all(&entries), ["a 192.0.2.1", "a 192.0.2.2"], "{padding}: as before the removal");
        assert_eq!(fs::metadata(state.file(LISTS)).unwrap().len() as usize, before);
    }
}

#[test]
fn a_damaged_first_line_and_a_newer_version_are_refused() {
    let (_folder, state, file, _) = written(five());
    let refused = |bytes: &[u8]| {
        fs::write(state.file(LISTS), bytes).unwrap();
        let error = format!("{:#}", StoredEntries::load(&state).err().expect("refused"));
        assert!(error.contains("lists.state is damaged; ") && error.contains("--without-state"), "{error}");
        error
    };
    for bit in 0..8 * places(&file)[0] {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refused(&damaged);
    }
    (0..places(&file)[0]).for_each(|length| _ = refused(&file[..length]));
    let newer = String::from_utf8_lossy(&file[..places(&file)[0]]).replace(" 2 ", " 3 ");
    let error = refused(&[newer.as_bytes(), &file[places(&file)[0]..]].concat());
    assert!(error.contains("format 3, and this program reads format 2: a newer version wrote the file"), "{error}");
}

#[test]
fn entries_that_would_not_be_written_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut log = ChangeLog::new(Arc::clone(&state), LISTS, stored::FORMAT);
    let content = b"L\0\0\0\x01aP\x21\xc0\0\x02\x01\0\0".to_vec();
    log.replace([Record { content, only_adds: true }].into_iter()).unwrap();
    let stored = StoredEntries::load(&state).unwrap();
    let error = format!("{:#}", stored.install(&Lists::new(1).unwrap(), &[], &[]).unwrap_err());
    assert!(error.contains("lists.state is damaged") && error.contains("no kind 33"), "{error}");
    assert!(stored.into_map(Vec::new(), &[]).is_err());
}

/// Compares the bytes of the file and the bytes written to the disk for a change beside a million entries and beside
/// ten.
#[test]
fn a_change_writes_as_much_beside_many_entries_as_beside_few() {
    let added = |many: usize| {
        let folder = tempfile::tempdir().unwrap();
        let state = open(&folder);
        let mut entries = StaticEntryStore::load(&state).unwrap();
        let host = |number: usize| {
            let set = AddressSet::from(IpAddr::from([10, (number >> 16) as u8, (number >> 8) as u8, number as u8]));
            let entry = OperatorEntry { comment: String::new(), set, until: None };
            OperatorChange { list: "a".to_owned(), bounds: entry.set.bounds(), entry: Some(entry) }
        };
        entries.change((0..many).map(host).collect()).unwrap();
        let before = fs::metadata(state.file(LISTS)).unwrap().len();
        let written = || {
            let io = fs::read_to_string("/proc/thread-self/io").unwrap();
            let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
            line.parse::<u64>().unwrap()
        };
        let begin = written();
        entries.change(vec![change("a", "192.0.2.1", None)]).unwrap();
        entries.compact();
        (fs::metadata(state.file(LISTS)).unwrap().len() - before, written() - begin)
    };
    let (few, many) = (added(10), added(100_000));
    assert_eq!(few, many);
    assert_eq!(few.0, few.1, "nothing but the record is written");
}

#[test]
fn the_file_is_written_anew_when_more_than_half_of_it_is_out_of_date() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut entries = StaticEntryStore::load(&state).unwrap();
    let mut most = 0;
    for round in 0..2_500 {
        let host = format!("10.0.0.{}", round % 10);
        entries.change(vec![if round % 20 < 10 { change("a", &host, None) } else { removal("a", &host) }]).unwrap();
        entries.compact();
        most = most.max(fs::metadata(state.file(LISTS)).unwrap().len());
    }
    assert!(most > FEW_BYTES && most < FEW_BYTES + 2_000, "{most} bytes");
    assert_eq!(all(&StaticEntryStore::load(&state).unwrap()), all(&entries));
}

fn old(rest: &str) -> String {
    format!("[{{\"list\":\"a\",\"address\":\"::1\"{rest}}}]")
}

#[test]
fn a_file_of_an_earlier_version_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let [new, old_file] = [LISTS, OLD_LISTS].map(|name| state.file(name));
    fs::write(&old_file, old(",\"comment\":\"home\"")).unwrap();
    let entries = StaticEntryStore::load(&state).unwrap();
    assert_eq!(entries.list("a").unwrap().values().next().unwrap().comment, "home");
    assert!(new.exists() && !old_file.exists());
    assert_eq!(all(&StaticEntryStore::load(&state).unwrap()), ["a ::1"]);

    fs::write(&old_file, old(",\"comment\":\"home\"")).unwrap();
    assert_eq!(all(&StaticEntryStore::load(&state).unwrap()), ["a ::1"], "as after a start that was interrupted");
    assert!(!old_file.exists());
    fs::write(&old_file, "[]").unwrap();
    let error = StaticEntryStore::load(&state).err().unwrap().to_string();
    assert!(error.contains("hold different entries: remove one of them"), "{error}");
    fs::write(&new, "[").unwrap();
    let error = format!("{:#}", StaticEntryStore::load(&state).err().unwrap());
    assert!(error.contains("lists.state is damaged"), "a damaged file does not count as an old one: {error}");
}

/// The file has one checksum for each block, as the previous version wrote it. The test flips each bit and truncates
/// the file at each length.
#[test]
fn a_file_of_the_version_before_is_replaced_by_one_of_records() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let content = [b"\0\0\0\x01a\0\0\0\x02", &[32, 192, 0, 2, 1, 0, 1, b'x', 32, 192, 0, 2, 2, 0, 0][..]].concat();
    state.write(LISTS, version1::FORMAT, &content).unwrap();
    let file = fs::read(state.file(LISTS)).unwrap();
    let mut damaged = file.clone();
    for bit in 0..8 * file.len() {
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(state.file(LISTS), &damaged).unwrap();
        let error = format!("{:#}", StoredEntries::load(&state).err().unwrap_or_else(|| panic!("bit {bit}")));
        assert!(error.starts_with(&format!("{} is damaged; ", state.file(LISTS).display())), "{error}");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..file.len() {
        fs::write(state.file(LISTS), &file[..length]).unwrap();
        assert!(StoredEntries::load(&state).is_err(), "{length} bytes");
    }
    fs::write(state.file(LISTS), &file).unwrap();
    assert!(
        StoredEntries::peek(&state).is_ok() && fs::read(state.file(LISTS)).unwrap() == file,
        "a look changes nothing"
    );
    for _ in 0..2 {
        let entries = StaticEntryStore::load(&state).unwrap();
        assert_eq!(all(&entries), ["a 192.0.2.1", "a 192.0.2.2"]);
        assert_eq!(entries.list("a").unwrap().values().next().unwrap().comment, "x");
        assert!(fs::read(state.file(LISTS)).unwrap().starts_with(b"knockplane lists 2 log\n"));
    }
}

#[test]
fn damage_of_an_earlier_version_is_told_and_not_started_with() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let cases = [
        (String::new(), "EOF"),
        ("[{\"list\":\"a\"}]".to_owned(), "missing field"),
        (old("").replace("::1", "host"), "line 1 column"),
        (old("").replace("\"a\"", "\"a,b\""), "`a,b` is no name of a list"),
        (old(",\"timeout\":{\"secs\":60,\"nanos\":0}"), "::1 has a timeout"),
    ];
    for (kept, told) in cases {
        fs::write(state.file(OLD_LISTS), &kept).unwrap();
        let Err(error) = StaticEntryStore::load(&state) else { panic!("{told}") };
        let error = format!("{error:#}");
        assert!(error.contains("lists.json is damaged; ") && error.contains("--without-state"), "{error}");
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn an_entry_expires_to_the_nanosecond() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(1).unwrap();
    let mut entries = StaticEntryStore::load(&open(&folder)).unwrap();
    entries.change(vec![change("a", "192.0.2.0/24", Some(5)), change("a", "::/0", Some(9))]).unwrap();
    entries.install(&lists).unwrap();
    let list = lists.id("a").unwrap();
    let is_in = |address: [u8; 4]| lists.membership(address.into(), 0, Time::default()).contains(list);
    assert!(is_in([192, 0, 2, 9]) && !entries.expire(Time::from_nanos(4)));
    let after = lists.membership([192, 0, 2, 9].into(), 0, Time::from_nanos(5));
    assert!(!after.contains(list), "to the nanosecond, before the entry is removed");
    assert!(entries.expire(Time::from_nanos(5)) && !entries.expire(Time::from_nanos(6)));
    assert_eq!(all(&entries), ["a ::/0"]);
}

/// Covers additions beside other entries, more additions than the engine keeps separately, removals of both kinds, and
/// host names.
#[test]
fn the_engine_goes_by_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(100).unwrap();
    let mut entries = StaticEntryStore::load(&open(&folder)).unwrap();
    let host = |number: usize| format!("10.0.{}.{}", number / 250, number % 250);
    let check = |entries: &mut StaticEntryStore, step: &str| {
        entries.install(&lists).unwrap();
        let list = lists.id("a").unwrap();
        for number in (0..MOST_RECENT + 40).step_by(7) {
            let address: IpAddr = host(number).parse().unwrap();
            let is_in = lists.membership(address, 0, Time::default()).contains(list);
            let known = entries.list("a").is_some_and(|list| list.contains_key(&(address, address)));
            assert_eq!(is_in, known, "{step}: {address}");
        }
    };
    entries.change(vec![change("a", &host(0), None)]).unwrap();
    check(&mut entries, "the first");
    let recent = |entries: &StaticEntryStore| entries.recent.as_ref().map(Recent::len);
    assert_eq!(recent(&entries), Some(1));
    entries.change((7..MOST_RECENT).map(|number| change("a", &host(number), None)).collect()).unwrap();
    check(&mut entries, "many");
    assert_eq!(recent(&entries), Some(MOST_RECENT - 6));
    entries.change(vec![removal("a", &host(14))]).unwrap();
    check(&mut entries, "a removal");
    assert_eq!(recent(&entries), Some(MOST_RECENT - 6), "one entry less, and a removal");
    entries.change((MOST_RECENT..MOST_RECENT + 20).map(|number| change("a", &host(number), None)).collect()).unwrap();
    check(&mut entries, "beside others");
    assert_eq!(recent(&entries), Some(0), "too many: all are compiled");
    entries.change(vec![removal("a", &host(MOST_RECENT + 5)), change("a", &host(14), None)]).unwrap();
    check(&mut entries, "a removal of a compiled one");
    assert_eq!(recent(&entries), Some(2));
    entries
        .change((MOST_RECENT + 20..3 * MOST_RECENT).map(|number| change("a", &host(number), None)).collect())
        .unwrap();
    check(&mut entries, "too many");
    assert_eq!(recent(&entries), Some(0));
}

/// Overlapping entries of operators and host names, with and without a timeout, added, changed and removed in any
/// order. After each change, the lists are those of an engine that compiles all entries.
#[test]
fn changes_have_the_result_of_a_compilation() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(100).unwrap();
    let mut entries = StaticEntryStore::load(&open(&folder)).unwrap();
    let mut random = 7_u64;
    let mut dice = move |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    let [mut kept, mut compiled] = [0; 2];
    for round in 0..500 {
        if dice(100) == 0 {
            let name = |address: u64| {
                let address = IpAddr::from([10, 0, 0, address as u8]);
                NameEntry { list: "a".to_owned(), bounds: (address, address), until: None }
            };
            entries.set_names((0..dice(3)).map(|_| name(dice(32))).collect());
        }
        let changes = (0..1 + dice(3)).map(|_| {
            let list = ["a", "b"][dice(2) as usize];
            let (host, more) = (dice(32), dice(12));
            let set = match dice(6) {
                0 | 1 => format!("10.0.0.{host}"),
                2 => format!("10.0.0.{}/{}", host, 25 + dice(7)),
                3 => format!("10.0.0.{host}-10.0.0.{}", host + more + 1),
                4 => format!("2001:db8::{host:x}/{}", 120 + dice(9)),
                _ => format!("2001:db8::{host:x}"),
            };
            let set = set.parse::<AddressSet>().unwrap().to_string();
            match dice(2) {
                0 => removal(list, &set),
                _ => change(list, &set, [None, Some(dice(3) + 1)][dice(2) as usize]),
            }
        });
        let changes = changes.collect();
        entries.change(changes).unwrap();
        *[&mut compiled, &mut kept][usize::from(entries.recent.is_some())] += 1;
        entries.install(&lists).unwrap();
        if dice(50) == 0 {
            entries.recent = None;
            entries.install(&lists).unwrap();
        }
        let fresh = Lists::new(100).unwrap();
        let all = entries.lists().flat_map(|(name, entries)| {
            let id = fresh.id(name).map_or_else(|| fresh.bind(name, 0), Ok).unwrap();
            entries.values().map(move |entry| (id, entry.set.bounds(), entry.until)).collect::<Vec<_>>()
        });
        let all: Vec<_> = all.collect();
        let id = fresh.id("a").map_or_else(|| fresh.bind("a", 0), Ok).unwrap();
        fresh.set_static_entries(all.into_iter().chain(entries.names.iter().map(|name| (id, name.bounds, name.until))));
        for host in 0..48_u16 {
            for address in [IpAddr::from([10, 0, 0, host as u8]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host])] {
                for now in (0..4).map(Time::from_nanos) {
                    for list in ["a", "b"] {
                        let is_in = |lists: &Lists| {
                            lists.id(list).is_some_and(|id| lists.membership(address, 0, now).contains(id))
                        };
                        assert_eq!(is_in(&lists), is_in(&fresh), "round {round}: {address} in {list} at {now:?}");
                    }
                }
            }
        }
    }
    assert!(kept > 450, "{kept} kept apart, {compiled} compiled");
}

/// The events after the cursor, none of which may be missed.
fn received(lists: &Lists, cursor: &mut Cursor) -> Vec<(u64, ListEvent)> {
    let event = |received| match received {
        Received::Event(number, event) => (number, event),
        Received::Gap(gap) => panic!("{gap:?}"),
    };
    std::iter::from_fn(|| lists.receive(cursor).map(event)).collect()
}

#[test]
fn each_change_by_an_operator_is_an_event_after_it_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(100).unwrap();
    let mut entries = StaticEntryStore::load(&open(&folder)).unwrap();
    let mut cursor = Cursor::after(0);
    let now = Time::from_nanos(3);
    let mut expected_changes = Vec::new();
    let mut check = |entries: &mut StaticEntryStore, expected: &[(EventKind, &str, Option<u64>)]| {
        entries.publish(&lists, now);
        assert_eq!(lists.receive(&mut cursor), None, "not before it is in force");
        entries.install(&lists).unwrap();
        entries.publish(&lists, now);
        let events = received(&lists, &mut cursor);
        for (_, ListEvent { kind, entry, cause, at }) in &events {
            let EventEntry { list, level, is_static, origin, since, .. } = *entry;
            assert_eq!((list, level, is_static), (lists.id("a").unwrap(), OPERATOR_LEVEL, true));
            assert_eq!((origin, since, *at), (Origin::Operator, now, now));
            assert_eq!(*cause, (*kind != EventKind::Expired).then_some(Cause::of(Origin::Operator)));
        }
        let told = events.iter().map(|(_, ListEvent { kind, entry, .. })| {
            let set = AddressSet::of_bounds((entry.address, entry.last.unwrap_or(entry.address)));
            let until = (entry.expiry != Time::NEVER).then(|| entry.expiry.as_nanos());
            (*kind, set.to_string(), until)
        });
        let wanted = expected.iter().map(|(kind, set, until)| (*kind, (*set).to_owned(), *until));
        assert_eq!(told.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        expected_changes.extend(events);
        assert_eq!(lists.static_changes_since(0).unwrap(), expected_changes, "also for a reader with a gap");
    };
    let both = vec![change("a", "192.0.2.1", None), change("a", "2001:db8::/32", Some(9))];
    entries.change(both).unwrap();
    check(&mut entries, &[(EventKind::Listed, "192.0.2.1", None), (EventKind::Listed, "2001:db8::/32", Some(9))]);
    let mut comment = change("a", "192.0.2.1", None);
    comment.entry.as_mut().unwrap().comment = "another".to_owned();
    entries.change(vec![comment]).unwrap();
    entries.install(&lists).unwrap();
    let changes = vec![change("a", "2001:db8::/32", None), change("a", "192.0.2.3-192.0.2.9", Some(5))];
    entries.change(changes).unwrap();
    check(
        &mut entries,
        &[(EventKind::Listed, "192.0.2.3-192.0.2.9", Some(5)), (EventKind::Refreshed, "2001:db8::/32", None)],
    );
    let twice = vec![removal("a", "192.0.2.1"), change("a", "192.0.2.1", None), removal("a", "192.0.2.1")];
    entries.change(twice).unwrap();
    check(&mut entries, &[(EventKind::Removed, "192.0.2.1", None)]);
    entries.change_with(vec![removal("a", "2001:db8::/32")], EventKind::Flushed).unwrap();
    check(&mut entries, &[(EventKind::Flushed, "2001:db8::/32", None)]);
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    assert!(entries.change(vec![change("a", "192.0.2.1", None)]).is_err());
    assert!(entries.unpublished.is_empty(), "a refused change is no event");
    entries.expire(Time::from_nanos(5));
    entries.publish(&lists, now);
    let events = received(&lists, &mut cursor);
    assert!(matches!(&events[..], [(_, event)] if event.kind == EventKind::Expired && event.cause.is_none()));
}

/// The ring has room for 256 events here.
#[test]
fn an_import_displaces_no_event_of_a_packet() {
    let folder = tempfile::tempdir().unwrap();
    let lists = Lists::new(64).unwrap();
    let grants = lists.bind("grants", 1).unwrap();
    let mut entries = StaticEntryStore::load(&open(&folder)).unwrap();
    let grant = |host: u8| _ = lists.add(grants, [203, 0, 113, host].into(), Time::NEVER, Time::default());
    grant(1);
    let mut import: Vec<OperatorChange> = (0..50_000_u32)
        .map(|number| change("a", &IpAddr::from((0x0a00_0000 + number).to_be_bytes()).to_string(), None))
        .collect();
    import.extend([change("a", "2001:db8::/32", None), change("b", "192.0.2.1", None)]);
    entries.change(import).unwrap();
    entries.install(&lists).unwrap();
    entries.publish(&lists, Time::default());
    grant(2);
    let mut cursor = Cursor::after(0);
    let events = received(&lists, &mut cursor);
    let told: Vec<_> = events
        .iter()
        .map(|(_, ListEvent { kind, entry, .. })| (*kind, lists.name(entry.list).unwrap(), entry.address, entry.last))
        .collect();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let bulk =
        |list: &str, first, last: Option<&str>| (EventKind::Bulk, list.to_owned(), address(first), last.map(address));
    let listed = |text: &str| (EventKind::Listed, "grants".to_owned(), address(text), None);
    let v6_end = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff";
    let expected = [
        listed("203.0.113.1"),
        bulk("a", "10.0.0.0", Some("10.0.195.79")),
        bulk("a", "2001:db8::", Some(v6_end)),
        bulk("b", "192.0.2.1", None),
        listed("203.0.113.2"),
    ];
    assert_eq!(told, expected);
    assert_eq!(lists.static_changes_since(1), None, "a reader reads the list");
    assert_eq!(lists.static_changes_since(4), Some(Vec::new()));
    let mut changed = Vec::new();
    assert!(lists.changes_since(1, |change| changed.push(change)).is_some());
    assert_eq!(changed.len(), 1, "removals of dynamic entries are still known: {changed:?}");
}

#[test]
fn entries_with_a_timeout_are_reported_for_the_journal_and_come_back_beside_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder);
    let mut entries = StaticEntryStore::load(&state).unwrap();
    let reported = |entries: &mut StaticEntryStore| -> Vec<_> {
        let shown = |change: OperatorChange| {
            let until = change.entry.map(|entry| entry.until.unwrap().as_nanos());
            (change.list, AddressSet::of_bounds(change.bounds).to_string(), until)
        };
        entries.take_timed_changes().into_iter().map(shown).collect()
    };
    let told = |list: &str, set: &str, until: Option<u64>| (list.to_owned(), set.to_owned(), until);
    let first = [
        change("a", "10.0.0.0/8", Some(50)),
        change("a", "10.1.0.0/16", None),
        change("a", "10.4.0.0/16", Some(80)),
        change("b", "10.2.0.0/16", Some(60)),
    ];
    entries.change(first.into()).unwrap();
    let expected = [("a", "10.0.0.0/8", 50), ("a", "10.4.0.0/16", 80), ("b", "10.2.0.0/16", 60)];
    assert_eq!(reported(&mut entries), expected.map(|(list, set, until)| told(list, set, Some(until))));
    entries.change(vec![change("a", "10.0.0.0/8", None), removal("a", "10.4.0.0/16")]).unwrap();
    let expected = [told("a", "10.0.0.0/8", None), told("a", "10.4.0.0/16", None)];
    assert_eq!(reported(&mut entries), expected, "one became static");
    entries.change(vec![change("a", "10.0.0.0/8", None), removal("a", "10.1.0.0/16")]).unwrap();
    assert!(reported(&mut entries).is_empty(), "static before and after");
    assert!(entries.expire(Time::from_nanos(60)));
    assert_eq!(reported(&mut entries), [told("b", "10.2.0.0/16", None)]);

    // The file has the static entry. The second one with a timeout was replaced by it just before the end.
    let timed = [change("c", "10.3.0.0/16", Some(70)), change("a", "10.0.0.0/8", Some(90))]
        .map(|change| (change.list, change.entry.unwrap()));
    let lists = Lists::new(8).unwrap();
    StoredEntries::load(&state).unwrap().install(&lists, &[], &timed).unwrap();
    let is_in = |list: &str, address: [u8; 4], at: u64| {
        lists.membership(address.into(), 0, Time::from_nanos(at)).contains(lists.id(list).unwrap())
    };
    assert!(is_in("c", [10, 3, 0, 1], 69) && !is_in("c", [10, 3, 0, 1], 70) && is_in("a", [10, 3, 0, 1], 91));
    let mut again = StoredEntries::load(&state).unwrap().into_map(Vec::new(), &timed).unwrap();
    assert_eq!(all(&again), ["a 10.0.0.0/8", "c 10.3.0.0/16"]);
    assert!(again.expire(Time::from_nanos(90)));
    assert_eq!(all(&again), ["a 10.0.0.0/8"]);
}
