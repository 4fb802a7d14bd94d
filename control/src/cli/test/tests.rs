use std::fs;

use super::*;

const RULES: &str = "/ip firewall filter\n\
    add chain=input protocol=tcp dst-port=1 action=add-src-to-address-list address-list=knocked address-list-timeout=10s\n\
    add chain=input src-address-list=knocked action=accept comment=\"knocked before\"\n";

/// Runs a test file with the rules above.
fn run_text(text: &str, json: bool) -> Result<String, Failed> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("r.rsc"), RULES).unwrap();
    fs::write(dir.path().join("k.toml"), "[policy]\nprotect = []\n").unwrap();
    let file = dir.path().join("r.test.toml");
    fs::write(&file, text).unwrap();
    let place = |text: String| text.replace(&dir.path().display().to_string(), "DIR");
    run(&[file], json).map(place).map_err(|failed| Failed {
        message: place(failed.message),
        output: place(failed.output),
        ..failed
    })
}

#[test]
fn our_own_configurations_do_what_their_tests_say() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs"));
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_test = |file: &&PathBuf| file.to_string_lossy().ends_with(".test.toml");
    let tests: Vec<_> = files.iter().filter(is_test).cloned().collect();
    let rules = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rsc")).count();
    assert!(tests.len() >= rules, "every rule file has tests");
    run(&tests, false).unwrap_or_else(|failed| panic!("{}{}", failed.message, failed.output));
}

#[test]
fn what_comes_out_as_expected_passes() {
    let text = r#"
        rules = "r.rsc"
        [[test]]
        name = "all that can be asked"
        at = 2026-11-02T08:00:00+01:00
        lists = { knocked = ["192.0.2.1", "192.0.2.2 1s"] }
        [[test.step]]
        packet = "udp 192.0.2.2 > 203.0.113.5:9"
        from = "outside"
        expect = "forward"
        reason = "rule"
        rule = "knocked before"
        lists = { knocked = ["192.0.2.2", "192.0.2.1"] }
        [[test.step]]
        after = "1s"
        lists = { knocked = ["192.0.2.1"] }
        [[test.step]]
        after = "500ms"
        packet = "tcp 192.0.2.3 > 203.0.113.5:1"
        rule = 3
        lists = { knocked = ["192.0.2.1", "192.0.2.3 10s"] }
        [[test.step]]
        packet = "tcp 192.0.2.3 > 203.0.113.5:1 in inside"
        reason = "chain-default"
    "#;
    let output = run_text(text, false).unwrap();
    assert_eq!(
        output,
        "DIR/r.test.toml: 1 test\ntest all that can be asked ... ok\n\ntest result: ok. 1 passed; 0 failed\n\n"
    );
    let text = run_text(text, true).unwrap();
    crate::json::schema::assert_valid("test", &text);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["files"][0]["passed"], &json["files"][0]["tests"][0]["passed"]), (&1.into(), &true.into()));
}

#[test]
fn what_comes_out_otherwise_is_explained() {
    let text = r#"rules = "r.rsc"
[[test]]
name = "a wrong verdict"
[[test.step]]
packet = "tcp 192.0.2.1 > 203.0.113.5:1"
expect = "forward"
[[test.step]]
after = "10s"
packet = "udp 192.0.2.1 > 203.0.113.5:9"
expect = "forward"
rule = "knocked before"
reason = "rule"
[[test]]
name = "a wrong list"
[[test.step]]
packet = "tcp 192.0.2.1 > 203.0.113.5:1"
rule = 2
lists = { knocked = ["192.0.2.1 9s"] }
[[test.step]]
packet = "icmp 192.0.2.1 > 203.0.113.5"
expect = "forward"
[[test]]
name = "a good one"
[[test.step]]
packet = "tcp 192.0.2.1 > 203.0.113.5:2"
expect = "drop"
"#;
    let failed = run_text(text, false).unwrap_err();
    assert_eq!((failed.exit, failed.message.as_str()), (Exit::Runtime, "2 tests failed"));
    insta::assert_snapshot!("failed", failed.output);
    let text = run_text(text, true).unwrap_err().output;
    crate::json::schema::assert_valid("test", &text);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["error"]["code"], &json["error"]["message"]), (&"failed".into(), &"2 tests failed".into()));
    let failure = &json["files"][0]["tests"][0]["failure"];
    assert_eq!((&failure["step"], &failure["line"]), (&2.into(), &9.into()));
    assert_eq!(failure["explained"]["rules"][0]["outcome"], "missed");
}

