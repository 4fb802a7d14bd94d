//! Resources of the two processes, under the names of Prometheus's own libraries. Those of the control process have no
//! prefix, because it is the process that is scraped; those of the dataplane have one.

use knockplane_policy::wire::ProcessUsage;

use super::sheet::Sheet;

/// The names and descriptions of one process's metrics.
pub(super) struct Names {
    prefix: &'static str,
    whose: &'static str,
    /// Whether the names get the prefix `knockplane_` as well.
    is_prefixed: bool,
}

/// The process that is scraped.
pub(super) const CONTROL: Names = Names { prefix: "process", whose: "the control process", is_prefixed: false };

/// The dataplane.
pub(super) const DATAPLANE: Names = Names { prefix: "dataplane_process", whose: "the dataplane", is_prefixed: true };

/// Adds the resources that a process uses to the sheet.
pub(super) fn fill(names: &Names, sheet: &Sheet, usage: &ProcessUsage) {
    let Names { prefix, whose, is_prefixed } = names;
    let sheet = if *is_prefixed { sheet.prefixed() } else { sheet.bare() };
    let cpu = sheet.seconds(
        &format!("{prefix}_cpu_seconds_total"),
        &format!("Time that {whose} has spent on processors, in user and system mode."),
        &[],
    );
    cpu.with_label_values::<&str>(&[]).inc_by(usage.cpu.as_secs_f64());
    let value = |name: &str, help: &str, value: u64| {
        sheet.value(&format!("{prefix}_{name}"), &format!("{help} {whose}."), value as f64);
    };
    value("resident_memory_bytes", "Resident memory of", usage.resident_bytes);
    value("virtual_memory_bytes", "Virtual memory of", usage.virtual_bytes);
    value("open_fds", "Open file descriptors of", usage.open_fds);
    if let Some(most) = usage.max_fds {
        value("max_fds", "Limit of open file descriptors of", most);
    }
    value("threads", "Threads of", usage.threads);
}
