//! The section `[control]` of the configuration file, parsed to typed values.
//!
//! Both processes read the file. Of the dataplane's sections, this module reads only `[dataplane] socket`, so that the
//! socket is configured once; the dataplane checks the rest. All problems are reported, not only the first. Commands
//! that evaluate packets offline read the section `[policy]`, see [`policy`].

pub mod api;
mod audit;
pub mod policy;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use knockplane_limits::input;
use nix::unistd::{Gid, Group};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::api::ApiSettings;
use crate::audit::AuditSettings;

/// Default of `--config`.
pub const DEFAULT_FILE: &str = "/etc/knockplane/knockplane.toml";

/// Default of `[control] socket`, the socket for `knockctl`.
pub const DEFAULT_SOCKET: &str = "/run/knockplane/control.sock";

/// Default of `[dataplane] socket`.
pub const DEFAULT_DATAPLANE_SOCKET: &str = "/run/knockplane/dataplane.sock";

/// Keys of `[control]`.
const KEYS: [&str; 11] = [
    "api",
    "audit",
    "audit-file-bytes",
    "audit-files",
    "audit-lists",
    "listen",
    "name-servers",
    "read-socket",
    "read-socket-group",
    "socket",
    "socket-group",
];

/// The settings of the control process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    /// TCP address for metrics and health, read-only.
    pub listen: SocketAddr,
    /// Unix socket for the whole API.
    pub socket: PathBuf,
    /// The group whose members may connect to the socket; `None` is the group of the process.
    pub socket_group: Option<Gid>,
    /// Unix socket for requests that change nothing, and the group whose members may connect to it.
    pub read_socket: Option<PathBuf>,
    /// The group whose members may connect to the read-only socket; `None` is the group of the process.
    pub read_socket_group: Option<Gid>,
    /// The API on TCP; `None` if it is off.
    pub api: Option<ApiSettings>,
    /// Name servers for host names in address lists; if empty, those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// The audit file; `None` if there is none.
    pub audit: Option<AuditSettings>,
    /// Unix socket of the dataplane.
    pub dataplane_socket: PathBuf,
}

impl Default for ControlSettings {
    fn default() -> Self {
        ControlSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 9479)),
            socket: DEFAULT_SOCKET.into(),
            socket_group: None,
            read_socket: None,
            read_socket_group: None,
            api: None,
            name_servers: Vec::new(),
            audit: None,
            dataplane_socket: DEFAULT_DATAPLANE_SOCKET.into(),
        }
    }
}

impl ControlSettings {
    /// Reads the file.
    ///
    /// # Errors
    /// All problems of the file, or that other users can change it.
    pub fn load(file: &Path) -> Result<ControlSettings, SettingsError> {
        let text = input::read_trusted_text(file, &input::CONFIGURATION).map_err(|error| {
            let remedy = if error.is_not_found() { "; write it, or name another file with --config" } else { "" };
            SettingsError { problems: vec![format!("{}: {error}{remedy}", file.display())] }
        })?;
        ControlSettings::parse(&text, file)
    }

    /// Parses the text of the file; `file` is its name in messages.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn parse(text: &str, file: &Path) -> Result<ControlSettings, SettingsError> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = SettingsReader { text, file, problems: Vec::new() };
        for error in errors {
            reader.problem(error.span().unwrap_or_default(), error.message());
        }
        let mut settings = ControlSettings::default();
        if let Some((_, section)) = entry(root.get_ref(), "control") {
            match section.get_ref() {
                DeValue::Table(table) => {
                    reader.control(table, &mut settings);
                    settings.audit = audit::read(&mut reader, table);
                }
                _ => reader.problem(section.span(), "`control` is a section: write `[control]`"),
            }
        }
        if let Some(socket) = dataplane_socket(root.get_ref()) {
            // A relative path is relative to the folder of the file, as in the dataplane.
            settings.dataplane_socket = file.parent().unwrap_or(Path::new("")).join(socket);
        }
        reader.into_result(settings)
    }
}

/// A configuration file is invalid. The text has one problem in each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The problems, each with file, line, key and remedy.
    pub problems: Vec<String>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for SettingsError {}

struct SettingsReader<'a> {
    text: &'a str,
    file: &'a Path,
    /// Problems with their lines, to sort them: a table yields its keys in alphabetical order.
    problems: Vec<(usize, String)>,
}

