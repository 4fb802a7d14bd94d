//! The start of the dataplane under a service manager, before it changes an interface.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The dataplane in a new network namespace, which ends with the process. The namespace has two pairs of interfaces
/// that are up; the configurations name `a` and `b`.
fn dataplane() -> Command {
    const SCRIPT: &str = "set -e
        echo 0 > /proc/sys/net/ipv4/ip_forward
        echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
        for name in a b; do
            ip link add name $name type veth peer name $name-peer
            ip link set dev $name up
            ip link set dev $name-peer up
        done
        exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "timeout", "60", "sh", "-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_knockplane-dataplane")]);
    command
}

#[test]
fn a_passphrase_that_everybody_can_read_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.path().join(name));
    let door = "[[door]]\nname = 'a'\nknock = ['udp/4321 \"open sesame\"']\n";
    fs::write(&file, format!("[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\n{door}")).expect("a file");
    fs::write(rules, "/ip firewall filter\nadd chain=input action=drop\n").expect("the rules");
    let told = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its owner is asked");
        let output = dataplane().arg("--check").arg("--config").arg(&file).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(told(0o644).contains("passphrase of door `a`; run: chmod 600"), "{}", told(0o644));
    assert_eq!(told(0o600), "");
}

/// The rules are long, so that the start takes some time.
#[test]
fn a_reload_that_comes_while_it_starts_does_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.path().join(name));
    let text = "[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\nstate-dir = '.'\nsocket = 'd.sock'\n\
                list-capacity = 1000\n";
    write(&file, text);
    let address = |number: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
    let entries: String = (0..200_000).map(|number| format!("add list=a address={}\n", address(number))).collect();
    write(&rules, &format!("/ip firewall address-list\n{entries}/ip firewall filter\nadd chain=input nonsense=1\n"));
    let mut dataplane = Command::new(env!("CARGO_BIN_EXE_knockplane-dataplane"))
        .arg("--config")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // SigCgt is the mask of caught signals (proc_pid_status(5)); the lowest bit is SIGHUP's.
    let status = format!("/proc/{}/status", dataplane.id());
    let catches_hangup = || {
        let status = fs::read_to_string(&status).expect("it runs");
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim();
        u64::from_str_radix(mask, 16).expect("a mask") & 1 == 1
    };
    while !catches_hangup() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let kill = Command::new("kill").args(["-s", "HUP", &dataplane.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    assert_eq!(dataplane.try_wait().expect("known"), None, "it is still reading its rules");
    let output = dataplane.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("nonsense"), "{told}");
}

/// A file that accepts no bytes, and a pipe without a reader.
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
        let mut command = dataplane();
        command.args(check).arg("--config").arg(file);
        command
    };
    // A reader that closes the pipe early is no failure.
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

/// The exit code and output of `--check` for a configuration with these rules.
fn check(file: &Path) -> (Option<i32>, String) {
    let output = dataplane().arg("--check").arg("--config").arg(file).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Writes a file that only its owner can change, with any umask.
fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("written");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("its owner is asked");
}

#[test]
fn a_configuration_or_rules_that_others_can_change_are_refused_with_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.path().join(name));
    write(&file, "[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\n");
    write(&rules, "/ip firewall filter\nadd chain=input action=drop\n");
    let refused = |expected: &str| {
        let (code, told) = check(&file);
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains(expected), "{expected:?} in: {told}");
    };
    assert_eq!(check(&file).0, Some(0));
    for path in [&file, &rules] {
        for mode in [0o666, 0o620, 0o602] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
            refused(&format!("run: chmod go-w {}", path.display()));
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("set");
        std::os::unix::fs::chown(path, Some(4711), None).expect("the tests run as root");
        refused(&format!("belongs to user 4711, who could change it; run: chown 0 {}", path.display()));
        std::os::unix::fs::chown(path, Some(0), None).expect("given back");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("set");
    refused(&format!("run: chmod go-w {}", folder.path().display()));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("set");
    assert_eq!(check(&file).0, Some(0));
}

#[test]
fn a_configuration_or_rules_that_are_no_file_or_endless_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("knockplane.toml");
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let long = folder.path().join("long");
    write(&long, "");
    File::options().write(true).open(&long).and_then(|file| file.set_len((64 << 20) + 1)).expect("a sparse file");
    for (path, expected) in [
        (Path::new("/dev/zero"), "is not a regular file"),
        (&pipe, "is not a regular file"),
        (folder.path(), "cannot be read: it is a directory; name a file"),
        (&folder.path().join("none"), "cannot be read: No such file"),
        (&long, "the limit for"),
    ] {
        let (code, told) = check(path);
        assert_eq!(code, Some(3), "{path:?}: {told}");
        assert!(told.contains(expected), "{expected:?} in: {told}");
        write(&file, &format!("[dataplane]\noutside = 'a'\ninside = 'b'\nrules = '{}'\n", path.display()));
        let (code, told) = check(&file);
        assert_eq!(code, Some(3), "{path:?}: {told}");
        assert!(told.contains(expected), "{expected:?} in: {told}");
    }
}

