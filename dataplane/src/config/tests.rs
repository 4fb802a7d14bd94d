use super::*;

const MINIMAL: &str = "[dataplane]\noutside = \"eth1\"\ninside = \"eth2\"\nrules = \"rules.rsc\"\n";

const DOOR: &str = "[[door]]\nname = \"ssh\"\nknock = [\"tcp/7\"]\n";

fn error(text: &str) -> String {
    Config::parse(Path::new("/etc/k.toml"), text).expect_err("must be refused").to_string()
}

#[test]
fn the_default_file_is_the_manual_and_states_the_defaults() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/default.toml"));
    let text = fs::read_to_string(path).expect("configs/default.toml is there");
    let written = Config::parse(path, &text).expect("configs/default.toml is valid");
    let minimal = format!(
        "[dataplane]\noutside = \"{}\"\ninside = \"{}\"\nrules = \"{}\"\n",
        written.outside,
        written.inside,
        written.rules.display()
    );
    assert_eq!(Config::parse(path, &minimal).expect("the minimal file is valid"), written);
}

#[test]
fn the_door_of_the_default_file_has_every_key() {
    let text = include_str!("../../../configs/default.toml");
    let example: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "# [[door]]")
        .take_while(|line| !line.is_empty())
        .map(|line| line.strip_prefix("# ").expect("it is a comment"))
        .collect();
    let config = Config::parse(Path::new("k.toml"), &format!("{MINIMAL}{}", example.join("\n"))).expect("a door");
    let [door] = &config.settings.doors[..] else { panic!("one door") };
    let written: toml::Table = toml::from_str::<toml::Table>(&example.join("\n")).expect("a door")["door"][0]
        .as_table()
        .expect("a door is a table")
        .clone();
    let keys = toml::Table::try_from(door).expect("a door can be written");
    assert_eq!(written.keys().collect::<Vec<_>>(), keys.keys().collect::<Vec<_>>());
    assert_eq!(written, keys, "what it says is in the form that is written");
}

#[test]
fn the_older_name_of_zero_copy_is_understood() {
    let zero_copy =
        |line: &str| Config::parse(Path::new("k.toml"), &format!("{MINIMAL}{line}\n")).expect("valid").zero_copy;
    assert_eq!(zero_copy(""), ZeroCopy::Auto);
    assert_eq!(zero_copy("copy = false"), ZeroCopy::Auto);
    assert_eq!(zero_copy("copy = true"), ZeroCopy::Off);
    assert_eq!(zero_copy("zero-copy = \"off\""), ZeroCopy::Off);
    assert_eq!(zero_copy("zero-copy = \"force\""), ZeroCopy::Force);
}

#[test]
fn relative_rules_are_found_beside_the_file() {
    let config = Config::parse(Path::new("/etc/knockplane/k.toml"), MINIMAL).expect("valid");
    assert_eq!(config.rules, Path::new("/etc/knockplane/rules.rsc"));
}

