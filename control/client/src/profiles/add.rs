//! Adds a shared profile to the file: the checks before, and the write.
//!
//! The line comes from another user, and the file holds other profiles: a line is refused before the write if it would make
//! the file invalid or the profile unusable. The new file is written beside the old one and then replaces it, so that the
//! file is complete at any time.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use super::Profile;
use crate::services::Services;
use crate::step::{self, KnockStep};
use crate::transport::Transport;

/// Checks that the profile can be used for a knock.
///
/// # Errors
/// All faults of the profile, without its passphrases.
pub(super) fn check(profile: &Profile) -> Result<(), String> {
    let services = Services::default();
    let mut faults = Vec::new();
    if profile.steps.is_empty() {
        faults.push("the line has no steps: ask its sender for another one".to_owned());
    }
    for (index, step) in profile.steps.iter().enumerate() {
        if let Err(fault) = KnockStep::parse(step.as_bytes(), Transport::Tcp, &services) {
            faults.push(format!("step {}: {fault}", index + 1));
        }
    }
    if let Some(port) = &profile.wait_port
        && let Err(problem) = step::parse_port(port, Transport::Tcp, &services)
    {
        // Escaped, because it may contain control characters of the terminal.
        faults.push(format!("wait-port {port:?} is not a port: {}", problem.expected().escape_debug()));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\nerror: ")) }
}

/// Writes the whole file, or leaves it unchanged. The file and the directories that are created for it are then accessible to
/// their owner only, because it holds passphrases.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    // A symbolic link stays: its target is replaced.
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
