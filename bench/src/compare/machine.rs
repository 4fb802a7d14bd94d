//! Properties of the machine on which results depend.

use std::env;
use std::fs;
use std::process::Command;

use super::results::Machine;

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
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            memory: memory("MemTotal"),
            compiler: format!("{}, {profile}", said(Command::new(rustc).arg("--version"))),
            nftables: said(Command::new("nft").arg("--version")),
        }
    }
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
    fn values_of_proc() {
        let text = "processor\t: 0\nmodel name\t: EPYC: fast\n\nMemTotal:       24576 kB\n";
        assert_eq!(value(text, "model name"), Some("EPYC: fast"));
        assert_eq!(value(text, "MemTotal"), Some("24576 kB"));
        assert_eq!(value(text, "MemFree"), None);
    }
}