#[test]
fn every_error_says_file_line_key_and_remedy() {
    let cases = [
        (format!("{MINIMAL}busy-pol = true\n"), "/etc/k.toml:5:1: unknown field `busy-pol`, expected one of"),
        (format!("{MINIMAL}busy-poll = 3\n"), "/etc/k.toml:5:13: `busy-poll`: invalid type: integer `3`"),
        (format!("{MINIMAL}ring-size = 1000\n"), "/etc/k.toml:5:13: `ring-size` is 1000; it must be a power of two"),
        (
            format!("{MINIMAL}copy = true\nzero-copy = \"auto\"\n"),
            "/etc/k.toml:5:8: `copy` is an older name of `zero-copy = \"off\"`",
        ),
        (format!("{MINIMAL}zero-copy = \"on\"\n"), "unknown variant `on`, expected one of `auto`, `off`, `force`"),
        (format!("{MINIMAL}cores = [3, 1, 3]\n"), "/etc/k.toml:5:16: `cores` names core 3 twice; name each core once"),
        (format!("{MINIMAL}socket-uids = [0, 4294967295]\n"), "/etc/k.toml:5:19: `socket-uids` names 4294967295"),
        (format!("{MINIMAL}socket = \"/{}\"\n", "s".repeat(107)), "/etc/k.toml:5:10: `socket` is /sss"),
        (format!("{MINIMAL}socket = \"..\"\n"), "/etc/k.toml:5:10: `socket` is /etc/.., of 7 bytes; write the path"),
        (MINIMAL.replace("eth1", "wan-interface-of-the-site"), "/etc/k.toml:2:11: `outside` has 25 bytes"),
        (
            format!("{MINIMAL}zero-copy = \"off\"\nrequire = \"zero-copy\"\n"),
            "/etc/k.toml:6:11: `require` asks for zero-copy, and `zero-copy` is off",
        ),
        (
            format!("{MINIMAL}require = \"generic\"\n"),
            "unknown variant `generic`, expected one of `any`, `native`, `zero-copy`",
        ),
        (format!("{MINIMAL}list-capacity = 0\n"), "/etc/k.toml:5:17: `list-capacity` is 0"),
        (
            format!("{MINIMAL}quota-prefix-v4 = 33\n"),
            "/etc/k.toml:5:19: `quota-prefix-v4` is 33; write a prefix length from 1 to 32, such as 24",
        ),
        (format!("{MINIMAL}ipv6-first-steps = \"net\"\n"), "unknown variant `net`, expected `address` or `prefix`"),
        (MINIMAL.replace("eth2", "eth1"), "/etc/k.toml:3:10: `inside` is the same interface"),
        (MINIMAL.replace("inside = \"eth2\"\n", ""), "missing field `inside`"),
        (format!("{MINIMAL}[policy]\nprotect = [\"10.0.0.0/33\"]\n"), "/etc/k.toml:6:12: `protect`: invalid"),
        (format!("{MINIMAL}[polcy]\n"), "/etc/k.toml:5:2: unknown field `polcy`"),
        (
            format!("{MINIMAL}[[door]]\nname = \"ssh\"\nknock = [\"tcp/7-9\"]\n"),
            "/etc/k.toml:5:1: door `ssh`: `knock`: step 1: `7-9` is not a port",
        ),
        (
            format!("{MINIMAL}{DOOR}{}", DOOR.replace("/7", "/x").replace("ssh", "b")),
            "/etc/k.toml:8:1: door `b`: `knock`: step 1: `x` is not a port",
        ),
        (format!("{MINIMAL}{DOOR}\n{DOOR}"), "/etc/k.toml:9:1: door `ssh`: `name`: two doors have this name"),
        (format!("{MINIMAL}[[policy.doors]]\nname = \"a\"\nknock = [\"tcp/7\"]\n"), "is not a key of [policy]"),
        (format!("{MINIMAL}[policy.frames]\narp = \"pass\"\n"), "unknown variant `pass`, expected `accept` or `drop`"),
        (format!("{MINIMAL}[metrics]\nrules = \"some\"\n"), "/etc/k.toml:6:9: `rules`: `some` is no choice of rules"),
        (format!("{MINIMAL}[metrics]\nrules = [\"port=7\"]\n"), "/etc/k.toml:6:9: `rules`: `port=7` chooses no rules"),
    ];
    for (text, expected) in cases {
        let error = error(&text);
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }
}

#[test]
fn first_steps_are_kept_as_the_file_says() {
    let text = format!(
        "{MINIMAL}first-step-quota = 9\nquota-prefix-v4 = 16\nquota-prefix-v6 = 48\nipv6-first-steps = \"prefix\"\n"
    );
    let config = Config::parse(Path::new("k"), &text).expect("valid");
    assert_eq!(config.first_steps, FirstStepSettings { quota: 9, v4_length: 16, v6_length: 48, v6_by_prefix: true });
}

#[test]
fn control_section_is_left_to_control() {
    assert!(Config::parse(Path::new("k"), &format!("{MINIMAL}[control]\nlisten = 7\n")).is_ok());
}