/// The exit code and output of `--check` and of a start with further lines of `[dataplane]`. A start that continues to
/// run is stopped after two seconds, without an exit code.
fn checked_and_started(folder: &Path, further: &str) -> [(Option<i32>, String); 2] {
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.join(name));
    let head = "[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\n";
    let defaults = [("state-dir", "'state'"), ("socket", "'d.sock'"), ("list-capacity", "1000")];
    let defaults = defaults.into_iter().filter(|(key, _)| !further.contains(key));
    let defaults: String = defaults.map(|(key, value)| format!("{key} = {value}\n")).collect();
    write(&file, &format!("{head}{defaults}{further}\n"));
    write(&rules, "/ip firewall filter\nadd chain=input action=drop connection-state=new\n");
    let start = dataplane().arg("--config").arg(&file).stderr(Stdio::piped()).spawn().expect("it starts");
    let started = start.wait_with_output().expect("it ends");
    [check(&file), (started.status.code(), String::from_utf8_lossy(&started.stderr).into_owned())]
}

#[test]
fn what_no_restart_mends_ends_check_and_start_with_the_same_words_and_code_3() {
    let folder = tempfile::tempdir().expect("a folder");
    let [open, plain] = ["open", "plain"].map(|name| folder.path().join(name));
    fs::create_dir(&open).expect("a folder");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
    write(&plain, "");
    for (further, expected) in [
        ("cores = [0, 4711]", "`cores` names core 4711, but this process may run on"),
        ("cores = [0, 0]", "`cores` names core 0 twice"),
        ("list-capacity = 1_000_000_000_000", "`list-capacity` is 1000000000000: that takes 102000000 MB"),
        ("list-capacity = 1000\nconnection-capacity = 100_000_000\nring-size = 63", "`ring-size` is 63"),
        ("state-dir = 'open'", "open can be written by others (mode 777); run: chmod go-w"),
        ("state-dir = 'plain'", "Not a directory"),
        ("state-dir = 'plain/state'", "plain is no directory"),
        ("socket = 'plain'", "plain exists and is not a socket"),
        ("socket = 'plain/d.sock'", "plain is no directory"),
        ("socket-uids = [4294967295]", "which is no user"),
    ] {
        for (code, told) in checked_and_started(folder.path(), further) {
            assert_eq!(code, Some(3), "{further}: {told}");
            assert!(told.contains(expected), "{expected:?} in: {told}");
        }
    }
}

#[test]
fn a_damaged_state_file_is_found_by_a_check_and_nothing_is_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("a folder");
    for (name, content) in [
        ("rules.state", "damaged"),
        ("lists.state", "damaged"),
        ("names.state", "damaged"),
        ("grants.state", "knockplane grants 9 log\n"),
        ("counters.state", "knockplane counters 9 0\n"),
    ] {
        write(&state.join(name), content);
        for (code, told) in checked_and_started(folder.path(), "") {
            assert_eq!(code, Some(3), "{told}");
            assert!(told.contains(&format!("{name} is damaged")), "{told}");
        }
        assert_eq!(fs::read_to_string(state.join(name)).expect("it is there"), content);
        fs::remove_file(state.join(name)).expect("removed");
    }
}

#[test]
fn a_host_that_is_not_ready_is_no_fault_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("knockplane.toml");
    for (outside, expected) in [("none", "interface none: No such device"), ("lo", "lo is no Ethernet interface")] {
        let text = format!("[dataplane]\noutside = '{outside}'\ninside = 'b'\nrules = 'rules.rsc'\nsocket = 's'\n");
        write(&file, &format!("{text}state-dir = 'state'\nlist-capacity = 1000\n"));
        write(&folder.path().join("rules.rsc"), "/ip firewall filter\nadd chain=input action=drop\n");
        let (code, told) = check(&file);
        assert!(code == Some(1) && told.contains(expected), "{told}");
        assert!(told.contains("is valid, but a start on this host would be refused now"), "{told}");
        let output = dataplane().arg("--config").arg(&file).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains(expected), "{told}");
        // The output contains the kernel's error once.
        assert!(told.matches("os error").count() <= 1, "{told}");
    }
    assert!(!folder.path().join("s").exists(), "a check makes nothing");
}

#[test]
fn the_service_is_not_restarted_for_what_no_restart_mends() {
    let unit = include_str!("../../configs/systemd/knockplane-dataplane.service");
    assert!(unit.contains("\nRestart=always\n") && unit.contains("\nRestartPreventExitStatus=2 3\n"), "{unit}");
}
