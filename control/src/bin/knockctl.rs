//! The operator's tool. See [`knockplane_control::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    knockplane_control::cli::main()
}
