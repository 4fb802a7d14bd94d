//! The OpenAPI document of `/api/v1`, made from the table of routes and the schemas of the types.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::OnceLock;

use axum::http::header;
use axum::response::IntoResponse;
use knockplane_policy::rsc::Problem;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::failure::ErrorBody;
use super::routes::{self, Endpoint};

/// The place of the schemas in the document.
const SCHEMAS: &str = "/components/schemas";

/// The begin of a reference to a schema.
const REFERENCE: &str = "#/components/schemas/";

/// `GET /api/v1/openapi.json`.
pub(super) async fn page() -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}

/// The document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let failure = generator.subschema_for::<ErrorBody<Vec<Problem>>>();
    let mut paths = Map::new();
    for endpoint in routes::table() {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_ascii_lowercase()] = operation(&endpoint, &mut generator, &failure);
    }
    let schemas = generator.take_definitions(true);
    let names = short_names(&schemas);
    let schemas: Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (names[&name].clone(), schema)).collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "knockplane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of knockplane-control. docs/api.md describes how to switch it on.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "https://127.0.0.1:9480" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `knockctl token new`. Requests at a unix socket need none.",
                },
            },
            "schemas": schemas,
        },
    });
    renamed(document, &names)
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator, failure: &Schema) -> Value {
    let Endpoint { method, path, role, about, query, body, answer, media_type, .. } = endpoint;
    let named = path.trim_start_matches("/api/v1/").replace(['/', '.'], "-").replace(['{', '}'], "");
    let mut operation = json!({
        "operationId": format!("{}-{named}", method.as_str().to_ascii_lowercase()),
        "summary": about,
        "description": format!("Needs the role `{role}`."),
        "x-role": role.name(),
        "responses": {
            "default": {
                "description": "The request failed.",
                "content": { "application/json": { "schema": failure } },
            },
        },
    });
    let mut parameters: Vec<Value> = path.split('/').filter_map(parameter_of_path).collect();
    if let Some(query) = query {
        parameters.extend(parameters_of_query(Value::from(query(generator))));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body {
        let schema = body(generator);
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    match answer {
        Some(answer) => {
            let schema = answer(generator);
            operation["responses"]["200"] =
                json!({ "description": "The answer.", "content": { *media_type: { "schema": schema } } });
        }
        None => operation["responses"]["204"] = json!({ "description": "Done." }),
    }
    operation
}

/// The parameter of a segment `{name}`.
fn parameter_of_path(segment: &str) -> Option<Value> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let schema = match name {
        "number" | "id" => json!({ "type": "integer", "minimum": 0 }),
        _ => json!({ "type": "string" }),
    };
    Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
}

/// The members of an object as parameters.
fn parameters_of_query(mut object: Value) -> Vec<Value> {
    let required = object["required"].take();
    let is_required = |name: &str| required.as_array().is_some_and(|names| names.iter().any(|known| known == name));
    let members = match object["properties"].take() {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let parameter = |(name, mut schema): (String, Value)| {
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let required = is_required(&name);
        let mut parameter = json!({ "name": name, "in": "query", "required": required, "schema": schema });
        if let Some(about) = about {
            parameter["description"] = about;
        }
        parameter
    };
    members.into_iter().map(parameter).collect()
}

/// The names of the schemas in the document by those of the types: as in docs/schema, without the suffix, and with a number if two
/// types would have one name.
fn short_names(schemas: &Map<String, Value>) -> BTreeMap<String, String> {
    let (mut names, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for name in schemas.keys() {
        let short = name.strip_suffix("Json").unwrap_or(name);
        let numbered = (2..).map(|number| format!("{short}{number}"));
        let free = iter::once(short.to_owned()).chain(numbered).find(|candidate| !taken.contains(candidate));
        let free = free.unwrap_or_else(|| name.clone());
        taken.insert(free.clone());
        names.insert(name.clone(), free);
    }
    names
}

/// Gives the references these names.
fn renamed(value: Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(members) => {
            let member = |(key, value): (String, Value)| match value {
                Value::String(target) if key == "$ref" => {
                    let name = target.strip_prefix(REFERENCE).and_then(|name| names.get(name));
                    (key, name.map_or(target.clone(), |name| format!("{REFERENCE}{name}")).into())
                }
                value => (key, renamed(value, names)),
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| renamed(item, names)).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
