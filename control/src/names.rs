//! Resolves the host names in address lists. The dataplane resolves no names, because it must not wait for a name
//! server.
//!
//! Every second this module requests the names of the running rules from the dataplane. It resolves each name whose
//! time to live has ended, separately for each family, and sends the answers to the dataplane, which stores them. It
//! sends failures too: a failure changes no address, and `show lists` shows it. Before rules are applied, the module
//! resolves their names once, so that the rules start with addresses.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfigGroup, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::rr::RecordType;
use knockplane_policy::packet::Family;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::wire::{HostName, NameAnswer, NameOutcome};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::dataplane::Dataplane;
use crate::metrics::resolver::ResolverMetrics;

/// Pause between two requests for the names of the running rules.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time limit for one name.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Time limit for all names of rules that are about to be applied: an operator waits for it.
const RESOLVE_RULES_WITHIN: Duration = Duration::from_secs(10);

/// Maximum number of names that are resolved at the same time.
const AT_ONCE: usize = 16;

/// Minimum time to live, so that a name server cannot cause requests without a pause.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// Maximum time to live, so that a change of an address takes effect within a day.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);

/// Pause after the first failure. It doubles with each further failure, up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// Longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Resolves host names.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    /// The name servers to query. If empty, the resolver reads `/etc/hosts`, and then queries the servers in
    /// `/etc/resolv.conf`.
    servers: Vec<SocketAddr>,
    metrics: ResolverMetrics,
}

/// The outcome of one attempt to resolve a name.
#[derive(Debug)]
struct Attempt {
    answer: NameAnswer,
    /// The time for which the answer is valid; `None` if the attempt failed.
    ttl: Option<Duration>,
}

impl Resolver {
    /// Creates a resolver that queries these name servers, or those of the system if there are none, and counts its attempts.
    pub(crate) fn new(servers: Vec<SocketAddr>, metrics: ResolverMetrics) -> Self {
        Resolver { servers, metrics }
    }

    /// Resolves the host names of rules that are about to be applied, within [`RESOLVE_RULES_WITHIN`]. There is one answer
    /// for each name: a name that was not resolved in time has failed.
    pub async fn resolve_rules(&self, rules: &RuleSet) -> Vec<NameAnswer> {
        let names = rules.address_lists.iter().filter_map(HostName::of).collect();
        let attempts = self.resolve(names, RESOLVE_RULES_WITHIN).await;
        attempts.into_iter().map(|attempt| attempt.answer).collect()
    }

    async fn resolve(&self, names: BTreeSet<HostName>, limit: Duration) -> Vec<Attempt> {
        let attempts = self.attempts(names, limit).await;
        attempts.iter().for_each(|attempt| self.metrics.ended(attempt.ttl.is_some()));
        attempts
    }

    async fn attempts(&self, names: BTreeSet<HostName>, limit: Duration) -> Vec<Attempt> {
        if names.is_empty() {
            return Vec::new();
        }
        // The resolver is opened for each call, because resolv.conf can have changed.
        let resolver = match self.open() {
            Ok(resolver) => Arc::new(resolver),
            Err(error) => {
                let failed = |name| failed(name, format!("no name server is known: {error}"));
                return names.into_iter().map(failed).collect();
            }
        };
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for name in names.iter().cloned() {
            let (resolver, turns, metrics) = (Arc::clone(&resolver), Arc::clone(&turns), self.metrics.clone());
            tasks.spawn(async move {
                // The semaphore is never closed, so this cannot fail.
                let _turn = turns.acquire().await;
                let began = Instant::now();
                let attempt = attempt(&resolver, name).await;
                metrics.took(began.elapsed());
                attempt
            });
        }
        collect(tasks, names, limit).await
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
        // This module applies the times to live, so the library needs no cache.
        builder.options_mut().cache_size = 0;
        Ok(builder.build())
    }
}

/// The attempts that end within the limit. A name whose attempt does not end in time has failed.
async fn collect(mut tasks: JoinSet<Attempt>, mut names: BTreeSet<HostName>, limit: Duration) -> Vec<Attempt> {
    let mut attempts = Vec::with_capacity(names.len());
    let mut over = pin!(sleep(limit));
    loop {
        tokio::select! {
            biased;
            ended = tasks.join_next() => match ended {
                Some(Ok(attempt)) => {
                    names.remove(&attempt.answer.name);
                    attempts.push(attempt);
                }
                // The task panicked: its name has no answer.
                Some(Err(_)) => {}
                None => break,
            },
            () = &mut over => break,
        }
    }
    attempts.extend(names.into_iter().map(|name| failed(name, format!("no answer within {} s", limit.as_secs()))));
    attempts
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

/// The addresses of an answer, without `0.0.0.0` and `::`, which name servers return for names that they block.
fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    lookup.iter().filter_map(|data| data.ip_addr()).filter(|address| !address.is_unspecified()).collect()
}

fn failed(name: HostName, reason: String) -> Attempt {
    Attempt { answer: NameAnswer { name, outcome: NameOutcome::Failed(reason) }, ttl: None }
}

/// The time of the next attempt for a name.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    failures: u32,
}

