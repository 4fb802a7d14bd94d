//! The kernel, and the permissions of this process.

use std::fs;
use std::io;

use knockplane_policy::doctor::{HostFinding, Level, Scope};
use knockplane_ring::{has_xdp_sockets, is_clock_synchronised};
use rustix::process::{Resource, geteuid, getrlimit};
use rustix::system::uname;

/// Capabilities that a start needs, with their bits (capabilities(7)).
const NEEDED: [(&str, u32); 4] = [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
const IPC_LOCK: u32 = 14;
const SYS_RESOURCE: u32 = 24;

/// The oldest kernel with links of XDP programs, which the filter uses to attach; and the oldest tested kernel.
const OLDEST: (u32, u32) = (5, 9);
const TESTED: (u32, u32) = (6, 1);

/// The kernel and the permissions of this process.
pub(crate) struct Host {
    release: String,
    machine: String,
    /// The bits of the effective capabilities.
    capabilities: u64,
    is_root: bool,
}

impl Host {
    pub(crate) fn read() -> Host {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let kernel = uname();
        Host {
            release: kernel.release().to_string_lossy().into_owned(),
            machine: kernel.machine().to_string_lossy().into_owned(),
            capabilities: mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default(),
            is_root: geteuid().is_root(),
        }
    }

    fn has(&self, bit: u32) -> bool {
        self.capabilities & (1 << bit) != 0
    }

    /// Whether the process may load programs.
    pub(crate) fn may_load(&self) -> bool {
        NEEDED.iter().all(|(_, bit)| self.has(*bit))
    }

    pub(crate) fn findings(&self) -> Vec<HostFinding> {
        vec![self.kernel(), self.capabilities(), self.sockets(), clock_source(), clock(), btf(), bpf_filesystem()]
    }

    fn kernel(&self) -> HostFinding {
        let behind = if version(&self.release) < Some((6, 6)) {
            "; what a driver lets past the program is not dropped (Linux 6.6 can)"
        } else {
            ""
        };
        let finding = ok("kernel", format!("Linux {} on {}{behind}", self.release, self.machine));
        match version(&self.release) {
            Some(version) if version < OLDEST => finding
                .because(Level::Error, format!("it has no links of XDP programs; Linux {}.{} has", OLDEST.0, OLDEST.1))
                .change("install a newer kernel, 6.1 at least"),
            Some(version) if version < TESTED => finding
                .because(Level::Warning, format!("the filter is tested on Linux {}.{} and newer", TESTED.0, TESTED.1))
                .change("install a newer kernel"),
            _ => finding,
        }
    }

    fn capabilities(&self) -> HostFinding {
        let missing: Vec<_> = NEEDED.iter().filter(|(_, bit)| !self.has(*bit)).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            return ok("capabilities", "all that the dataplane needs");
        }
        let finding = ok("capabilities", format!("this process has no {}", missing.join(", ")));
        if self.is_root {
            let why = "the dataplane needs them to attach its program and to bind sockets";
            let change = "give them to the container, or to the service (configs/systemd)";
            return finding.because(Level::Error, why).change(change);
        }
        finding
            .because(Level::Unknown, "what needs them was not looked at")
            .change("run this as root")
            .run("sudo knockctl doctor")
    }

    fn sockets(&self) -> HostFinding {
        match has_xdp_sockets() {
            Ok(()) => ok("xdp-sockets", "the kernel makes AF_XDP sockets"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !self.is_root => {
                let finding = ok("xdp-sockets", "this process may not make an AF_XDP socket");
                finding
                    .because(Level::Unknown, "it was not looked at")
                    .change("run this as root")
                    .run("sudo knockctl doctor")
            }
            Err(error) => ok("xdp-sockets", format!("the kernel makes no AF_XDP socket: {error}"))
                .because(Level::Error, "the filter receives frames by them")
                .change("use a kernel with CONFIG_XDP_SOCKETS")
                .run("grep XDP_SOCKETS /boot/config-$(uname -r)"),
        }
    }

    /// Whether the process may lock the frames' memory, in bytes.
    pub(crate) fn memlock(&self, needed: u64) -> HostFinding {
        let limit = getrlimit(Resource::Memlock).maximum;
        let needs = format!("{} MB of frames are locked in memory", needed.div_ceil(1_000_000));
        if self.has(IPC_LOCK) || self.has(SYS_RESOURCE) || limit.is_none() {
            return ok("memlock", format!("{needs}; there is no limit"));
        }
        let finding =
            ok("memlock", format!("{needs}; the limit of this process is {} MB", limit.unwrap_or(0) / 1_000_000));
        if limit >= Some(needed) {
            return finding;
        }
        let why = "the kernel would refuse the memory of the frames";
        if !self.is_root {
            return finding
                .because(Level::Unknown, format!("{why} to a dataplane with this limit"))
                .change("run this as root")
                .run("sudo knockctl doctor");
        }
        finding
            .because(Level::Error, why)
            .change("LimitMEMLOCK=infinity in the unit (configs/systemd), or in a shell:")
            .run("ulimit -l unlimited")
    }
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Clocks that take a microsecond or more to read. A worker reads the clock at every turn, the program at every frame.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

fn clock_source() -> HostFinding {
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
    let read = |file: &str| fs::read_to_string(format!("{FOLDER}/{file}")).map(|text| text.trim().to_owned());
    match (read("current_clocksource"), read("available_clocksource")) {
        (Ok(current), available) if SLOW_CLOCKS.contains(&&*current) => {
            let available = available.unwrap_or_default();
            let better = available.split_whitespace().find(|name| !SLOW_CLOCKS.contains(name));
            let finding = ok("clock-source", format!("{current} (there are: {available})"))
                .because(Level::Warning, "it takes a microsecond or more to read, for every batch of frames");
            match better {
                Some(better) => finding.run(format!("echo {better} > {FOLDER}/current_clocksource")),
                None => finding
                    .change("the kernel rejected the faster ones: see why with the command")
                    .run("dmesg | grep -i tsc"),
            }
        }
        (Ok(current), _) => ok("clock-source", current),
        (Err(error), _) => ok("clock-source", format!("cannot be read: {error}")).because(Level::Unknown, ""),
    }
}

fn clock() -> HostFinding {
    match is_clock_synchronised() {
        Ok(true) => ok("clock", "synchronised"),
        Ok(false) => ok("clock", "not synchronised, as far as the kernel knows")
            .because(Level::Warning, "rules with time=, entries that survive a restart, and the log go by it")
            .change("run a time service such as chrony or systemd-timesyncd")
            .run("timedatectl set-ntp true"),
        Err(error) => ok("clock", format!("cannot be read: {error}")).because(Level::Unknown, ""),
    }
}

fn btf() -> HostFinding {
    let is_there = fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false);
    ok("btf", if is_there { "there; the filter does not need it" } else { "none; the filter does not need it" })
}

fn bpf_filesystem() -> HostFinding {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?)).filter(|(_, kind)| *kind == "bpf").map(|(place, _)| place.to_owned())
    });
    let found = mount.map_or("not mounted".to_owned(), |place| format!("mounted on {place}"));
    ok("bpf-filesystem", format!("{found}; the filter does not need it: it pins nothing"))
}

