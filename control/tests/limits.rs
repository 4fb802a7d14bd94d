//! Tests of a control process with many peers that send no requests, slow requests or too long ones. Its dataplane does
//! not run, or hangs. The `tests` package of the workspace tests the limits with the real dataplane.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_limits::descriptors;
use tempfile::TempDir;

/// Time limit for an answer. A loaded machine needs a part of it. Without limits, an answer took half a minute.
const PATIENCE: Duration = Duration::from_secs(10);

/// Number of idle connections of an attacker.
const IDLE: usize = 2_000;

/// A control process in a temporary directory.
struct Daemon {
    dir: TempDir,
    child: Child,
    listen: SocketAddr,
}

impl Daemon {
    /// Starts a control process with these words before its command line, and waits until it answers.
    fn start(through: &[&str]) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        // This port is probably still free.
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = dir.path().display();
        let file = dir.path().join("knockplane.toml");
        let text = format!(
            "[dataplane]\nsocket = \"{at}/dataplane.sock\"\n[control]\nlisten = \"{listen}\"\nsocket = \"{at}/control.sock\"\n"
        );
        fs::write(&file, text).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let program = env!("CARGO_BIN_EXE_knockplane-control");
        let words: Vec<&str> = through.iter().copied().chain([program, "--config", file.to_str().unwrap()]).collect();
        let child = Command::new(words[0]).args(&words[1..]).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Daemon { dir, child, listen };
        let began = Instant::now();
        while daemon.get("/healthz").is_err() {
            assert!(began.elapsed() < PATIENCE, "the control process does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// The answer to a request over TCP.
    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.listen)?;
        stream.set_read_timeout(Some(3 * PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.is_empty() {
            true => Err(std::io::ErrorKind::UnexpectedEof.into()),
            false => Ok(answer),
        }
    }

    /// The answer to a request that must be answered in time.
    fn answered(&self, path: &str) -> String {
        let began = Instant::now();
        let answer = self.get(path).unwrap();
        assert!(began.elapsed() < PATIENCE, "{path}: answered after {:?}", began.elapsed());
        answer
    }

    fn knockctl(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let began = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_knockctl"))
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .output()
            .unwrap();
        assert!(began.elapsed() < PATIENCE, "{arguments:?}: answered after {:?}", began.elapsed());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Checks that `knockctl` gets the answer that the dataplane does not run.
    fn serves_operators(&self) {
        let (code, error) = self.knockctl(&["show", "status"]);
        assert!(code == Some(4) && error.contains("the dataplane cannot be reached"), "{code:?}: {error}");
    }

    /// The number of connections that a limit refused or closed.
    fn refused(&self, listener: &str, reason: &str) -> u64 {
        let metrics = self.answered("/metrics");
        let series =
            format!("knockplane_control_connections_refused_total{{listener=\"{listener}\",reason=\"{reason}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap_or_else(|| panic!("no {series} in:\n{metrics}")).parse().unwrap()
    }

    /// The highest resident memory so far, in bytes.
    fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// The processor time so far.
    fn on_core(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn idle_over_tcp(daemon: &Daemon, begin: &[u8], number: usize) -> Vec<TcpStream> {
    descriptors::raise();
    let connect = |_| {
        let mut stream = TcpStream::connect(daemon.listen).unwrap();
        let _ = stream.write_all(begin);
        stream
    };
    (0..number).map(connect).collect()
}

#[test]
fn two_thousand_idle_peers_keep_nobody_from_metrics() {
    let daemon = Daemon::start(&["env"]);
    let _silent = idle_over_tcp(&daemon, b"", IDLE);
    assert!(daemon.answered("/metrics").contains("knockplane_dataplane_up 0"));
    let _half = idle_over_tcp(&daemon, b"GET /metrics HTTP/1.1\r\nHos", IDLE);
    assert!(daemon.answered("/healthz").ends_with("ok\n"));
    assert!(daemon.refused("metrics", "evicted") > IDLE as u64, "they gave way");
    daemon.serves_operators();
}

#[test]
fn peers_that_ask_for_a_page_and_do_not_read_it_keep_nobody_out() {
    let daemon = Daemon::start(&["env"]);
    let _unread = idle_over_tcp(&daemon, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 500);
    assert!(daemon.answered("/healthz").ends_with("ok\n"));
    assert!(daemon.peak_memory() < 200 << 20, "{}", daemon.peak_memory());
}

#[test]
fn idle_operators_keep_no_operator_out() {
    let daemon = Daemon::start(&["env"]);
    descriptors::raise();
    let connect = |begin: &[u8]| {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        let _ = stream.write_all(begin);
        stream
    };
    let _silent: Vec<_> = (0..500).map(|_| connect(b"")).collect();
    daemon.serves_operators();
    let begin =
        b"POST /api/v1/apply HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{";
    let _half: Vec<_> = (0..500).map(|_| connect(begin)).collect();
    daemon.serves_operators();
    assert!(daemon.refused("operators", "evicted") > 500);
}

#[test]
fn a_dataplane_that_hangs_is_not_ready_within_a_second_and_metrics_say_so() {
    let daemon = Daemon::start(&["env"]);
    // The kernel accepts connections for this socket, and no process answers.
    let _dataplane = UnixListener::bind(daemon.dir.path().join("dataplane.sock")).unwrap();
    let began = Instant::now();
    let answer = daemon.answered("/readyz");
    // The limit is a second. A loaded machine gets a further one.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(answer.contains(" 503 ") && answer.contains("did not answer within 0.8 s"), "{answer}");
    assert!(daemon.answered("/metrics").contains("knockplane_dataplane_up 0"));
}

#[test]
fn few_descriptors_are_shared_and_running_out_of_them_is_survived() {
    for descriptors in ["64", "24"] {
        let daemon = Daemon::start(&["prlimit", &format!("--nofile={descriptors}:{descriptors}")]);
        let _silent = idle_over_tcp(&daemon, b"", 300);
        let _operators: Vec<_> = (0..100).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
        assert!(daemon.answered("/healthz").ends_with("ok\n"), "{descriptors}");
        daemon.serves_operators();
        let before = daemon.on_core();
        thread::sleep(Duration::from_secs(2));
        let spent = daemon.on_core() - before;
        assert!(spent < Duration::from_secs(1), "{descriptors}: it spins: {spent:?} of 2 s");
        daemon.serves_operators();
    }
}

#[test]
fn bodies_of_requests_share_bounded_memory() {
    const BODY: usize = 100 << 20;
    let daemon = Daemon::start(&["env"]);
    let send = |socket: &Path| {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let head = "POST /api/v1/apply HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 200000000\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // A refused connection ends before all bytes are sent.
        let _ = (0..BODY >> 20).try_for_each(|_| stream.write_all(&vec![b' '; 1 << 20]));
        stream
    };
    let before = daemon.peak_memory();
    let streams: Vec<_> = (0..6).map(|_| send(&daemon.socket())).collect();
    let took = daemon.peak_memory() - before;
    assert!(took < 420 << 20, "{} MiB", took >> 20);
    assert!(daemon.refused("operators", "memory") >= 3);
    daemon.serves_operators();
    drop(streams);

    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let head =
        "POST /api/v1/lists/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 70000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(&[b' '; 70_000]);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 413 ") && answer.contains("more than 65536 bytes"), "{answer}");
}
