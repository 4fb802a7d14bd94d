use super::*;

const FILE: &str = "\
[ssh-home]
host = \"gate.example.org\"
steps = [\"1234\", \"udp/4321 \\\"open sesame\\\"\", \"icmp size=128\"]
delay = \"1s\"
then = \"ssh  gate -v\"
[b]
host = \"192.0.2.1\"
steps = [\"7000\"]
then = [\"echo\", \"a b\"]
";

/// A file of profiles in a temporary folder.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profiles.toml");
    add::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn the_list_of_a_file_has_names_without_secrets() {
    let (_folder, path) = file(FILE);
    let profiles = Profiles::load(Some(&path)).unwrap();
    let home = profiles.get("ssh-home").unwrap();
    assert_eq!(home.steps, ["1234", "4321:udp=open sesame", "icmp=128"]);
    assert_eq!((home.delay, home.then.as_ref().unwrap().words().len()), (Some(Delay(1000)), 3));
    assert_eq!(profiles.get("b").unwrap().then.as_ref().unwrap().words(), ["echo", "a b"]);
    assert_eq!(profiles.list(), "b         192.0.2.1, 1 step\nssh-home  gate.example.org, 3 steps\n");
    let error = profiles.find("ssh-hoem").unwrap_err().to_string();
    assert!(error.contains("there are b, ssh-home") && error.contains("STEP"), "{error}");
}

#[test]
fn a_missing_file_has_no_profiles_and_an_error_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let none = Profiles::load(Some(&folder.path().join("none.toml"))).unwrap();
    assert!(none.find("gate").unwrap_err().to_string().contains("there are none"));
    for (text, part) in [
        ("[a]\nhost = \"b\"\nsteps = [\"1\"]\ndealy = \"1s\"\n", "line 4"),
        ("[a]\nhost = \"b\"\nsteps = [\"1\"]\ndelay = \"soon\"\n", "`soon` is not a delay: write `10ms`"),
        ("[a]\nhost = \"b\"\nsteps = []\n", "there are no steps"),
        ("[a]\nsteps = [\"1\"]\n", "`host`"),
        ("[\"a b\"]\nhost = \"b\"\nsteps = [\"1\"]\n", "`a b` is not a valid name"),
    ] {
        let (_folder, path) = file(text);
        let error = Profiles::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("profiles.toml"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_other_users_can_read_gets_a_warning() {
    use std::os::unix::fs::PermissionsExt;

    let (_folder, path) = file(FILE);
    assert!(Profiles::load(Some(&path)).unwrap().warnings.is_empty(), "a file that knocker created has no warning");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let warnings = Profiles::load(Some(&path)).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("chmod 600"), "{warnings:?}");
}

#[test]
fn a_shared_profile_is_added_without_its_command() {
    let (_folder, path) = file(FILE);
    let mine = Profiles::load(Some(&path)).unwrap();
    let line = mine.share("ssh-home").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("profiles.toml");
    let theirs = || Profiles::load(Some(&path)).unwrap();
    theirs().add(&line).unwrap();
    theirs().add(&mine.share("b").unwrap()).unwrap();
    let expected = Profile { then: None, ..mine.get("ssh-home").unwrap().clone() };
    assert_eq!(theirs().get("ssh-home"), Some(&expected));
    #[cfg(unix)]
    for (made, mode) in [(&*path, 0o600), (path.parent().unwrap(), 0o700)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, mode, "{}", made.display());
    }
    assert_eq!(theirs().list().lines().count(), 2);
    assert!(theirs().add(&line).unwrap_err().to_string().contains("rename that one"));
    assert!(mine.share("c").is_err());
}

/// The error of an addition of this line to a file, which must not change.
fn refusal(line: &str) -> String {
    let (folder, path) = file(FILE);
    let error = Profiles::load(Some(&path)).unwrap().add(&share::with_sum(line)).unwrap_err().to_string();
    assert_eq!(fs::read_to_string(&path).unwrap(), FILE, "{line}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{line}");
    error
}

#[test]
fn an_invalid_line_leaves_the_file_unchanged() {
    for (line, part) in [
        ("knocker://a@h/", "the line has no steps"),
        ("knocker://a@h/x:udp/", "step 1: unknown service name `x`"),
        ("knocker://a@h/1/tcp%2F7000%20ack/", "step 2: "),
        ("knocker://a@h/1/4321:upd=secret/", "step 2: unknown protocol `upd`"),
        ("knocker://a@h%1B%5D0;x%07/1/", "`h\\u{1b}]0;x\\u{7}` is not a host"),
        ("knocker://a@h%0Ax/1/", "`h\\nx` is not a host"),
        ("knocker://a@%E2%80%AEh/1/", "is not a host"),
        ("knocker://a@/1/", "is not a host"),
        ("knocker://a@h/1/+wait-port=%1B[1m/", "wait-port \"\\u{1b}[1m\" is not a port"),
        ("knocker://a@h/1/+wait-port/", "wait-port \"\" is not a port"),
        ("knocker://a@h/1/+delay=%1B/", "is not a delay"),
        ("knocker://a@h/1/+\u{1b}/", "install a newer"),
        ("knocker://a%5D@h/1/", "is not a valid name of a profile"),
        ("knocker://b@h/1/", "rename that one"),
    ] {
        let error = refusal(line);
        assert!(error.contains(part) && !error.contains("secret") && !error.contains('\u{1b}'), "{line}: {error}");
    }
}

#[test]
fn the_error_for_an_unprintable_host_names_its_line() {
    let (_folder, path) = file("[a]\nhost = \"h\\u001b[1m\"\nsteps = [\"1\"]\n");
    let error = Profiles::load(Some(&path)).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("is not a host"), "{error}");
}

#[cfg(unix)]
#[test]
fn an_addition_makes_the_file_private_and_keeps_the_link_to_it() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let (folder, path) = file(FILE.trim_end());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.path().join("link.toml");
    symlink(&path, &link).unwrap();
    Profiles::load(Some(&link)).unwrap().add(&share::with_sum("knocker://c@h/4321:udp=a%0Ab/")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let profiles = Profiles::load(Some(&path)).unwrap();
    assert_eq!(profiles.get("c").unwrap().steps, ["4321:udp=a\nb"]);
    assert!(profiles.get("b").is_some());
}
