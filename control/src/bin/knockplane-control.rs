//! The control process. See [`knockplane_control::daemon`].

use std::process::ExitCode;

fn main() -> ExitCode {
    knockplane_control::daemon::main()
}
