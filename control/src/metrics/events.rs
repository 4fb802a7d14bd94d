//! Events of the lists: the changes of grants, and the readers that missed events.

use knockplane_policy::wire::MetricsReport;
use knockplane_policy::word::Word as _;

use super::sheet::Sheet;

/// Adds the families of grants and of the readers of events.
pub(super) fn fill(sheet: &Sheet, answer: &MetricsReport) {
    let begun = sheet.counter(
        "door_grants_total",
        "Grants of the door that began, and grants that got another expiry.",
        &["door", "change"],
    );
    let ended = sheet.counter(
        "door_grants_ended_total",
        "Grants of the door that ended, by cause: the expiry, full lists, a closing knock, an operator, other rules.",
        &["door", "cause"],
    );
    for door in &answer.grants {
        for count in &door.changes {
            let family = if count.change.is_end() { &ended } else { &begun };
            family.with_label_values(&[&*door.door, count.change.name()]).inc_by(count.times);
        }
    }
    let gaps = sheet.counter(
        "event_reader_gaps_total",
        "Times that the reader of events was too slow. It then reads the changes from the lists.",
        &["reader"],
    );
    let missed = sheet.counter(
        "event_reader_missed_total",
        "Events that were overwritten before the reader read them.",
        &["reader"],
    );
    for reader in &answer.event_readers {
        gaps.with_label_values(&[&reader.reader]).inc_by(reader.gaps);
        missed.with_label_values(&[&reader.reader]).inc_by(reader.missed);
    }
}
