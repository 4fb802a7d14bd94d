//! Commands in the wrong menu: lost rules are reported, and other menus of RouterOS are skipped.

use super::*;

/// The messages and helps of the problems, and the messages of the warnings.
fn told(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let reading = read(text.as_bytes());
    let problems = reading.problems.into_iter().map(|problem| (problem.message, problem.help.unwrap_or_default()));
    (problems.collect(), reading.warnings.into_iter().map(|warning| warning.message).collect())
}

#[test]
fn a_rule_outside_the_menus_of_routeros_is_not_skipped() {
    for (text, message, help) in [
        ("/add chain=input action=drop\n", "the root menu", "in full"),
        ("/ip firewall filter\n/add chain=input src-address=192.0.2.1\n", "the root menu", "in full"),
        ("/ip firewal\nadd chain=input action=drop\n", "no menu `/ip firewal`", "/ip firewall filter"),
        (
            "/IP Firewall Filter\nadd chain=input action=drop\n",
            "no such menu: `/IP Firewall Filter`",
            "/ip firewall filter",
        ),
        ("/ip firewall Nat\nadd chain=dstnat action=drop\n", "no menu `/ip firewall Nat`", "/ip firewall nat"),
        (
            "/ip firewall\nrule add chain=input action=drop\n",
            "no menu `/ip firewall rule`",
            "for rules `/ip firewall filter`",
        ),
        ("/ip firewall\nadd chain=input action=drop\n", "`/ip firewall` has no such command", "/ip firewall filter"),
        ("/ip\nadd chain=input\n", "`/ip` has no such command", "/ip firewall filter"),
        ("/frobnicate the rules\nset 0 action=accept\n", "no menu `/frobnicate the rules`", "/ip firewall filter"),
        ("/ip firewall filter rules add chain=input\n", "`rules` is not supported", ""),
        ("/ip firewall adress-lists\nadd list=x address=192.0.2.1\n", "no such menu", "/ip firewall address-list"),
        ("/ip firewall lists\nadd list=x address=192.0.2.1\n", "no menu `/ip firewall lists`", ""),
        ("/ip firewall layer-7\nadd name=x regexp=y\n", "no menu `/ip firewall layer-7`", ""),
        ("/ip firewall lists add comment=x src-address-list=y\n", "no menu", ""),
        (
            "/ip route\nadd chain=input action=drop\n",
            "this is a rule; the current menu is `/ip route`",
            "/ip firewall filter",
        ),
        ("/system script add chain=input\n", "this is a rule; the current menu is `/system script`", ""),
        ("/ip firewal filter add chain=input\n", "no such menu", "/ip firewall filter"),
    ] {
        let (problems, _) = told(text);
        let [(said, remedy)] = &problems[..] else { panic!("{text}: {problems:?}") };
        assert!(said.contains(message) && remedy.contains(help), "{text}: {said} ({remedy})");
    }
}

#[test]
fn menus_of_routeros_are_skipped_without_a_warning() {
    for text in [
        "/ip firewall nat\nadd action=masquerade chain=srcnat out-interface=ether1\n",
        "/ip firewall mangle\nadd action=mark-packet chain=prerouting new-packet-mark=x\n",
        "/ipv6 firewall nat add chain=srcnat action=masquerade\n",
        "/interface bridge filter\nadd action=drop chain=forward in-interface=ether2\n",
        "/routing filter\nadd action=discard chain=bgp-in\n",
        "/routing filter rule add chain=ospf-out rule=\"accept\"\n",
        "/ip hotspot walled-garden add action=allow dst-host=x\n",
        "/caps-man access-list\nadd action=accept interface=any\n",
        "/interface wifi access-list add action=accept\n",
        "/ip ipsec policy add action=encrypt\n",
        "/ip proxy access add action=deny\n",
        "/system logging add action=memory topics=firewall\n",
        "/ip route rule add action=lookup table=x\n",
        "/routing rule add action=lookup table=x\n",
        "/queue simple add name=x target=192.0.2.1/32\n",
        "/interface wireless security-profiles set [ find default=yes ] mode=none\n",
        "/interface ethernet switch rule add ports=ether1\n",
        "/ip firewall export\n/ip export file=x\n/export\n/system backup save name=x\n/system reboot\n/quit\n",
        "/user-manager user add name=x\n/zerotier set zt1 name=x\n/iot mqtt brokers add name=x address=y\n",
    ] {
        assert_eq!(told(text), (Vec::new(), Vec::new()), "{text}");
    }
}

