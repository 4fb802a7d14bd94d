//! The dataplane as a service manager meets it while it starts, before it touches an interface.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

#[test]
fn a_passphrase_that_everybody_can_read_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.path().join(name));
    let door = "[[door]]\nname = 'a'\nknock = ['udp/4321 \"open sesame\"']\n";
    fs::write(&file, format!("[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\n{door}")).expect("a file");
    fs::write(rules, "/ip firewall filter\nadd chain=input action=drop\n").expect("the rules");
    let told = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its owner is asked");
        let mut check = Command::new(env!("CARGO_BIN_EXE_knockplane-dataplane"));
        let output = check.arg("--check").arg("--config").arg(&file).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(told(0o644).contains("passphrase of door `a`; run: chmod 600"), "{}", told(0o644));
    assert_eq!(told(0o600), "");
}

/// Its rules are a pipe, so that it starts for as long as nobody writes them.
#[test]
fn a_reload_that_comes_while_it_starts_does_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.path().join(name));
    let text = "[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\nstate-dir = '.'\nsocket = 'd.sock'\n\
                list-capacity = 1000\n";
    fs::write(&file, text).expect("the configuration");
    assert!(Command::new("mkfifo").arg(&rules).status().expect("mkfifo").success());
    let dataplane = Command::new(env!("CARGO_BIN_EXE_knockplane-dataplane"))
        .arg("--config")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Opens once the dataplane reads.
    let mut rules = File::options().write(true).open(&rules).expect("the pipe");
    let kill = Command::new("kill").args(["-s", "HUP", &dataplane.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    rules.write_all(b"/ip firewall filter\nadd chain=input nonsense=1\n").expect("somebody reads");
    drop(rules);
    let output = dataplane.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("nonsense"), "{told}");
}

/// A file that takes nothing, and a pipe that nobody reads.
fn outputs_that_fail() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    [File::options().write(true).open("/dev/full").expect("/dev/full").into(), writer.into()]
}

#[test]
fn an_output_that_fails_is_an_exit_code_and_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let [good, bad, rules] = ["good.toml", "bad.toml", "rules.rsc"].map(|name| folder.path().join(name));
    fs::write(&good, "[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\nstate-dir = '.'\n")
        .expect("a file");
    fs::write(&bad, "[dataplane]\noutsid = 'a'\n").expect("a file");
    fs::write(rules, "/ip firewall filter\nadd chain=input action=drop\n").expect("the rules");
    let run = |file, check: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knockplane-dataplane"));
        command.args(check).arg("--config").arg(file);
        command
    };
    // A reader that has seen enough is no failure.
    for (stdout, code) in outputs_that_fail().into_iter().zip([1, 0]) {
        let output = run(&good, &["--check"]).stdout(stdout).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output");
        assert_eq!(told, code == 1, "{output:?}");
    }
    for check in [&["--check"][..], &[]] {
        for stderr in outputs_that_fail() {
            let status = run(&bad, check).stderr(stderr).status().expect("it runs");
            assert_eq!(status.code(), Some(3), "{check:?}: {status}");
        }
    }
}
