//! Checks whether the configured memory is available.
//!
//! The address lists write all of their memory at start, and connections when rules first track them. Without a check,
//! the kernel would grant a capacity that is too large, and would later kill this process, or another one, without a
//! message about the cause.

use std::fs;
use std::path::{Path, PathBuf};

use knockplane_engine::state::lists::FirstStepSettings;

/// A sixteenth of the memory is reserved for everything else: rings, rules.
const SHARE: u64 = 16;

/// The available memory, and the origin of the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Free {
    bytes: u64,
    /// The available bytes if no other process used memory.
    most: u64,
    limit: String,
}

impl Free {
    /// The part of the memory that the filter may use. The rest is reserved for everything else.
    const fn usable(&self) -> u64 {
        self.bytes - self.bytes / SHARE
    }
}

/// The configuration needs more memory than is available.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct MemoryError {
    message: String,
    /// Whether the machine can never provide this memory, so that waiting does not help.
    pub(crate) is_permanent: bool,
}

/// Checks against the memory that is free now. If that is not enough, checks against the maximum.
fn judge(free: Option<Free>, fits: impl Fn(Option<Free>) -> Result<(), String>) -> Result<(), MemoryError> {
    let most = free.clone().map(|free| Free { bytes: free.most, ..free });
    fits(free).map_err(|message| MemoryError { message, is_permanent: fits(most).is_err() })
}

/// Refuses lists and connections that do not fit the machine, or the control group of this process.
///
/// # Errors
/// The needed memory, the available memory, and the capacity that would fit.
pub(crate) fn check(
    list_capacity: usize,
    first_steps: FirstStepSettings,
    connections: ConnectionMemory,
) -> Result<(), MemoryError> {
    judge(free(Path::new("/")), |free| fits(list_capacity, first_steps, connections, free))
}

/// Refuses rings that do not fit: the frames' memory of `workers` workers, in bytes each.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_rings(workers: u32, each: u64, ring_size: u32) -> Result<(), MemoryError> {
    judge(free(Path::new("/")), |free| rings_fit(workers, each, ring_size, free))
}

/// Refuses a fast path whose tables for this number of flows of each family, in bytes, do not fit.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_fast_path(flows: usize, bytes: u64) -> Result<(), MemoryError> {
    judge(free(Path::new("/")), |free| fast_path_fits(flows, bytes, free))
}

/// As [`check`], for connections whose memory is not allocated yet, while the dataplane runs.
///
/// # Errors
/// The needed memory and the available memory.
pub(crate) fn check_connections(connections: ConnectionMemory) -> Result<(), MemoryError> {
    judge(free(Path::new("/")), |free| connections_fit(connections, free))
}

/// The number of connections, and the bytes that they need with these rules; 0 if the rules track none.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionMemory {
    pub(crate) capacity: usize,
    pub(crate) bytes: u64,
}

/// Checks whether the lists and connections fit. They fit if the available memory is not known.
fn fits(
    list_capacity: usize,
    first_steps: FirstStepSettings,
    connections: ConnectionMemory,
    free: Option<Free>,
) -> Result<(), String> {
    connections_fit(connections, free.clone())?;
    let Some(free) = free else { return Ok(()) };
    let (usable, Free { bytes, limit, .. }) = (free.usable(), free);
    let each = first_steps.entry_bytes() as u64;
    let needed = (list_capacity as u64).saturating_mul(each);
    let fitting = (usable - connections.bytes) / each;
    if list_capacity as u64 <= fitting {
        return Ok(());
    }
    let beside = match connections {
        ConnectionMemory { bytes: 0, .. } => String::new(),
        ConnectionMemory { capacity, bytes } => {
            format!(" beside {} MB for the {capacity} of `connection-capacity`", megabytes(bytes))
        }
    };
    Err(format!(
        "`list-capacity` is {list_capacity}: that takes {} MB{beside}, and {} MB are free ({limit}); set it to at most \
         {fitting}, or give more memory",
        megabytes(needed),
        megabytes(bytes)
    ))
}

fn rings_fit(workers: u32, each: u64, ring_size: u32, free: Option<Free>) -> Result<(), String> {
    let needed = u64::from(workers).saturating_mul(each);
    let Some(Free { bytes, limit, .. }) = free.filter(|free| needed > free.usable()) else { return Ok(()) };
    Err(format!(
        "`ring-size` is {ring_size}: the frames of {workers} workers take {} MB, and {} MB are free ({limit}); set it lower, \
         use fewer queues, or give more memory",
        megabytes(needed),
        megabytes(bytes)
    ))
}

