//! Tests of the directory and its files with failures of the file system.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use rustix::fs::mkfifoat;

use super::*;

const FORMAT: Format = Format { kind: "test", version: 1 };

fn open(path: &Path) -> anyhow::Result<StateDir> {
    StateDir::open(path, Deadline::over())
}

fn refusal(result: anyhow::Result<impl Sized>) -> String {
    result.err().map(|error| format!("{error:#}")).unwrap_or_default()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_whole_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder.path().join("deep/state")).unwrap();
    assert!(state.read(RULES, FORMAT).unwrap().is_none());
    for content in [&b"first"[..], b"", b"second"] {
        state.write(RULES, FORMAT, content).unwrap();
        assert_eq!(&*state.read(RULES, FORMAT).unwrap().unwrap(), content);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state.path), mode(&state.file(RULES))), (0o700, 0o600));
    assert_eq!(names(&state.path), ["lock", RULES]);
}

#[test]
fn what_others_can_write_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let state = open(&path).unwrap();
    state.write(RULES, FORMAT, b"x").unwrap();
    for mode in [0o620, 0o602, 0o666] {
        set_mode(&state.file(RULES), mode);
        let error = refusal(state.read(RULES, FORMAT));
        assert!(error.contains("can be written by others") && error.contains("chmod 600"), "{error}");
    }
    set_mode(&state.file(RULES), 0o640);
    assert!(state.read(RULES, FORMAT).is_ok());
    drop(state);
    for mode in [0o720, 0o702, 0o777, 0o1777] {
        set_mode(&path, mode);
        let error = refusal(open(&path));
        assert!(error.contains("state can be written by others") && error.contains("chmod go-w"), "{error}");
    }
    set_mode(&path, 0o755);
    assert!(open(&path).is_ok());
    if geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let error = refusal(open(&path));
        assert!(error.contains("belongs to user 12345") && error.contains("chown root"), "{error}");
    }
}

#[test]
fn what_is_no_regular_file_is_neither_followed_nor_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder.path().join("state")).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    state.write(LISTS, FORMAT, b"x").unwrap();
    fs::rename(state.file(LISTS), &elsewhere).unwrap();
    let path = state.file(RULES);
    let began = Instant::now();
    type Make = fn(&Path, &Path);
    let makes: [(&str, Make); 5] = [
        ("a symbolic link", |path, elsewhere| symlink(elsewhere, path).unwrap()),
        ("a symbolic link", |path, _| symlink("/dev/zero", path).unwrap()),
        ("a FIFO", |path, _| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap()),
        ("a socket", |path, _| drop(UnixListener::bind(path).unwrap())),
        ("a directory", |path, _| fs::create_dir(path).unwrap()),
    ];
    for (kind, make) in makes {
        make(&path, &elsewhere);
        for error in [refusal(state.read(RULES, FORMAT)), refusal(state.read_old(RULES))] {
            assert!(error.contains(kind) && error.contains("must be a regular file: remove it"), "{error}");
        }
        let aside = state.set_aside().unwrap();
        assert_eq!(aside.len(), 1, "{kind}");
        assert!(aside[0].symlink_metadata().is_ok() && path.symlink_metadata().is_err(), "{kind}");
    }
    assert!(began.elapsed().as_secs() < 5);
    assert!(elsewhere.exists(), "what a link pointed to is left alone");
}

#[test]
fn the_lock_is_a_regular_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    let precious = folder.path().join("precious");
    symlink(&precious, path.join("lock")).unwrap();
    assert!(refusal(open(&path)).contains("lock is a symbolic link"));
    assert!(!precious.exists(), "nothing was made there");
    fs::remove_file(path.join("lock")).unwrap();
    mkfifoat(CWD, path.join("lock"), Mode::RUSR | Mode::WUSR).unwrap();
    assert!(refusal(open(&path)).contains("lock is a FIFO"));
    let error = refusal(open(Path::new("/proc/self/status")));
    assert!(error.contains("`state-dir` in [dataplane]"), "{error}");
}

#[test]
fn a_link_to_the_directory_is_followed_once() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::create_dir(&real).unwrap();
    set_mode(&real, 0o700);
    symlink(&real, &link).unwrap();
    let state = open(&link.join("")).unwrap();
    fs::remove_file(&link).unwrap();
    symlink("/nowhere", &link).unwrap();
    state.write(RULES, FORMAT, b"x").unwrap();
    assert!(real.join(RULES).exists(), "the directory is the one that was opened");
    if geteuid().is_root() {
        fs::remove_file(&link).unwrap();
        symlink(&real, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(12_345), None).unwrap();
        assert!(refusal(open(&link)).contains("is a symbolic link of user 12345"));
    }
}

#[test]
fn a_save_that_fails_leaves_the_old_file_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder.path().join("state")).unwrap();
    state.write(RULES, FORMAT, b"old").unwrap();
    // No file replaces a directory that is not empty.
    fs::create_dir_all(state.file(LISTS).join("x")).unwrap();
    assert!(state.write(LISTS, FORMAT, b"new").is_err());
    assert_eq!(names(&state.path), [LISTS, "lock", RULES]);
    assert_eq!(&*state.read(RULES, FORMAT).unwrap().unwrap(), b"old");
}

#[test]
fn what_an_interrupted_save_left_is_removed_and_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(open(&path).unwrap());
    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, path.join("rules.state.new")).unwrap();
    for name in ["lists.state.new", "applied.json.new", "lists.json.new"] {
        fs::write(path.join(name), "half").unwrap();
    }
    let state = open(&path).unwrap();
    assert_eq!(names(&path), ["lock"]);
    // Another process creates this link while the dataplane runs.
    symlink(&precious, path.join("rules.state.new")).unwrap();
    state.write(RULES, FORMAT, b"x").unwrap();
    assert_eq!(names(&path), ["lock", RULES]);
    assert!(fs::symlink_metadata(state.file(RULES)).unwrap().is_file());
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
}

#[test]
fn what_was_set_aside_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder.path().join("state")).unwrap();
    assert_eq!(state.set_aside().unwrap(), Vec::<PathBuf>::new());
    for (content, number) in [("one", 1), ("two", 2)] {
        fs::write(state.file(LISTS), content).unwrap();
        let aside = state.file(&format!("lists.state.aside-{number}"));
        assert_eq!(state.set_aside().unwrap(), std::slice::from_ref(&aside));
        assert_eq!(fs::read_to_string(aside).unwrap(), content);
    }
    assert_eq!(names(&state.path), ["lists.state.aside-1", "lists.state.aside-2", "lock"]);
}

#[test]
fn a_file_is_not_read_beyond_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(&folder.path().join("state")).unwrap();
    state.write(RULES, FORMAT, b"x").unwrap();
    let file = File::options().write(true).open(state.file(RULES)).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = refusal(state.read(RULES, FORMAT));
    assert!(error.contains("it has 1099511627776 bytes") && error.contains("something was appended"), "{error}");
    let error = refusal(state.read_old(RULES));
    assert!(error.contains("no version wrote more than"), "{error}");
}