#[test]
fn settings_come_from_the_file_or_from_a_configuration() {
    let test = "[[test]]\nname = 'x'\nstep = [{ packet = 'udp 192.0.2.1 > 192.0.2.2:9', expect = '%' }]\n";
    let forward = test.replace('%', "forward");
    let inline = format!("rules = 'r.rsc'\n[policy.chain-default]\ninput = 'accept'\n{forward}");
    assert!(run_text(&inline, false).is_ok());
    let config = format!("rules = 'r.rsc'\nconfig = 'k.toml'\n{}", test.replace('%', "drop"));
    assert!(run_text(&config, false).is_ok());
    let both = format!("rules = 'r.rsc'\nconfig = 'k.toml'\n[policy]\n{forward}");
    assert!(run_text(&both, false).unwrap_err().message.contains("leave one out"));
}

#[test]
fn mistakes_in_a_file_have_their_line_and_are_no_failed_tests() {
    let step = |step: &str| format!("rules = 'r.rsc'\n[[test]]\nname = 'x'\n[[test.step]]\n{step}\n");
    let packet = "packet = 'udp 192.0.2.1 > 192.0.2.2:9'";
    let cases = [
        (step("packt = 1"), "DIR/r.test.toml:5: unknown field `packt`"),
        (step(&format!("{packet}\nexpect = 'accept'")), "DIR/r.test.toml:6: unknown variant `accept`"),
        (step(&format!("{packet}\nafter = 'soon'")), "DIR/r.test.toml:6: `soon` is not a time: write `3s`"),
        (step(&format!("{packet}\nlists = {{ a = ['b'] }}")), "`b` is no address"),
        (step(&format!("{packet}\nrule = true")), "expected the rule's line"),
        (step("expect = 'drop'"), "this step has no `packet`"),
        (step(""), "this step is empty"),
        (step("\npacket = 'udp 192.0.2.1'"), "DIR/r.test.toml:6: something is missing: expected `>`"),
        (step(&format!("{packet}\n[[test.step]]\npacket = 'udp'")), "DIR/r.test.toml:7: something is missing"),
        (
            step("from = 'outside'\npacket = 'udp 192.0.2.1 > 192.0.2.2:9 in inside'"),
            "DIR/r.test.toml:6: the packet is given as",
        ),
        (step("packet = 'udp 192.0.2.1 > 192.0.2.2:9 in ether7'"), "no interface that means a side"),
        (
            step("after = '1s'\nlists = { knokced = [] }"),
            "DIR/r.test.toml:4: no rule names the list `knokced`; there are knocked",
        ),
        ("rules = 'r.rsc'\n".to_owned(), "there are no tests"),
        (
            step("") + "[[door]]\nname = 'a'\nknock = ['tcp/7']\n[[door]]\nname = 'b'\nknock = ['x']\n",
            "DIR/r.test.toml:9: door `b`: `knock`: step 1",
        ),
        ("[[test]]\nname = 'x'\n".to_owned(), "missing field `rules`"),
        (step(packet).replace("name", "at = 2026-01-01\nname"), "write a date and time"),
        (step(packet).replace("r.rsc", "nothing.rsc"), "DIR/nothing.rsc is not valid: it cannot be read"),
    ];
    for (text, expected) in cases {
        let failed = run_text(&text, true).unwrap_err();
        assert!(failed.exit == Exit::Invalid && failed.message.contains(expected), "{expected}: {}", failed.message);
    }
}
