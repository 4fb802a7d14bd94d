//! The views of `top`: the columns and rows of each, their order, and the filter.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::number::{meter, rate, total};
use crate::cli::table::Align::{self, Left, Right};
use crate::cli::table::printable;
use crate::json::top::{
    DoorRateJson, DropRateJson, ListRateJson, MeterJson, SourceRateJson, TopJson, TrafficJson, WorkerRateJson,
};

/// The menu of most rules, which numbers do not repeat.
const COMMON_MENU: &str = "ip filter ";

/// A view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// Rules and the defaults of chains
    Rules,
    /// Address lists
    Lists,
    /// Doors
    Doors,
    /// Workers and the kernel's fast path
    Workers,
    /// Reasons of drops
    Drops,
    /// The busiest sources
    Sources,
}

/// The order of rows. Numbers fall, names rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By the first rate: packets.
    Packets,
    /// By the second rate: bytes.
    Bytes,
    Total,
    Name,
}

/// A row, with its values for each order.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    packets: f64,
    bytes: f64,
    total: f64,
}

/// The rows of a view.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// Titles and alignments. The first column is the name.
    pub(super) columns: Vec<(&'static str, Align)>,
    pub(super) rows: Vec<Row>,
    /// What the view does not show.
    pub(super) notes: Vec<String>,
}

impl View {
    /// All views, in the order of their keys.
    pub(super) const ALL: [View; 6] =
        [View::Rules, View::Lists, View::Doors, View::Workers, View::Drops, View::Sources];

    pub(super) const fn name(self) -> &'static str {
        match self {
            View::Rules => "rules",
            View::Lists => "lists",
            View::Doors => "doors",
            View::Workers => "workers",
            View::Drops => "drops",
            View::Sources => "sources",
        }
    }

    /// The view some places further.
    pub(super) fn next(self, places: usize) -> View {
        View::ALL[(self as usize + places) % View::ALL.len()]
    }

    /// The first order of this view.
    pub(super) const fn order(self) -> Order {
        match self {
            View::Sources => Order::Bytes,
            _ => Order::Packets,
        }
    }

    /// What the orders by packets and by bytes compare in this view.
    pub(super) const fn compared(self) -> [&'static str; 2] {
        match self {
            View::Rules | View::Workers => ["packets/s", "bytes/s"],
            View::Lists => ["change/s", "expired/s"],
            View::Doors => ["steps/s", "failed/s"],
            View::Drops => ["frames/s", "frames/s"],
            View::Sources => ["drops/s", "bytes/s"],
        }
    }

    /// All rows, in the order of the dataplane.
    pub(super) fn rows(self, top: &TopJson) -> Rows {
        match self {
            View::Rules => rules(top),
            View::Lists => lists(top),
            View::Doors => doors(top),
            View::Workers => workers(top),
            View::Drops => drops(top),
            View::Sources => sources(top),
        }
    }
}

impl Row {
    fn new<const N: usize>(cells: [String; N], [packets, bytes, total]: [f64; 3]) -> Row {
        Row { cells: cells.iter().map(|cell| printable(cell)).collect(), packets, bytes, total }
    }

    /// Whether a cell contains the text, in upper or lower case.
    fn contains(&self, text: &str) -> bool {
        self.cells.iter().any(|cell| cell.to_lowercase().contains(text))
    }
}

impl Rows {
    /// Keeps the rows that contain the text.
    pub(super) fn filter(&mut self, text: &str) {
        let text = text.to_lowercase();
        self.rows.retain(|row| row.contains(&text));
    }

    /// Sorts the rows. Equal rows keep their order.
    pub(super) fn sort(&mut self, order: Order, is_reversed: bool) {
        self.rows.sort_by(|one, other| {
            let falling = |value: fn(&Row) -> f64| value(other).total_cmp(&value(one));
            let ordering = match order {
                Order::Packets => falling(|row| row.packets),
                Order::Bytes => falling(|row| row.bytes),
                Order::Total => falling(|row| row.total),
                Order::Name => by_name(&one.cells[0], &other.cells[0]),
            };
            if is_reversed { ordering.reverse() } else { ordering }
        });
    }
}

/// Names in the order of their letters, and the numbers in them by value: `ip filter 2` before `ip filter 10`.
fn by_name(one: &str, other: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(String, u64)> {
        let word = |word: &str| match word.parse() {
            Ok(number) => (String::new(), number),
            Err(_) => (word.to_owned(), 0),
        };
        text.split([' ', '.', ':']).map(word).collect()
    };
    parts(one).cmp(&parts(other))
}

