//! Exit codes and messages.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::lab::{self, KNOCKER, Lab};

/// Runs `knocker`. Expects the exit code, no sent packet, and all of `parts` on standard error.
fn refused(lab: &Lab, arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let mut tap = lab.tap();
    let output = lab.knocker(arguments);
    let error = lab::text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert_eq!(tap.finish(), [], "{arguments:?}");
    for part in parts {
        assert!(error.contains(part), "{arguments:?}: `{part}` is not in: {error}");
    }
    error
}

#[test]
fn a_wrong_step_is_shown_with_an_example() {
    lab::inside(|lab| {
        refused(
            lab,
            &["127.0.0.1", "1", "4321:upd"],
            2,
            &[
                "error: step 2: unknown protocol `upd`\n    4321:upd\n         ^^^ expected `tcp` or `udp`; did you mean `udp`?\n",
                "example: 4321:udp",
            ],
        );
        refused(lab, &["127.0.0.1", "1", "4321:tcp=secret"], 2, &["one SYN", "example: 4321:udp=passphrase"]);
        refused(lab, &["127.0.0.1", "icmp=27"], 2, &["minimum is 28"]);
        refused(lab, &["127.0.0.1", "0", "nosuch", "icmp=x"], 2, &["step 1:", "step 2:", "step 3:"]);
        refused(lab, &["127.0.0.1", "1", "--wait-port", "nosuch"], 2, &["--wait-port: unknown service"]);
    });
}

#[test]
fn ipv6_echo_requests_have_a_larger_minimum() {
    lab::inside(|lab| {
        refused(lab, &["::1", "1", "icmp=47"], 2, &["step 2", "minimum is 48"]);
    });
}

#[test]
fn a_wrong_command_line() {
    lab::inside(|lab| {
        refused(lab, &["127.0.0.1"], 2, &["STEP"]);
        refused(lab, &["-4", "-6", "127.0.0.1", "1"], 2, &["cannot be used with"]);
        refused(lab, &["-d", "soon", "127.0.0.1", "1"], 2, &["soon"]);
        refused(lab, &["--wait", "3", "127.0.0.1", "1"], 2, &["--wait-port"]);
    });
}

#[test]
fn help_and_version() {
    lab::inside(|lab| {
        for (flag, part) in [("-h", "packet-size"), ("--help", "packet-size"), ("-V", "knocker ")] {
            let output = lab.knocker(&[flag]);
            assert_eq!(output.status.code(), Some(0));
            assert!(lab::text(&output.stdout).contains(part), "{flag}");
        }
    });
}

#[test]
fn a_host_that_cannot_be_used() {
    lab::inside(|lab| {
        // A label has at most 63 letters. A longer one causes no query to a name server, whose packets would be in the
        // tap.
        let no_name = "g".repeat(64);
        refused(lab, &[&no_name, "1"], 1, &["cannot resolve `ggg", "check the spelling"]);
        refused(lab, &["-6", "127.0.0.1", "1"], 1, &["`127.0.0.1` has no IPv6 address, only 127.0.0.1"]);
        refused(lab, &["-4", "::1", "1"], 1, &["`::1` has no IPv4 address, only ::1"]);
    });
}

#[test]
fn verbose_prints_addresses_and_steps_but_no_passphrase() {
    lab::inside(|lab| {
        let output = lab.knocker(&["-v", "127.0.0.1", "1", "2:udp", "3:udp=secret"]);
        assert_eq!(
            lab::text(&output.stderr),
            "knocking at 127.0.0.1\n\
             step 1: tcp 1, a SYN\n\
             step 2: udp 2, a datagram of one zero byte\n\
             step 3: udp 3, a passphrase of 6 bytes\n"
        );
        assert_eq!(output.stdout, b"");
    });
}

#[test]
fn u_overrides_tcp_with_a_warning() {
    lab::inside(|lab| {
        let output = lab.knocker(&["-u", "127.0.0.1", "1:tcp"]);
        assert!(output.status.success());
        assert!(lab::text(&output.stderr).contains("warning: step 1: 1:tcp is sent over UDP"));
    });
}