impl SettingsReader<'_> {
    fn control(&mut self, section: &DeTable<'_>, settings: &mut ControlSettings) {
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
                "socket-group" => match group("socket-group", value.get_ref()) {
                    Ok(group) => settings.socket_group = Some(group),
                    Err(problem) => self.problem(value.span(), problem),
                },
                "read-socket" => match value.get_ref().as_str() {
                    Some(path) if path.starts_with('/') => settings.read_socket = Some(path.into()),
                    _ => self.problem(
                        value.span(),
                        "`read-socket` is an absolute path in quotes, as \"/run/knockplane/read.sock\"",
                    ),
                },
                "read-socket-group" => match group("read-socket-group", value.get_ref()) {
                    Ok(group) => settings.read_socket_group = Some(group),
                    Err(problem) => self.problem(value.span(), problem),
                },
                "api" => match value.get_ref() {
                    DeValue::Table(table) => settings.api = self.api(table),
                    _ => self.problem(value.span(), "`api` is a section: write `[control.api]`"),
                },
                "name-servers" => match name_servers(value.get_ref()) {
                    Some(servers) => settings.name_servers = servers,
                    None => self.problem(
                        value.span(),
                        "`name-servers` are addresses in quotes, each with a port or without, as [\"192.0.2.53\", \
                         \"[2001:db8::53]:5353\"]",
                    ),
                },
                // See `audit`.
                "audit" | "audit-file-bytes" | "audit-files" | "audit-lists" => {}
                unknown => self.problem(key.span(), unknown_key("control", &KEYS, unknown)),
            }
        }
        let span = |name: &str| entry(section, name).map_or(0..0, |(_, value)| value.span());
        match &settings.read_socket {
            Some(path) if *path == settings.socket => {
                self.problem(span("read-socket"), "`read-socket` is the path of `socket`: choose another one");
            }
            None if settings.read_socket_group.is_some() => {
                self.problem(
                    span("read-socket-group"),
                    "`read-socket-group` has no effect without `read-socket`: write both",
                );
            }
            _ => {}
        }
        let is_same = |api: &ApiSettings| api.listen == settings.listen && api.listen.port() != 0;
        if settings.api.as_ref().is_some_and(is_same) {
            let address = settings.listen;
            let place = entry(section, "api").and_then(|(_, api)| entry(api.get_ref().as_table()?, "listen"));
            self.problem(
                place.map_or(0..0, |(_, value)| value.span()),
                format_args!(
                    "`listen` in [control.api] is {address}, the address of `listen` in [control], which serves metrics without \
                     authentication: choose another port"
                ),
            );
        }
    }

    fn problem(&mut self, span: Range<usize>, message: impl fmt::Display) {
        let line = 1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
        self.problems.push((line, format!("{}:{line}: {message}", self.file.display())));
    }

    fn into_result(mut self, settings: ControlSettings) -> Result<ControlSettings, SettingsError> {
        if self.problems.is_empty() {
            return Ok(settings);
        }
        self.problems.sort_by_key(|(line, _)| *line);
        Err(SettingsError { problems: self.problems.into_iter().map(|(_, problem)| problem).collect() })
    }
}

/// Parses a group: its name or its number.
///
/// # Errors
/// The problem and its remedy.
fn group(key: &str, value: &DeValue<'_>) -> Result<Gid, String> {
    if let Some(number) = value.as_integer() {
        let number = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| *number != u32::MAX);
        return number.map(Gid::from_raw).ok_or_else(|| format!("`{key}` is not the number of a group"));
    }
    let form = || format!("`{key}` is the name of a group in quotes, as \"knockplane\", or its number");
    let name = value.as_str().filter(|name| !name.is_empty()).ok_or_else(form)?;
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(format!("`{key}`: there is no group `{name}`: create it (groupadd --system {name})")),
        Err(error) => Err(format!("`{key}`: cannot look up the group `{name}`: {error}")),
    }
}