fn value(meter: MeterJson) -> f64 {
    meter.per_second.unwrap_or_default()
}

fn of_traffic(traffic: TrafficJson) -> [f64; 3] {
    [value(traffic.packets), value(traffic.bytes), traffic.packets.total as f64]
}

fn rules(top: &TopJson) -> Rows {
    let row = |[name, chain, action, comment]: [&str; 4], traffic: TrafficJson| {
        let text = str::to_owned;
        let TrafficJson { packets, bytes } = traffic;
        let [packets_rate, bytes_rate, packets] = [meter(packets), meter(bytes), total(packets.total)];
        Row::new(
            [text(name), text(chain), text(action), packets_rate, bytes_rate, packets, text(comment)],
            of_traffic(traffic),
        )
    };
    let mut rows: Vec<_> = (top.rules.iter())
        .map(|rule| {
            row([rule.number.trim_start_matches(COMMON_MENU), &rule.chain, &rule.action, &rule.comment], rule.traffic)
        })
        .collect();
    if top.rules_without_counters > 0 {
        let name = format!("{} others", top.rules_without_counters);
        rows.push(row([&name, "", "", "rules without counters of their own"], top.other_rules));
    }
    rows.extend(
        top.chain_defaults.iter().map(|chain| row(["default", &chain.chain, "", "no rule decided"], chain.traffic)),
    );
    let columns = vec![
        ("RULE", Left),
        ("CHAIN", Left),
        ("ACTION", Left),
        ("PACKETS/s", Right),
        ("BYTES/s", Right),
        ("PACKETS", Right),
        ("COMMENT", Left),
    ];
    Rows { columns, rows, notes: Vec::new() }
}

fn lists(top: &TopJson) -> Rows {
    let row = |list: &ListRateJson| {
        let change = list.entries_per_second;
        Row::new(
            [
                list.list.clone(),
                list.level.map_or_else(|| "-".to_owned(), |level| level.to_string()),
                total(list.entries),
                rate(change),
                meter(list.expired),
                meter(list.evicted),
                meter(list.refused),
            ],
            [change.unwrap_or_default().abs(), value(list.expired), list.entries as f64],
        )
    };
    let columns = vec![
        ("LIST", Left),
        ("LEVEL", Right),
        ("ENTRIES", Right),
        ("CHANGE/s", Right),
        ("EXPIRED/s", Right),
        ("EVICTED/s", Right),
        ("REFUSED/s", Right),
    ];
    Rows { columns, rows: top.lists.iter().map(row).collect(), notes: Vec::new() }
}

fn doors(top: &TopJson) -> Rows {
    let row = |door: &DoorRateJson| {
        Row::new(
            [
                door.door.clone(),
                meter(door.steps),
                meter(door.opened),
                meter(door.failed),
                total(door.knocking),
                total(door.open),
                total(door.opened.total),
                total(door.failed.total),
            ],
            [value(door.steps), value(door.failed), door.opened.total as f64],
        )
    };
    let columns = vec![
        ("DOOR", Left),
        ("STEPS/s", Right),
        ("OPENED/s", Right),
        ("FAILED/s", Right),
        ("KNOCKING", Right),
        ("GRANTS", Right),
        ("OPENED", Right),
        ("FAILED", Right),
    ];
    Rows { columns, rows: top.doors.iter().map(row).collect(), notes: Vec::new() }
}

fn workers(top: &TopJson) -> Rows {
    let row = |worker: &WorkerRateJson| {
        let busy = worker.busy.map_or_else(|| "-".to_owned(), |busy| format!("{:.0} %", 100.0 * busy));
        Row::new(
            [
                worker.worker.clone(),
                busy,
                meter(worker.received.packets),
                meter(worker.received.bytes),
                meter(worker.sent),
                meter(worker.dropped),
                total(worker.received.packets.total),
                total(worker.sent.total),
                total(worker.dropped.total),
            ],
            of_traffic(worker.received),
        )
    };
    let columns = vec![
        ("WORKER", Left),
        ("BUSY", Right),
        ("FRAMES/s", Right),
        ("BYTES/s", Right),
        ("SENT/s", Right),
        ("DROPS/s", Right),
        ("FRAMES", Right),
        ("SENT", Right),
        ("DROPS", Right),
    ];
    Rows { columns, rows: top.workers.iter().map(row).collect(), notes: Vec::new() }
}

