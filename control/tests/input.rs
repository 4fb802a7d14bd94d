//! Endless input for every input of `knockctl`: the program refuses it with the limit, in bounded memory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Address space of a process under test, several times the longest input. Endless input would exceed it.
const ADDRESS_SPACE: &str = "--as=1500000000";

fn knockctl(arguments: &[&str], input: Stdio) -> Output {
    Command::new("timeout")
        .args(["300", "prlimit", ADDRESS_SPACE, env!("CARGO_BIN_EXE_knockctl")])
        .args(arguments)
        .stdin(input)
        .output()
        .expect("prlimit, of util-linux")
}

/// Expects a refusal with these parts.
fn refused(output: &Output, what: &[&str], code: i32, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what:?}: {error}");
    for part in parts {
        assert!(error.contains(part), "{what:?}: {part:?} is not in: {error}");
    }
    assert!(error.lines().count() == 1, "{what:?}: {error}");
}

#[test]
fn standard_input_without_an_end_is_refused() {
    for (arguments, code, limit) in [
        (&["apply", "-"][..], 3, "more than 64 MiB, the limit for rule files: move entries"),
        (&["check", "-"], 3, "more than 64 MiB, the limit for rule files: move entries"),
        (&["list", "import", "-"], 1, "more than 128 MiB, the limit for files of list entries: split the file"),
        (&["import", "-"], 3, "more than 4 MiB, the limit for configurations of knockd: check that"),
    ] {
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        let output = knockctl(arguments, yes.stdout.take().unwrap().into());
        yes.kill().unwrap();
        yes.wait().unwrap();
        refused(&output, arguments, code, &["standard input", limit]);
    }
}

#[test]
fn files_without_an_end_are_refused_wherever_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.rsc");
    fs::write(&rules, "/ip firewall filter\nadd chain=input action=drop\n").unwrap();
    let test = folder.path().join("a.test.toml");
    let step = "[[test]]\nname = 'a'\nstep = [{ packet = 'tcp 192.0.2.1 > 192.0.2.2:22' }]\n";
    fs::write(&test, format!("rules = '/dev/zero'\n{step}")).unwrap();
    let configured = folder.path().join("b.test.toml");
    fs::write(&configured, format!("rules = 'rules.rsc'\nconfig = '/dev/zero'\n{step}")).unwrap();
    let [rules, test, configured] = [&rules, &test, &configured].map(|path| path.to_str().unwrap());
    let packet = "tcp 198.51.100.7 > 203.0.113.5:22";
    let limit_of = |of: &str| format!("the limit for {of}: ");
    for (arguments, code, part) in [
        (&["apply", "/dev/zero"][..], 3, limit_of("rule files")),
        (&["check", "/dev/zero"], 3, limit_of("rule files")),
        (&["check", "--config", "/dev/zero", rules], 3, limit_of("configuration files")),
        (&["export", "--rules", "/dev/zero"], 3, limit_of("rule files")),
        (&["list", "import", "/dev/zero"], 1, limit_of("files of list entries")),
        (&["import", "/dev/zero"], 3, limit_of("configurations of knockd")),
        (&["explain", packet, "--rules", "/dev/zero"], 3, limit_of("rule files")),
        (&["explain", packet, "--rules", rules, "--config", "/dev/zero"], 3, limit_of("configuration files")),
        (&["explain", packet, "--rules", rules, "--lists", "/dev/zero"], 3, limit_of("saved lists")),
        (&["explain", "--pcap", "/dev/zero", "--rules", rules], 1, "it is no capture".to_owned()),
        (&["replay", "--rules", "/dev/zero", "--pcap", "/dev/zero"], 3, limit_of("rule files")),
        (&["replay", "--rules", rules, "--pcap", "/dev/zero"], 1, "it is no capture".to_owned()),
        (&["replay", "--rules", rules, "--config", "/dev/zero", "--pcap", "x"], 3, limit_of("configuration files")),
        (&["plan", "/dev/zero", "--rules", rules], 3, limit_of("rule files")),
        (&["plan", rules, "--rules", "/dev/zero"], 3, limit_of("rule files")),
        (&["plan", rules, "--rules", rules, "--config", "/dev/zero"], 3, limit_of("configuration files")),
        (&["plan", rules, "--rules", rules, "--pcap", "/dev/zero"], 1, "it is no capture".to_owned()),
        (&["test", "/dev/zero"], 3, limit_of("test files")),
        (&["test", test], 3, limit_of("rule files")),
        (&["test", configured], 3, limit_of("configuration files")),
    ] {
        refused(&knockctl(arguments, Stdio::null()), arguments, code, &[&part]);
    }
}

#[test]
fn a_directory_is_named_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for (arguments, code) in
        [(&["check", folder][..], 3), (&["apply", folder], 3), (&["list", "import", folder], 1), (&["test", folder], 3)]
    {
        refused(&knockctl(arguments, Stdio::null()), arguments, code, &[folder, "it is a directory; name a file"]);
    }
}

#[test]
fn the_control_process_does_not_start_with_a_configuration_that_others_can_change_or_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("knockplane.toml");
    let started = |config: &Path| {
        let mut command = Command::new("timeout");
        command.args(["20", "prlimit", ADDRESS_SPACE, env!("CARGO_BIN_EXE_knockplane-control"), "--config"]);
        command.arg(config).output().unwrap()
    };
    let chmod = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::write(&file, "[control]\nlisten = 'here'\n").unwrap();
    for mode in [0o666, 0o620] {
        chmod(mode);
        let remedy = format!("run: chmod go-w {}", file.display());
        refused(&started(&file), &["a file that others can write"], 3, &[&remedy]);
    }
    chmod(0o600);
    refused(&started(&file), &["a file that is read"], 3, &["`listen` is an address"]);
    refused(&started(Path::new("/dev/zero")), &["a device"], 3, &["is not a regular file"]);
    File::options().write(true).open(&file).and_then(|file| file.set_len((4 << 20) + 1)).unwrap();
    refused(&started(&file), &["a long file"], 3, &["more than 4 MiB, the limit for configuration files"]);
}
