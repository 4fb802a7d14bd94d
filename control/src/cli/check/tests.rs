use std::io::Write;

use clap::Parser;

use super::*;

const KNOCK: &str = "\
/ip firewall filter
add chain=input protocol=tcp dst-port=1111 action=add-src-to-address-list address-list=knock1 \\
    address-list-timeout=10s
add chain=input protocol=tcp dst-port=2222 src-address-list=knock1 action=add-src-to-address-list \\
    address-list=trusted address-list-timeout=10m
add chain=input src-address-list=friends action=accept
add chain=input src-address-list=trusted action=accept disabled=yes
";

/// A rule that the engine cannot run.
const MARKED: &str = "/ip firewall filter\nadd chain=input packet-mark=video\nadd chain=input action=drop\n";

fn file(text: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_ref()).unwrap();
    file
}

/// `knockctl check` on files of these texts.
fn check(arguments: &[&str], texts: &[&str]) -> Result<String, Failed> {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        check: Check,
        #[arg(long)]
        json: bool,
    }
    let files: Vec<_> = texts.iter().map(file).collect();
    let paths = files.iter().map(|file| file.path().to_str().unwrap());
    let line = Line::parse_from(["check"].into_iter().chain(arguments.iter().copied()).chain(paths));
    run(&line.check, line.json)
}

fn json(arguments: &[&str], text: &str) -> serde_json::Value {
    let output = match check(&[arguments, &["--json"]].concat(), &[text]) {
        Ok(output) => output,
        Err(failed) => failed.output,
    };
    crate::json::schema::assert_valid("check", &output);
    serde_json::from_str::<serde_json::Value>(&output).unwrap()["files"][0].take()
}

/// The text that an operator reads about a file, and whether the file is valid.
fn told(text: &str, settings: &Settings, allow_invalid: bool) -> (String, bool) {
    let source = Source { name: "rules.rsc".to_owned(), text: text.into(), reading: rsc::read(text.as_bytes()) };
    let (judgement, _) = source.judge(&How { settings, allow_invalid, lints: true });
    (judgement.report(&source.text, false), judgement.valid)
}

#[test]
fn a_valid_file_is_summed_up() {
    let file = file(KNOCK);
    let check = Check {
        files: vec![file.path().to_owned()],
        given: settings::Given::default(),
        allow_invalid: false,
        deny_lints: false,
    };
    let expected = format!(
        "{}: 4 rules (1 disabled), 0 patterns\n  lists: friends (filled by hand), knock1 (level 0), trusted (level 1)\n",
        file.path().display()
    );
    assert_eq!(run(&check, false).unwrap(), expected);
}

#[test]
fn doors_are_told_without_a_place_and_rules_must_not_fill_their_lists() {
    let door = r#"{"name":"ssh","knock":["tcp/7000"],"opens":["tcp/22"]}"#;
    let settings = Settings { doors: vec![serde_json::from_str(door).unwrap()], ..Settings::default() };
    let good = "/ip firewall filter\nadd chain=input protocol=icmp action=accept src-address-list=door-ssh\nadd chain=input action=drop\n";
    let (text, valid) = told(good, &settings, false);
    let lint = "warning[K014]: the knock of door `ssh` takes an attacker at most 65,535 guesses\n  help: ";
    assert!(valid && text.starts_with(lint) && text.ends_with("\n\nrules.rsc: 1 warning\n"), "{text}");

    let bad = good.replace("accept src-address-list=", "add-src-to-address-list address-list=");
    let (text, valid) = told(&bad, &settings, false);
    assert!(!valid && text.contains("`address-list` is a list of door `ssh`, which only its knocks fill"), "{text}");
}

#[test]
fn skipped_menus_are_named() {
    let text = check(&[], &["/ip dns\nset servers=192.0.2.53\n/ip firewall filter\nadd chain=input action=drop\n"]);
    assert!(text.unwrap().contains("skipped menus (commands): /ip dns (1)\n"));
}

#[test]
fn an_invalid_file_is_refused_whole_and_others_are_judged_too() {
    let bad = "/ip firewall filter\nadd chain=input dst-port=XX action=drop\n";
    let failed = check(&["--json"], &[bad, KNOCK]).unwrap_err();
    assert_eq!(failed.exit, Exit::Invalid);
    let judged: serde_json::Value = serde_json::from_str(&failed.output).unwrap();
    let files = &judged["files"];
    assert_eq!((&files[0]["valid"], &files[1]["valid"]), (&false.into(), &true.into()));
    assert_eq!(files[0]["problems"][0]["line"], 2);
    let (code, place) = (&judged["error"]["code"], judged["error"]["where"].as_str().unwrap());
    assert!(code == "invalid" && place.ends_with(":2:26"), "{judged}");
    let message = judged["error"]["message"].as_str().unwrap();
    assert!(message.ends_with(": 2 problems; nothing of this file is used"), "{message}");
    let (good, bad) = (file(KNOCK), file(bad));
    assert!(one(bad.path(), &Settings::default(), true).is_err());
    assert_eq!(one(good.path(), &Settings::default(), true).unwrap().rules.len(), 4);
}

