//! Rules that drop the ICMP errors that path MTU discovery needs, and similar rules that do not.

use super::*;

const RELATED: &str = "add chain=input connection-state=established,related action=accept\n";

fn breaks_with(text: &str, settings: &Settings) -> Vec<u32> {
    all_with(text, settings).into_iter().filter(|lint| lint.code == Code::NoPathMtu).map(|lint| lint.line).collect()
}

fn breaks(rules: &str) -> bool {
    !breaks_with(&filter(rules), &Settings::default()).is_empty()
}

#[test]
fn accepts_that_leave_icmp_errors_out() {
    for accept in [
        "add chain=input src-address-list=open action=accept\n",
        "add chain=input protocol=tcp dst-port=22 action=accept\n",
        "add chain=input protocol=tcp dst-port=!1-1023 src-address=192.0.2.0/24\n",
        "add chain=input action=jump jump-target=k\nadd chain=k protocol=tcp dst-port=22,80\n",
        "add chain=input connection-state=established action=accept\nadd chain=input protocol=tcp dst-port=22\n",
        "add chain=input connection-state=new protocol=tcp dst-port=22\nadd chain=input connection-state=established\n",
    ] {
        assert!(breaks(accept), "{accept}");
        assert!(!breaks(&format!("{RELATED}{accept}")), "{accept}");
        assert!(!breaks(&format!("{accept}{RELATED}")), "{accept}");
        assert!(!breaks(&format!("{accept}add chain=input protocol=icmp\n")), "{accept}");
        let only = "add chain=input protocol=icmp icmp-options=3:4\n";
        assert!(!breaks(&format!("{accept}{only}")), "{accept}");
    }
}

#[test]
fn rules_without_tcp_have_no_lint() {
    for rules in [
        "",
        "add chain=input protocol=udp dst-port=53\n",
        "add chain=input protocol=icmp\n",
        "add chain=input in-interface=inside\n",
        "add chain=output\n",
        "add chain=input connection-state=established\n",
        "add chain=input\n",
    ] {
        assert!(!breaks(rules), "{rules}");
    }
}

/// From inside, errors arrive about packets of the client.
#[test]
fn both_directions_count() {
    let rules = format!("{RELATED}add chain=input protocol=tcp dst-port=22\n");
    let output = "add chain=output protocol=tcp action=accept\nadd chain=output action=drop\n";
    assert!(!breaks(&rules) && breaks(&format!("{rules}{output}")));
    assert!(!breaks(&format!("{rules}{}{output}", RELATED.replace("input", "output"))));
}

#[test]
fn ipv6_and_forwarded_connections_too() {
    let v6 = "/ipv6 firewall filter\nadd chain=input protocol=tcp dst-port=22\nadd chain=input action=drop\n";
    assert_eq!(breaks_with(v6, &Settings::default()), [2]);
    let cured = v6.replace("filter\n", "filter\nadd chain=input protocol=icmpv6 icmp-options=2:0-255\n");
    assert_eq!(breaks_with(&cured, &Settings::default()), [0; 0]);
    let forward = "/ip firewall filter\nadd chain=forward dst-address=192.0.2.80 protocol=tcp dst-port=443\n\
                   add chain=forward connection-state=established\nadd chain=forward action=drop\n";
    let settings = protecting(&["203.0.113.0/24"]);
    assert_eq!(breaks_with(forward, &settings), [2]);
    assert_eq!(breaks_with(&forward.replace("=established", "=established,related"), &settings), [0; 0]);
}
