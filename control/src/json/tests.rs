//! The printed form of each document. Each document must match its schema.

use knockplane_policy::rsc;
use knockplane_policy::settings::Settings;

use super::schema::assert_valid;
use super::*;
use crate::api::messages;
use crate::sample;

/// The printed document. It must match its schema.
fn printed(name: &str, content: impl Serialize) -> String {
    let text = serde_json::to_string_pretty(&Document::new(content)).unwrap();
    assert_valid(name, &text);
    text
}

#[test]
fn the_status_names_sides_and_has_times_in_seconds() {
    insta::assert_snapshot!(printed("show-status", status::StatusJson::new(sample::overview(), Ok(()))));
    let unready = printed("show-status", status::StatusJson::new(sample::overview(), Err("no worker runs".into())));
    assert!(unready.contains("\"not_ready_because\": \"no worker runs\""), "{unready}");
}

#[test]
fn no_document_has_a_passphrase() {
    let mut overview = sample::overview();
    let door = "[[door]]\nname = 'a'\nknock = ['udp/4321 \"open sesame\"']\n";
    #[derive(Deserialize)]
    struct DoorsFile {
        door: Vec<knockplane_policy::door::Door>,
    }
    overview.dataplane.settings.doors = toml::from_str::<DoorsFile>(door).unwrap().door;
    let text = printed("show-status", status::StatusJson::new(overview, Ok(())));
    assert!(!text.contains("sesame"), "{text}");
}

#[test]
fn workers_name_sides() {
    let status = sample::status();
    let workers = messages::Workers { uptime: status.uptime, workers: status.workers, fast_path: status.fast_path };
    insta::assert_snapshot!(printed("show-workers", status::WorkersJson::from(workers)));
}

#[test]
fn rules_have_their_counters() {
    insta::assert_snapshot!(printed(
        "show-rules",
        rules::RulesJson::new(&sample::rules(), &sample::history(), &Settings::default())
    ));
}

#[test]
fn lists_have_no_number_for_what_is_not_known() {
    let mut lists = sample::lists();
    lists.lists[1].summary.level = knockplane_engine::state::lists::OPERATOR_LEVEL;
    lists.entries[0].to = Some("::".parse().unwrap());
    lists.entries[1].line = Some(0);
    lists.names.push(sample::name_state());
    insta::assert_snapshot!(printed("show-lists", lists::ListsJson::from(lists)));
}

#[test]
fn doors_have_their_visitors() {
    insta::assert_snapshot!(printed("show-doors", doors::DoorsJson::from(sample::doors())));
}

#[test]
fn connections_have_addresses_and_ports_apart() {
    insta::assert_snapshot!(printed("show-connections", connections::ConnectionsJson::from(sample::tracked())));
    let none = messages::Tracked { table: None, connections: Vec::new(), truncated: false };
    assert!(printed("show-connections", connections::ConnectionsJson::from(none)).contains("\"table\": null"));
}

#[test]
fn a_report_of_the_host_has_no_empty_text() {
    use knockplane_policy::doctor::{HostFinding, Level, Report, Scope};

    let findings = vec![
        HostFinding::ok(Scope::Host, "kernel", "Linux 6.1.0 on x86_64"),
        HostFinding::ok(Scope::Outside, "rss", "eth1 spreads by ports")
            .because(Level::Warning, "why")
            .run("ethtool -N eth1"),
    ];
    insta::assert_snapshot!(printed("doctor", doctor::DoctorJson::from(Report::new("0.1.0", findings))));
}

#[test]
fn an_export_has_every_menu() {
    let text = "/interface list\nadd name=WAN\n/ip firewall address-list\nadd list=a address=192.0.2.0/24 timeout=1h\n\
        add list=b address=host.example.com comment=x disabled=yes\n/ip firewall layer7-protocol\n\
        add name=p regexp=\"^open\"\n/ip firewall filter\nadd chain=input protocol=tcp dst-port=!22,80 comment=\"a b\" \
        action=add-src-to-address-list address-list=a address-list-timeout=10s log=yes log-prefix=\"x y\"\n\
        add chain=input layer7-protocol=p action=jump jump-target=other disabled=yes\nadd chain=other action=return\n\
        /ip firewall connection tracking\nset udp-timeout=10s\n/ipv6 firewall raw\nadd chain=prerouting action=drop\n";
    let reading = rsc::read(text.as_bytes());
    assert!(reading.problems.is_empty(), "{:?}", reading.problems);
    insta::assert_snapshot!(printed("export", rules::ExportedJson::from(&reading.rules)));
}

