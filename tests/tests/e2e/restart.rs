//! Restarts directly after a kill, refusal of a second dataplane, and state files that are damaged or cannot be
//! written.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use knockplane_tests::{Filter, FilterOptions, Folder, Output, Topology, binary, run};
use rustix::process::{Pid, Signal, kill_process};

use crate::scenario::{CLIENT, QUICK, ping, with};

/// Accepts sources in `friends`; no knock opens.
const FRIENDS: &str = "/ip firewall filter
add action=accept chain=input src-address-list=friends
add action=drop chain=input
";

fn friends() -> FilterOptions {
    FilterOptions::from_rules(FRIENDS)
}

fn knockctl(filter: &Filter<'_>, arguments: &[&str]) -> Output {
    filter.knockctl(arguments).expect("knockctl")
}

/// Kills a process, and does not wait until the kernel has released its resources.
fn kill_and_go_on(id: u32) {
    let pid = Pid::from_raw(id as i32).expect("a process has an id");
    kill_process(pid, Signal::KILL).expect("killed");
}

#[test]
fn twenty_restarts_right_after_a_kill_succeed() {
    with(&friends(), |topology, filter| {
        assert!(knockctl(filter, &["list", "add", "friends", CLIENT]).ok());
        for round in 0..20 {
            kill_and_go_on(filter.dataplane.id());
            thread::sleep(Duration::from_millis(if round % 2 == 0 { 0 } else { 100 }));
            filter.restart_dataplane().unwrap_or_else(|error| panic!("restart {round}: {error:#}"));
            assert!(ping(topology, ""), "who is in for good passes after restart {round}");
        }
        let log = filter.log();
        assert_eq!(log.matches("ready: outside").count(), 21, "{log}");
    });
}

#[test]
fn control_restarts_right_after_a_kill() {
    with(&friends(), |_, filter| {
        for round in 0..5 {
            kill_and_go_on(filter.control.id());
            filter.restart_control().unwrap_or_else(|error| panic!("restart {round}: {error:#}"));
        }
        let mut command = Command::new("ip");
        let netns = filter_netns(filter);
        command.args(["netns", "exec", &netns]).arg(binary("knockplane-control").expect("built"));
        let second = filter.path("second.toml");
        let text = fs::read_to_string(filter.path("knockplane.toml")).expect("the configuration");
        fs::write(&second, text.replace("control.sock", "second.sock")).expect("written");
        let refused = run(command.arg("--config").arg(&second)).expect("started");
        let holder = format!("another process listens on 127.0.0.1:9479 (process {} (", filter.control.id());
        assert!(refused.code == Some(1) && (refused.stdout + &refused.stderr).contains(&holder), "{holder}");
    });
}

/// The namespace of the filter, by the name of its folder.
fn filter_netns(filter: &Filter<'_>) -> String {
    let folder = filter.path("x");
    folder.parent().and_then(|folder| folder.file_name()).expect("a folder").to_string_lossy().into_owned()
}

/// Starts a second dataplane with these changes of the configuration; it must refuse within some seconds.
fn second(topology: &Topology, filter: &Filter<'_>, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(filter.path("knockplane.toml")).expect("the configuration");
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let file = filter.path("second.toml");
    fs::write(&file, text).expect("written");
    let mut command = topology.filter.command("timeout");
    command.arg("20").arg(binary("knockplane-dataplane").expect("built")).arg("--config").arg(&file);
    let began = Instant::now();
    let output = run(&mut command).expect("started");
    assert_eq!(output.code, Some(1), "after {:?}: {output:?}", began.elapsed());
    output.stderr
}

#[test]
fn a_second_dataplane_names_the_process_that_blocks_it() {
    with(&friends(), |topology, filter| {
        assert!(knockctl(filter, &["list", "add", "friends", CLIENT]).ok());
        let holder = format!("process {} (knockplane-dataplane)", filter.dataplane.id());
        let (state, socket) = (("/state\"", "/second\""), ("dataplane.sock", "second.sock"));
        for (changes, what) in [
            (&[][..], "another dataplane keeps its state in "),
            (&[state][..], "another dataplane answers on "),
            (&[state, socket][..], " holds an interface"),
        ] {
            let told = second(topology, filter, changes);
            assert!(told.contains(&holder) && told.contains(what), "{what}: {told}");
            assert!(ping(topology, ""), "the first one goes on");
        }
    });
}

