//! Host names in address lists: resolved here, because the dataplane must not wait for anybody.
//!
//! Every second the names of the running rules are asked of the dataplane. A name whose time to live is over is resolved,
//! for each family by itself, and the answers are sent to the dataplane, which keeps them. A failure is sent too: it
//! changes no address, and is shown. Before rules are applied, their names are resolved once, so that they begin with
//! addresses.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfigGroup, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::rr::RecordType;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::wire::{HostName, NameAnswer, NameOutcome};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::dataplane::Dataplane;

/// Pause between two looks at which names there are and which are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long one name may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Names that are resolved at once.
const AT_ONCE: usize = 16;

/// A time to live below this is taken for it, so that a name server cannot make this process ask without a pause.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// A time to live above this is taken for it: an address that is in use for longer is worth a question a day.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);

/// Pause after the first failure; it doubles with each further one, up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// Pause between failures at most.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Resolves host names.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    /// The name servers to ask. Empty: those of `/etc/resolv.conf`, after `/etc/hosts`.
    servers: Vec<SocketAddr>,
}

/// The outcome of one attempt, and for how long it may be used.
#[derive(Debug)]
struct Attempt {
    answer: NameAnswer,
    /// `None` if it failed.
    ttl: Option<Duration>,
}

impl Resolver {
    /// Asks these name servers, or the system's if there are none.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Resolver { servers }
    }

    /// Resolves the host names of rules that are about to be applied. Takes no longer than a few times
    /// [`RESOLVE_WITHIN`], even if no name server answers.
    pub async fn resolve_rules(&self, rules: &RuleSet) -> Vec<NameAnswer> {
        let names: BTreeSet<HostName> = rules
            .address_lists
            .iter()
            .filter(|entry| !entry.disabled)
            .filter_map(|entry| match &entry.address {
                EntryAddress::Name(name) => Some(HostName { family: entry.family, name: name.clone() }),
                _ => None,
            })
            .collect();
        let resolving = self.resolve(names.iter().cloned());
        let attempts = timeout(RESOLVE_WITHIN * 2, resolving).await.unwrap_or_default();
        attempts.into_iter().map(|attempt| attempt.answer).collect()
    }

    async fn resolve(&self, names: impl IntoIterator<Item = HostName>) -> Vec<Attempt> {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return Vec::new();
        }
        // Anew each time: resolv.conf can have changed.
        let resolver = match self.open() {
            Ok(resolver) => Arc::new(resolver),
            Err(error) => return names.map(|name| failed(name, format!("no name server is known: {error}"))).collect(),
        };
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for name in names {
            let (resolver, turns) = (Arc::clone(&resolver), Arc::clone(&turns));
            tasks.spawn(async move {
                // An error would mean that the semaphore is closed, which nobody does.
                let _turn = turns.acquire().await;
                attempt(&resolver, name).await
            });
        }
        tasks.join_all().await
    }

    fn open(&self) -> Result<TokioResolver, hickory_resolver::ResolveError> {
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let mut group = NameServerConfigGroup::new();
            for server in &self.servers {
                group.merge(NameServerConfigGroup::from_ips_clear(&[server.ip()], server.port(), true));
            }
            let config = ResolverConfig::from_parts(None, Vec::new(), group);
            TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
        };
        // Times to live are followed here.
        builder.options_mut().cache_size = 0;
        Ok(builder.build())
    }
}

async fn attempt(resolver: &TokioResolver, name: HostName) -> Attempt {
    let kind = match name.family {
        Family::Ipv4 => RecordType::A,
        Family::Ipv6 => RecordType::AAAA,
    };
    match timeout(RESOLVE_WITHIN, resolver.lookup(name.name.as_str(), kind)).await {
        Ok(Ok(lookup)) => {
            let addresses = addresses(&lookup);
            if addresses.is_empty() {
                return failed(name, "the answer has no address of this family".to_owned());
            }
            let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
            let outcome = NameOutcome::Addresses(addresses);
            Attempt { answer: NameAnswer { name, outcome }, ttl: Some(ttl.clamp(SHORTEST_TTL, LONGEST_TTL)) }
        }
        Ok(Err(error)) => failed(name, error.to_string()),
        Err(_) => failed(name, format!("no answer within {} s", RESOLVE_WITHIN.as_secs())),
    }
}

/// The addresses of an answer. `0.0.0.0` and `::` are no host's: filters of name servers answer so for names they block.
fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.iter().filter_map(|data| data.ip_addr()).filter(|address| !address.is_unspecified()).collect()
}

fn failed(name: HostName, reason: String) -> Attempt {
    Attempt { answer: NameAnswer { name, outcome: NameOutcome::Failed(reason) }, ttl: None }
}

/// When a name is to be resolved again.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    failures: u32,
}