fn ok(check: &str, found: impl Into<String>) -> HostFinding {
    HostFinding::ok(Scope::Host, check, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(release: &str, capabilities: u64, is_root: bool) -> Host {
        Host { release: release.to_owned(), machine: "x86_64".to_owned(), capabilities, is_root }
    }

    #[test]
    fn kernels_are_judged_by_their_version() {
        let level = |release: &str| host(release, 0, true).kernel().level;
        assert_eq!(
            ["4.19.0-27-amd64", "5.8.1", "5.9", "5.15.0-91"].map(level),
            [Level::Error, Level::Error, Level::Warning, Level::Warning]
        );
        assert_eq!(["6.1.0-50-amd64", "6.18.44-x", "7.2.0-rc1", "10.0"].map(level), [Level::Ok; 4]);
        assert!(host("6.5.0", 0, true).kernel().found.contains("Linux 6.6 can"));
    }

    #[test]
    fn a_capability_that_is_missing_is_named() {
        let all = NEEDED.iter().fold(0, |mask, (_, bit)| mask | 1 << bit);
        assert_eq!(host("6.1", all, false).capabilities().level, Level::Ok);
        let missing = host("6.1", all & !(1 << 39), true).capabilities();
        assert!(missing.level == Level::Error && missing.found.ends_with("no CAP_BPF"), "{missing}");
        assert_eq!(host("6.1", 0, false).capabilities().level, Level::Unknown);
    }

    #[test]
    fn locked_memory_is_compared_with_the_limit() {
        assert_eq!(host("6.1", 1 << IPC_LOCK, true).memlock(u64::MAX).level, Level::Ok);
        let limit = getrlimit(Resource::Memlock).maximum;
        let found = host("6.1", 0, true).memlock(u64::MAX - 1).level;
        assert_eq!(found, if limit.is_none() { Level::Ok } else { Level::Error });
    }
}
