//! The drops of strangers under one generation of rules, in the form that the kernel reads.

use std::net::IpAddr;

use knockplane_engine::state::lists::Lists;
use knockplane_engine::table::RuleTable;
use knockplane_ring::Strangers;

use super::trails::GenerationTrails;

/// The number of ports of a stranger that the kernel may drop in an interval of the port budget without userspace, which
/// counts further ones. A scan is recognised this number of ports later, or twice this number if an interval begins
/// meanwhile.
const FREE_PORTS: u8 = 4;

/// The drops of strangers under one generation of rules.
#[derive(Default)]
pub(crate) struct GenerationStrangers {
    /// By class and port: 0, or the number of the trail.
    trails: Box<[u8]>,
    named: Vec<(IpAddr, IpAddr)>,
    free_ports: Option<u8>,
}

impl GenerationStrangers {
    /// Finds out where strangers are dropped, and numbers the trails: some milliseconds, with many rules more.
    pub(crate) fn of(table: &RuleTable, lists: &Lists, trails: &GenerationTrails) -> GenerationStrangers {
        let classes = table.strangers(lists, |trail| trails.number_of_stranger(trail));
        GenerationStrangers {
            trails: classes.trails,
            named: classes.named,
            free_ports: classes.counts_ports.then_some(FREE_PORTS),
        }
    }

    /// Replaces the tables by which the kernel drops. Called while it drops nothing. Returns whether it may drop anything.
    pub(super) fn install(&self, table: &RuleTable, lists: &Lists, tables: &Strangers) -> bool {
        let families = tables.set_protected(&table.settings().protect);
        let has_trails = tables.set_trails(&self.trails, families, self.free_ports);
        let networks = tables.networks();
        self.named.iter().for_each(|(first, last)| networks.name(*first, *last));
        lists.name_all_networks();
        has_trails
    }
}
