//! Names and comments of any encoding, and files of UTF-16.

use super::*;
use crate::rule::Matcher;

#[test]
fn names_are_equal_if_their_bytes_are() {
    let text = b"/ip firewall address-list\nadd address=192.0.2.1 list=\"administra\\E7\\E3o\"\n/ip firewall filter\n\
        add chain=input src-address-list=\"administra\xE7\xE3o\" comment=\"\\C3\\A9 \\E9\"\n\
        add action=add-src-to-address-list address-list=\"!administra\\E7\\E3o\" chain=input\n\
        add action=jump chain=input jump-target=\"caf\\E9\"\nadd chain=\"caf\xE9\" layer7-protocol=\"p\\FF\"\n\
        add chain=input in-interface-list=\"\\80\" log-prefix=\"\\E1: \" log=yes\n\
        /ip firewall layer7-protocol\nadd name=\"p\\FF\" regexp=x\n/interface list\nadd name=\"\\80\"\n";
    let reading = read(text);
    assert_eq!(
        reading.problems.iter().map(|problem| &*problem.message).collect::<Vec<_>>(),
        ["the name of the address list begins with `!`"]
    );
    let rules = reading.rules;
    assert_eq!(rules.address_lists[0].list, "administra\\E7\\E3o");
    let list = Condition::SrcAddressList("administra\\E7\\E3o".to_owned());
    assert_eq!(rules.rules[0].matchers, [Matcher { negated: false, condition: list }]);
    assert_eq!(rules.rules[0].comment, "é \\E9");
    assert_eq!(rules.rules[1].action, Action::Jump("caf\\E9".to_owned()));
    assert_eq!((&*rules.rules[2].chain, &*rules.layer7[0].name), ("caf\\E9", "p\\FF"));
    assert_eq!((&*rules.interface_lists[0].name, &*rules.rules[3].log.as_ref().unwrap().prefix), ("\\80", "\\E1: "));
    let written = export(&rules).unwrap();
    let joined = written.replace("\\\n    ", "");
    assert!(
        joined.contains("src-address-list=\"administra\\E7\\E3o\"") && joined.contains("comment=\"\\C3\\A9 \\E9\"")
    );
    assert_eq!(export(&read(written.as_bytes()).rules).unwrap(), written);
    // A name that only looks the same is a different name.
    let other =
        b"/ip firewall address-list\nadd list=\"a\\E1\" address=192.0.2.1\nadd list=\"a\\\\E1\" address=192.0.2.1\n\
        remove [find list=\"a\\\\E1\"]\nadd list=\"b\\E1\" address=192.0.2.1\nremove [find list~\"^b\" comment=\"\"]\n";
    let reading = read(other);
    assert_eq!(reading.problems, []);
    let lists: Vec<_> = reading.rules.address_lists.iter().map(|entry| &*entry.list).collect();
    assert_eq!(lists, ["a\\E1"]);
}

#[test]
fn utf16_reads_as_utf8_does() {
    let text = "# 2025-06-01 by RouterOS 6.19\r\n/ip firewall filter\r\nadd action=accept chain=input comment=\"é\\\r\n    b\" \
        src-address-list=x\r\nadd chain=input dst-prot=1\r\n";
    let units: Vec<u16> = text.encode_utf16().collect();
    let little = units.iter().flat_map(|unit| unit.to_le_bytes());
    let big = units.iter().flat_map(|unit| unit.to_be_bytes());
    let plain = read(text.as_bytes());
    assert_eq!((plain.problems.len(), plain.rules.rules[0].comment.as_str()), (1, "éb"));
    for file in
        [[0xFF, 0xFE].into_iter().chain(little).collect::<Vec<u8>>(), [0xFE, 0xFF].into_iter().chain(big).collect()]
    {
        assert_eq!(read(&file), plain);
        assert!(report(&plain.problems, "a.rsc", &utf8(&file), false).contains("dst-prot=1"));
    }
    // Without the mark, the file has one problem, not one for each line.
    let unmarked: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let told = read(&unmarked).problems;
    assert_eq!(told.len(), 1);
    assert!(told[0].message.contains("UTF-16"), "{told:?}");
}