/// The exit code and the output of a dataplane that does not start.
fn refusal(topology: &Topology, filter: &Filter<'_>) -> (Option<i32>, String) {
    let mut command = topology.filter.command("timeout");
    command.arg("20").arg(binary("knockplane-dataplane").expect("built"));
    let output = run(command.arg("--config").arg(filter.path("knockplane.toml"))).expect("started");
    (output.code, output.stderr)
}

#[test]
fn a_damaged_state_file_is_refused_and_can_be_started_without() {
    with(&friends(), |topology, filter| {
        assert!(knockctl(filter, &["list", "add", "friends", CLIENT]).ok());
        let file = filter.path("quick.rsc");
        fs::write(&file, QUICK).expect("written");
        assert!(knockctl(filter, &["apply", &file.display().to_string()]).ok());
        filter.dataplane.kill().expect("killed");
        for name in ["lists.state", "rules.state"] {
            let path = filter.path("state").join(name);
            let intact = fs::read(&path).expect("a state file");
            let mut damaged = intact.clone();
            // For `lists.state`, damages the first line, because after other damage the entries before it are kept.
            let (place, what) = match name {
                "lists.state" => (5, "line 1 does not begin with"),
                _ => (damaged.len() / 2, "do not match their checksum"),
            };
            damaged[place] ^= 1;
            fs::write(&path, &damaged).expect("written");
            let (code, told) = refusal(topology, filter);
            assert_eq!(code, Some(3), "{told}");
            for part in [&format!("{} is damaged", path.display()), "--without-state", what] {
                assert!(told.contains(part), "{part}: {told}");
            }
            fs::write(&path, if name == "rules.state" { damaged } else { intact }).expect("written");
        }
        filter.restart_dataplane_with(&["--without-state"]).expect("started");
        let rules = filter.ask(&["show", "rules"]).expect("rules");
        assert!(rules["source"].as_str().expect("a source").ends_with("rules.rsc"), "the configured rules: {rules}");
        assert!(!ping(topology, ""), "nobody is in a list");
        assert!(filter.log().contains("set aside"), "{}", filter.log());
        assert!(knockctl(filter, &["list", "add", "friends", "192.0.2.1"]).ok());
        let aside = filter.path("state").join("lists.state.aside-1");
        assert!(aside.exists() && filter.path("state").join("rules.state.aside-1").exists());

        filter.dataplane.kill().expect("killed");
        fs::rename(aside, filter.path("state").join("lists.state")).expect("put back");
        filter.restart_dataplane().expect("started");
        assert!(ping(topology, ""), "what was set aside can be put back");
    });
}

#[test]
fn damaged_static_entries_leave_the_others_and_a_warning() {
    with(&friends(), |topology, filter| {
        assert!(knockctl(filter, &["list", "add", "friends", CLIENT]).ok());
        let path = filter.path("state").join("lists.state");
        let first = fs::metadata(&path).expect("a file").len() as usize;
        assert!(knockctl(filter, &["list", "add", "friends", "192.0.2.1"]).ok());
        filter.dataplane.kill().expect("killed");
        let mut damaged = fs::read(&path).expect("a file");
        *damaged.last_mut().expect("a record") ^= 1;
        fs::write(&path, &damaged).expect("written");
        filter.restart_dataplane().expect("started");
        assert!(ping(topology, ""), "the damaged record only adds, so the entry before it is in force");
        let told = format!("{} is damaged at byte {first}", path.display());
        let shown = knockctl(filter, &["show", "status", "--all"]).stdout;
        assert!(shown.contains("warning") && shown.contains(&told), "{told}: {shown}");
        assert!(filter.http("/readyz").expect("ready").contains(&told));
        assert!(filter.log().contains(&told), "{}", filter.log());
        assert_eq!(fs::read(filter.path("state").join("lists.state.aside-1")).expect("kept"), damaged);
        assert!(!knockctl(filter, &["list", "show", "friends"]).stdout.contains("192.0.2.1"));

        // The removal of the client's entry, damaged.
        let removal = fs::metadata(&path).expect("a file").len() as usize;
        assert!(knockctl(filter, &["list", "remove", "friends", CLIENT]).ok() && !ping(topology, ""));
        assert!(knockctl(filter, &["list", "add", "friends", "192.0.2.1"]).ok());
        filter.dataplane.kill().expect("killed");
        let mut damaged = fs::read(&path).expect("a file");
        damaged[removal + 40] ^= 1;
        fs::write(&path, &damaged).expect("written");
        filter.restart_dataplane().expect("started");
        assert!(!ping(topology, ""), "the removed entry does not return");
        assert!(filter.http("/readyz").expect("ready").contains(&format!("damaged at byte {removal}")));
        assert!(knockctl(filter, &["list", "show", "friends"]).stdout.contains("192.0.2.1"), "added behind the damage");
    });
}

