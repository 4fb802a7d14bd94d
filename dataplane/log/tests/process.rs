//! Tests of whole processes whose standard error fails, stalls or is closed: their log, panics and end.
//!
//! Each test starts this test program again as the process under test. An environment variable selects the role.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use knockplane_log::{AT_EXIT, Format, target};
use rustix::pipe::pipe;

const PART: &str = "KNOCKPLANE_LOG_TEST_PART";
const PATIENCE: Duration = Duration::from_secs(10);

/// The process under test. Without a role, this is the test runner's process.
#[test]
fn the_process_under_test() {
    let Ok(part) = std::env::var(PART) else { return };
    knockplane_log::start(if part == "json" { Format::Json } else { Format::Text }).expect("the log starts");
    match &*part {
        "panics" => {
            knockplane_log::abort_on_panic();
            // More bytes than a pipe's buffer.
            (0..2000).for_each(|line| tracing::info!(line, "{}", "x".repeat(100)));
            panic!("on purpose");
        }
        "ends" => {
            (0..2000).for_each(|line| tracing::info!(line, "{}", "x".repeat(100)));
            knockplane_log::flush(Some(AT_EXIT));
            std::process::exit(7);
        }
        "json" | "kinds" => {
            tracing::info!(target: target!("door"), door = "ssh", "door opened");
            let rule = knockplane_log::RuleName { id: "0a1b2c3d".into(), number: "ip filter 7".into() };
            knockplane_log::packet(&rule, || tracing::info!(target: target!("packet"), rule = "0a1b2c3d", "scan"));
            knockplane_log::omit(knockplane_log::kind::LogKind::Packet, Some(&rule), 4310);
            knockplane_log::omit(knockplane_log::kind::LogKind::List, None, 1);
            knockplane_log::write("as it stands\n");
            knockplane_log::flush(None);
            // The runner's own output is not part of the process under test.
            std::process::exit(0);
        }
        _ => panic!("there is no role {part}"),
    }
}

fn command(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "the_process_under_test", "--nocapture"]).env(PART, part).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The exit status of a process with this standard error, and the time until it ended.
fn end(part: &str, stderr: impl Into<Stdio>) -> (ExitStatus, Duration) {
    let began = Instant::now();
    let mut child = command(part).stderr(stderr).spawn().expect("it starts");
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return (status, began.elapsed());
        }
        if began.elapsed() > PATIENCE {
            child.kill().expect("killed");
            child.wait().expect("gone");
            panic!("{part}: the process does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("/dev/full")
}

#[test]
fn a_panic_aborts_in_time_whatever_standard_error_does() {
    let (_reader, stalled) = pipe().expect("a pipe");
    let (reader, broken) = pipe().expect("a pipe");
    drop(reader);
    for stderr in [Stdio::from(stalled), Stdio::from(broken), Stdio::from(full())] {
        let (status, took) = end("panics", stderr);
        assert_eq!(status.signal(), Some(6), "{status} after {took:?}");
    }
    let output = command("panics").stderr(Stdio::piped()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("panicked at") && text.contains("on purpose"), "{text}");
}

#[test]
fn a_process_ends_with_its_exit_code_whatever_standard_error_does() {
    let (_reader, stalled) = pipe().expect("a pipe");
    let (reader, broken) = pipe().expect("a pipe");
    drop(reader);
    for stderr in [Stdio::from(stalled), Stdio::from(broken), Stdio::from(full())] {
        let (status, took) = end("ends", stderr);
        assert_eq!(status.code(), Some(7), "{status} after {took:?}");
    }
    let output = command("ends").stderr(Stdio::piped()).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 2000, "a working reader gets all of it");
}

#[test]
fn losses_are_reported_by_kind_and_rule_as_text_and_as_json() {
    let told = |part: &str| {
        let (reader, writer) = pipe().expect("a pipe");
        let mut child = command(part).stderr(writer).spawn().expect("it starts");
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).expect("text");
        assert!(child.wait().expect("it ends").success(), "{text}");
        text
    };
    let text = told("kinds");
    for line in [
        "door opened door=\"ssh\"",
        "scan rule=\"0a1b2c3d\"",
        "as it stands",
        "4310 lines of rule ip filter 7 not logged lost.kind=\"packet\" rule.id=\"0a1b2c3d\" rule.number=\"ip filter 7\" lost.lines=4310",
        "1 line of kind list not logged lost.kind=\"list\" lost.lines=1",
    ] {
        assert!(text.lines().any(|said| said.ends_with(line)), "{line}\n{text}");
    }
    let json = told("json");
    assert!(json.contains(r#""message":"4310 lines of rule ip filter 7 not logged","lost.kind":"packet","#), "{json}");
    assert!(json.contains(r#""lost.lines":4310"#), "{json}");
}
