//! Tests of the two programs without a dataplane: exit codes, messages, start and stop. The `tests` package of the
//! workspace tests them with the real dataplane.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

fn knockctl(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_knockctl")).arg("--socket").arg(socket).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `knockctl` with this on standard input.
fn with_input(arguments: &[&str], text: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_knockctl"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A control process in a temporary directory, without a dataplane.
struct Daemon {
    dir: TempDir,
    child: Child,
}

impl Daemon {
    /// Starts a control process, and waits until it answers.
    fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(&configuration(&dir));
        let daemon = Daemon { dir, child };
        wait_until_it_answers(&daemon.socket());
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the control process does not end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a control process reports that its dataplane does not answer.
fn wait_until_it_answers(socket: &Path) {
    let began = Instant::now();
    while !stderr(&knockctl(socket, &["show", "status"])).contains("the dataplane cannot be reached") {
        assert!(began.elapsed() < PATIENCE, "the control process does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A configuration file with sockets inside `dir` and a TCP port that the system chooses.
fn configuration(dir: &TempDir) -> PathBuf {
    let file = dir.path().join("knockplane.toml");
    let at = dir.path().display();
    let text = format!(
        "[dataplane]\nsocket = \"{at}/dataplane.sock\"\n\n[control]\nlisten = \"127.0.0.1:0\"\nsocket = \"{at}/run/control.sock\"\n"
    );
    fs::write(&file, text).unwrap();
    file
}

fn spawn(configuration: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_knockplane-control"))
        .arg("--config")
        .arg(configuration)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_link_to_a_page_that_is_off_is_refused_with_the_setting() {
    let daemon = Daemon::start();
    for arguments in [&["page"][..], &["page", "--role", "read"], &["page", "--sign-out"]] {
        let output = knockctl(&daemon.socket(), arguments);
        assert_eq!((output.status.code(), &*output.stdout), (Some(6), &b""[..]), "{output:?}");
        assert!(stderr(&output).contains("the web page is off: set `page = true` in [control.api]"), "{output:?}");
    }
    let output = knockctl(&daemon.socket(), &["page", "--role", "owner"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn without_a_daemon_every_question_ends_with_4_and_one_sentence() {
    let socket = Path::new("/nonexistent/control.sock");
    for arguments in [
        &["show", "rules"][..],
        &["show", "status"],
        &["show", "doors"],
        &["reload"],
        &["list", "remove", "a", "192.0.2.1"],
    ] {
        let output = knockctl(socket, arguments);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.lines().count() == 1 && text.contains("systemctl start knockplane-control"), "{text}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [&["show"][..], &["frobnicate"], &["list", "add", "a", "not-an-address"], &["check"]] {
        assert_eq!(knockctl(Path::new("/x"), arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn an_invalid_rule_file_ends_with_3_before_anybody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.rsc");
    fs::write(&file, "/ip firewall filter\nadd chain=input protocol=tcp dst-port=XX action=drop\n").unwrap();
    for command in ["check", "apply"] {
        let output = knockctl(Path::new("/nonexistent/control.sock"), &[command, file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        let text = stderr(&output);
        assert!(text.contains("bad.rsc") && text.contains("1 problem"), "{text}");
    }
}

#[test]
fn rules_come_from_standard_input_as_well() {
    let check = |text: &str| with_input(&["check", "--deny-lints", "-"], text);
    let good = check("/ip firewall filter\nadd chain=input action=drop\n");
    assert_eq!((good.status.code(), stderr(&good).as_str()), (Some(0), ""));
    assert_eq!(String::from_utf8_lossy(&good.stdout), "standard input: 1 rule, 0 patterns\n");
    let odd = check("/ip firewall filter\nadd chain=input action=drop\nadd chain=input action=drop\n");
    assert_eq!(odd.status.code(), Some(3));
    assert!(stderr(&odd).starts_with("warning[K001]: ") && stderr(&odd).contains("standard input:3:1"), "{odd:?}");
}

#[test]
fn doors_of_knockd_come_from_standard_input_as_well() {
    let conf = "[a]\nsequence = 7000\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n";
    let good = with_input(&["import", "-"], conf);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(String::from_utf8_lossy(&good.stdout).contains("opens = [\"tcp/22\"]"), "{good:?}");
    let bad = conf.replace("-s %IP%", "");
    let none = with_input(&["import", "-"], &bad);
    assert_eq!((none.status.code(), &none.stdout[..]), (Some(3), &b""[..]));
    assert!(stderr(&none).starts_with("error: standard input:3: "), "{}", stderr(&none));
    let some = with_input(&["import", "-"], &(conf.to_owned() + &bad.replace("[a]", "[b]")));
    assert_eq!(some.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&some.stdout).contains("name = \"a\""), "{some:?}");
    assert!(stderr(&some).contains("1 door is written; 1 section skipped: b (line 4)"), "{}", stderr(&some));
}

#[test]
fn doors_of_knockd_can_be_appended_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let [conf, config] = ["knockd.conf", "k.toml"].map(|name| dir.path().join(name).display().to_string());
    fs::write(&conf, "[a]\nsequence = 7000\ncommand = iptables -A INPUT -s %IP% -p tcp --dport 22 -j ACCEPT\n")
        .unwrap();
    fs::write(&config, "[dataplane]\noutside = \"a\"\n").unwrap();
    for _ in 0..3 {
        let out = fs::File::options().append(true).open(&config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_knockctl"));
        let output = command.args(["import", "--config", &config, &conf]).stdout(out).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(&config).unwrap().matches("[[door]]").count(), 1);
}

/// The error in the document on standard output, which must be the only output.
fn json_error(output: &Output) -> serde_json::Value {
    let document: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let schema = include_str!("../../docs/schema/error.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    assert!(validator.is_valid(&document), "{document}");
    document["error"].clone()
}

#[test]
fn errors_are_json_if_the_answer_was_to_be() {
    let unreachable = knockctl(Path::new("/nonexistent/control.sock"), &["--json", "show", "status"]);
    assert_eq!(unreachable.status.code(), Some(4));
    let error = json_error(&unreachable);
    assert_eq!((&error["code"], &error["where"]), (&"unreachable".into(), &"/nonexistent/control.sock".into()));
    let remedy = error["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("start it with `systemctl start knockplane-control`"), "{error}");
    assert!(!error["message"].as_str().unwrap().contains("systemctl"), "{error}");
    for (arguments, place, remedy) in [
        (&["--json", "frobnicate"][..], "frobnicate", ""),
        (&["show", "statsu", "--json"], "statsu", "similar"),
        (&["list", "add", "a", "nobody", "--json"], "ADDRESS", ""),
        (&["--json", "check"], "FILE", ""),
        (&["--json", "show", "lists", "--limit", "x"], "--limit", ""),
    ] {
        let output = knockctl(Path::new("/x"), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = json_error(&output);
        assert_eq!(error["code"], "usage", "{error}");
        assert!(error["where"].as_str().is_some_and(|it| it.contains(place)), "{arguments:?}: {error}");
        assert!(error["remedy"].as_str().is_some_and(|it| it.contains(remedy)), "{arguments:?}: {error}");
        assert!(!stderr(&output).is_empty(), "people are told as well");
    }
    // After `--`, `--json` is no option.
    assert!(knockctl(Path::new("/x"), &["show", "lists", "--limit", "x", "--", "--json"]).stdout.is_empty());
    let told = knockctl(Path::new("/x"), &["--json", "explain", "tcp 192.0.2.1 > nobody", "--rules", "/x.rsc"]);
    assert_eq!(told.status.code(), Some(3), "{told:?}");
    let help = knockctl(Path::new("/x"), &["--json", "--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).starts_with("The operator's tool"));
}

#[test]
fn an_invalid_configuration_ends_with_3_and_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("knockplane.toml");
    fs::write(&file, "[control]\nlisen = \"127.0.0.1:1\"\n").unwrap();
    let output = spawn(&file).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("knockplane.toml:2: "), "{}", stderr(&output));
}

#[test]
fn an_absent_dataplane_ends_with_4_through_the_daemon_too() {
    let daemon = Daemon::start();
    let output = knockctl(&daemon.socket(), &["show", "rules"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("systemctl start knockplane-dataplane"), "{}", stderr(&output));
    let error = json_error(&knockctl(&daemon.socket(), &["--json", "show", "rules"]));
    assert_eq!(error["code"], "unreachable");
    assert!(error["remedy"].as_str().unwrap().contains("systemctl start knockplane-dataplane"), "{error}");
    assert!(!error["message"].as_str().unwrap().contains("systemctl"), "{error}");
}

#[test]
fn a_signal_stops_it_cleanly_and_removes_the_socket() {
    for signal in ["INT", "TERM"] {
        let mut daemon = Daemon::start();
        daemon.signal(signal);
        assert_eq!(daemon.exit_code(), Some(0), "SIG{signal}");
        assert!(!daemon.socket().exists(), "SIG{signal}");
    }
}

#[test]
fn a_second_daemon_gives_way_to_the_first_and_replaces_a_killed_one() {
    let mut first = Daemon::start();
    let configuration = first.dir.path().join("knockplane.toml");
    let second = spawn(&configuration).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another control process answers"), "{}", stderr(&second));
    assert_eq!(knockctl(&first.socket(), &["show", "rules"]).status.code(), Some(4), "the first still answers");

    first.signal("KILL");
    first.exit_code();
    assert!(first.socket().exists());
    let mut third = spawn(&configuration);
    wait_until_it_answers(&first.socket());
    third.kill().unwrap();
    third.wait().unwrap();
}

#[test]
fn a_passphrase_that_everybody_can_read_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let [config, rules] = ["k.toml", "r.rsc"].map(|name| dir.path().join(name));
    fs::write(&config, "[[door]]\nname = 'a'\nknock = ['udp/4321 \"open sesame\"']\n").unwrap();
    fs::write(&rules, "/ip firewall filter\nadd chain=input action=drop\n").unwrap();
    let told = |mode| {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
        let [config, rules] = [&config, &rules].map(|path| path.to_str().unwrap());
        let output = knockctl(Path::new("/x"), &["check", "--config", config, rules]);
        assert_eq!(output.status.code(), Some(0));
        stderr(&output)
    };
    assert!(told(0o644).contains("can be read by all users") && told(0o644).contains("chmod 600"), "{}", told(0o644));
    assert!(!told(0o600).contains("all users"), "{}", told(0o600));
}

#[test]
fn rules_are_tried_without_a_daemon() {
    let configs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs"));
    let [rules, tests, knocks] = ["two-ports.rsc", "two-ports.test.toml", "passphrases.rsc"]
        .map(|name| configs.join(name).display().to_string());
    let dir = tempfile::tempdir().unwrap();
    let failing = dir.path().join("failing.test.toml");
    let step = "{ packet = 'tcp 192.0.2.1 > 192.0.2.2:22', expect = 'forward' }";
    fs::write(&failing, format!("rules = '{rules}'\n[[test]]\nname = 'open'\nstep = [{step}]\n")).unwrap();
    let packet = "tcp 198.51.100.7 > 203.0.113.5:22";
    let cases = [
        (vec!["test", &tests], 0),
        (vec!["test", &tests, failing.to_str().unwrap()], 1),
        (vec!["explain", packet, "--rules", &rules], 0),
        (vec!["explain", "tcp 198.51.100.7 > nobody", "--rules", &rules], 2),
        (vec!["explain", packet], 4),
        (vec!["replay", "--rules", "/nonexistent.rsc", "--pcap", "x"], 3),
        (vec!["replay", "--rules", &rules, "--pcap", "/nonexistent.pcap"], 1),
        (vec!["plan", &rules, "--rules", &rules], 0),
        (vec!["plan", "/nonexistent.rsc", "--rules", &rules], 3),
        (vec!["plan", &rules, "--rules", &rules, "--pcap", "/nonexistent.pcap"], 1),
        (vec!["plan", &rules, "--rules", &knocks], 5),
        (vec!["plan", &rules], 4),
    ];
    for (arguments, code) in cases {
        let output = knockctl(Path::new("/nonexistent/control.sock"), &arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    }
}

/// A file that accepts no bytes, and a pipe without a reader.
fn outputs_that_fail() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    [fs::File::options().write(true).open("/dev/full").unwrap().into(), writer.into()]
}

#[test]
fn an_output_that_fails_is_an_exit_code_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let [good, bad, knockd] = ["good.rsc", "bad.rsc", "knockd.conf"].map(|file| dir.path().join(file));
    fs::write(&good, "/ip firewall filter\nadd chain=input action=drop\n").unwrap();
    fs::write(&bad, "/ip firewall filter\nadd chain=input dst-port=XX action=drop\n").unwrap();
    fs::write(&knockd, "[a]\nnonsense\n").unwrap();
    let run = |arguments: &[&str], file: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knockctl"));
        command.args(arguments).arg(file);
        command
    };
    for (arguments, file, code) in [
        (&["check"][..], &bad, 3),
        (&["--json", "check"], &bad, 3),
        (&["export", "--rules"], &bad, 3),
        (&["import"], &knockd, 3),
        (&["list", "import"], &bad, 3),
        (&["--socket", "/nonexistent", "apply"], &good, 4),
        (&["frobnicate"], &good, 2),
    ] {
        for stderr in outputs_that_fail() {
            let output = run(arguments, file).stdout(Stdio::null()).stderr(stderr).status().unwrap();
            assert_eq!(output.code(), Some(code), "standard error of {arguments:?}: {output}");
        }
    }
    // A reader that closes the pipe early is no failure.
    for (stdout, code) in outputs_that_fail().into_iter().zip([1, 0]) {
        let output = run(&["check"], &good).stdout(stdout).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(stderr(&output).contains("cannot write the answer"), code == 1, "{output:?}");
    }
}

#[test]
fn a_daemon_that_cannot_start_says_so_with_its_exit_code_whatever_standard_error_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("knockplane.toml");
    fs::write(&file, "[control]\nlisen = \"127.0.0.1:1\"\n").unwrap();
    for stderr in outputs_that_fail() {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knockplane-control"));
        assert_eq!(command.arg("--config").arg(&file).stderr(stderr).status().unwrap().code(), Some(3));
    }
}
