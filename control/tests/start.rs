//! Checks that a control process that cannot start reports the reason, also to a late reader.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The capacity of a pipe in bytes (pipe(7)).
const PIPE: usize = 64 << 10;

#[test]
fn the_reasons_of_a_failed_start_are_there_for_a_reader_that_stalls_for_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let (file, at) = (dir.path().join("knockplane.toml"), dir.path().display());
    // An address that no host has (RFC 5737).
    let text = format!(
        "[dataplane]\nsocket = \"{at}/dataplane.sock\"\n[control]\n\
         listen = \"192.0.2.1:9479\"\nsocket = \"{at}/control.sock\"\n"
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    let (mut reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&[b'.'; PIPE]).unwrap();
    let program = env!("CARGO_BIN_EXE_knockplane-control");
    let mut child = Command::new(program).arg("--config").arg(&file).stderr(writer).spawn().unwrap();
    thread::sleep(Duration::from_secs(1));
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(log[PIPE..].contains("cannot listen on 192.0.2.1:9479"), "{}", &log[PIPE..]);
}