fn fast_path_fits(flows: usize, needed: u64, free: Option<Free>) -> Result<(), String> {
    let Some(Free { bytes, limit, .. }) = free.filter(|free| needed > free.usable()) else { return Ok(()) };
    Err(format!(
        "`fast-path-flows` is {flows}: the tables of the fast path take {} MB, and {} MB are free ({limit}); set it lower, or \
         give more memory",
        megabytes(needed),
        megabytes(bytes)
    ))
}

fn connections_fit(
    ConnectionMemory { capacity, bytes: needed }: ConnectionMemory,
    free: Option<Free>,
) -> Result<(), String> {
    let Some(Free { bytes, limit, .. }) = free.filter(|free| needed > free.usable()) else { return Ok(()) };
    Err(format!(
        "the rules track connections, and `connection-capacity` is {capacity}: that takes {} MB, and {} MB are free \
         ({limit}); set it lower, which takes a restart, or give more memory",
        megabytes(needed),
        megabytes(bytes)
    ))
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// The free memory under the smallest limit, from the files below this folder.
fn free(root: &Path) -> Option<Free> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
        let bytes = field(&text, "MemAvailable:")?.saturating_mul(1024);
        let most = field(&text, "MemTotal:").map_or(bytes, |total| total.saturating_mul(1024));
        Some(Free { bytes, most, limit: "MemAvailable in /proc/meminfo".to_owned() })
    });
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = groups.lines().filter_map(|line| group_folder(root, line)).flat_map(|(top, inner)| {
        // A group's limit also applies to the groups in it. In a container, the path may be one of the host's, and only
        // the top folder may exist.
        let folders: Vec<PathBuf> =
            inner.ancestors().map(|folder| top.join(folder)).take_while(|folder| folder.starts_with(&top)).collect();
        folders.into_iter().filter_map(|folder| group_free(root, &folder))
    });
    machine.into_iter().chain(groups).min_by_key(|free| free.bytes)
}

/// The location of the memory files of a control group: the controller's top folder, and the path in it. Source:
/// cgroups(7), `/proc/[pid]/cgroup`.
fn group_folder(root: &Path, line: &str) -> Option<(PathBuf, PathBuf)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let top = match controllers {
        "" => {
            ["sys/fs/cgroup/unified", "sys/fs/cgroup"].map(|top| root.join(top)).into_iter().find(|top| top.exists())?
        }
        controllers if controllers.split(',').any(|name| name == "memory") => root.join("sys/fs/cgroup/memory"),
        _ => return None,
    };
    Some((top, path.trim_start_matches('/').into()))
}

