//! The process that holds an interface.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// The process that has attached an XDP program to the interface of this index by a link. `None` if there is no such
/// process in this network namespace, or if this process may not read its descriptors.
pub(crate) fn of_xdp_link(interface: u32) -> Option<i32> {
    let namespace = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|file| (file.dev(), file.ino()));
    let own = namespace("self")?;
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| namespace(&pid.to_string()) == Some(own)).find(|pid| {
        // A thread may have descriptors of its own.
        let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let descriptors = entries(format!("/proc/{pid}/task").into()).flat_map(|thread| entries(thread.join("fdinfo")));
        descriptors.filter_map(|file| fs::read_to_string(file).ok()).any(|info| is_xdp_link(&info, interface))
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
    fn an_xdp_link_is_known_by_its_interface() {
        let info = "pos:\t0\nflags:\t02000002\nlink_type:\txdp\nlink_id:\t5\nprog_tag:\tb7\nprog_id:\t9\nifindex:\t3\n";
        assert!(is_xdp_link(info, 3) && !is_xdp_link(info, 33));
        assert!(!is_xdp_link(&info.replace("xdp", "tcx"), 3) && !is_xdp_link("pos:\t0\n", 0));
    }
}