#[test]
fn other_menus_are_skipped_with_a_warning_each() {
    let text = "/ip rout\nadd gateway=192.0.2.1\nadd gateway=192.0.2.2\n/ip hotspots set 0 x=y\n/frob\nadd name=x\n/interface\n\
        add name=x\n/IP Route\nadd gateway=192.0.2.1\n";
    let (problems, warnings) = told(text);
    assert_eq!(problems, []);
    let menus = ["/ip rout`", "/ip hotspots`", "/frob`", "/IP Route`"];
    assert_eq!(warnings.len(), menus.len(), "{warnings:?}");
    assert!(warnings.iter().zip(menus).all(|(warning, menu)| warning.contains(menu)), "{warnings:?}");
    let remedy = read(text.as_bytes()).warnings[0].help.clone().unwrap_or_default();
    assert!(remedy.contains("did you mean `/ip route`?"), "{remedy}");
}

#[test]
fn a_command_in_another_menu_is_reported_once_with_the_menu_that_it_needs() {
    for (menu, command, meant) in [
        ("/ip firewall address-list", "add chain=input protocol=tcp dst-port=1 action=accept", "/ip firewall filter"),
        ("/ip firewall address-list", "add chain=input", "/ip firewall filter"),
        ("/ipv6 firewall address-list", "add chain=input action=drop", "/ipv6 firewall filter"),
        ("/ip firewall layer7-protocol", "add chain=input src-address=2001:db8::1", "/ipv6 firewall filter"),
        ("/interface list", "add action=notrack chain=prerouting src-address=192.0.2.1", "/ip firewall raw"),
        ("/interface list member", "add action=accept chain=prerouting", "/ip firewall raw"),
        ("/ip address", "add jump-target=x action=jump chain=input", "/ip firewall filter"),
        ("/ip firewall filter", "add list=x address=192.0.2.1 comment=y", "/ip firewall address-list"),
        ("/ipv6 firewall filter", "add list=x address=2001:db8::1", "/ipv6 firewall address-list"),
        ("/ip firewall raw", "add name=x regexp=y", "/ip firewall layer7-protocol"),
        ("/ip firewall address-list", "add name=x regexp=y", "/ip firewall layer7-protocol"),
        ("/ip firewall filter", "add interface=ether1 list=LAN", "/interface list member"),
    ] {
        let text = format!("{menu}\n{command}\n{meant}\n");
        let (problems, _) = told(&text);
        let [(message, help)] = &problems[..] else { panic!("{text}: {problems:?}") };
        assert!(message.contains(&format!("the current menu is `{menu}`")), "{text}: {message}");
        assert_eq!(help, &format!("put `{meant}` before it"), "{text}");
    }
    // An error in a rule in the right menu is reported as an error of the rule.
    let (problems, _) = told("/ip firewall filter\nadd chian=input action=drop\n");
    assert_eq!(problems.iter().map(|(_, help)| help.as_str()).collect::<Vec<_>>(), ["did you mean `chain`?"]);
}

#[test]
fn a_jump_to_a_chain_without_rules_is_read() {
    let said =
        rules("/ip firewall filter\nadd action=jump chain=input jump-target=billing\nadd action=drop chain=input\n");
    assert_eq!(said.rules.len(), 2);
}
