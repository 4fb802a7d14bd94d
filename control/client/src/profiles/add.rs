//! A profile from somebody else, on its way into the file: what is asked of it first, and how the file is written.
//!
//! The line comes from outside, and the file holds other profiles: whatever would make the file unreadable, or the profile
//! of no use, is refused before a byte is written. The new file is written beside the old one and takes its place, so
//! that there is never half of one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use super::Profile;
use crate::services::Services;
use crate::step::{self, Step, Transport};

/// Whether the profile can be knocked with. Every fault is told.
///
/// # Errors
/// What is wrong with it, without a passphrase.
pub(super) fn check(profile: &Profile) -> Result<(), String> {
    let services = Services::default();
    let mut faults = Vec::new();
    if profile.steps.is_empty() {
        faults.push("the line has no steps: ask for another one".to_owned());
    }
    for (index, step) in profile.steps.iter().enumerate() {
        if let Err(fault) = Step::parse(step.as_bytes(), Transport::Tcp, &services) {
            faults.push(format!("step {}: {fault}", index + 1));
        }
    }
    if let Some(port) = &profile.wait_port
        && let Err(problem) = step::parse_port(port, Transport::Tcp, &services)
    {
        // In Rust's escapes: it may move the cursor.
        faults.push(format!("wait-port {port:?} is no port: {}", problem.expected().escape_debug()));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\nerror: ")) }
}

/// Writes the file whole, or leaves it as it was. It is its owner's alone afterwards, for it holds passphrases; so are
/// the directories that are made for it.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder)?;
    }
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}", process::id()));
    let beside = PathBuf::from(beside);
    let written = write_beside(&beside, text).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_beside(beside: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
