//! What the programs take in at most, stated once for all of them.
//!
//! | module          | owns |
//! |-----------------|------|
//! | [`input`]       | how many bytes of a file or of standard input are read |
//! | [`trust`]       | files that nobody else can change |
//! | [`admission`]   | which connections a listener keeps, and which one gives way |
//! | [`refusal`]     | why a connection was refused or closed, and how often |
//! | [`descriptors`] | how many files the process may have open |
//! | [`predecessor`] | another process that holds a resource: how long to wait for it, and its name |
//! | `usage`         | what the process uses of the host (feature `usage`) |
//!
//! Reads files and asks the kernel for limits; opens no socket, and only `predecessor` reads the clock. `docs/limits.md` is the manual.

pub mod admission;
#[cfg(unix)]
pub mod descriptors;
pub mod input;
#[cfg(unix)]
pub mod predecessor;
pub mod refusal;
pub mod trust;
#[cfg(feature = "usage")]
pub mod usage;

#[cfg(test)]
mod tests {
    use super::input;
    use super::refusal::Refusal;

    #[test]
    fn the_manual_has_every_limit_and_every_reason() {
        let manual = include_str!("../../../docs/limits.md");
        for limit in input::ALL {
            let row = manual.lines().find(|line| line.starts_with(&format!("| {}", limit.of)));
            let most = limit.to_string();
            let most = most.split(',').next().unwrap_or_default();
            assert!(row.is_some_and(|row| row.contains(&format!("| {most}"))), "{limit}: {row:?}");
        }
        for refusal in Refusal::ALL {
            assert!(manual.contains(&format!("| `{}` | ", refusal.name())), "{refusal:?}");
        }
    }
}
