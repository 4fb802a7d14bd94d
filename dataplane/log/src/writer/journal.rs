//! Lines for journald, with a field of the journal for each value.
//!
//! A line arrives as JSON, as `--log-format json` writes it. `MESSAGE` has the text with the values behind it, so that
//! `journalctl` shows them, and each value has a field, such as `KNOCKPLANE_DOOR`. The level is the priority.

use std::io;
use std::os::unix::net::UnixDatagram;

use libsystemd::logging::{Priority, journal_send};
use serde_json::{Map, Value};

/// The socket of journald. Source: systemd, `docs/JOURNAL_NATIVE_PROTOCOL.md`.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Before the names of fields, so that they are not fields of journald.
const PREFIX: &str = "KNOCKPLANE_";

/// Checks that journald listens.
///
/// # Errors
/// If it does not, with a remedy.
pub(crate) fn check() -> io::Result<()> {
    UnixDatagram::unbound().and_then(|socket| socket.connect(SOCKET)).map_err(|error| {
        let remedy = "start systemd-journald, or use `--log-format text` or `json`";
        io::Error::new(error.kind(), format!("journald does not listen on {SOCKET} ({error}): {remedy}"))
    })
}

/// Sends a line.
///
/// # Errors
/// If journald does not take it.
pub(super) fn send(program: &str, line: &[u8]) -> io::Result<()> {
    let (priority, message, mut fields) = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(line)) => read(line),
        // A panic, or the last message of a process that cannot start.
        _ => (Priority::Error, String::from_utf8_lossy(line).trim_end().to_owned(), Vec::new()),
    };
    fields.push(("SYSLOG_IDENTIFIER".to_owned(), program.to_owned()));
    journal_send(priority, &message, fields.into_iter()).map_err(io::Error::other)
}

/// The priority, the message and the fields of a line.
fn read(mut line: Map<String, Value>) -> (Priority, String, Vec<(String, String)>) {
    let priority = match line.get("level").and_then(Value::as_str) {
        Some("ERROR") => Priority::Error,
        Some("WARN") => Priority::Warning,
        Some("INFO") => Priority::Info,
        _ => Priority::Debug,
    };
    let Some(Value::Object(mut values)) = line.remove("fields") else { return (priority, String::new(), Vec::new()) };
    let mut message = values.remove("message").as_ref().map(text).unwrap_or_default();
    let mut fields = Vec::new();
    for (name, value) in &values {
        let value = text(value);
        let quoted = value.is_empty() || value.contains(|char: char| char.is_whitespace() || char == '"');
        message += &if quoted { format!(" {name}={value:?}") } else { format!(" {name}={value}") };
        let name: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
        fields.push((format!("{PREFIX}{}", name.to_ascii_uppercase()), value));
    }
    (priority, message, fields)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_a_field_and_behind_the_message() {
        let line = r#"{"timestamp":"t","level":"WARN","fields":{"message":"door opened","door":"my ssh","port":7,"id":"a-1"}}"#;
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { panic!("an object") };
        let (priority, message, fields) = read(line);
        assert!(matches!(priority, Priority::Warning));
        assert_eq!(message, "door opened door=\"my ssh\" id=a-1 port=7");
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(fields, [("KNOCKPLANE_DOOR", "my ssh"), ("KNOCKPLANE_ID", "a-1"), ("KNOCKPLANE_PORT", "7")]);
    }
}
