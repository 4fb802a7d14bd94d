//! The exit codes of all programs.

/// The exit code of a program. Scripts and service managers depend on the numbers.
///
/// | code | `knockplane-dataplane`, `knockplane-control` | `knockctl` | `knocker` |
/// |------|----------------------------------------------|------------|-----------|
/// | 0    | stopped by a signal; `--check`: a start would succeed | done | done |
/// | 1    | failed | failed | failed |
/// | 2    | invalid command line | invalid command line | invalid command line or profile |
/// | 3    | invalid configuration or rules | invalid configuration or rules | |
/// | 4    | | no answer from the control process or the dataplane | |
/// | 5    | | not confirmed; `plan`: something would change | |
/// | 6    | | not possible in the present state | |
///
/// `knockplane-dataplane --doctor` and `knockctl doctor` report the state of the host: 0 the filter works, 1 it works, with
/// warnings, 3 it cannot work. With `--then`, `knocker` ends with the exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// A failure at run time.
    Runtime = 1,
    /// The command line is invalid.
    Usage = 2,
    /// A configuration file or a rule file is invalid.
    Invalid = 3,
    /// The control process or the dataplane does not answer.
    Unreachable = 4,
    /// The change needs a confirmation: `apply` would close the last way in, and the operator did not confirm that; or `plan`
    /// reports changes.
    Unconfirmed = 5,
    /// The command does not fit the present state: an apply waits for its confirmation, for example, or none does.
    Conflict = 6,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
