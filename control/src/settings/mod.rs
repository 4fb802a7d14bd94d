//! The section `[control]` of the configuration file, raw text to typed values, once.
//!
//! The file belongs to both processes. Of the dataplane's sections only `[dataplane] socket` is looked at, so that it
//! is stated once; whether the rest makes sense is the dataplane's business. Every problem is reported, not the first.
//! What is tried offline takes `[policy]` from it, see [`policy`].

pub mod policy;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use knockplane_limits::input;
use nix::unistd::{Gid, Group};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/knockplane/knockplane.toml";

/// Where the control process listens for `knockctl` unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/knockplane/control.sock";

/// Where the dataplane listens unless the configuration says otherwise.
pub const DEFAULT_DATAPLANE_SOCKET: &str = "/run/knockplane/dataplane.sock";

/// Keys of `[control]`.
const KEYS: [&str; 4] = ["listen", "name-servers", "socket", "socket-group"];

/// What the control process needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// TCP address for metrics and health, read-only.
    pub listen: SocketAddr,
    /// Unix socket for the whole API.
    pub socket: PathBuf,
    /// The group whose members may connect to it; the process's own if `None`.
    pub socket_group: Option<Gid>,
    /// Name servers for host names in address lists; the system's if empty.
    pub name_servers: Vec<SocketAddr>,
    /// Unix socket of the dataplane.
    pub dataplane_socket: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 9479)),
            socket: DEFAULT_SOCKET.into(),
            socket_group: None,
            name_servers: Vec::new(),
            dataplane_socket: DEFAULT_DATAPLANE_SOCKET.into(),
        }
    }
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, or that others can change it.
    pub fn load(file: &Path) -> Result<Settings, Invalid> {
        let text = input::read_trusted_text(file, &input::CONFIGURATION).map_err(|error| {
            let remedy = if error.is_not_found() { "; write it, or name another file with --config" } else { "" };
            Invalid { problems: vec![format!("{}: {error}{remedy}", file.display())] }
        })?;
        Settings::parse(&text, file)
    }

    /// Reads the text of the file; `file` is its name for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file: &Path) -> Result<Settings, Invalid> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader { text, file, problems: Vec::new() };
        for error in errors {
            reader.problem(error.span().unwrap_or_default(), error.message());
        }
        let mut settings = Settings::default();
        if let Some((_, section)) = entry(root.get_ref(), "control") {
            match section.get_ref() {
                DeValue::Table(table) => reader.control(table, &mut settings),
                _ => reader.problem(section.span(), "`control` is a section: write `[control]`"),
            }
        }
        if let Some(socket) = dataplane_socket(root.get_ref()) {
            // As the dataplane takes it: from where the file is.
            settings.dataplane_socket = file.parent().unwrap_or(Path::new("")).join(socket);
        }
        reader.into_result(settings)
    }
}

/// Everything that is wrong with a configuration file, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Each with file, line, key and remedy.
    pub problems: Vec<String>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Invalid {}

struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
    /// With their lines: a table yields its keys in alphabetical order, people read top-down.
    problems: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn control(&mut self, section: &DeTable<'_>, settings: &mut Settings) {
        for (key, value) in section {
            match key.get_ref().as_ref() {
                "listen" => match value.get_ref().as_str().and_then(|text| text.parse().ok()) {
                    Some(address) => settings.listen = address,
                    None => {
                        let example = settings.listen;
                        self.problem(
                            value.span(),
                            format_args!("`listen` is an address and a port in quotes, as \"{example}\""),
                        );
                    }
                },
                "socket" => match value.get_ref().as_str() {
                    Some(path) if path.starts_with('/') => settings.socket = path.into(),
                    _ => self.problem(
                        value.span(),
                        format_args!("`socket` is an absolute path in quotes, as \"{DEFAULT_SOCKET}\""),
                    ),
                },
                "socket-group" => match group(value.get_ref()) {
                    Ok(group) => settings.socket_group = Some(group),
                    Err(problem) => self.problem(value.span(), problem),
                },
                "name-servers" => match name_servers(value.get_ref()) {
                    Some(servers) => settings.name_servers = servers,
                    None => self.problem(
                        value.span(),
                        "`name-servers` are addresses in quotes, each with a port or without, as [\"192.0.2.53\", \
                         \"[2001:db8::53]:5353\"]",
                    ),
                },
                unknown => self.problem(key.span(), unknown_key(unknown)),
            }
        }
    }

    fn problem(&mut self, span: Range<usize>, message: impl fmt::Display) {
        let line = 1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        self.problems.push((line, format!("{}:{line}: {message}", self.file.display())));
    }

    fn into_result(mut self, settings: Settings) -> Result<Settings, Invalid> {
        if self.problems.is_empty() {
            return Ok(settings);
        }
        self.problems.sort_by_key(|(line, _)| *line);
        Err(Invalid { problems: self.problems.into_iter().map(|(_, problem)| problem).collect() })
    }
}

/// A group by its name or its number.
///
/// # Errors
/// What is wrong with it, and what to do.
fn group(value: &DeValue<'_>) -> Result<Gid, String> {
    if let Some(number) = value.as_integer() {
        let number = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| *number != u32::MAX);
        return number.map(Gid::from_raw).ok_or_else(|| "`socket-group` is no number of a group".to_owned());
    }
    let form = "`socket-group` is the name of a group in quotes, as \"knockplane\", or its number";
    let name = value.as_str().filter(|name| !name.is_empty()).ok_or(form)?;
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("`socket-group`: there is no group `{name}`: make it (groupadd --system {name})")),
        Err(error) => Err(format!("`socket-group`: the group `{name}` cannot be looked up: {error}")),
    }
}

