use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Instant;

use rustix::io::ioctl_fionbio;
use rustix::pipe::{fcntl_setpipe_size, pipe};
use tempfile::TempDir;

use super::*;
use crate::kind::LogKind;
use crate::losses::RuleName;
use crate::queue::{LogLine, MAX_LINE, ROOM};

const PATIENCE: Duration = Duration::from_secs(10);

/// A queue whose writer runs until the test process ends and writes to this file.
fn log_to(file: impl Into<OwnedFd>) -> Arc<LineQueue> {
    let output = Output::File(File::from(file.into()));
    let queue = Arc::new(LineQueue::default());
    let writer = Writer::new(Arc::clone(&queue), output, |loss: &Loss<'_>| {
        format!("lost {} {} {}\n", loss.kind.name(), loss.rule.map_or("-", |rule| &rule.id), loss.lines).into_bytes()
    });
    thread::spawn(move || writer.run());
    queue
}

fn say(queue: &LineQueue, kind: LogKind, text: &str) {
    queue.push(LogLine {
        kind,
        rule: (kind == LogKind::Packet).then(|| RuleName { id: "a".into(), number: "ip filter 1".into() }),
        text: format!("{text}\n").into(),
    });
}

fn lost(queue: &LineQueue, kind: LogKind) -> u64 {
    queue.status().lost().find(|(of, _)| *of == kind).map_or(0, |(_, lines)| lines)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A named pipe, whose reader can close it and open it again.
fn fifo() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    (folder, path)
}

#[test]
fn lines_are_written_in_order_and_a_flush_waits_for_them() {
    let (mut reader, writer) = pipe().map(|(reader, writer)| (File::from(reader), writer)).expect("a pipe");
    let queue = log_to(writer);
    for number in 0..100 {
        say(&queue, LogKind::ALL[number % LogKind::ALL.len()], &number.to_string());
    }
    assert!(queue.flush(Some(PATIENCE)));
    let mut text = [0; 290];
    reader.read_exact(&mut text).expect("everything is in the pipe");
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&text), expected);
    assert_eq!(queue.status(), crate::LogState::default());
}

#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let queue = log_to(OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
    say(&queue, LogKind::Door, "opened");
    say(&queue, LogKind::Packet, "scan");
    assert!(queue.flush(Some(PATIENCE)), "a flush does not wait for a full disk");
    assert_eq!((lost(&queue, LogKind::Door), lost(&queue, LogKind::Packet), lost(&queue, LogKind::Other)), (1, 1, 0));
    let problem = queue.status().problem.expect("a problem");
    assert!(problem.contains("No space left on device"), "{problem}");
}

#[test]
fn a_reader_that_reopens_the_pipe_gets_a_report_of_the_losses() {
    let (_folder, path) = fifo();
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).expect("a reader");
    let queue = log_to(OpenOptions::new().write(true).open(&path).expect("a writer"));
    say(&queue, LogKind::Other, "first");
    assert!(queue.flush(Some(PATIENCE)));
    let mut text = [0; 6];
    reader.read_exact(&mut text).expect("a line");
    drop(reader);
    for _ in 0..3 {
        say(&queue, LogKind::Packet, "scan");
    }
    say(&queue, LogKind::Operator, "applied");
    eventually("the lines are lost", || lost(&queue, LogKind::Packet) == 3 && lost(&queue, LogKind::Operator) == 1);
    assert!(queue.status().problem.is_some_and(|problem| problem.contains("Broken pipe")));

    let mut reader = OpenOptions::new().read(true).write(true).open(&path).expect("a reader");
    let mut text = [0; 34];
    reader.read_exact(&mut text).expect("the losses are reported without further lines");
    assert_eq!(String::from_utf8_lossy(&text), "lost operator - 1\nlost packet a 3\n");
    assert_eq!(queue.status().problem, None);
}

#[test]
fn a_line_that_was_cut_is_not_joined_with_the_next() {
    let (_folder, path) = fifo();
    let mut reader = OpenOptions::new().read(true).open_nonblocking(&path);
    let writer = OpenOptions::new().write(true).open(&path).expect("a writer");
    fcntl_setpipe_size(&writer, PIECE).expect("a small pipe");
    let queue = log_to(writer);
    say(&queue, LogKind::Other, &"x".repeat(3 * PIECE));
    let mut piece = [0; PIECE];
    eventually("the first piece is there", || reader.read(&mut piece).is_ok_and(|count| count == PIECE));
    thread::sleep(Duration::from_millis(50));
    drop(reader);
    eventually("the rest is lost", || lost(&queue, LogKind::Other) == 1);

    let mut reader = OpenOptions::new().read(true).open(&path).expect("a reader");
    say(&queue, LogKind::Other, "whole");
    let mut text = String::new();
    eventually("the next line comes", || {
        let count = reader.read(&mut piece).unwrap_or_default();
        text += &String::from_utf8_lossy(&piece[..count]);
        text.contains("whole\n")
    });
    assert!(text.lines().any(|line| line == "whole"), "{text}");
}

