//! The section `[policy]` of the configuration file and its doors, for commands that evaluate packets offline. The
//! processes read the rest of the file.

use std::path::Path;

use knockplane_limits::input;
use knockplane_policy::door;
use knockplane_policy::settings::Settings;
use serde::Deserialize;
use toml::Spanned;

use super::SettingsError;

/// The parts of the file that this module reads.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    policy: Settings,
    #[serde(default, rename = "door")]
    doors: Vec<Spanned<door::Written>>,
}

/// Parses the section and the doors. The defaults apply if the file has none.
///
/// # Errors
/// The first problem.
pub fn load(file: &Path) -> Result<Settings, SettingsError> {
    let name = file.display();
    let text = input::read_text(file, &input::CONFIGURATION)
        .map_err(|error| SettingsError { problems: vec![format!("{name}: {error}")] })?;
    parse(&text, &name.to_string())
}

fn parse(text: &str, name: &str) -> Result<Settings, SettingsError> {
    let wrong = |start: usize, message: &str| {
        let line = 1 + text[..start].matches('\n').count();
        let remedy = "configs/default.toml explains every key";
        SettingsError { problems: vec![format!("{name}:{line}: {}; {remedy}", message.trim_end())] }
    };
    let file: File =
        toml::from_str(text).map_err(|error| wrong(error.span().unwrap_or_default().start, error.message()))?;
    let doors = file.doors.into_iter().map(|door| (door.span().start, door.into_inner()));
    let doors = door::placed(doors).map_err(|(start, error)| wrong(start, &error))?;
    file.policy.with_doors(doors).map_err(|error| SettingsError { problems: vec![format!("{name}: {error}")] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_policy_is_read() {
        let text = "[dataplane]\nworkers = 'what'\n[policy]\nprotect = ['192.0.2.0/24']\n[control]\nx = 1\n";
        let settings = parse(text, "k.toml").unwrap();
        assert_eq!(settings.protect, ["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(parse("", "k.toml"), Ok(Settings::default()));
    }

    #[test]
    fn doors_are_beside_the_policy_and_not_in_it() {
        let door = "[[door]]\nname = 'ssh'\nknock = ['tcp/7']\n";
        assert_eq!(parse(door, "k.toml").unwrap().doors[0].name, "ssh");
        let inside = parse(&door.replace("[[door]]", "[[policy.doors]]"), "k.toml").unwrap_err().to_string();
        assert!(inside.contains("write each door as its own `[[door]]`"), "{inside}");
        let wrong = parse(&format!("[policy]\n\n{}", door.replace("/7", "/x")), "k.toml").unwrap_err().to_string();
        assert!(wrong.starts_with("k.toml:3: door `ssh`: `knock`: step 1: `x` is not a port"), "{wrong}");
        let second = parse(&format!("{door}{}", door.replace("/7", "/x")), "k.toml").unwrap_err().to_string();
        assert!(second.starts_with("k.toml:4: door `ssh`: `knock`: step 1: `x` is not a port"), "{second}");
    }

    #[test]
    fn a_problem_has_its_line() {
        let invalid = parse("[policy]\nprotekt = []\n", "k.toml").unwrap_err().to_string();
        assert!(invalid.starts_with("k.toml:2: unknown field `protekt`"), "{invalid}");
    }
}
