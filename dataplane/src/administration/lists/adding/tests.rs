use std::sync::Arc;
use std::time::Duration;

use knockplane_policy::packet::Vlan;
use knockplane_policy::rsc;
use tempfile::TempDir;

use super::*;
use crate::state_dir::StateDir;
use knockplane_limits::predecessor::Deadline;

const RULES: &str = "\
/ip firewall address-list
add list=friends address=192.0.2.0/24
add list=friends address=192.0.2.9 timeout=1m
";

fn at(seconds: u64) -> Time {
    Time::default() + Duration::from_secs(seconds)
}

struct House {
    lists: Lists,
    entries: StaticEntryStore,
    notes: Notes,
    rules: RuleSet,
    folder: TempDir,
}

fn house(room: usize) -> House {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("state"), Deadline::over()).unwrap();
    let entries = StaticEntryStore::load(&Arc::new(state)).unwrap();
    let lists = Lists::new(room).unwrap();
    lists.bind_all(&[("friends", u8::MAX), ("secured", 1)]).unwrap();
    House { lists, entries, notes: Notes::default(), rules: rsc::read(RULES.as_bytes()).rules, folder }
}

impl House {
    /// Adds `LIST ADDRESS [SECONDS]` lines and returns the result.
    fn add(&mut self, lines: &[&str]) -> Result<u64, String> {
        let entry = |line: &&str| {
            let mut words = line.split(' ');
            let (list, address) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
            let timeout = words.next().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
            NewEntry { list, address, timeout, comment: String::new() }
        };
        let House { lists, entries, notes, rules, .. } = self;
        let adding = Adding { lists, entries, notes, journal: &Journal::default(), rules, source: "rules.rsc" };
        adding.add(lines.iter().map(entry).collect(), at(0)).map_err(|problem| match problem {
            RequestError::Conflict(error)
            | RequestError::NoEntry(error)
            | RequestError::Theirs(error)
            | RequestError::Ours(error) => error,
        })
    }

    fn is_in(&self, list: &str, address: &str, seconds: u64) -> bool {
        let list = self.lists.id(list).unwrap();
        self.lists.membership(address.parse().unwrap(), 0, at(seconds)).contains(list)
    }
}

#[test]
fn a_timeout_for_what_is_in_for_good_is_refused_with_what_to_do() {
    let mut house = house(10);
    house.lists.add(house.lists.id("secured").unwrap(), [10, 0, 0, 1].into(), Time::NEVER, at(0));
    assert_eq!(house.add(&["secured 10.0.0.2", "secured 10.9.0.0/16"]), Ok(0));
    let refusals = [
        ("secured 10.0.0.1 60", "10.0.0.1 is in secured without a timeout, because a rule adds it so: remove it first"),
        ("secured 10.0.0.2 60", "10.0.0.2 is a static entry of secured: remove it first"),
        ("secured 10.9.0.0/16 60", "10.9.0.0/16 is a static entry of secured: remove it first"),
        (
            "friends 192.0.2.0/24 60",
            "192.0.2.0/24 is a static entry of friends, by line 2 of the rules (rules.rsc): change it",
        ),
    ];
    for (line, told) in refusals {
        let error = house.add(&[line]).unwrap_err();
        assert!(error.starts_with(told), "{error}");
    }
    assert_eq!(house.add(&["friends 192.0.2.0/24"]), Ok(1), "without a timeout that is what was asked for");
    assert_eq!(house.add(&["secured 10.0.0.1"]), Ok(0), "an operator's is kept for the next start");
    assert_eq!(house.add(&["friends 192.0.2.9 60"]), Ok(0));
}

#[test]
fn an_import_says_how_many_it_left_as_they_were() {
    let mut house = house(100);
    assert_eq!(house.add(&["secured 10.0.0.2"]), Ok(0));
    let lines =
        ["secured 10.0.0.2 60", "friends 192.0.2.0/24", "a 10.0.0.3 60", "b ::1 60", "b ::1", "b ::2 5", "b ::2 9"];
    assert_eq!(house.add(&lines), Ok(3));
    assert!(house.is_in("secured", "10.0.0.2", 61) && house.is_in("b", "::1", 61), "static beats dynamic");
    assert!(house.is_in("a", "10.0.0.3", 59) && !house.is_in("a", "10.0.0.3", 60));
    assert!(house.is_in("b", "::2", 8), "of two, the last one counts");
}