#[test]
fn errors_of_the_network_come_with_a_remedy() {
    lab::inside(|lab| {
        lab.ip("address add 10.9.0.1/32 dev lo");
        lab.ip("route add unreachable 10.9.1.0/24");
        lab.ip("route add prohibit 10.9.2.0/24");
        for step in ["1:udp", "1:tcp", "icmp"] {
            for (host, remedy) in [("192.0.2.1", "no route"), ("10.9.1.1", "no host answers"), ("10.9.2.1", "prohibit")]
            {
                let error = refused(lab, &[host, step], 1, &["step 1", host, remedy]);
                assert_eq!(error.matches("os error").count(), 1, "the cause is in the message once: {error}");
            }
        }
    });
}

/// The namespace permits no ping socket, and the process may not open a raw socket. The previous TCP step is not sent
/// either.
#[test]
fn icmp_without_permission_sends_nothing() {
    lab::inside(|lab| {
        let mut tap = lab.tap();
        let arguments = ["--bounding-set=-net_raw", "--inh-caps=-net_raw", KNOCKER, "127.0.0.1", "1", "icmp"];
        let output = lab::run("setpriv", &arguments);
        let error = lab::text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error.lines().count(), 4, "{error}");
        assert!(error.contains("net.ipv4.ping_group_range") && error.contains("setcap cap_net_raw+ep"), "{error}");
        assert_eq!(tap.finish(), []);
    });
}

#[test]
fn a_profile_is_used_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (mine, theirs) = (path("mine.toml"), path("theirs.toml"));
    std::fs::write(&mine, "[home]\nhost = '127.0.0.1'\nsteps = ['1', 'udp/2 \"word\"']\nthen = 'echo a'\n").unwrap();
    lab::inside(|lab| {
        let output = lab.knocker(&["--profiles", &mine, "--dry-run", "home", "--", "b"]);
        assert!(lab::text(&output.stderr).contains("chmod 600"), "{output:?}");
        let plan = "to 127.0.0.1, 10 ms between steps\nstep 1: tcp 1, a SYN\nstep 2: udp 2, a passphrase of 4 bytes\n\
                    then wait 200 ms\nthen run: echo a b\n";
        assert_eq!(lab::text(&output.stdout), plan);
        refused(lab, &["--profiles", &mine, "hoem"], 2, &["`hoem` is not a profile in", "there are home", "STEP"]);
        refused(lab, &["--profiles", &theirs, "home"], 2, &["there are none"]);

        let line = lab::text(&lab.knocker(&["--profiles", &mine, "--share", "home"]).stdout);
        refused(lab, &["--profiles", &theirs, "--add", &line[..line.len() - 2]], 2, &["copy the whole line again"]);
        assert!(lab.knocker(&["--profiles", &theirs, "--add", &line]).status.success());
        let listed = lab.knocker(&["--profiles", &theirs, "--list"]);
        assert_eq!(lab::text(&listed.stdout), "home  127.0.0.1, 2 steps\n");
        assert_eq!(lab::text(&listed.stderr), "", "only the owner can read a file that --add created");

        let from_input = path("from-input.toml");
        let script = "printf '%s' \"$1\" | \"$0\" --profiles \"$2\" --add -";
        assert!(lab::run("sh", &["-c", script, lab::KNOCKER, &line, &from_input]).status.success());
        assert_eq!(std::fs::read(from_input).unwrap(), std::fs::read(theirs).unwrap());
    });
}

/// A full device, and a pipe without a reader.
fn outputs_that_fail() -> [Stdio; 2] {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    [File::options().write(true).open("/dev/full").expect("/dev/full").into(), writer.into()]
}

#[test]
fn an_output_that_fails_ends_no_knock_in_the_middle() {
    lab::inside(|lab| {
        for stderr in outputs_that_fail() {
            let mut tap = lab.tap();
            let knock = ["-v", "127.0.0.1", "1", "2:udp", "3"];
            let status = Command::new(KNOCKER).args(knock).stderr(stderr).status().expect("it runs");
            assert_eq!((status.code(), tap.finish().len()), (Some(0), 3), "{status}");
        }
        for stderr in outputs_that_fail() {
            let status = Command::new(KNOCKER).args(["127.0.0.1", "0"]).stderr(stderr).status().expect("it runs");
            assert_eq!(status.code(), Some(2));
        }
        // A reader that closed the pipe is not a failure.
        for (stdout, code) in outputs_that_fail().into_iter().zip([1, 0]) {
            let plan = ["--dry-run", "127.0.0.1", "1"];
            let output = Command::new(KNOCKER).args(plan).stdout(stdout).output().expect("it runs");
            assert_eq!(output.status.code(), Some(code), "{}", lab::text(&output.stderr));
        }
    });
}