/// The memory that a control group has left, if the group has a limit: of version 2 or of version 1. The kernel can
/// reclaim cached files, which therefore do not count. Source: Linux, `Documentation/admin-guide/cgroup-v2.rst` and
/// `cgroup-v1/memory.rst`.
fn group_free(root: &Path, folder: &Path) -> Option<Free> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let versions = [
        ("memory.max", "memory.current", ["inactive_file", "active_file"]),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ["total_inactive_file", "total_active_file"]),
    ];
    versions.into_iter().find_map(|(limit, usage, cached)| {
        // Version 2 uses `max` for no limit.
        let allowed: u64 = read(limit)?.trim().parse().ok()?;
        let used: u64 = read(usage)?.trim().parse().ok()?;
        let stat = read("memory.stat").unwrap_or_default();
        let cached: u64 = cached.iter().filter_map(|name| field(&stat, name)).sum();
        let bytes = allowed.saturating_sub(used.saturating_sub(cached));
        let file = Path::new("/").join(folder.strip_prefix(root).unwrap_or(folder)).join(limit);
        Some(Free { bytes, most: allowed, limit: file.display().to_string() })
    })
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: ConnectionMemory = ConnectionMemory { capacity: 100_000, bytes: 0 };
    const DEFAULT: FirstStepSettings =
        FirstStepSettings { quota: 0, v4_length: 24, v6_length: 64, v6_by_prefix: false };

    /// Calls `look` with a folder that contains these files.
    fn with_files<T>(name: &str, files: &[(&str, &str)], look: impl FnOnce(&Path) -> T) -> T {
        let root = std::env::temp_dir().join(format!("knockplane-memory-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a temporary folder");
            fs::write(file, text).expect("written");
        }
        let seen = look(&root);
        fs::remove_dir_all(&root).expect("cleaned up");
        seen
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 2000000 kB\nMemFree: 9 kB\nMemAvailable:  1000000 kB\n");

    #[test]
    fn the_machine_and_every_group_above_have_a_say() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/system.slice/knockplane.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "300000000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "200000000\n"),
            ("sys/fs/cgroup/system.slice/memory.stat", "anon 5\nactive_file 20000000\ninactive_file 30000000\n"),
            ("sys/fs/cgroup/system.slice/knockplane.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/knockplane.service/memory.current", "1\n"),
        ];
        let limit = "/sys/fs/cgroup/system.slice/memory.max".to_owned();
        assert_eq!(with_files("v2", &files, free), Some(Free { bytes: 150_000_000, most: 300_000_000, limit }));
        let limit = "MemAvailable in /proc/meminfo".to_owned();
        assert_eq!(
            with_files("none", &files[..2], free),
            Some(Free { bytes: 1_024_000_000, most: 2_048_000_000, limit })
        );
        assert_eq!(with_files("nothing", &[("proc/other", "")], free), None);
    }

    #[test]
    fn a_container_sees_its_limit_at_the_top() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "7:pids:/\n4:cpu,memory:/docker/123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "64000000"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "16000000"),
        ];
        let limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned();
        assert_eq!(with_files("v1", &files, free), Some(Free { bytes: 48_000_000, most: 64_000_000, limit }));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let free = |bytes| Some(Free { bytes, most: bytes, limit: "memory.max".to_owned() });
        let error = fits(10_000_000, DEFAULT, NONE, free(320_000_000)).expect_err("too much").to_string();
        assert_eq!(
            error,
            "`list-capacity` is 10000000: that takes 1020 MB, and 320 MB are free (memory.max); set it to at most 2941176, \
             or give more memory"
        );
        assert!(
            fits(2_941_176, DEFAULT, NONE, free(320_000_000)).is_ok()
                && fits(usize::MAX, DEFAULT, NONE, free(u64::MAX)).is_err()
        );
        assert!(fits(10_000_000, DEFAULT, NONE, None).is_ok());
        let error = fits(5_000_000, FirstStepSettings { quota: 8, ..DEFAULT }, NONE, free(320_000_000))
            .expect_err("4 bytes more");
        assert!(error.to_string().contains("at most 2830188"), "{error}");

        let connections = |bytes| ConnectionMemory { capacity: 100_000, bytes };
        let error = fits(5_000_000, DEFAULT, connections(60_000_000), free(320_000_000)).expect_err("both");
        let told = "510 MB beside 60 MB for the 100000 of `connection-capacity`, and 320 MB are free (memory.max); set it to \
                    at most 2352941";
        assert!(error.to_string().contains(told), "{error}");
        assert!(fits(2_352_941, DEFAULT, connections(60_000_000), free(320_000_000)).is_ok());
        let error = connections_fit(connections(301_000_000), free(320_000_000)).expect_err("too many").to_string();
        assert!(error.contains("`connection-capacity` is 100000: that takes 301 MB, and 320 MB are free"), "{error}");
        assert!(connections_fit(connections(300_000_000), free(320_000_000)).is_ok());
    }

    #[test]
    fn what_never_fits_is_permanent_and_what_does_not_fit_now_is_not() {
        let free = || Some(Free { bytes: 320_000_000, most: 640_000_000, limit: "memory.max".to_owned() });
        let judged = |capacity| judge(free(), |free| fits(capacity, DEFAULT, NONE, free)).map_err(|e| e.is_permanent);
        assert_eq!([2_900_000, 5_800_000, 6_000_000].map(judged), [Ok(()), Err(false), Err(true)]);
        let rings = |workers| judge(free(), |free| rings_fit(workers, 100_000_000, 32_768, free));
        assert!(rings(3).is_ok() && !rings(6).expect_err("later").is_permanent);
        let error = rings(7).expect_err("never");
        assert!(error.is_permanent && error.to_string().contains("the frames of 7 workers take 700 MB"), "{error}");
        let fast_path = |bytes| judge(free(), |free| fast_path_fits(1_000_000, bytes, free));
        assert!(fast_path(300_000_000).is_ok() && !fast_path(500_000_000).expect_err("later").is_permanent);
        let error = fast_path(700_000_000).expect_err("never");
        let told =
            "`fast-path-flows` is 1000000: the tables of the fast path take 700 MB, and 320 MB are free (memory.max)";
        assert!(error.is_permanent && error.to_string().contains(told), "{error}");
    }

    #[test]
    fn this_machine_tells_of_its_memory() {
        assert!(check(1, DEFAULT, NONE).is_ok() && check(1 << 50, DEFAULT, NONE).is_err());
    }
}
