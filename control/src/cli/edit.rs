//! `knockctl edit`: the running rules in an editor, as a rule file.
//!
//! The text is the export of the running rules in a temporary file that only the user can read. It is kept whenever it
//! was changed and not applied, so that no work is lost.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::Args;
use knockplane_policy::wire::history::RevisionOrigin;
use knockplane_policy::wire::{DataplaneStatus, RunningRules};

use super::apply::{self, Applying, NewRules};
use super::check;
use super::http::Client;
use super::output::complain;
use super::question;
use super::table::printable;
use super::{Failed, decode, export, history, plan};
use crate::Exit;
use crate::check::How;
use crate::edit::with_file_lines;
use crate::running::EXPORT_HEADER;

/// The editor if the environment names none.
const EDITOR: &str = "vi";

/// The command line.
#[derive(Debug, Args)]
#[command(mut_arg("confirm", |arg| arg.default_value("60s")))]
pub(super) struct Command {
    #[command(flatten)]
    applying: Applying,
}

pub(super) async fn run(client: &Client, Command { applying }: &Command, json: bool) -> Result<String, Failed> {
    let running: RunningRules = decode(&client.get("/api/v1/rules").await?)?;
    history::check_revision(client, applying.revision(), running.revision).await?;
    let text = export::text(&running.rules, ": apply a rule file instead")?;
    let text = format!("{EXPORT_HEADER}# revision {}; lines that begin with # are comments\n{text}", running.revision);
    let file = write(&text).map_err(|error| {
        Failed::new(Exit::Runtime, format!("cannot write a file in {}: {error}", std::env::temp_dir().display()))
    })?;
    let applied = match edited(&file, &text) {
        Ok(true) => apply_file(client, applying, &file, running, json).await,
        Ok(false) => Ok("the rules are unchanged; nothing is applied\n".to_owned()),
        Err(failed) => Err(failed),
    };
    match applied {
        Err(failed) if fs::read(&file).is_ok_and(|now| now != text.as_bytes()) => Err(kept(failed, &file)),
        other => {
            // If this fails, the system removes the temporary file later.
            let _ = fs::remove_file(&file);
            other
        }
    }
}

/// Writes a new file that only this user can read.
fn write(text: &str) -> io::Result<PathBuf> {
    let mut file = tempfile::Builder::new().prefix("knockplane-").suffix(".rsc").tempfile()?;
    file.write_all(text.as_bytes())?;
    Ok(file.keep()?.1)
}

/// Runs the editor. Returns whether it changed the file.
fn edited(file: &Path, before: &str) -> Result<bool, Failed> {
    let named = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    let editor = named.into_iter().find(|editor| !editor.trim().is_empty()).unwrap_or_else(|| EDITOR.to_owned());
    let failed = |why: String| {
        let remedy = "name another editor in EDITOR";
        let message = format!("the editor `{}` {why}; nothing changed: {remedy}", printable(&editor));
        Failed { remedy: Some(remedy.to_owned()), ..Failed::new(Exit::Runtime, message) }
    };
    // The variable may have arguments, as `code --wait`.
    let mut process = Process::new("sh");
    process.arg("-c").arg(format!("{editor} \"$@\"")).arg(&editor).arg(file);
    let status = process.status().map_err(|error| failed(format!("cannot be started: {error}")))?;
    if !status.success() {
        return Err(failed(format!("failed ({status})")));
    }
    let after = fs::read(file).map_err(|error| failed(format!("left no readable file: {error}")))?;
    Ok(after != before.as_bytes())
}

/// Shows the plan, asks, and applies the file.
async fn apply_file(
    client: &Client,
    applying: &Applying,
    file: &Path,
    running: RunningRules,
    json: bool,
) -> Result<String, Failed> {
    let source = check::read(file, json)?;
    let status: DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
    let how = How { settings: &status.settings, allow_invalid: false, lints: true };
    let (rules, lints) = source.rules_and_lints(&how, json)?;
    let rules = with_file_lines(&running.rules, rules);
    complain(plan::of_running(client, &file.display().to_string(), &rules).await?);
    if !applying.force() {
        question::ask("", &apply::APPLY)?;
    }
    let new = NewRules {
        based_on: Some(running.revision),
        origin: RevisionOrigin::Edit,
        edit: "edit".to_owned(),
        ..NewRules::new(running.source, rules, lints)
    };
    apply::send(client, applying, new, &status.settings, json).await
}

/// The failure, with the name of the kept file.
fn kept(failed: Failed, file: &Path) -> Failed {
    let file = file.display();
    let remedy = format!("your text is kept in {file}: `knockctl plan {file}` and `knockctl apply {file}` use it");
    let message = format!("{}\n{remedy}", failed.message.trim_end());
    Failed { message: message.trim_start().to_owned(), remedy: Some(remedy), ..failed }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_private_and_a_failure_names_it() {
        let file = write("text\n").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).unwrap(), b"text\n");
        let failed = kept(Failed::new(Exit::Conflict, "another revision runs\n"), &file);
        assert!(matches!(failed.exit, Exit::Conflict));
        assert!(failed.message.starts_with("another revision runs\nyour text is kept in "), "{}", failed.message);
        assert!(failed.message.contains(&file.display().to_string()));
        fs::remove_file(file).unwrap();
    }
}