#[test]
fn changes_say_what_they_did() {
    let applied = messages::Applied { generation: 3, revision: 2, rules: 2, patterns: 1, unresolved: Vec::new() };
    printed("apply", changes::AppliedJson::new(applied.clone(), None, Some(Duration::from_secs(60))));
    printed("apply", changes::AppliedJson::new(applied, Some(changes::ChangeCountsJson::default()), None));
    printed("cancel", changes::CancelledJson::from(messages::Cancelled { generation: 4, revision: 3 }));
    printed("confirm", changes::ConfirmedJson::from(messages::Confirmed { generation: 3 }));
    printed("rule-reset-counters", changes::CountersResetJson { rules: 3 });
    let reloaded = knockplane_policy::wire::Reloaded { generation: 3, doors: 1, waiting: vec!["mtu".into()] };
    printed("reload", changes::ReloadedJson::new(reloaded, Some(Duration::from_secs(60))));
    let (list, address) = (|| "a".to_owned(), || "192.0.2.1".to_owned());
    insta::assert_snapshot!(printed(
        "list-add",
        changes::AddedJson {
            list: list(),
            address: address(),
            timeout_seconds: Some(seconds(Duration::from_secs(600))),
            unused_lists: vec![list()],
        }
    ));
    let added =
        changes::AddedJson { list: list(), address: address(), timeout_seconds: None, unused_lists: Vec::new() };
    printed("list-add", added);
    printed("list-remove", changes::RemovedJson { list: list(), address: address() });
    printed("list-flush", changes::FlushedJson { list: list(), removed: 3 });
    printed("list-import", changes::ImportedJson { entries: 5, unchanged: 2, unused_lists: Vec::new() });
}

#[test]
fn events_of_all_kinds_match_their_schema() {
    use knockplane_policy::event::{BehindEvent, EventId, StartId};
    use knockplane_policy::wire::events::PublishedEvent;

    use crate::events::change::{OperatorAction, OperatorChange, RecordedOperator};
    use crate::events::{EventBody, LoggedRule, MissedNumbers};

    let page = include_str!("../../../docs/events.md");
    let event = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let event = serde_json::from_str(event).expect("an event");
    let start = StartId(0x9f3c_0000_dead_beef);
    let gap = MissedNumbers { start, first: 3, last: None, found: 0, operator_changes: 0 };
    let change = OperatorChange {
        list: Some("staff".into()),
        address: Some("192.0.2.0/24".parse().unwrap()),
        error: Some("no".into()),
        ..OperatorChange::of(
            OperatorAction::ListAdd,
            RecordedOperator { uid: Some(1000), ..RecordedOperator::default() },
        )
    };
    let rule = LoggedRule { id: Some(knockplane_policy::rule::RuleId("0a1b2c3d".into())), number: None };
    let bodies = [
        EventBody::Entry(Box::new(PublishedEvent { event, rule_number: None })),
        EventBody::Gap(gap),
        EventBody::Start { start, restored: 4, is_new: true },
        EventBody::Operator(Box::new(change)),
        EventBody::Packet { rule, before: 0, total: 7, line: None },
    ];
    let id = EventId { start, number: 42, behind: Some(BehindEvent::Packet(7)) };
    let documents =
        bodies.iter().map(|body| events::EventJson::new(Some(id), 1_800_000_000_000_000_001, body).unwrap());
    let documents: Vec<String> = documents.map(|event| printed("event", event)).collect();
    insta::assert_snapshot!(documents.join("\n"));
    for document in documents {
        let read: Document<events::EventJson> = serde_json::from_str(&document).unwrap();
        assert!(read.content.id.as_deref() == Some("9f3c0000deadbeef-42.p7"), "{document}");
    }
}

#[test]
fn a_document_of_another_version_is_refused() {
    let text = r#"{"version":2,"lists":[],"entries":[],"names":[],"truncated":false}"#;
    let error = serde_json::from_str::<Document<lists::ListsJson>>(text).unwrap_err();
    assert!(error.to_string().contains("version 2 of it is not known"), "{error}");
}
