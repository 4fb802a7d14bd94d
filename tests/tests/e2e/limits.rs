//! The dataplane's socket and the metrics' listener under peers that send nothing, send slowly, request too much, or do
//! not read.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use knockplane_limits::descriptors;
use knockplane_tests::{Filter, FilterOptions};

use crate::scenario::{PATIENCE, QUICK, eventually, knock, ping, with};

fn quick() -> FilterOptions {
    FilterOptions::from_rules(QUICK)
}

/// A peer of the dataplane's socket that has sent as many of these bytes as the socket accepts within a time limit.
fn peer(filter: &Filter<'_>, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(filter.path("dataplane.sock")).expect("root may connect");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let _ = stream.write_all(bytes);
    stream
}

/// The last line that a peer receives before its connection ends.
fn last_line(stream: UnixStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.last().unwrap_or_default()
}

/// Checks that `knockctl show status` succeeds within the time limit.
fn serves_operators(filter: &Filter<'_>) {
    let began = Instant::now();
    let status = filter.knockctl(&["show", "status"]).expect("knockctl");
    assert!(status.ok(), "{status:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

/// Highest resident memory of the dataplane so far, in bytes.
fn peak_memory(filter: &Filter<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", filter.dataplane.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

fn refused(filter: &Filter<'_>, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    filter.metric("knockplane_dataplane_connections_refused_total", &[&label]).expect("a counter from the start")
}

#[test]
fn idle_peers_of_the_dataplane_lock_no_other_peer_out() {
    with(&quick(), |topology, filter| {
        descriptors::raise();
        let first = peer(filter, b"");
        let _silent: Vec<_> = (0..300).map(|_| peer(filter, b"")).collect();
        serves_operators(filter);
        assert_eq!(refused(filter, "slow-reader"), 0.0);
        let _half: Vec<_> = (0..300).map(|_| peer(filter, b"{\"request\":")).collect();
        serves_operators(filter);
        assert!(filter.http("/readyz").is_ok() && filter.http("/metrics").is_ok());
        assert!(refused(filter, "evicted") > 400.0);
        let told = last_line(first);
        assert!(told.contains("too many connections: this one sent no request"), "{told}");
        knock(topology, "1234:tcp 4321:tcp");
        assert!(ping(topology, ""), "and it filters");
    });
}

#[test]
fn a_peer_without_permission_is_refused_and_does_not_fill_the_log() {
    let options = FilterOptions { dataplane: "socket-uids = [4242]\n".to_owned(), ..quick() };
    with(&options, |_, filter| {
        let socket = filter.path("dataplane.sock");
        let script = format!("for i in $(seq 50); do timeout 5 nc -N -U {} </dev/null; done", socket.display());
        let run = |uid: &str| {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "sh", "-c", &script]);
            knockplane_tests::run(&mut command).expect("setpriv, of util-linux").stdout
        };
        let stranger = run("4711");
        assert_eq!(
            stranger.matches("this user may not connect: add its id to `socket-uids`").count(),
            50,
            "{stranger}"
        );
        assert!(!run("4242").contains("refused"));
        assert_eq!(refused(filter, "not-allowed"), 50.0);
        let lines = filter.log().matches("turned away from the control socket").count();
        assert!((1..10).contains(&lines), "{lines} lines for 50 strangers");
        serves_operators(filter);
    });
}

#[test]
fn a_long_line_is_refused_in_bounded_memory() {
    const LONG: usize = 300 << 20;
    with(&quick(), |_, filter| {
        let send = |begin: &[u8]| {
            let mut stream = peer(filter, begin);
            let piece = vec![b'a'; 1 << 20];
            let _ = (0..LONG >> 20).try_for_each(|_| stream.write_all(&piece));
            stream
        };
        let before = peak_memory(filter);
        let told = last_line(send(b""));
        assert!(told.contains("has more than 65536 bytes: only rules and entries may have more"), "{told}");
        let grown = peak_memory(filter) - before;
        assert!(grown < 16 << 20, "a line without rules takes {} KiB", grown >> 10);

        let told = last_line(send(b"{\"request\":\"list-add\",\"with\":\""));
        assert!(told.contains("has more than 268435456 bytes: split the file"), "{told}");
        // Four peers that each send more than half of the limit: at most one fits.
        let trickle = |_: u32| {
            let mut stream = peer(filter, b"{\"request\":\"apply\",\"with\":\"");
            let piece = vec![b'a'; 1 << 20];
            let _ = (0..150).try_for_each(|_| stream.write_all(&piece));
            stream
        };
        let streams: Vec<_> = (0..4).map(trickle).collect();
        let grown = peak_memory(filter) - before;
        assert!(grown < 320 << 20, "{} MiB", grown >> 20);
        assert!(refused(filter, "memory") >= 3.0);
        let told = last_line(streams.into_iter().next_back().expect("four"));
        assert!(told.contains("requests and answers of other connections use all the memory"), "{told}");
        serves_operators(filter);
    });
}

#[test]
fn unread_answers_take_bounded_memory() {
    // Rules whose answer does not fit a socket's buffer, of 208 KiB by default.
    let mut rules = "/ip firewall filter\n".to_owned();
    for port in 1..=1_500 {
        rules += &format!("add action=drop chain=input protocol=tcp dst-port={port} comment=\"rule {port}\"\n");
    }
    with(&FilterOptions::from_rules(&rules), |_, filter| {
        let before = peak_memory(filter);
        let asks = "{\"request\":\"rules\"}\n".repeat(500);
        let _unread: Vec<_> = (0..100).map(|_| peer(filter, asks.as_bytes())).collect();
        // Each peer gets one answer, which takes some time.
        eventually("operators are served", || filter.knockctl(&["show", "status"]).is_ok_and(|status| status.ok()));
        serves_operators(filter);
        let grown = peak_memory(filter) - before;
        assert!(grown < 160 << 20, "{} MiB", grown >> 20);
    });
}

#[test]
fn a_peer_with_continuous_requests_leaves_time_for_others() {
    with(&quick(), |topology, filter| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut stream = peer(filter, b"");
                let mut reader = stream.try_clone().expect("a descriptor");
                scope.spawn({
                    let stop = &stop;
                    move || {
                        let asks = "{\"request\":\"metrics\"}\n".repeat(100);
                        while !stop.load(Relaxed) && stream.write_all(asks.as_bytes()).is_ok() {}
                    }
                });
                scope.spawn({
                    let stop = &stop;
                    move || {
                        let mut buffer = vec![0; 1 << 20];
                        while !stop.load(Relaxed)
                            && match reader.read(&mut buffer) {
                                Ok(count) => count > 0,
                                Err(error) => error.kind() == ErrorKind::WouldBlock,
                            }
                        {}
                        let _ = reader.shutdown(std::net::Shutdown::Both);
                    }
                });
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..3 {
                    serves_operators(filter);
                }
                knock(topology, "1234:tcp 4321:tcp");
                // The manager's housekeeping expires list entries.
                eventually("its expiry is logged", || filter.log().contains("expired"));
                let status = filter.dataplane.stop(rustix::process::Signal::TERM).expect("it ends");
                assert!(status.success(), "{status}");
            }));
            stop.store(true, Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    });
}

#[test]
fn two_thousand_idle_connections_and_a_dataplane_that_hangs_leave_metrics_and_health() {
    with(&quick(), |topology, filter| {
        descriptors::raise();
        let connect = || {
            let connect = |_| Ok(TcpStream::connect(("127.0.0.1", 9479))?);
            (0..2_000).map(connect).collect::<anyhow::Result<Vec<_>>>()
        };
        let _idle = topology.filter.within(connect).expect("connections");
        let began = Instant::now();
        assert!(filter.http("/metrics").is_ok_and(|page| page.contains("knockplane_dataplane_up 1")));
        assert!(filter.http("/readyz").is_ok());
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        serves_operators(filter);

        let pid = rustix::process::Pid::from_raw(filter.dataplane.id() as i32).expect("a process has an id");
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
        let began = Instant::now();
        let hangs = filter.http("/readyz");
        let took = began.elapsed();
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("continued");
        assert!(hangs.is_err_and(|error| error.to_string().contains("did not answer within 0.8 s")));
        assert!(took < Duration::from_secs(2), "{took:?}");
        eventually("ready again", || filter.http("/readyz").is_ok());
    });
}
