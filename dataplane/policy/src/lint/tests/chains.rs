//! Chains, jumps, packets that no rule decides, and lists that are never filled.

use super::*;

#[test]
fn jumps_to_chains_without_running_rules() {
    let with = |rules: &str| found(&format!("add chain=input action=jump jump-target=knock\n{rules}"));
    assert_eq!(with("add chain=knock action=drop protocol=tcp\n"), []);
    assert_eq!(with("add chain=knock action=drop protocol=tcp disabled=yes\n"), [("empty-jump", 2)]);
    assert_eq!(with("add chain=knock action=drop packet-mark=a\n"), [("empty-jump", 2)]);
    assert_eq!(with("add chain=knock action=drop disabled=yes\nadd chain=knock protocol=tcp\n"), []);
    assert_eq!(found("add chain=input action=jump jump-target=k disabled=yes\nadd chain=k disabled=yes\n"), []);
    let text =
        filter("add chain=input action=jump jump-target=k\nadd chain=k disabled=yes\nadd chain=k packet-mark=a\n");
    let lints = lint(&crate::rsc::read(text.as_bytes()).rules, &Settings::default());
    assert!(lints[0].sentence.ends_with("has no running rule (1 disabled, 1 invalid)"), "{lints:?}");
    assert_eq!(lints[0].also.as_ref().map(|also| also.line), Some(3));
}

#[test]
fn chains_that_no_jump_leads_to() {
    assert_eq!(found("add chain=inptu action=drop\n"), [("unused-chain", 2)]);
    assert_eq!(
        found("add chain=a action=jump jump-target=b\nadd chain=b action=drop\n"),
        [("unused-chain", 2), ("unused-chain", 3)]
    );
    assert_eq!(found("add chain=input action=jump jump-target=a protocol=tcp\nadd chain=a action=drop\n"), []);
    // A disabled jump, and the chain that RouterOS reserves for rules.
    assert_eq!(found("add chain=input action=jump jump-target=a disabled=yes\nadd chain=a action=drop\n"), []);
    assert_eq!(found("add chain=unused-hs-chain action=passthrough comment=\"place hotspot rules here\"\n"), []);
    let lints = lint(&crate::rsc::read(filter("add chain=inptu action=drop\n").as_bytes()).rules, &Settings::default());
    assert_eq!(lints[0].remedy, "did you mean `input`?");
}

#[test]
fn chains_that_the_settings_leave_no_packets() {
    let with = |chain: &str, protect: &[&str]| {
        found_with(&format!("/ip firewall filter\nadd chain={chain} action=drop\n"), &protecting(protect))
    };
    let everything: &[&str] = &["0.0.0.0/1", "128.0.0.0/1", "::/0"];
    for (chain, protect, dead) in [
        ("forward", everything, true),
        ("forward", &["192.0.2.0/24"], false),
        ("forward", &[], false),
        ("input", everything, false),
        ("input", &["192.0.2.0/24"], false),
        ("input", &["2001:db8::/32"], true),
        ("output", &[], true),
        ("output", everything, false),
    ] {
        assert_eq!(with(chain, protect), if dead { vec![("dead-chain", 2)] } else { vec![] }, "{chain} {protect:?}");
    }
    let raw = "/ip firewall raw\nadd chain=prerouting action=drop\nadd chain=output action=drop\n";
    assert_eq!(found_with(raw, &protecting(&[])), [("dead-chain", 3)]);
    // The rules of the chain get no further lints, and neither do chains that only this chain leads to.
    let text = "/ip firewall filter\nadd chain=forward action=jump jump-target=a\nadd chain=forward src-address-list=x\n\
                add chain=a action=drop\nadd chain=a action=drop\n";
    assert_eq!(found_with(text, &Settings::default()), [("dead-chain", 2)]);
}

#[test]
fn packets_that_no_rule_decides_about() {
    let mut settings = Settings::default();
    let with = |rules: &str, settings: &Settings| found_with(&format!("/ip firewall filter\n{rules}"), settings);
    let accept = "add chain=input protocol=tcp dst-port=22\n";
    assert_eq!(with(accept, &settings), [("no-final-drop", 2)]);
    assert_eq!(with(&format!("{accept}add chain=input action=drop\n"), &settings), []);
    assert_eq!(with(&format!("{accept}add chain=input in-interface=outside action=reject\n"), &settings), []);
    assert_eq!(with("add chain=input protocol=tcp action=drop\n", &settings), [("no-final-drop", 2)]);
    assert_eq!(with("add chain=input protocol=tcp action=log\n", &settings), []);
    assert_eq!(with("add chain=output protocol=tcp dst-port=22\n", &settings), []);
    // The effect of an interface without a side is unknown; another lint reports that.
    assert_eq!(with(&format!("{accept}add chain=input in-interface-list=!LAN action=drop\n"), &settings), []);
    let returned = "add chain=input protocol=udp action=return\nadd chain=input action=drop\n";
    assert_eq!(with(returned, &settings), [("no-final-drop", 2)]);
    assert_eq!(with(&returned.replace("input", "output"), &settings), []);
    let below = returned.replace("input", "own") + "add chain=input action=jump jump-target=own\nadd chain=input\n";
    assert_eq!(with(&below, &settings), []);

    settings.chain_default.input = crate::settings::Choice::Accept;
    assert_eq!(with(accept, &settings), []);
    let door = "add chain=input src-address-list=a\n";
    let knock = "add chain=input protocol=icmp packet-size=99 action=add-src-to-address-list address-list=a\n";
    assert_eq!(with(&format!("{knock}{door}"), &settings), [("no-final-drop", 3)]);
    assert_eq!(with(&format!("{knock}{door}add chain=input protocol=tcp action=drop\n"), &settings), []);
}

#[test]
fn lists_that_are_never_filled() {
    let fill = "add chain=input protocol=icmp action=add-dst-to-address-list address-list=lsit\n";
    let read = "add chain=input src-address-list=list action=log\n";
    assert_eq!(found(read), [("empty-list", 2)]);
    assert_eq!(found(&read.replace("=list ", "=!list ")), [("empty-list", 2)]);
    assert_eq!(found(&format!("{read}{read}")), [("empty-list", 2)]);
    assert_eq!(found(&format!("{read}{fill}").replace("lsit", "list")), []);
    assert_eq!(found(&read.replace("chain=input", "disabled=yes chain=input")), []);
    let entry =
        |entry: &str| found_with(&format!("{}/ip firewall address-list\n{entry}", filter(read)), &Settings::default());
    assert_eq!(entry("add list=list address=192.0.2.1\n"), []);
    assert_eq!(entry("add list=list address=example.net\n"), []);
    assert_eq!(entry("add list=list\n"), [], "an entry without an address shows that operators fill it");
    assert_eq!(entry("add list=list address=192.0.2.1 disabled=yes\n"), [("empty-list", 2)]);
    assert_eq!(entry("/ipv6 firewall address-list\nadd list=list address=2001:db8::1\n"), [("empty-list", 2)]);

    let said = |text: &str| lint(&crate::rsc::read(filter(text).as_bytes()).rules, &Settings::default()).remove(0);
    assert_eq!(said(&format!("{read}{fill}")).remedy, "did you mean `lsit`?");
    let idle = fill.replace("lsit", "list").replace("add chain", "add disabled=yes chain");
    let idle = said(&format!("{read}{idle}"));
    assert_eq!((idle.remedy.as_str(), idle.also.unwrap().line), ("enable the rule of line 3, or disable this one", 3));
}