/// What to say of a key that `[control]` does not have.
fn unknown_key(key: &str) -> String {
    if key == "dataplane-socket" {
        return "`dataplane-socket` is stated once for both processes: write `socket` in [dataplane]".to_owned();
    }
    let similar = KEYS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .min();
    let remedy = match similar {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("remove it; the keys are {}", KEYS.map(|known| format!("`{known}`")).join(", ")),
    };
    format!("[control] has no key `{key}`: {remedy}")
}

/// Addresses of name servers; port 53 if none is written. `None` if it is anything else.
fn name_servers(value: &DeValue<'_>) -> Option<Vec<SocketAddr>> {
    const DNS: u16 = 53;
    let server = |text: &str| text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, DNS)));
    value.as_array()?.iter().map(|server_text| server(server_text.get_ref().as_str()?)).collect()
}

/// `[dataplane] socket`, if the file has it.
fn dataplane_socket<'a>(root: &'a DeTable<'_>) -> Option<&'a str> {
    let (_, section) = entry(root, "dataplane")?;
    let (_, socket) = entry(section.get_ref().as_table()?, "socket")?;
    socket.get_ref().as_str()
}

fn entry<'a, 'i>(table: &'a DeTable<'i>, name: &str) -> Option<(&'a str, &'a Spanned<DeValue<'i>>)> {
    table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)).find(|(key, _)| *key == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Invalid> {
        Settings::parse(text, Path::new("knockplane.toml"))
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text).expect_err("an invalid configuration").problems
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse(""), Ok(Settings::default()));
    }

    #[test]
    fn own_keys_are_read_and_other_sections_left_alone() {
        let text = r#"
            workers = 3
            [dataplane]
            socket = "/tmp/d.sock"
            anything = { at = "all" }
            [control]
            listen = "[::1]:80"
            name-servers = ["192.0.2.53", "[2001:db8::53]:5353"]
            socket = "/tmp/c.sock"
        "#;
        let expected = Settings {
            listen: "[::1]:80".parse().unwrap(),
            socket: "/tmp/c.sock".into(),
            socket_group: None,
            name_servers: ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|server| server.parse().unwrap()).into(),
            dataplane_socket: "/tmp/d.sock".into(),
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_group_is_named_or_numbered_and_must_exist() {
        let group = |value: &str| parse(&format!("[control]\nsocket-group = {value}\n")).map(|read| read.socket_group);
        // Debian and everybody else have this one.
        assert_eq!(group("\"root\""), Ok(Some(Gid::from_raw(0))));
        assert_eq!(group("4711"), Ok(Some(Gid::from_raw(4711))));
        for (value, said) in [
            ("\"no-such-group\"", "there is no group `no-such-group`: make it (groupadd --system no-such-group)"),
            ("\"\"", "is the name of a group in quotes"),
            ("[1]", "is the name of a group in quotes"),
            ("-1", "is no number of a group"),
            ("4294967295", "is no number of a group"),
        ] {
            let Err(Invalid { problems }) = group(value) else { panic!("{value} is taken") };
            assert!(problems[0].starts_with("knockplane.toml:2: `socket-group`"), "{problems:?}");
            assert!(problems[0].contains(said), "{problems:?}");
        }
    }

    #[test]
    fn a_relative_dataplane_socket_is_meant_from_where_the_file_is() {
        let socket = |text: &str, file: &str| Settings::parse(text, Path::new(file)).unwrap().dataplane_socket;
        let text = "[dataplane]\nsocket = 'run/d.sock'";
        assert_eq!(socket(text, "/etc/knockplane/k.toml"), Path::new("/etc/knockplane/run/d.sock"));
        assert_eq!(socket(text, "k.toml"), Path::new("run/d.sock"));
        assert_eq!(socket("[dataplane]\nsocket = '/run/d.sock'", "/etc/k.toml"), Path::new("/run/d.sock"));
    }

    #[test]
    fn a_strange_dataplane_section_is_not_our_business() {
        assert_eq!(parse("[dataplane]\nsocket = 7"), Ok(Settings::default()));
        assert_eq!(parse("dataplane = 7"), Ok(Settings::default()));
    }

    #[test]
    fn every_problem_is_reported_with_its_line_and_a_remedy() {
        let text = "[control]\nlisten = \"9479\"\n\nlisen = \"127.0.0.1:1\"\nsocket = 'here'\ncolour = 1\n";
        assert_eq!(
            problems(text),
            [
                "knockplane.toml:2: `listen` is an address and a port in quotes, as \"127.0.0.1:9479\"",
                "knockplane.toml:4: [control] has no key `lisen`: did you mean `listen`?",
                "knockplane.toml:5: `socket` is an absolute path in quotes, as \"/run/knockplane/control.sock\"",
                "knockplane.toml:6: [control] has no key `colour`: remove it; the keys are `listen`, `name-servers`, `socket`, \
                 `socket-group`",
            ]
            .map(str::to_owned)
            .to_vec()
        );
    }

    #[test]
    fn the_dataplane_socket_is_pointed_to_its_section() {
        let problems = problems("[control]\ndataplane-socket = '/run/x'\n");
        assert!(problems[0].contains("write `socket` in [dataplane]"), "{problems:?}");
    }

    #[test]
    fn a_section_of_another_type_and_broken_toml_have_a_line() {
        assert_eq!(problems("control = 1"), ["knockplane.toml:1: `control` is a section: write `[control]`"]);
        assert!(problems("\n[control\n")[0].starts_with("knockplane.toml:2: "));
    }

    #[test]
    fn a_missing_file_names_the_remedy() {
        let error = Settings::load(Path::new("/nonexistent/knockplane.toml")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/knockplane.toml") && error.contains("--config"), "{error}");
    }
}
