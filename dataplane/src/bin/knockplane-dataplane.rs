//! The dataplane. See [`knockplane_dataplane`].

use std::process::ExitCode;

fn main() -> ExitCode {
    knockplane_dataplane::main()
}