/// Which names are due.
#[derive(Debug, Default)]
struct Schedule(HashMap<HostName, Due>);

impl Schedule {
    /// The names that are to be resolved now. Forgets the names that no list holds.
    fn due(&mut self, names: &BTreeSet<HostName>, now: Instant) -> Vec<HostName> {
        self.0.retain(|name, _| names.contains(name));
        names.iter().filter(|name| self.0.get(name).is_none_or(|due| due.at <= now)).cloned().collect()
    }

    /// Notes an attempt. Returns what is to be logged: the first of several failures, and that they are over.
    fn note(&mut self, attempt: &Attempt, now: Instant) -> Option<Change> {
        let due = self.0.entry(attempt.answer.name.clone()).or_insert(Due { at: now, failures: 0 });
        let before = due.failures;
        match (attempt.ttl, &attempt.answer.outcome) {
            (Some(ttl), _) => {
                *due = Due { at: now + ttl, failures: 0 };
                (before > 0).then_some(Change::Recovered)
            }
            (None, NameOutcome::Failed(reason)) => {
                let pause = FIRST_RETRY.saturating_mul(1 << before.min(16)).min(LONGEST_RETRY);
                *due = Due { at: now + pause, failures: before.saturating_add(1) };
                (before == 0).then(|| Change::Fails(reason.clone()))
            }
            (None, NameOutcome::Addresses(_)) => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Fails(String),
    Recovered,
}

/// Resolves the names of the rules that run, for ever.
pub async fn watch(dataplane: Dataplane, resolver: Resolver) {
    let mut schedule = Schedule::default();
    loop {
        sleep(LOOK_EVERY).await;
        // That it cannot be reached is logged by its own watch.
        let Ok(states) = dataplane.names().await else { continue };
        let names: BTreeSet<HostName> = states.iter().map(|state| state.name.clone()).collect();
        // A dataplane that has restarted is told at once.
        let unanswered = states.iter().filter(|state| state.answer_age.is_none() && state.failure.is_none());
        let unanswered: BTreeSet<HostName> = unanswered.map(|state| state.name.clone()).collect();
        schedule.0.retain(|name, due| !unanswered.contains(name) || due.failures > 0);
        let due = schedule.due(&names, Instant::now());
        if due.is_empty() {
            continue;
        }
        let attempts = resolver.resolve(due).await;
        for attempt in &attempts {
            let name = attempt.answer.name.name.as_str();
            match schedule.note(attempt, Instant::now()) {
                Some(Change::Fails(reason)) => {
                    warn!(name, reason, "cannot resolve a host name of an address list: its last addresses stay")
                }
                Some(Change::Recovered) => info!(name, "the host name is resolved again"),
                None => {}
            }
        }
        let answers = attempts.into_iter().map(|attempt| attempt.answer).collect();
        if let Err(error) = dataplane.answer_names(answers).await {
            warn!("the addresses of host names did not reach the dataplane: {error}");
            schedule = Schedule::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName { family: Family::Ipv4, name: text.to_owned() }
    }

    fn resolved(text: &str, ttl: u64) -> Attempt {
        let outcome = NameOutcome::Addresses(vec![[192, 0, 2, 1].into()]);
        Attempt { answer: NameAnswer { name: name(text), outcome }, ttl: Some(Duration::from_secs(ttl)) }
    }

    #[test]
    fn a_name_is_due_when_its_time_to_live_is_over() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let names: BTreeSet<_> = [name("a"), name("b")].into();
        assert_eq!(schedule.due(&names, start).len(), 2, "at first, all are");
        assert_eq!(schedule.note(&resolved("a", 10), start), None);
        assert_eq!(schedule.note(&resolved("b", 20), start), None);
        assert_eq!(schedule.due(&names, after(9)), []);
        assert_eq!(schedule.due(&names, after(10)), [name("a")]);
        assert_eq!(schedule.due(&[name("b")].into(), after(10)), []);
        assert_eq!(schedule.due(&names, after(10)), [name("a")], "a name that was gone is asked for at once");
    }

    #[test]
    fn failures_are_repeated_less_and_less_often_and_told_once() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let names: BTreeSet<_> = [name("a")].into();
        let failure = failed(name("a"), "no answer".to_owned());
        assert_eq!(schedule.note(&failure, now), Some(Change::Fails("no answer".to_owned())));
        for pause in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = Duration::from_secs(pause);
            assert_eq!(schedule.due(&names, now + pause - Duration::from_millis(1)), []);
            now += pause;
            assert_eq!(schedule.due(&names, now).len(), 1);
            assert_eq!(schedule.note(&failure, now), None);
        }
        assert_eq!(schedule.note(&resolved("a", 1), now), Some(Change::Recovered));
    }
}
