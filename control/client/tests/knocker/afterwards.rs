//! The wait for the port, and the command.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::lab::{self, KNOCKER, Payload};

#[test]
fn the_command_runs_and_its_exit_code_is_that_of_knocker() {
    lab::inside(|lab| {
        let output = lab.knocker(&["127.0.0.1", "1", "--then", "sh", "-c", "echo \"$0 $1\"; exit 7", "-v", "--then"]);
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(lab::text(&output.stdout), "-v --then\n");
        assert_eq!(lab.knocker(&["127.0.0.1", "1", "--grace", "0", "--then", "true"]).status.code(), Some(0));
    });
}

/// Checks the exit code for the parent shell.
#[test]
fn a_killed_command_gives_128_and_the_signal() {
    lab::inside(|_| {
        let script = "\"$0\" 127.0.0.1 1 --then sh -c 'kill -TERM $$'; echo $?";
        assert_eq!(lab::text(&lab::run("sh", &["-c", script, KNOCKER]).stdout), "143\n");
    });
}

#[test]
fn no_shell_reads_the_command() {
    lab::inside(|lab| {
        let output = lab.knocker(&["127.0.0.1", "1", "--then", "echo", "$HOME; *"]);
        assert_eq!(lab::text(&output.stdout), "$HOME; *\n");
    });
}

#[test]
fn a_command_that_does_not_exist() {
    lab::inside(|lab| {
        let output = lab.knocker(&["127.0.0.1", "1", "--then", "/nonexistent/command"]);
        assert_eq!(output.status.code(), Some(1));
        let error = lab::text(&output.stderr);
        assert!(
            error.contains("the knock was sent, but `/nonexistent/command` cannot be run: No such file"),
            "{error}"
        );
    });
}

#[test]
fn nothing_runs_if_the_knock_fails() {
    lab::inside(|lab| {
        let output = lab.knocker(&["192.0.2.1", "1:udp", "--then", "echo", "ran"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
    });
}

/// The port opens only after the first attempt of `knocker`, as with a door that opens late.
#[test]
fn the_command_waits_for_the_port() {
    lab::inside(|lab| {
        let mut tap = lab.tap();
        let knocker = Command::new(KNOCKER)
            .args(["127.0.0.1", "1234", "4321:udp", "--wait-port", "2222", "--wait", "60", "--then", "echo", "ran"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(tap.next().payload, Payload::Syn(1234));
        assert_eq!(tap.next().payload, Payload::Datagram(4321, vec![0]));
        assert_eq!(tap.next().payload, Payload::Syn(2222));
        let _door = TcpListener::bind("127.0.0.1:2222").unwrap();

        let output = knocker.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(lab::text(&output.stdout), "ran\n");
    });
}

/// A firewall drops packets silently: no attempt is answered until the door opens.
#[test]
fn a_port_that_does_not_answer_is_tried_again() {
    lab::inside(|lab| {
        lab.ip("address add 10.9.0.1/32 dev lo");
        lab.ip("route add 10.9.9.0/24 dev lo src 10.9.0.1");
        let mut tap = lab.tap();
        let mut knocker =
            Command::new(KNOCKER).args(["10.9.9.9", "1:udp", "--wait-port", "2222", "--wait", "60"]).spawn().unwrap();
        assert_eq!(tap.next().payload, Payload::Datagram(1, vec![0]));
        for _ in 0..3 {
            assert_eq!(tap.next().payload, Payload::Syn(2222));
        }
        let _door = TcpListener::bind("0.0.0.0:2222").unwrap();
        lab.ip("address add 10.9.9.9/32 dev lo");
        assert_eq!(knocker.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_port_that_never_opens() {
    lab::inside(|lab| {
        lab.ip("address add 10.9.0.1/32 dev lo");
        lab.ip("route add 10.9.9.0/24 dev lo src 10.9.0.1");
        for host in ["127.0.0.1", "10.9.9.9"] {
            let line = [host, "1", "--wait-port", "2222", "--wait", "1", "--then", "echo", "ran"];
            let output = lab.knocker(&line);
            let error = lab::text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains("port 2222 of") && error.contains("did not open within 1 s"), "{error}");
            assert_eq!(output.stdout, b"");
        }
    });
}

#[test]
fn waiting_needs_no_command() {
    lab::inside(|lab| {
        let _door = TcpListener::bind("127.0.0.1:2222").unwrap();
        let output = lab.knocker(&["-v", "127.0.0.1", "1", "--wait-port", "2222"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(lab::text(&output.stderr).ends_with("port 2222 is open\n"));
    });
}
