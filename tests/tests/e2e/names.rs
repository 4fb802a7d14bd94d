//! Host names in address lists, with a real name server: dnsmasq.

use std::fs;
use std::path::PathBuf;

use knockplane_tests::{Filter, FilterOptions, Process, Topology, VISITOR};
use rustix::process::{Pid, Signal, kill_process};

use crate::scenario::{CLIENT, eventually, listed, ping, with};

const NAME_SERVER: &str = "127.0.0.1:5353";

const RULES: &str = "/ip firewall address-list
add address=dyn.example.test list=friends comment=\"a friend's router\"
add address=nobody.example.test list=others
/ip firewall filter
add action=accept chain=input src-address-list=friends
add action=drop chain=input
";

fn options(rules: &str) -> FilterOptions {
    // The line follows the keys of [control].
    FilterOptions { sections: format!("name-servers = [\"{NAME_SERVER}\"]\n"), ..FilterOptions::from_rules(rules) }
}

/// A name server in the filter's namespace, whose answers have a time to live of one second.
struct NameServer {
    process: Process,
    hosts: PathBuf,
}

impl NameServer {
    fn start(topology: &Topology, filter: &Filter<'_>, address: &str) -> NameServer {
        let hosts = filter.path("hosts");
        fs::write(&hosts, line(address)).expect("written");
        let mut command = topology.filter.command("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="]);
        command.args(["--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", "--local-ttl=1"]);
        // Another user could not read the file.
        command.args(["--user=root", "--group=root", "--local=/example.test/"]);
        command.arg(format!("--addn-hosts={}", hosts.display()));
        let process = Process::start("dnsmasq", &mut command, &filter.path("dnsmasq.log")).expect("dnsmasq");
        NameServer { process, hosts }
    }

    /// Makes the server return another address.
    fn answer(&self, address: &str) {
        fs::write(&self.hosts, line(address)).expect("written");
        let process = Pid::from_raw(self.process.id() as i32).expect("a process id");
        kill_process(process, Signal::HUP).expect("it runs");
    }
}

fn line(address: &str) -> String {
    format!("{address} dyn.example.test\n")
}

fn from(topology: &Topology, address: &str) -> bool {
    ping(topology, &format!("-I {address}"))
}

fn lists(filter: &Filter<'_>) -> String {
    filter.knockctl(&["show", "lists"]).expect("knockctl").stdout
}

#[test]
fn a_list_follows_its_host_name_and_keeps_the_last_answer() {
    with(&options(RULES), |topology, filter| {
        let mut server = NameServer::start(topology, filter, VISITOR);
        eventually("the name is resolved", || listed(filter, "friends", VISITOR));
        assert!(from(topology, VISITOR) && !from(topology, CLIENT));
        let shown = lists(filter);
        assert!(shown.contains("unresolved"), "the other name is not known to the name server: {shown}");
        let labels = ["list=\"friends\"", "name=\"dyn.example.test\"", "family=\"ipv4\""];
        eventually("the metric says so", || filter.metric("knockplane_list_name_resolved", &labels).ok() == Some(1.0));

        server.answer(CLIENT);
        eventually("the new address is in", || listed(filter, "friends", CLIENT));
        assert!(from(topology, CLIENT) && !from(topology, VISITOR), "the old address is out");
        let entries = filter.knockctl(&["list", "show", "friends"]).expect("knockctl").stdout;
        assert!(entries.contains("a friend's router") && entries.contains("dyn.example.test"), "{entries}");
        let refused = filter.knockctl(&["list", "remove", "friends", CLIENT]).expect("knockctl");
        assert!(!refused.ok() && refused.stderr.contains("an address of dyn.example.test"), "{refused:?}");

        server.process.kill().expect("it runs");
        eventually("the failure is shown", || lists(filter).contains("failing"));
        assert_eq!(filter.metric("knockplane_list_name_resolved", &labels).ok(), Some(0.0));
        assert!(from(topology, CLIENT), "the last answer stays");
        filter.dataplane.kill().expect("it runs");
        filter.restart_dataplane().expect("it starts again");
        assert!(from(topology, CLIENT) && !from(topology, VISITOR), "also after a restart");
    });
}

