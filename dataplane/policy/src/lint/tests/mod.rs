//! Rule sets with a lint, and similar rule sets without. Another test runs the examples of `docs/lints.md`.

mod chains;
mod knocks;
mod mtu;
mod rules;
mod scans;

use super::*;

/// `[policy]` with these protected prefixes.
fn protecting(nets: &[&str]) -> Settings {
    Settings { protect: nets.iter().map(|net| net.parse().unwrap()).collect(), ..Settings::default() }
}

/// The lints of a rule file: code and line. Lints about path MTU discovery are omitted, because nearly every short rule
/// set has one.
fn found_with(text: &str, settings: &Settings) -> Vec<(&'static str, u32)> {
    let lints = all_with(text, settings).into_iter().filter(|lint| lint.code != Code::NoPathMtu);
    lints.map(|lint| (crate::word::Word::name(lint.code), lint.line)).collect()
}

/// All lints of a rule file.
fn all_with(text: &str, settings: &Settings) -> Vec<Lint> {
    let reading = crate::rsc::read(text.as_bytes());
    assert_eq!(reading.problems, [], "{text}");
    lint(&reading.rules, settings)
}

/// The lints of rules of `/ip firewall filter`, which ends with a drop.
pub(super) fn found(rules: &str) -> Vec<(&'static str, u32)> {
    found_with(&filter(rules), &Settings::default())
}

fn filter(rules: &str) -> String {
    format!("/ip firewall filter\n{rules}add chain=input action=drop\n")
}

/// The lints about a rule of `input`.
fn of(rule: &str) -> Vec<&'static str> {
    found(&format!("add chain=input {rule}\n")).into_iter().map(|(code, _)| code).collect()
}

/// Uses rule sets for which a full comparison of each pair of rules would take minutes.
#[test]
fn many_rules_are_checked_in_bounded_time() {
    const MANY: usize = 2_000;
    let rules = |rule: &dyn Fn(usize) -> String| found(&(0..MANY).map(|at| rule(at) + "\n").collect::<String>()).len();
    assert_eq!(rules(&|at| format!("add chain=input protocol=tcp dst-port={},{} action=drop", at + 1, at + 9_000)), 0);
    assert_eq!(rules(&|at| format!("add chain=input src-address=10.0.{}.{} action=accept", at / 256, at % 256)), 0);
    let upside_down = |at: usize| {
        let step = MANY - at;
        format!(
            "add chain=input protocol=tcp dst-port={step} src-address-list=s{} action=add-src-to-address-list \
             address-list=s{step} address-list-timeout=10s",
            step - 1
        )
    };
    assert_eq!(rules(&upside_down), 1);
    let grown = |at: usize| match at % 2 {
        0 => "add chain=input src-address-list=a action=drop".to_owned(),
        _ => format!("add chain=input protocol=tcp dst-port={at} action=add-src-to-address-list address-list=a"),
    };
    assert_eq!(rules(&grown), 0);
}