#[test]
fn what_cannot_be_opened_is_named() {
    for name in ["/nonexistent/rules.rsc", "/"] {
        let path = Path::new(name);
        let failed = one(path, &Settings::default(), false).unwrap_err();
        assert_eq!(failed.exit, Exit::Invalid);
        assert!(failed.message.starts_with(&format!("{name} is not valid: it cannot be read: ")), "{failed:?}");
        assert!(failed.output.is_empty(), "{failed:?}");
    }
}

#[test]
fn ten_lines_that_cannot_be_read_are_told_in_one_go() {
    let text = "\
/ip firewall layer7-protocol
add name=secret regexp=\"^(open\"
/ip firewall filter
add chain=input action=accept protocol=tcp dst-prot=22
add chain=input action=acept protocol=tcp dst-port=22
add chain=input action=accept protocol=tcp dst-port=22,XXXXX,80
add chain=input action=accept src-address=172.16.1.X
add chain=input action=accept dst-port=22
add chain=input action=add-src-to-address-list address-list=knock1 address-list-timeout=10x
add chain=input action=jump jump-target=knokc
add chain=knock action=drop comment=\"never closed
add chain=input action=drop action=accept
:if ($x) do={ add chain=input }
";
    insta::assert_snapshot!(told(text, &Settings::default(), false).0);
}

#[test]
fn ten_mistakes_in_lines_that_read_well_are_told_in_one_go() {
    let text = "\
/ip firewall layer7-protocol
add name=secret regexp=\".*\"
/ip firewall filter
add chain=input packet-mark=video action=accept
add chain=input protocol=udp dst-port=4000 layer7-protocol=secret action=add-src-to-address-list \\
    address-list=temporary
add chain=input protocol=tcp dst-port=1234 action=add-src-to-address-list address-list=first \\
    address-list-timeout=10s
add chain=input protocol=tcp dst-port=4321 src-address-list=first action=add-src-to-address-list \\
    address-list=secured address-list-timeout=1s
add chain=input src-address-list=secured action=accept
add chain=input src-address-list=temprary action=drop
add chain=input action=jump jump-target=own
add chain=own action=drop disabled=yes
add chain=input protocol=tcp action=accept
add chain=input protocol=tcp dst-port=25 action=drop
add chain=input protocol=udp dst-port=!0-65535 action=drop
add chain=inptu action=drop
add chain=forward action=drop
";
    let (told, valid) = told(text, &Settings::default(), true);
    assert!(valid, "{told}");
    insta::assert_snapshot!(told);
}

#[test]
fn rules_that_nobody_can_run_are_refused_unless_that_is_allowed() {
    let failed = check(&[], &[MARKED]).unwrap_err();
    assert_eq!(failed.exit, Exit::Invalid);
    assert!(failed.output.contains("2 rules (1 invalid), 0 patterns"), "{failed:?}");
    assert!(check(&["--allow-invalid"], &[MARKED]).is_ok());
    assert!(check(&["--allow-invalid", "--deny-lints"], &[MARKED]).is_ok(), "it is no lint");
    assert!(check(&[], &[&MARKED.replace("packet-mark", "disabled=yes packet-mark")]).is_ok());
    let judged = json(&[], MARKED);
    let invalid = &judged["invalid"][0];
    assert_eq!((&invalid["line"], &invalid["column"], &invalid["code"]), (&2.into(), &29.into(), &"E002".into()));
    assert!(invalid["remedy"].as_str().unwrap().contains("--allow-invalid"));

    let marked = file(MARKED);
    let how = How { settings: &Settings::default(), allow_invalid: true, lints: false };
    let rules = read(marked.path(), false).unwrap().rules(&how, false).unwrap();
    assert!(rules.rules[0].disabled && rules.rules[0].invalid.is_some() && !rules.rules[1].disabled);
}

