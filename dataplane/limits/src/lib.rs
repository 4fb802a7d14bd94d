//! The limits of all programs for files, connections and waits, each defined once.
//!
//! | module          | owns |
//! |-----------------|------|
//! | [`input`]       | the number of bytes that are read of a file or of standard input |
//! | [`trust`]       | files that no other user can change |
//! | [`admission`]   | which connections a listener keeps, and which one it closes for a new one |
//! | [`refusal`]     | the reasons for which connections are refused or closed, and their counts |
//! | [`descriptors`] | the number of files that the process may have open |
//! | [`predecessor`] | how long to wait for another process that holds a resource, and its name |
//! | `usage`         | resources of the host that the process uses (feature `usage`) |
//!
//! The crate reads files and queries the kernel for limits. It opens no socket, and only `predecessor` reads the clock.
//! `docs/limits.md` is the manual.

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
