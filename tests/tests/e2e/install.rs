//! The first steps of a new user: the configuration of the README, and `make install`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use knockplane_tests::{FilterOptions, Folder, binary, run};

use crate::scenario::{eventually, knock, serve_tcp, tcp_echo, with};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The first configuration in the README.
fn configuration_of_readme() -> String {
    let readme = fs::read_to_string(Path::new(PROJECT).join("README.md")).expect("the README");
    let (_, rest) = readme.split_once("```toml\n").expect("a configuration");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_configuration_of_the_readme_runs_and_its_knock_opens() {
    let rules = "/ip firewall filter\n";
    with(&FilterOptions::from_rules(rules), |topology, filter| {
        let config = configuration_of_readme();
        assert!(config.lines().count() <= 10, "{config}");
        // Replaces the interfaces and paths by those of the test.
        let (socket, state) = (filter.path("dataplane.sock"), filter.path("state"));
        let ours = format!("rules = \"rules.rsc\"\nsocket = {socket:?}\nstate-dir = {state:?}\n");
        let config = config.replace("\"eth1\"", "\"outside\"").replace("\"eth2\"", "\"inside\"");
        let config = config.replace("rules = \"rules.rsc\"\n", &ours);
        let file = filter.path("knockplane.toml");
        fs::write(&file, config).expect("written");
        filter.dataplane.kill().expect("killed");
        let mut check = topology.filter.command(binary("knockplane-dataplane").expect("built"));
        let checked = run(check.arg("--config").arg(&file).arg("--check")).expect("it runs");
        assert!(checked.ok(), "{checked:?}");
        filter.restart_dataplane().expect("started with it");
        serve_tcp(topology, 22);
        assert!(!tcp_echo(topology, 22), "closed");
        knock(topology, "7000:tcp 8000:tcp 9000:tcp");
        eventually("the knock opens", || tcp_echo(topology, 22));
    });
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.extend([path]) }
    }
    all
}

fn make(arguments: &[String]) {
    let output = Command::new("make").arg("-C").arg(PROJECT).args(arguments).output().expect("make");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn an_installation_is_complete_and_its_removal_leaves_nothing() {
    let folder = Folder::make(&format!("kp{}-install dir", std::process::id())).expect("a folder");
    let built = binary("knockctl").expect("built").parent().expect("its folder").display().to_string();
    let destination = folder.0.display().to_string();
    for prefix in ["/usr", "/opt/kp"] {
        // Programs for tests are not stripped, because that takes long and tests nothing.
        let variables = [
            format!("DESTDIR={destination}"),
            format!("PREFIX={prefix}"),
            format!("BIN_DIR={built}"),
            "STRIP=".to_owned(),
        ];
        make(&[&["install".to_owned()], &variables[..]].concat());
        // A second installation must work too.
        make(&[&["install".to_owned()], &variables[..]].concat());
        let at = |path: &str| folder.0.join(&prefix[1..]).join(path);
        for path in [
            "bin/knockctl",
            "bin/knocker",
            "sbin/knockplane-dataplane",
            "sbin/knockplane-control",
            "share/man/man1/knockctl.1",
            "share/man/man1/knockctl-show-rules.1",
            "share/man/man1/knockctl-top.1",
            "share/man/man1/knockctl-connection-remove.1",
            "share/man/man1/knocker.1",
            "share/man/man8/knockplane-dataplane.8",
            "share/man/man8/knockplane-control.8",
            "share/bash-completion/completions/knockctl",
            "share/zsh/site-functions/_knockctl",
            "share/fish/vendor_completions.d/knockctl.fish",
            "share/doc/knockplane/default.toml",
            "share/doc/knockplane/grafana/operator.json",
            "share/doc/knockplane/prometheus/alerts.rules.yml",
            "share/doc/knockplane/docs/schema/error.json",
        ] {
            assert!(at(path).is_file(), "{path} of {prefix}");
        }
        let version = Command::new(at("bin/knockctl")).arg("--version").output().expect("it runs");
        assert!(version.status.success());
        let unit = fs::read_to_string(at("lib/systemd/system/knockplane-dataplane.service")).expect("the unit");
        assert!(unit.contains(&format!("ExecStart={prefix}/sbin/knockplane-dataplane ")), "{unit}");
        pages_are_sound(&at("share/man"));
        let bash =
            format!("source '{}'; complete -p knockctl", at("share/bash-completion/completions/knockctl").display());
        let completes = Command::new("bash").args(["-c", &bash]).output().expect("bash");
        assert!(completes.status.success(), "{completes:?}");
        make(&[&["uninstall".to_owned()], &variables[..]].concat());
        assert_eq!(files(&folder.0), BTreeSet::new(), "{prefix}");
    }
}

#[test]
fn the_demo_runs_the_programs_that_cargo_built() {
    for (target, program) in [(None, "'target/release'/demo"), (Some("/somewhere"), "'/somewhere/release'/demo")] {
        let mut make = Command::new("make");
        make.arg("-C").arg(PROJECT).args(["-n", "demo"]).env_remove("CARGO_TARGET_DIR");
        make.envs(target.map(|target| ("CARGO_TARGET_DIR", target)));
        let output = make.output().expect("make");
        let commands = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && commands.contains(program), "{output:?}");
    }
}

/// Checks that groff reports no error in the pages.
fn pages_are_sound(folder: &Path) {
    for page in files(folder) {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&page)
            .env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "80");
        let output = man.output().expect("man");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{}: {told}", page.display());
    }
}