#[test]
fn lints_are_warnings_unless_they_are_denied() {
    let text = "/ip firewall filter\nadd chain=input action=drop\nadd chain=input protocol=tcp\n";
    assert!(check(&[], &[text]).is_ok());
    let failed = check(&["--deny-lints"], &[text]).unwrap_err();
    assert_eq!((failed.exit, failed.message.as_str()), (Exit::Invalid, ""));
    let judged = json(&["--deny-lints"], text);
    let lint = &judged["lints"][0];
    assert_eq!((&judged["valid"], &lint["code"], &lint["line"]), (&false.into(), &"K001".into(), &3.into()));
    assert_eq!((&lint["also"]["line"], &lint["severity"]), (&2.into(), &"warning".into()));
    let path = lint["file"].as_str().unwrap();
    assert!(Path::new(path).is_absolute() && lint["message"].is_string() && lint["remedy"].is_string());
    assert!(check(&["--deny-lints"], &["/ip firewall filter\nadd chain=input action=drop\n"]).is_ok());
}

#[test]
fn an_interface_without_a_side_is_refused_with_what_to_write() {
    let text = "/ip firewall filter\nadd chain=input in-interface=ether1 action=drop\n\
                add chain=input in-interface=!ether1 action=drop\nadd chain=input action=drop\n";
    let codes = |arguments: &[&str]| -> Vec<String> {
        let refused = json(arguments, text)["refused"].take();
        refused.as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap().to_owned()).collect()
    };
    let unmapped = |arguments: &[&str]| codes(arguments).iter().filter(|code| *code == "E004").count();
    assert_eq!(unmapped(&[]), 1, "each name once");
    assert_eq!(unmapped(&["--outside=ether1,ether2"]), 0);
    assert_eq!(unmapped(&["--inside", "ether1"]), 0);
    assert_eq!(unmapped(&["--elsewhere", "ether1"]), 0);
    let config = file("[policy.interfaces]\noutside = [\"ether1\"]\ninside = [\"bridge\"]\n");
    let config = config.path().to_str().unwrap();
    assert_eq!(unmapped(&["--config", config]), 0);
    assert_eq!(check(&["--config", "/nonexistent.toml"], &[text]).unwrap_err().exit, Exit::Invalid);
    let (told, _) = told(text, &Settings::default(), false);
    for said in [
        "error[E004]: the side of the interface `ether1` is not configured (2 matchers need it)\n --> rules.rsc:2:30\n",
        "\n    [policy.interfaces]\n    outside = [\"outside\"]\n    inside = [\"inside\"]\n    elsewhere = []\n    # Move ",
        "\n    # \"ether1\" (lines 2 and 3)\n",
    ] {
        assert!(told.contains(said), "{told}");
    }
}

/// Pastes the printed lines unchanged. They assign no side to any name, so no rule that needs a side runs.
#[test]
fn a_configuration_that_is_pasted_as_printed_answers_nothing() {
    let text = "/ip firewall filter\n\
        add chain=input connection-state=established,related action=accept\n\
        add chain=input in-interface=zerotier1 action=accept comment=\"office\"\n\
        add chain=input in-interface-list=!LAN action=log\n\
        add chain=input in-interface=\"a \\\"b\\\" # c\" action=accept\n\
        add chain=input in-interface=all-ppp protocol=tcp dst-port=22 action=accept\n\
        add chain=input in-interface=all-ethernet protocol=icmp action=accept\n\
        add chain=input action=drop\n";
    let (report, valid) = told(text, &Settings::default(), false);
    assert!(!valid && report.matches("error[E004]").count() == 3, "{report}");
    let pasted: String =
        report.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| line.to_owned() + "\n").collect();
    let section = &pasted[pasted.find("[policy.interfaces]").expect("the section is printed")..];
    let config = file(section);
    let settings = super::super::sources::settings_of(Some(config.path())).unwrap();
    assert_eq!(settings, Settings::default(), "{section}");

    let answered = section.replace("elsewhere = []", "elsewhere = [\"zerotier1\", \"LAN\", \"a \\\"b\\\" # c\"]");
    let config = file(answered);
    let config = config.path().to_str().unwrap();
    let lints = json(&["--config", config, "--deny-lints"], text);
    assert_eq!(lints["valid"], true, "the configuration says so: {lints}");
    let told: Vec<_> = lints["lints"].as_array().unwrap().iter().map(|it| (&it["code"], &it["line"])).collect();
    let code = serde_json::Value::from("K019");
    let lines = [3, 4, 5, 6].map(serde_json::Value::from);
    assert_eq!(
        told.iter().filter(|(of, _)| **of == code).map(|(_, line)| *line).collect::<Vec<_>>(),
        lines.iter().collect::<Vec<_>>()
    );
}