/// Checks that an import and a flush each take effect as a whole or not at all, at any time of a kill of the dataplane:
/// also during the rewrite of the file, which follows each flush.
#[test]
fn a_kill_while_the_file_is_written_anew_loses_no_entry() {
    const MANY: usize = 20_000;
    let options = FilterOptions { list_capacity: 2 * MANY, ..friends() };
    with(&options, |topology, filter| {
        assert!(knockctl(filter, &["list", "add", "friends", CLIENT]).ok());
        let many = filter.path("many.txt");
        let lines: String = (0..MANY).map(|host| format!("many 10.9.{}.{}\n", host / 250, host % 250)).collect();
        fs::write(&many, lines).expect("written");
        let many = many.display().to_string();
        for round in 0..8 {
            assert!(knockctl(filter, &["list", "import", &many]).ok(), "round {round}");
            let flush = filter.knockctl_line(&["list", "flush", "many"]).expect("knockctl");
            let mut flush = Command::new("sh").args(["-c", &flush]).spawn().expect("started");
            if round % 2 == 0 {
                assert!(flush.wait().expect("it ends").success(), "the kill comes behind the answer");
            } else {
                thread::sleep(Duration::from_millis(20 * round));
            }
            kill_and_go_on(filter.dataplane.id());
            let _ = flush.wait();
            filter.restart_dataplane().unwrap_or_else(|error| panic!("round {round}: {error:#}"));
            let lists = filter.ask(&["show", "lists"]).expect("lists");
            let lists = lists["lists"].as_array().expect("lists").iter();
            let left = lists.filter(|list| list["list"] == "many").map(|list| list["by_operators"].as_u64());
            let left = left.flatten().sum::<u64>() as usize;
            assert!(left == 0 || left == MANY && round % 2 == 1, "round {round}: {left} entries");
            assert!(ping(topology, ""), "the static entry is in force after round {round}");
            let state = fs::read_dir(filter.path("state")).expect("a folder").flatten();
            assert!(state.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().ends_with(".new")));
        }
        assert!(!filter.log().contains("is damaged"), "{}", filter.log());
    });
}

/// A small file system in the folder of a filter, unmounted when dropped. It is mounted before the filter starts and outlives it, so a
/// filter cannot remove its folder.
pub(crate) struct SmallDisk(pub(crate) PathBuf, #[expect(dead_code, reason = "its drop removes the folder")] Folder);

impl SmallDisk {
    pub(crate) fn mount(path: PathBuf, size: &str) -> SmallDisk {
        fs::create_dir_all(&path).expect("a folder");
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).status();
        assert!(mounted.expect("mount").success());
        let folder = Folder(path.parent().expect("the folder of the filter").to_owned());
        SmallDisk(path, folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_changes_nothing_and_leaves_nothing() {
    let topology = Topology::new(1).expect("a topology");
    let folder = std::env::temp_dir().join(topology.filter.name());
    let disk = SmallDisk::mount(folder.join("state"), "64k");
    let mut filter = Filter::start(&topology, &friends()).expect("the filter starts");
    assert!(knockctl(&filter, &["list", "add", "friends", CLIENT]).ok());
    let names = || {
        let entries = fs::read_dir(&disk.0).expect("the state directory").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    };
    let files = ["counters.state", "grants.state", "history.state", "lists.state", "lock"].map(str::to_owned).to_vec();
    assert_eq!(names(), files);
    let length = || fs::metadata(disk.0.join("lists.state")).expect("a file").len();
    let before = length();
    let many = filter.path("many.txt");
    let lines: String = (0..9_000).map(|host| format!("many 10.9.{}.{}\n", host / 250, host % 250)).collect();
    fs::write(&many, lines).expect("written");
    let refused = knockctl(&filter, &["list", "import", &many.display().to_string()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let path = disk.0.join("lists.state").display().to_string();
    for part in [&path, "No space left on device (os error 28)", "nothing changed"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!((names(), length()), (files, before), "nothing is left of it");
    let shown = knockctl(&filter, &["list", "show", "many"]);
    assert!(!shown.stdout.contains("10.9."), "{shown:?}");
    filter.dataplane.kill().expect("killed");
    filter.restart_dataplane().expect("started again");
    assert!(ping(&topology, ""), "what was kept before is there");
}
