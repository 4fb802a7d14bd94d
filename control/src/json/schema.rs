//! Generates the schemas of all documents in `docs/schema/`, and compares the files with them.
//!
//! `UPDATE=1 cargo test -p knockplane-control schema` writes the files again.

use std::collections::BTreeMap;
use std::{env, fs};

use schemars::{JsonSchema, Schema, schema_for};
use serde_json::Value;

use super::{
    Document, ErrorDocument, changes, connections, doctor, doors, events, history, links, lists, rules, source, status,
    tokens, top,
};
use crate::{check, cli, explain, plan};

/// The schema with definitions that are named after the objects of the contract: without the suffix of the types.
fn without_suffix(schema: Schema) -> Schema {
    fn name(text: &str) -> String {
        text.strip_suffix("Json").unwrap_or(text).to_owned()
    }
    fn walk(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let member = |(key, value): (String, Value)| match (key.as_str(), value) {
                    ("$ref", Value::String(target)) => (key, name(&target).into()),
                    ("$defs", Value::Object(definitions)) => {
                        let definitions = definitions.into_iter().map(|(key, value)| (name(&key), walk(value)));
                        (key, Value::Object(definitions.collect()))
                    }
                    (_, value) => (key, walk(value)),
                };
                Value::Object(members.into_iter().map(member).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(walk).collect()),
            other => other,
        }
    }
    walk(schema.into()).try_into().expect("a schema without a suffix is a schema")
}

/// The schema of each file in `docs/schema/`, without `.json`.
fn schemas() -> BTreeMap<&'static str, Schema> {
    fn of<T: JsonSchema>(title: &str) -> Schema {
        let mut schema = without_suffix(schema_for!(Document<T>));
        schema.insert("title".to_owned(), title.into());
        schema
    }
    let mut schemas = BTreeMap::from([
        ("apply", of::<changes::AppliedJson>("knockctl --json apply")),
        ("history", of::<history::HistoryJson>("knockctl --json history")),
        ("diff", of::<history::DiffJson>("knockctl --json diff")),
        ("cancel", of::<changes::CancelledJson>("knockctl --json cancel")),
        ("confirm", of::<changes::ConfirmedJson>("knockctl --json confirm")),
        ("check", of::<check::Checked>("knockctl --json check")),
        ("doctor", of::<doctor::DoctorJson>("knockctl --json doctor")),
        ("event", of::<events::EventJson>("a line of knockctl --json monitor")),
        ("explain", of::<explain::Single>("knockctl --json explain PACKET")),
        ("explain-pcap", of::<cli::All>("knockctl --json explain --pcap FILE")),
        ("explain-source", of::<source::SourceJson>("knockctl --json explain-source")),
        ("export", of::<rules::ExportedJson>("knockctl --json export")),
        ("import", of::<cli::ImportedDoors>("knockctl --json import")),
        ("list-add", of::<changes::AddedJson>("knockctl --json list add")),
        ("list-flush", of::<changes::FlushedJson>("knockctl --json list flush")),
        ("list-import", of::<changes::ImportedJson>("knockctl --json list import")),
        ("list-remove", of::<changes::RemovedJson>("knockctl --json list remove")),
        ("page", of::<links::NewLinkJson>("knockctl --json page")),
        ("page-sign-out", of::<links::LinkSessionsEndedJson>("knockctl --json page --sign-out")),
        ("plan", of::<plan::Plan>("knockctl --json plan")),
        ("reload", of::<changes::ReloadedJson>("knockctl --json reload")),
        ("rule-reset-counters", of::<changes::CountersResetJson>("knockctl --json rule reset-counters")),
        ("replay", of::<cli::ReplayReport>("knockctl --json replay")),
        ("show-connections", of::<connections::ConnectionsJson>("knockctl --json show connections")),
        ("show-doors", of::<doors::DoorsJson>("knockctl --json show doors")),
        ("show-lists", of::<lists::ListsJson>("knockctl --json show lists, knockctl --json list show")),
        ("show-rules", of::<rules::RulesJson>("knockctl --json show rules")),
        ("show-status", of::<status::StatusJson>("knockctl --json show status")),
        ("show-workers", of::<status::WorkersJson>("knockctl --json show workers")),
        ("top", of::<top::TopJson>("knockctl --json top")),
        ("connection-remove", of::<connections::EndedJson>("knockctl --json connection remove")),
        ("show-connections-count", of::<connections::ConnectionTotalsJson>("knockctl --json show connections --count")),
        ("trace", of::<cli::TracedJson>("a line of knockctl --json trace")),
        ("test", of::<cli::Reports>("knockctl --json test")),
        ("token-list", of::<tokens::TokensJson>("knockctl --json token list")),
        ("token-new", of::<tokens::NewTokenJson>("knockctl --json token new")),
        ("token-revoke", of::<tokens::TokenRevokedJson>("knockctl --json token revoke")),
    ]);
    let mut failure = without_suffix(schema_for!(ErrorDocument));
    failure.insert("title".to_owned(), "knockctl --json, when a command fails without an answer".into());
    schemas.insert("error", failure);
    schemas
}

fn folder() -> std::path::PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema").into()
}

#[test]
fn the_schemas_in_the_documentation_are_those_of_the_types() {
    let folder = folder();
    let schemas = schemas();
    if env::var_os("UPDATE").is_some() {
        for (name, schema) in &schemas {
            let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
            fs::write(folder.join(name).with_extension("json"), text).unwrap();
        }
    }
    let renew = "renew it with\nUPDATE=1 cargo test -p knockplane-control schema";
    for (name, schema) in &schemas {
        let text = fs::read_to_string(folder.join(name).with_extension("json")).unwrap_or_default();
        let same = serde_json::from_str::<Schema>(&text).is_ok_and(|stored| stored == *schema);
        assert!(same, "docs/schema/{name}.json is not what the types say: {renew}");
    }
    let page = include_str!("../../../docs/json.md");
    for file in fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(schemas.contains_key(name.trim_end_matches(".json")), "docs/schema/{name} is of no command: remove it");
        assert!(page.contains(&format!("(schema/{name})")), "docs/json.md does not name schema/{name}");
    }
}

/// Fails unless the text is a document of this schema.
pub(crate) fn assert_valid(name: &str, text: &str) {
    let schema = serde_json::to_value(&schemas()[name]).unwrap();
    let document = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(&document).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{text}");
}
