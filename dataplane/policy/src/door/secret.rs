//! Passphrases in a file that all users can read.

use std::path::Path;

use super::Door;

/// The mode bit that lets all users read a file.
const READ_BY_ALL: u32 = 0o004;

/// The warning about a file with these doors and this mode, if all users can read a passphrase in it.
pub fn exposed(doors: &[Door], file: &Path, mode: u32) -> Option<String> {
    let has_passphrase = |door: &&Door| door.knock.iter().chain(&door.close).any(|step| step.is_secret());
    let door = doors.iter().find(has_passphrase).filter(|_| mode & READ_BY_ALL != 0)?;
    let file = file.display();
    Some(format!(
        "{file} can be read by all users of this host, and so can the passphrase of door `{}`; run: chmod 600 {file}",
        door.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::tests::doors;

    #[test]
    fn only_a_passphrase_that_everybody_can_read_is_exposed() {
        let told = |steps: &str, mode| {
            let doors =
                doors(&format!(r#"[{{"name":"a","knock":["tcp/1"]}},{{"name":"b","knock":["tcp/2"],{steps}}}]"#));
            exposed(&doors, Path::new("/etc/k.toml"), mode)
        };
        let secret = r#""close":["udp/3 \"word\""]"#;
        let said = told(secret, 0o100_644).unwrap();
        assert!(said.contains("door `b`; run: chmod 600 /etc/k.toml") && !said.contains("word\""), "{said}");
        assert_eq!(told(secret, 0o100_640), None);
        assert_eq!(told(r#""close":["udp/3"]"#, 0o100_644), None);
    }
}