#[test]
fn every_code_of_an_error_is_explained() {
    let page = include_str!("../../../../docs/lints.md");
    for code in [rsc::PROBLEM_CODE, rsc::WARNING_CODE, findings::INVALID, findings::REFUSED, findings::UNMAPPED] {
        assert!(page.contains(&format!("\n| `{code}` | ")), "{code}");
    }
}

#[test]
fn files_of_any_form_are_judged() {
    assert_eq!(check(&[], &[""]).unwrap().lines().count(), 1);
    let crlf = KNOCK.replace('\n', "\r\n");
    assert!(check(&[], &[&crlf, &format!("\u{feff}{KNOCK}")]).is_ok());
    let long = format!("/ip firewall filter\nadd chain=input src-port=X comment=\"{}\"\n", "x".repeat(1_000_000));
    let (told, valid) = told(&long, &Settings::default(), false);
    assert!(!valid && told.len() < 2_000 && told.starts_with("error[E001]: rules.rsc:2:26: "), "{}", told.len());
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
    let binary = file(bytes);
    assert_eq!(one(binary.path(), &Settings::default(), false).unwrap_err().exit, Exit::Invalid);
}

#[test]
fn a_host_name_in_a_list_is_valid() {
    let text = "/ip firewall address-list\nadd list=a address=gate.example.net\n";
    let (text, valid) = told(text, &Settings::default(), false);
    assert!(valid && !text.contains("error"), "{text}");
}

#[test]
fn an_entry_that_cannot_run_is_told_at_its_place_and_counted() {
    let config =
        file("[[door]]\nname = \"ssh\"\nknock = [\"tcp/8000\", \"tcp/9000\", \"tcp/7000\"]\nopens = [\"tcp/22\"]\n");
    let settings = super::super::sources::settings_of(Some(config.path())).unwrap();
    let list = knockplane_policy::door::levels(&settings.doors).map(|(list, _)| list).last().unwrap();
    let text = format!(
        "# a\n/ip firewall address-list\nadd list={list} address=192.0.2.1 comment=x\nadd address=\\\n    192.0.2.2 list={list}\n\
         /ip firewall filter\nadd chain=input action=drop\n"
    );
    let (told, valid) = told(&text, &settings, false);
    assert!(!valid);
    let column = format!("add list={list} address=").len() + 1;
    for said in [
        format!("error[E003]: `{list}` is a list of a door"),
        format!(" --> rules.rsc:3:{column}\n"),
        " --> rules.rsc:4:1\n".to_owned(),
        "rules.rsc: 2 errors; the rules cannot run\n".to_owned(),
    ] {
        assert!(told.contains(&said), "{said}: {told}");
    }
}

#[test]
fn what_is_worth_a_look_is_a_warning_and_no_lint() {
    let text = "#error exporting \"/interface/wifi\" (timeout)\n/ip firewal\nset 0 x=y\n:put done\n/ip firewall filter\n\
                add chain=input action=drop\n";
    let (told, valid) = told(text, &Settings::default(), false);
    assert!(valid && told.ends_with("rules.rsc: 3 warnings\n"), "{told}");
    assert_eq!(told.matches("warning[W001]").count(), 3, "{told}");
    assert!(check(&["--deny-lints"], &[text]).is_ok());
    assert_eq!(json(&[], text)["warnings"].as_array().map(Vec::len), Some(3));
    let missing = format!("{text}#error exporting \"/ip/firewall/filter\"\n");
    assert_eq!(check(&[], &[&missing]).unwrap_err().exit, Exit::Invalid);
}

#[test]
fn files_of_utf16_are_shown_as_what_they_say() {
    let text = "/ip firewall filter\r\nadd chain=input comment=\"\u{e9}\" actoin=drop\r\n";
    let units = [0xFEFF].into_iter().chain(text.encode_utf16());
    let file = file(units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
    let Ok(source) = Source::open(file.path()) else { panic!("it is there") };
    let (judgement, _) = source.judge(&How { settings: &Settings::default(), allow_invalid: false, lints: true });
    let told = judgement.report(&source.text, false);
    assert!(told.contains("2 | add chain=input comment=\"\u{e9}\" actoin=drop") && told.contains(":2:29"), "{told}");
}

#[test]
fn problems_of_a_script_are_shown_where_it_says_them() {
    let text = "/ip firewall filter\n:foreach p in={1;70000} do={\n  add chain=input protocol=tcp dst-port=$p\n}\n";
    let (told, _) = told(text, &Settings::default(), false);
    assert!(
        told.contains("(`$p` is `70000`)") && told.contains("3 |   add chain=input protocol=tcp dst-port=$p"),
        "{told}"
    );
}
