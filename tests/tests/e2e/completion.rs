//! Completion in bash, zsh and fish, as a person gets it with Tab, with the scripts that `make install` installs.

use std::fs;
use std::process::Command;

use knockplane_tests::{Filter, FilterOptions, Folder, Terminal, binary, key};

use crate::scenario::with;

/// A filter with a door `gate`, the lists `office` and `door-gate`, the chain `knocks`, and a rule with the comment `staff`.
fn with_names(test: impl FnOnce(&mut Filter<'_>)) {
    let door = "[[door]]\nname = \"gate\"\nknock = [\"tcp/1111\"]\nopens = [\"tcp/8080\"]\nfor = \"1m\"\n";
    let rules = "/ip firewall filter\nadd chain=knocks src-address-list=office action=accept comment=staff\n";
    let options = FilterOptions { sections: door.to_owned(), ..FilterOptions::from_rules(rules) };
    with(&options, |_, filter| test(filter));
}

/// A shell with the installed script, at its prompt.
fn shell(filter: &Filter<'_>, name: &str, home: &Folder) -> Terminal {
    let script = knockplane_control::cli::completion_script(name).expect("a script");
    // The name of the file counts where the shell looks for it: zsh's is the name of the function.
    let file = home.0.join(match name {
        "zsh" => "_knockctl",
        "fish" => "knockctl.fish",
        _ => "knockctl",
    });
    fs::write(&file, script).expect("written");
    let (folder, file) = (home.0.display(), file.display());
    let (arguments, ready): (&[&str], _) = match name {
        "zsh" => (&["-f", "-i"], format!("fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; PS1='> '")),
        "fish" => (
            &["--no-config", "-i"],
            format!("set -p fish_complete_path {folder}; function fish_prompt; echo '> '; end"),
        ),
        _ => (&["--norc", "--noprofile", "-i"], format!("source {file}; PS1='> '")),
    };
    let programs = binary("knockctl").expect("built").parent().expect("a folder").display().to_string();
    let mut command = Command::new(name);
    command.args(arguments).env("PATH", format!("{programs}:/usr/bin:/bin")).env("HOME", &home.0);
    command.env("XDG_CONFIG_HOME", home.0.join("config")).env("XDG_DATA_HOME", home.0.join("data"));
    let mut shell = Terminal::start(&mut command, (40, 120)).expect("a terminal");
    shell.wait_for("a prompt", |screen| !screen.trim().is_empty()).expect("it runs");
    shell.send(&format!("{ready}{}", key::ENTER)).expect("sent");
    shell.wait_for("the own prompt", is_at_prompt).expect("it is ready");
    // A short name of the socket: the line does not wrap.
    std::os::unix::fs::symlink(filter.path("control.sock"), home.0.join("s")).expect("a link");
    shell.send(&format!("cd {folder}; clear{}", key::ENTER)).expect("sent");
    let is_clear = |screen: &str| is_at_prompt(screen) && !screen.contains("clear");
    shell.wait_for("an empty screen", is_clear).expect("it is ready");
    shell
}

/// Whether the last line of the screen is a prompt without a command.
fn is_at_prompt(screen: &str) -> bool {
    screen.trim_end().lines().last() == Some(">")
}

#[test]
fn each_shell_completes_doors_lists_and_rules_of_the_running_filter() {
    with_names(|filter| {
        for name in ["bash", "zsh", "fish"] {
            let home = Folder::make(&format!("kp{}-{name}", std::process::id())).expect("a folder");
            let mut shell = shell(filter, name, &home);
            for (typed, completed) in [
                ("show doors g", "show doors gate"),
                ("list show off", "list show office"),
                ("rule add chain=kn", "rule add chain=knocks"),
                ("show connections door=g", "show connections door=gate"),
                ("und", "undo"),
            ] {
                shell.send(&format!("knockctl --socket s {typed}{}", key::TAB)).expect("sent");
                let line = format!("knockctl --socket s {completed}");
                let is_completed = |screen: &str| screen.lines().any(|shown| shown.trim_end().ends_with(&line));
                shell.wait_for(&format!("{name}: {completed}"), is_completed).expect("it is completed");
                shell.send(key::CTRL_C).expect("sent");
                shell.wait_for("another prompt", is_at_prompt).expect("it is ready");
            }
            // Several candidates are listed; zsh and fish show what each is.
            shell.send(&format!("knockctl --socket s rule comment {0}{0}", key::TAB)).expect("sent");
            let told = if name == "bash" { "0" } else { "staff" };
            shell.wait_for(&format!("{name}: rules"), |screen| screen.contains(told)).expect("rules are listed");
        }
    });
}

#[test]
fn candidates_are_those_of_the_running_filter_and_none_without_it() {
    with_names(|filter| {
        let socket = filter.path("control.sock");
        let complete = |words: &[&str]| -> Vec<String> {
            let mut command = Command::new(binary("knockctl").expect("built"));
            command.env("KNOCKCTL_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() + 2).to_string());
            command.env("_CLAP_IFS", "\n").arg("--").arg("knockctl").arg("--socket").arg(&socket);
            let output = command.args(words).output().expect("knockctl");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        };
        assert_eq!(complete(&["show", "doors", ""]).first().map(String::as_str), Some("gate"));
        assert!(complete(&["list", "show", "off"]).contains(&"office".to_owned()));
        assert!(complete(&["rule", "remove", ""]).contains(&"0".to_owned()));
        assert_eq!(complete(&["rule", "add", "chain=k"]), ["chain=knocks"]);
        assert_eq!(complete(&["rule", "add", "chain", "=", "k"]), ["knocks"], "bash makes three words of one");
        assert_eq!(complete(&["show", "connections", "door=g"]), ["door=gate"]);
        assert_eq!(complete(&["connection", "remove", "state=est"]), ["state=established"]);
        assert!(complete(&["to"]).contains(&"top".to_owned()));
        // Without an answer there is no name, soon.
        filter.control.kill().expect("killed");
        assert!(!complete(&["show", "doors", ""]).contains(&"gate".to_owned()));
    });
}