/// The message for an unknown key of a section.
fn unknown_key(section: &str, keys: &[&str], key: &str) -> String {
    if key == "dataplane-socket" {
        return "the socket of the dataplane is configured once for both processes: write `socket` in [dataplane]"
            .to_owned();
    }
    let similar = keys
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .min();
    let remedy = match similar {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!(
            "remove it; the keys are {}",
            keys.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    format!("[{section}] has no key `{key}`: {remedy}")
}

/// Parses addresses of name servers; the default port is 53. `None` if the value is anything else.
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

    fn parse(text: &str) -> Result<ControlSettings, SettingsError> {
        ControlSettings::parse(text, Path::new("knockplane.toml"))
    }

    fn problems(text: &str) -> Vec<String> {
        parse(text).expect_err("an invalid configuration").problems
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse(""), Ok(ControlSettings::default()));
    }

    #[test]
    fn the_default_file_has_each_key_and_the_defaults() {
        let text = include_str!("../../../configs/default.toml");
        let read = ControlSettings::parse(text, Path::new("/etc/knockplane/knockplane.toml"));
        assert_eq!(read, Ok(ControlSettings::default()));
        let (_, control) = text.split_once("\n[control]\n").unwrap();
        let (control, api) = control.split_once("\n[control.api]\n").unwrap();
        for (section, keys) in [(control, &KEYS[1..]), (api, &api::KEYS[..])] {
            for key in keys {
                assert!(
                    section.contains(&format!("\n{key} = ")) || section.contains(&format!("\n# {key} = ")),
                    "{key}"
                );
            }
        }
        // The examples in comments are valid.
        let shown = api.replace("\n# listen =", "\nlisten =").replace("\n# certificate =", "\ncertificate =");
        let shown = shown.replace("\n# key =", "\nkey =").replace("\n# client-ca =", "\nclient-ca =");
        let read = parse(&format!("[control.api]\n{shown}")).unwrap().api.unwrap();
        assert!(read.tls.is_some_and(|tls| tls.client_ca.is_some()) && read.tokens.is_absolute());
    }

    #[test]
    fn only_the_section_of_the_control_process_is_read() {
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
        let expected = ControlSettings {
            listen: "[::1]:80".parse().unwrap(),
            socket: "/tmp/c.sock".into(),
            socket_group: None,
            read_socket: None,
            read_socket_group: None,
            api: None,
            audit: None,
            name_servers: ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|server| server.parse().unwrap()).into(),
            dataplane_socket: "/tmp/d.sock".into(),
        };
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_group_has_a_name_or_a_number_and_must_exist() {
        let group = |value: &str| parse(&format!("[control]\nsocket-group = {value}\n")).map(|read| read.socket_group);
        // This group exists on every system.
        assert_eq!(group("\"root\""), Ok(Some(Gid::from_raw(0))));
        assert_eq!(group("4711"), Ok(Some(Gid::from_raw(4711))));
        for (value, said) in [
            ("\"no-such-group\"", "there is no group `no-such-group`: create it (groupadd --system no-such-group)"),
            ("\"\"", "is the name of a group in quotes"),
            ("[1]", "is the name of a group in quotes"),
            ("-1", "is not the number of a group"),
            ("4294967295", "is not the number of a group"),
        ] {
            let Err(SettingsError { problems }) = group(value) else { panic!("{value} is taken") };
            assert!(problems[0].starts_with("knockplane.toml:2: `socket-group`"), "{problems:?}");
            assert!(problems[0].contains(said), "{problems:?}");
        }
    }

    #[test]
    fn a_relative_dataplane_socket_is_relative_to_the_folder_of_the_file() {
        let socket = |text: &str, file: &str| ControlSettings::parse(text, Path::new(file)).unwrap().dataplane_socket;
        let text = "[dataplane]\nsocket = 'run/d.sock'";
        assert_eq!(socket(text, "/etc/knockplane/k.toml"), Path::new("/etc/knockplane/run/d.sock"));
        assert_eq!(socket(text, "k.toml"), Path::new("run/d.sock"));
        assert_eq!(socket("[dataplane]\nsocket = '/run/d.sock'", "/etc/k.toml"), Path::new("/run/d.sock"));
    }

    #[test]
    fn an_invalid_dataplane_section_is_ignored() {
        assert_eq!(parse("[dataplane]\nsocket = 7"), Ok(ControlSettings::default()));
        assert_eq!(parse("dataplane = 7"), Ok(ControlSettings::default()));
    }

    #[test]
    fn each_problem_is_reported_with_its_line_and_a_remedy() {
        let text = "[control]\nlisten = \"9479\"\n\nlisen = \"127.0.0.1:1\"\nsocket = 'here'\ncolour = 1\n";
        assert_eq!(
            problems(text),
            [
                "knockplane.toml:2: `listen` is an address and a port in quotes, as \"127.0.0.1:9479\"",
                "knockplane.toml:4: [control] has no key `lisen`: did you mean `listen`?",
                "knockplane.toml:5: `socket` is an absolute path in quotes, as \"/run/knockplane/control.sock\"",
                "knockplane.toml:6: [control] has no key `colour`: remove it; the keys are `api`, `audit`, `audit-file-bytes`, \
                 `audit-files`, `audit-lists`, `listen`, `name-servers`, `read-socket`, `read-socket-group`, `socket`, `socket-group`",
            ]
            .map(str::to_owned)
            .to_vec()
        );
    }

    #[test]
    fn the_error_for_dataplane_socket_names_its_section() {
        let problems = problems("[control]\ndataplane-socket = '/run/x'\n");
        assert!(problems[0].contains("write `socket` in [dataplane]"), "{problems:?}");
    }

    #[test]
    fn a_section_of_another_type_and_broken_toml_have_a_line() {
        assert_eq!(problems("control = 1"), ["knockplane.toml:1: `control` is a section: write `[control]`"]);
        assert!(problems("\n[control\n")[0].starts_with("knockplane.toml:2: "));
    }

    #[test]
    fn the_error_for_a_missing_file_has_a_remedy() {
        let error = ControlSettings::load(Path::new("/nonexistent/knockplane.toml")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/knockplane.toml") && error.contains("--config"), "{error}");
    }
}
