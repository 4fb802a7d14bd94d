//! Checks that `knockctl doctor` agrees with a start and with `--check` for the same host and configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use knockplane_tests::{Filter, FilterOptions, Folder, Output, Process, Topology, binary, run};
use serde_json::Value;

use crate::scenario::{QUICK, eventually, ping, with};

/// A configuration for a topology's filter, in a temporary folder.
struct Site<'t> {
    topology: &'t Topology,
    folder: Folder,
}

impl<'t> Site<'t> {
    fn new(topology: &'t Topology) -> Self {
        Site { topology, folder: Folder::make(&format!("{}-site", topology.filter.name())).expect("a folder") }
    }

    /// Writes the configuration with further lines of `[dataplane]`.
    fn write(&self, outside: &str, further: &str) {
        let folder = self.folder.0.display();
        let text = format!(
            "[dataplane]\noutside = \"{outside}\"\ninside = \"inside\"\nrules = \"rules.rsc\"\nlist-capacity = 1000\n\
             socket = \"{folder}/site.sock\"\nstate-dir = \"{folder}/state\"\n{further}\n"
        );
        for (name, text) in [("knockplane.toml", &*text), ("rules.rsc", QUICK)] {
            fs::write(self.folder.0.join(name), text).expect("written");
            fs::set_permissions(self.folder.0.join(name), fs::Permissions::from_mode(0o644)).expect("set");
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.topology.filter.command("timeout");
        command.arg("10").arg(binary(program).expect("built")).args(arguments);
        run(command.arg("--config").arg(self.folder.0.join("knockplane.toml"))).expect("it can be started")
    }

    fn doctor(&self) -> Report {
        report(&self.run("knockctl", &["--json", "doctor"]))
    }

    /// Checks that doctor, `--check` and a start agree that the start is refused, with this exit code and reason.
    fn assert_refused(&self, code: i32, scope: &str, check: &str, remedy: &str) {
        let report = self.doctor();
        let finding = report.find(scope, check);
        assert!(["error", "invalid"].contains(&&*finding.level), "{scope} {check}: {finding:?}");
        assert!(finding.text.contains(remedy), "{remedy:?} in {finding:?}");
        assert_eq!(report.code, 3);
        for arguments in [&["--check"][..], &[]] {
            let output = self.run("knockplane-dataplane", arguments);
            assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
            assert!(output.stderr.contains(&finding.found), "{:?} in {output:?}", finding.found);
        }
    }

    /// Checks that doctor, `--check` and a start agree that the start works.
    fn assert_works(&self) {
        let report = self.doctor();
        assert!(report.code <= 1, "{report:?}");
        let output = self.run("knockplane-dataplane", &["--check"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let started = self.run("knockplane-dataplane", &[]);
        assert!(started.stderr.contains(" ready: "), "{started:?}");
    }
}

#[derive(Debug)]
struct Report {
    code: i32,
    findings: Vec<HostFinding>,
}

#[derive(Clone, Debug)]
struct HostFinding {
    scope: String,
    check: String,
    level: String,
    found: String,
    /// The whole report.
    text: String,
}

impl Report {
    fn find(&self, scope: &str, check: &str) -> HostFinding {
        let found = self.findings.iter().find(|finding| finding.scope == scope && finding.check == check);
        found.unwrap_or_else(|| panic!("no {check} of {scope} in {self:?}")).clone()
    }
}

/// Reads a report. Its exit code must match its worst finding.
fn report(output: &Output) -> Report {
    let json: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let findings = json["findings"].as_array().expect("findings").iter().map(|finding| HostFinding {
        scope: text(&finding["scope"]),
        check: text(&finding["check"]),
        level: text(&finding["level"]),
        found: text(&finding["found"]),
        text: finding.to_string(),
    });
    let findings: Vec<HostFinding> = findings.collect();
    let code_of = |level: &str| match level {
        "ok" => 0,
        "warning" | "unknown" => 1,
        _ => 3,
    };
    let worst = findings.iter().map(|finding| code_of(&finding.level)).max().unwrap_or(0);
    assert_eq!(output.code, Some(worst), "{output:?}");
    Report { code: worst, findings }
}

fn ethtool(topology: &Topology, arguments: &str) {
    let output = topology.filter.run(&format!("ethtool {arguments}")).expect("ethtool can be run");
    assert!(output.ok(), "ethtool {arguments}: {output:?}");
}

#[test]
fn a_healthy_host_has_no_findings() {
    let topology = Topology::new(1).expect("a topology");
    let site = Site::new(&topology);
    site.write("outside", "");
    let report = site.doctor();
    // The tests cannot set the host's clock, for example.
    let of_the_wire = report.findings.iter().filter(|finding| finding.scope != "host");
    for finding in of_the_wire {
        assert_eq!(finding.level, "ok", "{finding:?}");
    }
    for scope in ["outside", "inside"] {
        for check in
            ["interface", "carrier", "address", "default-route", "master", "forwarding", "gro", "xdp", "program", "rss"]
        {
            report.find(scope, check);
        }
    }
    for check in ["mtu", "queues", "zero-copy", "program-load"] {
        report.find("wire", check);
    }
    let page = include_str!("../../../docs/doctor.md");
    for finding in &report.findings {
        assert!(page.contains(&format!("`{}`", finding.check)), "docs/doctor.md has no {}", finding.check);
    }
    site.assert_works();
    let text = site.run("knockctl", &["doctor"]).stdout;
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("\noutside\n") && text.contains("\ninside\n"), "{text}");
}

#[test]
fn doctor_and_check_report_what_a_start_refuses_in_the_same_words() {
    let topology = Topology::new(2).expect("a topology");
    let ip = |arguments: &str| topology.filter.ip(arguments).expect("ip");
    let site = Site::new(&topology);
    site.write("nowhere", "");
    site.assert_refused(1, "outside", "interface", "ip link");
    site.write("lo", "");
    site.assert_refused(1, "outside", "ethernet", "Ethernet interface");
    site.write("outside", "cores = [4711]");
    site.assert_refused(3, "configuration", "cores", "name cores of these");
    site.write("outside", "require = \"zero-copy\"");
    site.assert_refused(1, "outside", "zero-copy", "require = \\\"native\\\"");
    site.write("outside", "zero-copy = \"force\"");
    site.assert_refused(1, "inside", "zero-copy", "zero-copy = \\\"auto\\\"");

    site.write("outside", "");
    ip("link set outside down");
    site.assert_refused(1, "outside", "down", "ip link set dev outside up");
    ip("link set outside up");
    ip("link set inside mtu 1400");
    site.assert_refused(1, "wire", "mtu", "ip link set dev outside mtu 1400");
    ip("link set inside mtu 1500");
    ethtool(&topology, "-L outside rx 1");
    site.assert_refused(1, "wire", "queues", "ethtool -L inside rx 1 tx 1");
    ethtool(&topology, "-L outside rx 2");
    ip("link add br0 type bridge");
    ip("link set inside master br0");
    site.assert_refused(1, "inside", "master", "ip link set dev inside nomaster");
    ip("link set inside nomaster");
    topology.filter.set("net/ipv4/conf/outside/forwarding", "1").expect("set");
    site.assert_refused(1, "outside", "forwarding", "sysctl -w net.ipv4.conf.outside.forwarding=0");
    topology.filter.set("net/ipv4/conf/outside/forwarding", "0").expect("set");

    ethtool(&topology, "-K inside gro on");
    site.write("outside", "offloads = \"refuse\"");
    site.assert_refused(1, "inside", "gro", "ethtool -K inside gro off");
    site.write("outside", "");
    assert_eq!(site.doctor().find("inside", "gro").level, "ok", "the dataplane turns it off itself");
    site.assert_works();
}

#[test]
fn an_interface_that_the_host_uses_is_refused_unless_it_is_dedicated() {
    let topology = Topology::new(1).expect("a topology");
    let ip = |arguments: &str| topology.filter.ip(arguments).expect("ip");
    let site = Site::new(&topology);
    site.write("outside", "");
    for (add, remove, check) in [
        ("addr add 192.0.2.7/24 dev inside", "addr del 192.0.2.7/24 dev inside", "address"),
        ("route add default dev inside", "route del default dev inside", "default-route"),
        ("route add default metric 70 nexthop dev lo nexthop dev inside", "route del default", "default-route"),
    ] {
        ip(add);
        site.assert_refused(1, "inside", check, "dedicated = true");
        ip(remove);
    }
    // A route to one network does not make the host unreachable.
    ip("route add 198.51.100.0/24 dev inside");
    assert!(site.doctor().code <= 1);
    // A device on the interface receives no frames either.
    ip("link add link outside name above type macvlan");
    ip("addr add 192.0.2.7/24 dev above");
    site.assert_refused(1, "outside", "address", "ip addr del 192.0.2.7/24 dev above");

    site.write("outside", "dedicated = true");
    assert_eq!(site.doctor().find("outside", "address").level, "warning");
    site.assert_works();
}

#[test]
fn a_foreign_xdp_program_is_reported_and_the_dataplanes_own_is_not() {
    with(&FilterOptions::from_rules(QUICK), |topology, filter| {
        let doctor = |config: &Path| {
            let mut command = topology.filter.command(binary("knockctl").expect("built"));
            report(&run(command.args(["--json", "doctor", "--config"]).arg(config)).expect("it can be started"))
        };
        let before = filter.ask(&["show", "status"]).expect("status");
        let own = doctor(&filter.path("knockplane.toml"));
        for side in ["outside", "inside"] {
            let finding = own.find(side, "program");
            assert!(finding.level == "ok" && finding.found.contains("knockplane-dataplane"), "{finding:?}");
        }
        assert!(own.code <= 1, "{own:?}");
        let after = filter.ask(&["show", "status"]).expect("status");
        assert_eq!(
            (&before["pid"], &before["generation"]),
            (&after["pid"], &after["generation"]),
            "it is not disturbed"
        );
        assert!(filter.http("/readyz").is_ok(), "{}", filter.log());

        // A second dataplane on the same interfaces.
        let site = Site::new(topology);
        site.write("outside", "");
        let finding = site.doctor().find("outside", "program");
        assert!(finding.level == "error" && finding.found.contains("knockplane-dataplane"), "{finding:?}");
        assert_eq!(site.run("knockplane-dataplane", &["--check"]).code, Some(1));
        assert!(!ping(topology, ""), "closed, as before");
    });
}

#[test]
fn doctor_reports_what_this_user_cannot_read() {
    let topology = Topology::new(1).expect("a topology");
    let site = Site::new(&topology);
    site.write("outside", "");
    for program in ["knockctl", "knockplane-dataplane"] {
        let copy = site.folder.0.join(program);
        fs::copy(binary(program).expect("built"), &copy).expect("copied");
        fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).expect("set");
    }
    let doctor = |config: Option<&str>| {
        let mut command = topology.filter.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(site.folder.0.join("knockctl"));
        command.args(["--json", "doctor"]);
        if let Some(config) = config {
            command.arg("--config").arg(site.folder.0.join(config));
        }
        report(&run(&mut command).expect("it can be started"))
    };
    let seen = doctor(Some("knockplane.toml"));
    assert_eq!(seen.find("host", "capabilities").level, "unknown");
    assert_eq!(seen.find("wire", "program-load").level, "unknown");
    assert_eq!(seen.find("wire", "mtu").level, "ok");
    assert_eq!(seen.code, 1);

    fs::set_permissions(site.folder.0.join("knockplane.toml"), fs::Permissions::from_mode(0o600)).expect("set");
    let hidden = doctor(Some("knockplane.toml"));
    assert_eq!((&*hidden.find("configuration", "configuration").level, hidden.code), ("unknown", 1));
    let none = doctor(Some("none.toml"));
    assert_eq!((&*none.find("configuration", "configuration").level, none.code), ("invalid", 3));
    let host = doctor(None);
    assert!(host.findings.iter().all(|finding| finding.scope == "host"), "{host:?}");
}

#[test]
fn without_the_dataplanes_program_the_message_names_the_searched_paths() {
    let topology = Topology::new(1).expect("a topology");
    let site = Site::new(&topology);
    let copy = site.folder.0.join("knockctl");
    fs::copy(binary("knockctl").expect("built"), &copy).expect("copied");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("set");
    let mut command = topology.filter.command("env");
    let output = run(command.arg("PATH=/nowhere").arg(&copy).arg("doctor")).expect("it can be started");
    let folder = site.folder.0.display().to_string();
    // The program may be installed on the machine.
    if !Path::new("/usr/sbin/knockplane-dataplane").exists() {
        assert!(output.code == Some(1) && output.stderr.contains(&folder), "{output:?}");
    }
}

/// A macvlan has no native XDP: a program on it is generic.
#[test]
fn generic_xdp_is_reported_with_its_cost_and_refused_where_native_is_required() {
    let topology = Topology::new(1).expect("a topology");
    topology.filter.ip("link set outside name low").expect("renamed");
    topology.filter.ip("link add link low name outside type macvlan mode passthru").expect("a macvlan");
    for interface in ["low", "outside"] {
        topology.filter.ip(&format!("link set {interface} up")).expect("up");
    }
    let site = Site::new(&topology);
    site.write("outside", "require = \"native\"");
    site.assert_refused(1, "outside", "xdp", "require = \\\"any\\\"");
    site.write("outside", "require = \"zero-copy\"");
    site.assert_refused(1, "outside", "xdp", "require = \\\"any\\\"");
    site.write("outside", "");
    let finding = site.doctor().find("outside", "xdp");
    assert!(finding.level == "warning" && finding.text.contains("generic XDP: "), "{finding:?}");

    let mut filter = Filter::start(&topology, &FilterOptions::from_rules("/ip firewall filter\nadd chain=input\n"))
        .expect("it starts");
    assert!(ping(&topology, ""), "generic XDP forwards");
    let status = filter.ask(&["show", "status"]).expect("status");
    let interfaces = &status["interfaces"];
    assert_eq!((&interfaces[0]["xdp_mode"], &interfaces[1]["xdp_mode"]), (&"generic".into(), &"native".into()));
    assert!(interfaces[0]["cost"].as_str().is_some_and(|cost| cost.starts_with("generic XDP: ")), "{interfaces}");
    assert!(interfaces[1]["cost"].as_str().is_some_and(|cost| cost.starts_with("copy mode: ")), "{interfaces}");
    let text = filter.knockctl(&["show", "status", "--all"]).expect("knockctl").stdout;
    assert!(text.contains("cost: generic XDP: ") && text.contains("cost: copy mode: "), "{text}");
    let labels = ["side=\"outside\"", "mode=\"generic\"", "zero_copy=\"false\""];
    assert_eq!(filter.metric("knockplane_xdp_mode_info", &labels).expect("a series"), 1.0);
    let log = filter.log();
    assert!(log.contains("WARN generic XDP: ") && log.contains("interface=\"outside\""), "{log}");
    filter.dataplane.kill().expect("killed");
}

/// Holds a program on an interface by a link, as a load balancer does, until it is killed. It uses Perl, which every
/// Debian has, so that no further tool is needed.
const FOREIGN: &str = r#"
    my ($call, $index) = @ARGV;
    my $pointer = sub { unpack("Q", pack("P", $_[0])) };
    # bpf(2): 5 loads a program of type 6, XDP. It passes everything: r0 = 2, exit.
    my $code = pack("H*", "b7000000020000009500000000000000");
    my $licence = "GPL\0";
    my $load = pack("LLQQx96", 6, 2, $pointer->($code), $pointer->($licence));
    my $program = syscall($call, 5, $load, length($load));
    # 28 makes a link of attach type 37, XDP.
    my $attach = pack("LLLLx48", $program, $index, 37, 0);
    die "no link: $!" if $program < 0 || syscall($call, 28, $attach, length($attach)) < 0;
    print "attached\n";
    sleep 60;
"#;

#[test]
fn the_process_of_a_foreign_program_is_named_and_ending_it_is_enough() {
    let topology = Topology::new(1).expect("a topology");
    let site = Site::new(&topology);
    site.write("outside", "");
    let links = topology.filter.ip("-j link show dev inside").expect("links");
    let index = serde_json::from_str::<Value>(&links).expect("JSON")[0]["ifindex"].to_string();
    let mut perl = topology.filter.command("perl");
    perl.args(["-e", &format!("$| = 1; {FOREIGN}"), &libc::SYS_bpf.to_string(), &index]);
    let log = site.folder.0.join("perl.log");
    let mut foreign = Process::start("perl", &mut perl, &log).expect("perl can be started");
    eventually("it is attached", || fs::read_to_string(&log).is_ok_and(|text| text.contains("attached\n")));
    let report = site.doctor();
    let finding = report.find("inside", "program");
    assert!(finding.level == "error" && finding.found.contains("(perl)"), "{finding:?}");
    assert!(finding.text.contains(&format!("ps -o pid,args -p {}", foreign.id())), "{finding:?}");
    assert_eq!((report.code, &*report.find("outside", "program").level), (3, "ok"));
    for arguments in [&["--check"][..], &[]] {
        let output = site.run("knockplane-dataplane", arguments);
        assert!(output.code == Some(1) && output.stderr.contains("(perl)"), "{arguments:?}: {output:?}");
    }
    foreign.kill().expect("killed");
    site.assert_works();
}
