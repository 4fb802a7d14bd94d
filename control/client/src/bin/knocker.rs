//! The knock client: runs [`knocker::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    knocker::main()
}
