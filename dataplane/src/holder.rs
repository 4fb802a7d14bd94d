//! Other processes that hold what this one needs: how long to wait for one that is exiting, and how to name one that is
//! not.
//!
//! The kernel gives back what a killed process held step by step, for tens of milliseconds after the kill.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long a process that is exiting may hold a lock, a socket or an interface.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to look again.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// When waiting for another process ends. One value is shared by all that a start waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// 5 s from now.
    pub(crate) fn start() -> Deadline {
        Deadline(Instant::now() + PATIENCE)
    }

    /// A deadline that is over: look once.
    #[cfg(test)]
    pub(crate) fn over() -> Deadline {
        Deadline(Instant::now())
    }

    /// Waits a moment. False if the time is over.
    pub(crate) fn wait(self) -> bool {
        self.wait_for(RETRY)
    }

    /// Waits this long. False if the time is over.
    pub(crate) fn wait_for(self, pause: Duration) -> bool {
        if Instant::now() >= self.0 {
            return false;
        }
        thread::sleep(pause);
        true
    }
}

/// A process for people: `process 4711 (knockplane-dataplane)`. Without a number, or if `/proc` does not know it, less.
pub(crate) fn describe(pid: Option<i32>) -> String {
    let Some(pid) = pid else { return "a process of another PID namespace".to_owned() };
    match command_name(pid) {
        Some(name) => format!("process {pid} ({})", name.escape_debug()),
        None => format!("process {pid}"),
    }
}

/// The file name of its command line's first word. The kernel's own name of a process is cut off after 15 bytes.
fn command_name(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next().map(String::from_utf8_lossy);
    let name = first.and_then(|first| Some(Path::new(&*first).file_name()?.to_string_lossy().into_owned()));
    name.or_else(|| Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()))
}

/// The process that has attached an XDP program to the interface of this index by a link, if it can be found: one in
/// this network namespace, whose descriptors this process may look at.
pub(crate) fn of_xdp_link(interface: u32) -> Option<i32> {
    let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|file| (file.dev(), file.ino()));
    let own = namespace("self")?;
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| namespace(&pid.to_string()) == Some(own)).find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|info| is_xdp_link(&info, interface))
    })
}

/// Whether the kernel's description of a descriptor (`/proc/PID/fdinfo/FD`) is that of a link of an XDP program to this
/// interface. Source: Linux `bpf_link_show_fdinfo` and `bpf_xdp_link_show_fdinfo`.
fn is_xdp_link(info: &str, interface: u32) -> bool {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.split_once(':').filter(|(key, _)| *key == name))
            .map(|(_, value)| value.trim())
    };
    field("link_type") == Some("xdp") && field("ifindex").and_then(|index| index.parse().ok()) == Some(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_its_command() {
        let own = std::process::id() as i32;
        let told = describe(Some(own));
        assert!(told.starts_with(&format!("process {own} (knockplane_dataplane-")), "{told}");
        assert_eq!(describe(Some(i32::MAX)), format!("process {}", i32::MAX));
    }

    #[test]
    fn an_xdp_link_is_known_by_its_interface() {
        let info = "pos:\t0\nflags:\t02000002\nlink_type:\txdp\nlink_id:\t5\nprog_tag:\tb7\nprog_id:\t9\nifindex:\t3\n";
        assert!(is_xdp_link(info, 3) && !is_xdp_link(info, 33));
        assert!(!is_xdp_link(&info.replace("xdp", "tcx"), 3) && !is_xdp_link("pos:\t0\n", 0));
    }
}
