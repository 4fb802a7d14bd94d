//! Properties of the machine on which results depend.

use std::path::Path;
use std::process::Command;
use std::{env, fmt, fs};

use super::results::{Cache, Machine};

/// Caches of the first processor. Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu.
const CACHES: &str = "/sys/devices/system/cpu/cpu0/cache";

impl Machine {
    /// This machine. Unknown properties stay empty, because results are useful without them.
    pub fn this() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = value(&cpus, "model name").unwrap_or_default();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        Machine {
            cpu: cpu.to_owned(),
            cores: core_affinity::get_core_ids().map_or(0, |cores| cores.len()),
            caches: caches(Path::new(CACHES)),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            memory: memory("MemTotal"),
            compiler: format!("{}, {profile}", said(Command::new(rustc).arg("--version"))),
            nftables: said(Command::new("nft").arg("--version")),
        }
    }
}

/// The known properties in one line, for the first line of a report.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, caches, kernel, memory, compiler, nftables } = self;
        let caches = caches.iter().map(Cache::to_string);
        let memory = format!("{:.0} GiB", *memory as f64 / f64::from(1 << 30));
        let others = [memory, format!("Linux {kernel}"), compiler.clone(), nftables.clone()];
        let parts = [format!("{cores} × {cpu}")].into_iter().chain(caches).chain(others);
        f.write_str(&parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cache { name, bytes, cores } = self;
        let kibibytes = bytes >> 10;
        match kibibytes.is_multiple_of(1024) {
            true => write!(f, "{name} {} MiB", kibibytes >> 10)?,
            false => write!(f, "{name} {kibibytes} KiB")?,
        }
        if *cores > 1 { write!(f, " for {cores} cores") } else { Ok(()) }
    }
}

/// The caches in a folder of sysfs. A virtual machine may have none there.
fn caches(folder: &Path) -> Vec<Cache> {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut caches: Vec<Cache> = folders.filter_map(|folder| cache(&folder)).collect();
    caches.sort_by(|one, other| one.name.cmp(&other.name));
    caches
}

/// The cache of a folder; `None` for a cache of instructions alone, and without a size.
fn cache(folder: &Path) -> Option<Cache> {
    let read = |name| fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned());
    let suffix = match &*read("type")? {
        "Data" => "d",
        "Unified" => "",
        _ => return None,
    };
    let kibibytes: u64 = read("size")?.strip_suffix('K')?.parse().ok()?;
    let cores = read("shared_cpu_list").map_or(0, |list| list.split(',').filter_map(numbers_in).sum());
    Some(Cache { name: format!("L{}{suffix}", read("level")?), bytes: kibibytes << 10, cores })
}

/// How many numbers a range such as `0-3` has, or a single number.
fn numbers_in(range: &str) -> Option<usize> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let [first, last] = [first, last].map(|number| number.parse::<usize>().ok());
    Some(last?.checked_sub(first?)? + 1)
}

/// Bytes of memory that are available without swapping.
pub(super) fn memory_available() -> u64 {
    memory("MemAvailable")
}

fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = value(&text, name).and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// The value of a name, in lines such as `name : value`.
fn value<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_of_sysfs() {
        let folder = env::temp_dir().join(format!("knockplane-caches-{}", std::process::id()));
        assert!(caches(&folder).is_empty(), "there is no such folder");
        let files = [
            ("index0", "1", "Data", "48K", "0"),
            ("index1", "1", "Instruction", "32K", "0"),
            ("index2", "2", "Unified", "1280K", "0,64"),
            ("index3", "3", "Unified", "49152K", "0-3,64-67"),
        ];
        for (index, level, kind, size, shared) in files {
            let index = folder.join(index);
            fs::create_dir_all(&index).expect("a folder");
            for (name, text) in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)] {
                fs::write(index.join(name), format!("{text}\n")).expect("a file");
            }
        }
        // Some hypervisors give no size.
        fs::create_dir_all(folder.join("index4")).expect("a folder");
        fs::write(folder.join("index4/type"), "Unified\n").expect("a file");
        fs::write(folder.join("uevent"), "").expect("a file");
        let caches = caches(&folder);
        fs::remove_dir_all(&folder).expect("removed");
        let machine = Machine { cpu: "EPYC".to_owned(), cores: 2, caches, ..Machine::default() };
        let shown = machine.to_string();
        assert!(
            shown.starts_with("2 × EPYC, L1d 48 KiB, L2 1280 KiB for 2 cores, L3 48 MiB for 8 cores, 0 GiB"),
            "{shown}"
        );
    }

    #[test]
    fn values_of_proc() {
        let text = "processor\t: 0\nmodel name\t: EPYC: fast\n\nMemTotal:       24576 kB\n";
        assert_eq!(value(text, "model name"), Some("EPYC: fast"));
        assert_eq!(value(text, "MemTotal"), Some("24576 kB"));
        assert_eq!(value(text, "MemFree"), None);
    }
}
