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

/// A file of profiles in a folder of its own.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profiles.toml");
    append(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_file_is_read_and_its_names_are_listed_without_secrets() {
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
fn no_file_is_no_profile_and_a_wrong_one_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let none = Profiles::load(Some(&folder.path().join("none.toml"))).unwrap();
    assert!(none.find("gate").unwrap_err().to_string().contains("there are none"));
    for (text, part) in [
        ("[a]\nhost = \"b\"\nsteps = [\"1\"]\ndealy = \"1s\"\n", "line 4"),
        ("[a]\nhost = \"b\"\nsteps = [\"1\"]\ndelay = \"soon\"\n", "`soon` is no delay: write `10ms`"),
        ("[a]\nhost = \"b\"\nsteps = []\n", "there are no steps"),
        ("[a]\nsteps = [\"1\"]\n", "`host`"),
        ("[\"a b\"]\nhost = \"b\"\nsteps = [\"1\"]\n", "`a b` is no name of a profile"),
    ] {
        let (_folder, path) = file(text);
        let error = Profiles::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("profiles.toml"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;

    let (_folder, path) = file(FILE);
    assert!(Profiles::load(Some(&path)).unwrap().warnings.is_empty(), "what we make is ours alone");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let warnings = Profiles::load(Some(&path)).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("chmod 600"), "{warnings:?}");
}

#[test]
fn what_is_shared_is_added_without_its_command() {
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
    assert_eq!(theirs().list().lines().count(), 2);
    assert!(theirs().add(&line).unwrap_err().to_string().contains("another name"));
    assert!(mine.share("c").is_err());
}
