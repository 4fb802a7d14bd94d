//! The dataplane as a service manager meets it while it starts, before it touches an interface.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Its rules are a pipe, so that it starts for as long as nobody writes them.
#[test]
fn a_reload_that_comes_while_it_starts_does_not_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, rules] = ["knockplane.toml", "rules.rsc"].map(|name| folder.path().join(name));
    let text = "[dataplane]\noutside = 'a'\ninside = 'b'\nrules = 'rules.rsc'\nstate-dir = '.'\nsocket = 'd.sock'\n\
                list-capacity = 1000\n";
    fs::write(&file, text).expect("the configuration");
    assert!(Command::new("mkfifo").arg(&rules).status().expect("mkfifo").success());
    let dataplane = Command::new(env!("CARGO_BIN_EXE_knockplane-dataplane"))
        .arg("--config")
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Opens once the dataplane reads.
    let mut rules = File::options().write(true).open(&rules).expect("the pipe");
    let kill = Command::new("kill").args(["-s", "HUP", &dataplane.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    rules.write_all(b"/ip firewall filter\nadd chain=input nonsense=1\n").expect("somebody reads");
    drop(rules);
    let output = dataplane.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("nonsense"), "{told}");
}