/// The time of the next attempt for each name.
#[derive(Debug, Default)]
struct Schedule(HashMap<HostName, Due>);

impl Schedule {
    /// The names to resolve now. Removes names that no list contains any more.
    fn due(&mut self, names: &BTreeSet<HostName>, now: Instant) -> Vec<HostName> {
        self.0.retain(|name, _| names.contains(name));
        names.iter().filter(|name| self.0.get(name).is_none_or(|due| due.at <= now)).cloned().collect()
    }

    /// Records an attempt. Returns a change to log: the first of several failures, or the first success after them.
    fn note(&mut self, attempt: &Attempt, now: Instant) -> Option<NameChange> {
        let due = self.0.entry(attempt.answer.name.clone()).or_insert(Due { at: now, failures: 0 });
        let before = due.failures;
        match (attempt.ttl, &attempt.answer.outcome) {
            (Some(ttl), _) => {
                *due = Due { at: now + ttl, failures: 0 };
                (before > 0).then_some(NameChange::Recovered)
            }
            (None, NameOutcome::Failed(reason)) => {
                let pause = FIRST_RETRY.saturating_mul(1 << before.min(16)).min(LONGEST_RETRY);
                *due = Due { at: now + pause, failures: before.saturating_add(1) };
                (before == 0).then(|| NameChange::Fails(reason.clone()))
            }
            (None, NameOutcome::Addresses(_)) => None,
        }
    }
}

/// A change between success and failure of a name.
#[derive(Debug, PartialEq, Eq)]
enum NameChange {
    Fails(String),
    Recovered,
}

/// Resolves the names of the running rules until the process ends.
pub async fn watch(dataplane: Dataplane, resolver: Resolver) {
    let mut schedule = Schedule::default();
    loop {
        sleep(LOOK_EVERY).await;
        // `dataplane::watch` logs that the dataplane cannot be reached.
        let Ok(states) = dataplane.names().await else { continue };
        let names: BTreeSet<HostName> = states.iter().map(|state| state.name.clone()).collect();
        // A dataplane that has restarted gets answers at once.
        let unanswered = states.iter().filter(|state| state.answer_age.is_none() && state.failure.is_none());
        let unanswered: BTreeSet<HostName> = unanswered.map(|state| state.name.clone()).collect();
        schedule.0.retain(|name, due| !unanswered.contains(name) || due.failures > 0);
        let due: BTreeSet<HostName> = schedule.due(&names, Instant::now()).into_iter().collect();
        if due.is_empty() {
            continue;
        }
        let attempts = resolver.resolve(due, Duration::MAX).await;
        for attempt in &attempts {
            let name = attempt.answer.name.name.as_str();
            match schedule.note(attempt, Instant::now()) {
                Some(NameChange::Fails(reason)) => {
                    warn!(name, reason, "cannot resolve a host name of an address list; its last addresses stay")
                }
                Some(NameChange::Recovered) => info!(name, "host name resolved again"),
                None => {}
            }
        }
        let answers = attempts.into_iter().map(|attempt| attempt.answer).collect();
        if let Err(error) = dataplane.answer_names(answers).await {
            warn!("cannot send the addresses of host names to the dataplane: {error}");
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

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_the_answers_so_far_are_returned_and_the_other_names_have_failed() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { resolved("a", 10) });
        tasks.spawn(std::future::pending());
        let names = [name("a"), name("b")].into();
        let attempts = collect(tasks, names, RESOLVE_RULES_WITHIN).await;
        let answers: Vec<_> = attempts.into_iter().map(|attempt| attempt.answer).collect();
        let failure = NameOutcome::Failed("no answer within 10 s".to_owned());
        assert_eq!(answers, [resolved("a", 10).answer, NameAnswer { name: name("b"), outcome: failure }]);
    }

    #[test]
    fn a_name_is_due_when_its_time_to_live_is_over() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let names: BTreeSet<_> = [name("a"), name("b")].into();
        assert_eq!(schedule.due(&names, start).len(), 2, "at first, all names are due");
        assert_eq!(schedule.note(&resolved("a", 10), start), None);
        assert_eq!(schedule.note(&resolved("b", 20), start), None);
        assert_eq!(schedule.due(&names, after(9)), []);
        assert_eq!(schedule.due(&names, after(10)), [name("a")]);
        assert_eq!(schedule.due(&[name("b")].into(), after(10)), []);
        assert_eq!(
            schedule.due(&names, after(10)),
            [name("a")],
            "a name that was removed is due as soon as it is back"
        );
    }

    #[test]
    fn pauses_after_failures_grow_and_one_failure_is_logged() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let names: BTreeSet<_> = [name("a")].into();
        let failure = failed(name("a"), "no answer".to_owned());
        assert_eq!(schedule.note(&failure, now), Some(NameChange::Fails("no answer".to_owned())));
        for pause in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = Duration::from_secs(pause);
            assert_eq!(schedule.due(&names, now + pause - Duration::from_millis(1)), []);
            now += pause;
            assert_eq!(schedule.due(&names, now).len(), 1);
            assert_eq!(schedule.note(&failure, now), None);
        }
        assert_eq!(schedule.note(&resolved("a", 1), now), Some(NameChange::Recovered));
    }
}