#[test]
fn an_import_that_is_refused_pushes_nobody_out() {
    let mut house = house(10);
    let secured = house.lists.id("secured").unwrap();
    let host = |number: u8| IpAddr::from([10, 0, 0, number]);
    (0..10).for_each(|number| _ = house.lists.add(secured, host(number), at(60), at(0)));
    let grant = house.lists.peer_tag([203, 0, 113, 5].into());
    house.lists.remove(secured, host(9), at(0));
    house.lists.add_for(secured, host(8), grant, at(60), at(0));
    let summaries = house.lists.summaries();

    let many: Vec<String> = (0..10).map(|number| format!("secured 10.0.1.{number} 60")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = house.add(&many).unwrap_err();
    assert!(error.contains("no room for 10 more") && error.contains("`list-capacity`"), "{error}");
    assert_eq!(house.lists.summaries(), summaries);

    // An entry that the disk refuses is not added either.
    std::fs::remove_dir_all(house.folder.path().join("state")).unwrap();
    let error = house.add(&["secured 10.0.0.8 60", "secured 10.0.2.1 60", "secured 10.0.3.0/24"]).unwrap_err();
    assert!(error.contains("nothing changed"), "{error}");
    assert_eq!(house.lists.summaries(), summaries);
    assert!(house.lists.in_vlan(Vlan::NONE).remove_for(secured, host(8), grant, at(0)));
    assert!(!house.is_in("secured", "10.0.2.1", 0) && house.is_in("secured", "10.0.0.8", 0));
}

#[test]
fn static_entries_are_bounded() {
    let mut house = house(3);
    assert_eq!(house.add(&["a 10.0.0.1", "a 10.1.0.0/16 60"]), Ok(0));
    let error = house.add(&["a 10.0.0.1", "a 10.0.0.2", "a 10.0.0.3"]).unwrap_err();
    assert!(error.contains("make 4 entries") && error.contains("raise `list-capacity`"), "{error}");
    assert!(!house.is_in("a", "10.0.0.2", 0));
    assert_eq!(
        house.add(&["a 10.0.0.2", "a 10.0.0.2", "a 10.0.0.1"]),
        Ok(0),
        "what is in already is not counted twice"
    );
    assert_eq!(house.add(&["a 10.0.0.1"]), Ok(0));
}

#[test]
fn what_makes_no_sense_is_refused_wherever_it_comes_from() {
    let mut house = house(10);
    let long = "x".repeat(65);
    let of_rules = "of_rules".repeat(20);
    house.lists.bind(&of_rules, 0).unwrap();
    let told = [
        (format!("{long} ::1"), "has 65 bytes: write at most 64"),
        ("a ::1 0".to_owned(), "the timeout of ::1 "),
        ("a ::1 21474837".to_owned(), "at most 35w3d13h13m56s"),
    ];
    for (line, told) in told {
        let error = house.add(&[&line]).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    assert_eq!(house.add(&[&format!("{of_rules} ::1"), "a ::1 21474836"]), Ok(0), "what the rules name has its name");
}

/// An address that a packet added becomes static: the end of the dynamic entry is not the end of the static one.
#[test]
fn events_tell_a_static_entry_from_a_dynamic_one_of_the_same_address() {
    use knockplane_engine::state::events::ring::{Cursor, Received};
    use knockplane_policy::event::EventKind;

    let mut house = house(10);
    house.lists.add(house.lists.id("secured").unwrap(), [10, 0, 0, 1].into(), at(60), at(0));
    assert_eq!(house.add(&["secured 10.0.0.1"]), Ok(0));
    let mut cursor = Cursor::after(0);
    let told = std::iter::from_fn(|| house.lists.receive(&mut cursor)).map(|received| match received {
        Received::Event(_, event) => (event.kind, event.entry.is_static),
        Received::Gap(gap) => panic!("{gap:?}"),
    });
    let expected = [(EventKind::Listed, false), (EventKind::Listed, true), (EventKind::Removed, false)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