fn drops(top: &TopJson) -> Rows {
    let row = |drop: &DropRateJson| {
        let rate = value(drop.frames);
        Row::new(
            [drop.reason.clone(), drop.at.clone(), meter(drop.frames), total(drop.frames.total)],
            [rate, rate, drop.frames.total as f64],
        )
    };
    let columns = vec![("REASON", Left), ("AT", Left), ("FRAMES/s", Right), ("FRAMES", Right)];
    Rows { columns, rows: top.drops.iter().map(row).collect(), notes: Vec::new() }
}

fn sources(top: &TopJson) -> Rows {
    let columns = vec![
        ("SOURCE", Left),
        ("CONNS", Right),
        ("BYTES/s", Right),
        ("DROPS/s", Right),
        ("BYTES", Right),
        ("DROPS", Right),
        ("LAST DROP", Left),
    ];
    let Some(sources) = &top.sources else {
        return Rows { columns, rows: Vec::new(), notes: vec!["not read yet".to_owned()] };
    };
    let row = |source: &SourceRateJson| {
        Row::new(
            [
                source.address.to_string(),
                total(source.connections),
                meter(source.bytes),
                meter(source.dropped),
                total(source.bytes.total),
                total(source.dropped.total),
                source.last_drop_reason.map_or_else(String::new, |reason| reason.name().to_owned()),
            ],
            [value(source.dropped), value(source.bytes), (source.bytes.total + source.dropped.total) as f64],
        )
    };
    let rows: Vec<_> = sources.sources.iter().map(row).collect();
    let by_kernel = meter(top.paths.dropped_by_kernel.packets);
    let mut notes = vec![
        "At least: bytes of present tracked connections, and drops that workers recorded.".to_owned(),
        format!("The kernel drops {by_kernel} frames/s more, and does not tell their sources."),
    ];
    if sources.found > sources.sources.len() as u64 {
        notes.push(format!("{} of {} sources: the busiest.", sources.sources.len(), total(sources.found)));
    }
    if sources.is_partial {
        notes.push("The table of connections is larger than what was read.".to_owned());
    }
    Rows { columns, rows, notes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::top::Reading;
    use crate::sample;

    fn names(rows: &Rows) -> Vec<&str> {
        rows.rows.iter().map(|row| row.cells[0].as_str()).collect()
    }

    fn rows(values: &[(&str, [f64; 3])]) -> Rows {
        let row = |(name, values): &(&str, [f64; 3])| Row::new([(*name).to_owned(), "other".to_owned()], *values);
        Rows { columns: Vec::new(), rows: values.iter().map(row).collect(), notes: Vec::new() }
    }

    #[test]
    fn rows_are_sorted_by_what_the_order_names() {
        let mut rows =
            rows(&[("ip filter 10", [1.0, 9.0, 2.0]), ("ip filter 2", [3.0, 0.0, 1.0]), ("a", [2.0, 5.0, 7.0])]);
        for (order, sorted) in [
            (Order::Packets, ["ip filter 2", "a", "ip filter 10"]),
            (Order::Bytes, ["ip filter 10", "a", "ip filter 2"]),
            (Order::Total, ["a", "ip filter 10", "ip filter 2"]),
            (Order::Name, ["a", "ip filter 2", "ip filter 10"]),
        ] {
            rows.sort(order, false);
            assert_eq!(names(&rows), sorted, "{order:?}");
            rows.sort(order, true);
            assert_eq!(
                names(&rows),
                {
                    let mut sorted = sorted;
                    sorted.reverse();
                    sorted
                },
                "{order:?}"
            );
        }
    }

    #[test]
    fn a_filter_reads_every_cell() {
        let mut all = rows(&[("Office", [0.0; 3]), ("others", [0.0; 3])]);
        all.filter("OFF");
        assert_eq!(names(&all), ["Office"]);
        all.filter("OTHER");
        assert_eq!(names(&all), ["Office"], "in its second cell");
        all.filter("nothing");
        assert!(names(&all).is_empty());
    }

    #[test]
    fn every_view_has_a_cell_for_each_column() {
        let reading = Reading { counters: sample::metrics(), sources: Some(sample::source_rates()) };
        let top = TopJson::between(None, &reading);
        for view in View::ALL {
            let rows = view.rows(&top);
            assert!(!rows.rows.is_empty(), "{view:?}");
            assert!(rows.rows.iter().all(|row| row.cells.len() == rows.columns.len()), "{view:?}");
        }
        let names: Vec<_> = View::ALL.iter().map(|view| view.next(1).name()).collect();
        assert_eq!(names, ["lists", "doors", "workers", "drops", "sources", "rules"]);
    }
}
