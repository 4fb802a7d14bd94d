//! The files that the dataplane writes while it runs: the journal of grants and other entries with a timeout, and the
//! counters of rules.

use knockplane_policy::wire::{JournalStatus, StoredCountersStatus};

use super::sheet::Sheet;

/// Adds the families of the file of counters.
pub(super) fn fill_counters(sheet: &Sheet, counters: &StoredCountersStatus) {
    let StoredCountersStatus { failures, problem, damage } = counters;
    sheet.flag(
        "stored_counters_ok",
        "Whether the disk takes the counters of rules, so that a restart continues them.",
        problem.is_none(),
    );
    sheet.count("stored_counters_failures_total", "Attempts to write the counters of rules that failed.", *failures);
    sheet.flag(
        "stored_counters_damaged",
        "Whether the start found damage in the file of the counters of rules.",
        damage.is_some(),
    );
}

/// Adds the family of the file of static entries.
pub(super) fn fill_static_entries(sheet: &Sheet, is_damaged: bool) {
    let help = "Whether the start found damage in the file of static entries that lost entries.";
    sheet.flag("static_entries_damaged", help, is_damaged);
}

/// Adds the journal's families.
pub(super) fn fill(sheet: &Sheet, journal: &JournalStatus) {
    let JournalStatus { bytes, waiting, failures, problem, delay_ms, restore } = journal;
    sheet.flag(
        "journal_ok",
        "Whether the disk takes the changes of grants, so that a restart restores them.",
        problem.is_none(),
    );
    sheet.value("journal_bytes", "Bytes of the file of grants.", *bytes as f64);
    sheet.value("journal_waiting_events", "Events of entries whose changes are not on the disk yet.", *waiting as f64);
    sheet.value(
        "journal_write_seconds",
        "Time that the last write of the file of grants took, or that the present one has taken until now.",
        *delay_ms as f64 / 1_000.0,
    );
    sheet.count("journal_failures_total", "Attempts to write the file of grants that failed.", *failures);
    sheet.flag("journal_damaged", "Whether the start found damage in the file of grants.", restore.damage.is_some());
    sheet.flag(
        "journal_clock_set_back",
        "Whether the wall clock was set back while the machine was off, so that the start restored no grant.",
        restore.clock_was_set_back,
    );
    let entries = sheet.gauge(
        "journal_entries",
        "Entries in the file of grants at the start, by what became of them.",
        &["result"],
    );
    let results = [
        ("restored", restore.restored),
        ("expired", restore.expired),
        ("without-list", restore.without_list),
        ("without-room", restore.without_room),
    ];
    for (result, number) in results {
        entries.with_label_values(&[result]).set(number as f64);
    }
}