/// Opens a named pipe for reading without a wait for a writer.
trait OpenNonblocking {
    fn open_nonblocking(&mut self, path: &std::path::Path) -> File;
}

impl OpenNonblocking for OpenOptions {
    fn open_nonblocking(&mut self, path: &std::path::Path) -> File {
        use std::os::unix::fs::OpenOptionsExt as _;
        self.custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).expect("a reader")
    }
}

/// Packet lines that the log reports as lost. A writer that starts late reports a part of them before the others are
/// lost.
fn reported(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("lost packet a "))
        .filter_map(|count| count.parse::<u64>().ok())
        .sum()
}

#[test]
fn a_stalled_reader_delays_no_thread_and_costs_lines_only_of_full_kinds() {
    for nonblocking in [false, true] {
        let (mut reader, writer) = pipe().map(|(reader, writer)| (File::from(reader), writer)).expect("a pipe");
        ioctl_fionbio(&writer, nonblocking).expect("a flag");
        fcntl_setpipe_size(&writer, PIECE).expect("a small pipe");
        let queue = log_to(writer);
        let packet = "p".repeat(1000);
        let began = Instant::now();
        for _ in 0..2 * ROOM / packet.len() {
            say(&queue, LogKind::Packet, &packet);
        }
        (0..100).for_each(|door| say(&queue, LogKind::Door, &format!("door {door} opened")));
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        let (packets, doors) = (lost(&queue, LogKind::Packet), lost(&queue, LogKind::Door));
        assert!(packets > 100 && doors == 0, "{packets} {doors}");
        let flushed = Instant::now();
        assert!(!queue.flush(Some(Duration::from_millis(50))) && flushed.elapsed() < PATIENCE / 2);
        eventually("the status shows it", || {
            queue.status().problem.is_some_and(|problem| problem.contains("has not been read for"))
        });

        ioctl_fionbio(&reader, true).expect("a flag");
        let mut text = String::new();
        let mut piece = [0; 64 << 10];
        eventually("everything is written, and the losses are reported", || {
            while let Ok(count) = reader.read(&mut piece) {
                text += &String::from_utf8_lossy(&piece[..count]);
            }
            queue.status().waiting == 0 && reported(&text) == packets
        });
        let read = |prefix: &str, text: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(read("door", &text), 100, "nonblocking {nonblocking}");
        assert_eq!(read("ppp", &text) as u64 + packets, (2 * ROOM / packet.len()) as u64);
        assert!(text.lines().all(|line| line.len() == packet.len() || line.len() < 30), "no line is joined or cut");
    }
}

#[test]
fn long_lines_arrive_whole_on_a_pipe_that_does_not_block() {
    let (mut reader, writer) = pipe().map(|(reader, writer)| (File::from(reader), writer)).expect("a pipe");
    ioctl_fionbio(&writer, true).expect("a flag");
    let queue = log_to(writer);
    let long = "y".repeat(MAX_LINE - 1);
    for _ in 0..3 {
        say(&queue, LogKind::Other, &long);
    }
    let mut text = vec![0; 3 * MAX_LINE];
    reader.read_exact(&mut text).expect("three lines");
    assert!(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).all(|line| line.len() == long.len()));
    assert_eq!(queue.status().lost().map(|(_, lines)| lines).sum::<u64>(), 0);
}

#[test]
fn a_closed_descriptor_is_distinguished_from_dev_null() {
    let null = |write_only: bool| OpenOptions::new().read(!write_only).write(true).open("/dev/null").expect("null");
    assert!(is_replacement(null(false).as_fd()));
    assert!(!is_replacement(null(true).as_fd()));
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").expect("full");
    assert!(!is_replacement(full.as_fd()));
    let queue = Arc::new(LineQueue::default());
    let mut writer = Writer::new(Arc::clone(&queue), Output::Closed, |_: &Loss<'_>| Vec::new());
    say(&queue, LogKind::Door, "opened");
    writer.turn();
    assert_eq!(lost(&queue, LogKind::Door), 1);
    assert!(queue.status().problem.is_some_and(|problem| problem.contains("was closed when the process started")));
}
