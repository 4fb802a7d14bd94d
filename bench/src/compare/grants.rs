//! Measures grants while they are written to the journal: 50,000 sources a second knock at the filter for some seconds, and every
//! one is granted. A client that a rule accepts sends frames meanwhile, and loses none. Then the dataplane is killed, and the
//! next one must restore every grant.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ipnet::Ipv4Net;
use knockplane_ring::Device;
use knockplane_tests::{CLIENT, Filter, FilterOptions};

use super::deafness::go_outside;
use super::lab::{CANDIDATE_CORE, Lab};
use super::restart::kill_and_start;
use super::results::Arrangement;
use super::steady::SteadyTraffic;
use crate::generator::{Generator, Profile, Spec};
use crate::report::ResultTable;

/// Capacity of the lists: more than the grants and the first steps of all sources.
const CAPACITY: usize = 2_000_000;

/// Grants end after the measurement. The client needs no knock.
fn rules() -> String {
    format!(
        "/ip firewall filter
add action=add-src-to-address-list address-list=temporary address-list-timeout=10s chain=input dst-port=1234 protocol=tcp
add action=add-src-to-address-list address-list=secured address-list-timeout=1h chain=input dst-port=4321 protocol=tcp \
    src-address-list=temporary
add action=accept chain=input src-address-list=secured
add action=accept chain=input src-address={CLIENT}
add action=drop chain=input
"
    )
}

/// The first source that knocks.
const KNOCKERS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 128, 0, 0), 11);

/// The longest time until the journal has taken all grants.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result of a load.
#[derive(Debug)]
pub struct GrantsResult {
    /// Offered grants a second.
    pub rate: u64,
    /// Sources that knocked.
    pub knocked: u64,
    /// Sources that were granted.
    pub granted: u64,
    /// Frames of the client that were sent and that arrived.
    pub client: [u64; 2],
    /// Time from the last knock until the journal had all grants, in seconds.
    pub behind: f64,
    /// Grants after a kill of the dataplane.
    pub restored: u64,
    /// The outage of this restart, in milliseconds.
    pub outage: f64,
}

/// A row for each result.
pub fn table(results: &[GrantsResult]) -> ResultTable {
    let columns = [
        "knocking sources a second",
        "sources",
        "granted",
        "client's frames",
        "lost",
        "journal behind, s",
        "restored after a kill",
        "outage, ms",
    ];
    let rows = results.iter().map(|result| {
        let [sent, arrived] = result.client;
        vec![
            result.rate.to_string(),
            result.knocked.to_string(),
            result.granted.to_string(),
            sent.to_string(),
            sent.saturating_sub(arrived).to_string(),
            format!("{:.1}", result.behind),
            result.restored.to_string(),
            format!("{:.0}", result.outage),
        ]
    });
    ResultTable::new("grants", "Grants that are written to the journal", &columns).with_rows(rows)
}

/// Lets `rate` sources a second knock, for this time.
///
/// # Errors
/// Without root, or if the dataplane does not start.
pub fn measure(rate: u64, duration: Duration) -> Result<GrantsResult> {
    let lab = Lab::new(Arrangement::S)?;
    lab.topology.allow_redirects()?;
    let options = FilterOptions {
        list_capacity: CAPACITY,
        dataplane: format!("cores = [{CANDIDATE_CORE}]\n"),
        ..FilterOptions::from_rules(&rules())
    };
    let mut filter = Filter::start(&lab.topology, &options)?;
    let traffic = SteadyTraffic::start(&lab.topology)?;
    // Two knocks of each source.
    let knocked = rate * duration.as_secs();
    let spec = Spec {
        rate: Some(2 * rate),
        count: Some(2 * knocked),
        duration: 2 * duration,
        source: KNOCKERS.into(),
        ..Spec::new(Profile::Knock)
    };
    let (behind, client) = traffic.during(|| {
        thread::scope(|scope| {
            let knocks = scope.spawn(|| {
                lab.topology.client.within(|| {
                    go_outside()?;
                    Generator::new(&Device::open("eth0")?, &spec)?.run(&AtomicBool::new(false))
                })
            });
            super::deafness::join(knocks)
        })?;
        let end = Instant::now();
        while filter.metric("knockplane_journal_waiting_events", &[])? > 0.0 {
            ensure!(end.elapsed() < PATIENCE, "the journal has not taken all grants: {}", filter.log());
            thread::sleep(Duration::from_millis(100));
        }
        Ok(end.elapsed())
    })?;
    // The last group is on the disk.
    thread::sleep(Duration::from_millis(500));
    let granted = grants(&filter)?;
    let killed = kill_and_start(&lab.topology, &mut filter)?;
    let outage = traffic.outage(killed)?;
    filter.wait_until_ready()?;
    Ok(GrantsResult {
        rate,
        knocked,
        granted,
        client,
        behind: behind.as_secs_f64(),
        restored: grants(&filter)?,
        outage: outage.as_secs_f64() * 1e3,
    })
}

/// The sources in the list of grants.
fn grants(filter: &Filter<'_>) -> Result<u64> {
    Ok(filter.metric("knockplane_address_list_entries", &["list=\"secured\""])? as u64)
}
