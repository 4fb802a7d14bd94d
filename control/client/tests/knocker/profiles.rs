//! Files of profiles that other users can change: nothing is sent, and no command is run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::lab::{self, KNOCKER, Lab};

/// A user id that is not that of the tests.
const OTHER_USER: u32 = 4711;

/// A directory with a file of profiles, whose command creates a file.
struct Scenario {
    folder: tempfile::TempDir,
    profiles: PathBuf,
}

impl Scenario {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("config/knocker");
        fs::create_dir_all(&below).unwrap();
        for directory in [below.as_path(), below.parent().unwrap()] {
            chmod(directory, 0o755);
        }
        let profiles = below.join("profiles.toml");
        let command = format!("touch {}", folder.path().join("ran").display());
        fs::write(&profiles, format!("[home]\nhost = '127.0.0.1'\nsteps = ['1']\nthen = '{command}'\n")).unwrap();
        chmod(&profiles, 0o600);
        Scenario { folder, profiles }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn has_run(&self) -> bool {
        self.path("ran").exists()
    }

    /// Runs the profile `home` of this file, expects a refusal with these parts, and that nothing was sent or run.
    fn refused(&self, lab: &Lab, file: &Path, parts: &[&str]) {
        let mut tap = lab.tap();
        let output = knocker(file);
        let error = lab::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(!self.has_run() && tap.finish().is_empty(), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn knocker(file: &Path) -> Output {
    // The program must not wait for a pipe without a writer.
    Command::new("timeout").args(["20", KNOCKER, "--profiles"]).arg(file).arg("home").output().unwrap()
}

#[test]
fn the_command_of_a_file_that_only_its_owner_can_change_runs() {
    lab::inside(|_| {
        for mode in [0o600, 0o644, 0o400] {
            let scenario = Scenario::new();
            chmod(&scenario.profiles, mode);
            let output = knocker(&scenario.profiles);
            assert!(output.status.success() && scenario.has_run(), "{output:?}");
        }
    });
}

#[test]
fn a_file_that_others_can_write_or_own_is_refused() {
    lab::inside(|lab| {
        let scenario = Scenario::new();
        let file = &scenario.profiles;
        let remedy = format!("run: chmod go-w {}", file.display());
        for mode in [0o666, 0o660, 0o620, 0o602, 0o777] {
            chmod(file, mode);
            scenario.refused(lab, file, &[&remedy]);
        }
        chmod(file, 0o600);
        chown(file, Some(OTHER_USER), None).unwrap();
        scenario.refused(lab, file, &["belongs to user 4711", "run: chown 0"]);
    });
}

#[test]
fn a_directory_on_the_way_that_others_can_write_is_refused() {
    lab::inside(|lab| {
        let scenario = Scenario::new();
        for directory in [scenario.path("config"), scenario.path("config/knocker")] {
            for mode in [0o777, 0o775] {
                chmod(&directory, mode);
                scenario.refused(lab, &scenario.profiles, &[&format!("run: chmod go-w {}", directory.display())]);
            }
            chmod(&directory, 0o755);
        }
        // In a sticky directory other users cannot replace the file.
        chmod(&scenario.path("config/knocker"), 0o1777);
        assert!(knocker(&scenario.profiles).status.success() && scenario.has_run());
    });
}

#[test]
fn links_pipes_and_directories_do_not_avoid_the_checks() {
    lab::inside(|lab| {
        let scenario = Scenario::new();
        let open = scenario.path("open");
        fs::create_dir(&open).unwrap();
        let link = open.join("profiles.toml");
        symlink(&scenario.profiles, &link).unwrap();
        chmod(&open, 0o777);
        scenario.refused(lab, &link, &[&format!("run: chmod go-w {}", open.display())]);
        chmod(&open, 0o755);
        chmod(&scenario.profiles, 0o666);
        scenario.refused(lab, &link, &[&format!("run: chmod go-w {}", scenario.profiles.display())]);
        chmod(&scenario.profiles, 0o600);
        scenario.refused(lab, &open, &["it is a directory"]);
        let pipe = scenario.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        scenario.refused(lab, &pipe, &["is not a regular file"]);
        scenario.refused(lab, Path::new("/dev/zero"), &["is not a regular file"]);
        let long = scenario.path("long");
        fs::File::create(&long).and_then(|file| file.set_len((4 << 20) + 1)).unwrap();
        chmod(&long, 0o600);
        scenario.refused(lab, &long, &["more than 4 MiB, the limit for files of profiles"]);
        assert!(knocker(&link).status.success() && scenario.has_run(), "a link of the user's own is followed");
    });
}

#[test]
fn a_shared_line_without_an_end_is_refused() {
    lab::inside(|_| {
        let scenario = Scenario::new();
        let script = "head -c 20000000 /dev/zero | tr '\\0' y | \"$0\" --profiles \"$1\" --add -";
        let output = lab::run("sh", &["-c", script, KNOCKER, scenario.profiles.to_str().unwrap()]);
        assert!(!output.status.success());
        let error = lab::text(&output.stderr);
        assert!(error.contains("more than 4 MiB, the limit for shared profiles"), "{error}");
    });
}
