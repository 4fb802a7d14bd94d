//! The knock client. See [`knocker`].

use std::process::ExitCode;

fn main() -> ExitCode {
    knocker::main()
}
