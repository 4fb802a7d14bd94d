//! Writes man pages and completions of all programs, generated from their command lines: `manual FOLDER`.
//!
//! `make install` runs it. In the folder it writes `man/man1`, `man/man8`, and `bash`, `zsh` and `fish`, with the file
//! names that each shell expects.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Command, Parser};
use clap_complete::Shell;
use clap_mangen::Man;

#[derive(Parser)]
struct Arguments {
    /// The target folder
    folder: PathBuf,
}

/// A program and its section of the manual: 1 for users, 8 for daemons.
fn programs() -> [(Command, u8); 4] {
    [
        (knockplane_control::cli::command(), 1),
        (knocker::command(), 1),
        (knockplane_control::daemon::command(), 8),
        (knockplane_dataplane::command(), 8),
    ]
}

fn main() -> anyhow::Result<()> {
    let Arguments { folder } = Arguments::parse();
    for (command, section) in programs() {
        manual(&folder.join(format!("man/man{section}")), &command, section)?;
        completions(&folder, command)?;
    }
    Ok(())
}

/// A page for a program, and one for each of its subcommands: `knockctl-show-rules.1`.
fn manual(folder: &Path, command: &Command, section: u8) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut command = command.clone();
    command.build();
    let mut page = |command: &Command, name: &str| -> io::Result<()> {
        let date = concat!("knockplane ", env!("CARGO_PKG_VERSION"));
        // Its title is `knockctl-show-rules`, as `build` names subcommands.
        let man = Man::new(command.clone()).section(section.to_string()).source(date).manual("knockplane");
        let mut text = Vec::new();
        man.render(&mut text)?;
        fs::write(folder.join(format!("{name}.{section}")), text)
    };
    pages(&command, command.get_name(), &mut page).with_context(|| folder.display().to_string())
}

fn pages(command: &Command, name: &str, page: &mut impl FnMut(&Command, &str) -> io::Result<()>) -> io::Result<()> {
    page(command, name)?;
    for subcommand in command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        pages(subcommand, &format!("{name}-{}", subcommand.get_name()), page)?;
    }
    Ok(())
}

fn completions(folder: &Path, mut command: Command) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let folder = folder.join(shell.to_string());
        fs::create_dir_all(&folder)?;
        let file = match shell {
            Shell::Bash => name.clone(),
            Shell::Zsh => format!("_{name}"),
            _ => format!("{name}.fish"),
        };
        // The script of knockctl asks it for words, so that it completes the names of the running filter.
        let text = match name.as_str() {
            "knockctl" => knockplane_control::cli::completion_script(&shell.to_string())?,
            _ => {
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut command, &name, &mut text);
                text
            }
        };
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}