#[test]
fn rules_are_applied_with_resolved_names_and_failures_are_reported() {
    with(&options("/ip firewall filter\nadd action=drop chain=input\n"), |topology, filter| {
        let _server = NameServer::start(topology, filter, CLIENT);
        let apply = |rules: &str| {
            let file = filter.path("new.rsc");
            fs::write(&file, rules).expect("written");
            filter.knockctl(&["apply", &file.display().to_string()]).expect("knockctl")
        };
        // A list of blocked addresses applies from the first packet on.
        let mut applied = apply("");
        eventually("the name server answers", || {
            applied = apply(
                "/ip firewall address-list\nadd address=dyn.example.test list=blocked\n/ip firewall filter
add action=drop chain=input src-address-list=blocked\nadd action=accept chain=input\n",
            );
            assert!(applied.ok(), "{applied:?}");
            !applied.stdout.contains("warning")
        });
        assert!(!from(topology, CLIENT) && from(topology, VISITOR));

        let applied = apply(&RULES.replace("dyn.example.test", "nobody.example.test"));
        assert!(
            applied.ok() && applied.stdout.contains("warning: `nobody.example.test` cannot be resolved"),
            "{applied:?}"
        );
        assert!(!from(topology, CLIENT) && !from(topology, VISITOR), "no address of an earlier name is left");
    });
}

/// The addresses of a name change without a revision, and a plan does not list them.
#[test]
fn history_and_plan_have_names_and_not_their_addresses() {
    with(&options(RULES), |topology, filter| {
        let server = NameServer::start(topology, filter, VISITOR);
        eventually("the name is resolved", || listed(filter, "friends", VISITOR));
        server.answer(CLIENT);
        eventually("the new address is in", || listed(filter, "friends", CLIENT));
        let revisions = || filter.ask(&["history"]).expect("the history")["revisions"].as_array().map(Vec::len);
        assert_eq!(revisions(), Some(1), "another address of a name is no other rule set");

        let plan = |rules: &str| {
            let file = filter.path("new.rsc");
            fs::write(&file, rules).expect("written");
            let file = file.display().to_string();
            (filter.knockctl(&["plan", &file]).expect("knockctl"), file)
        };
        let (same, _) = plan(RULES);
        assert!(same.ok() && same.stdout.contains("nothing would change"), "{same:?}");
        let without = RULES.replace("add address=dyn.example.test list=friends comment=\"a friend's router\"\n", "");
        let (other, file) = plan(&without);
        assert_eq!(other.code, Some(5), "{other:?}");
        for part in
            ["other menus: 0 added, 1 removed\n", "address=dyn.example.test", "source in friends, by dyn.example.test"]
        {
            assert!(other.stdout.contains(part), "{part}: {other:?}");
        }

        assert!(filter.knockctl(&["apply", "--force", &file]).expect("knockctl").ok());
        assert!(!from(topology, CLIENT));
        let diff = filter.knockctl(&["diff", "1", "2"]).expect("knockctl").stdout;
        assert!(diff.contains("\n-add address=dyn.example.test"), "{diff}");
        let stored = fs::read(filter.path("state").join("history.state")).expect("a file");
        let stored = String::from_utf8_lossy(&stored);
        assert!(stored.contains("dyn.example.test"), "{stored}");
        for address in [CLIENT, VISITOR] {
            assert!(!diff.contains(address) && !stored.contains(address), "{address}: {diff}{stored}");
        }
        assert!(filter.knockctl(&["rollback"]).expect("knockctl").ok());
        assert!(listed(filter, "friends", CLIENT) && from(topology, CLIENT), "the name is resolved again");
        let exported = filter.knockctl(&["export"]).expect("knockctl").stdout;
        assert!(exported.contains("dyn.example.test") && !exported.contains(CLIENT), "{exported}");
    });
}
