use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::{env, fs};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::api::failure::ErrorCode;
use crate::api::{App, whole};
use crate::dataplane::Dataplane;
use crate::metrics::Metrics;
use crate::names::Resolver;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");

/// The documented methods and paths.
fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let of_path = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.to_ascii_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.flat_map(of_path).collect()
}

#[test]
fn the_document_in_the_documentation_is_that_of_the_code() {
    let document = document();
    if env::var_os("UPDATE").is_some() {
        fs::write(FILE, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
    }
    let stored = serde_json::from_str::<Value>(&fs::read_to_string(FILE).unwrap_or_default()).unwrap_or_default();
    assert!(stored == document, "docs/openapi.json: renew it with\nUPDATE=1 cargo test -p knockplane-control schema");
}

/// The schema test of the command above renews these tables, too.
#[test]
fn the_schema_tables_of_the_page_are_those_of_the_code() {
    let mut routes = "| method | path | role | request |\n|---|---|---|---|\n".to_owned();
    for endpoint in routes::table() {
        let Endpoint { method, path, role, about, .. } = endpoint;
        writeln!(routes, "| {method} | `{path}` | {role} | {about} |").unwrap();
    }
    let mut codes = "| code | status | meaning |\n|---|---|---|\n".to_owned();
    for (_, name, status, about) in ErrorCode::ALL {
        writeln!(codes, "| `{name}` | {status} | {} |", about.trim()).unwrap();
    }
    let page = fs::read_to_string(PAGE).unwrap();
    let mut renewed = page.clone();
    for (name, table) in [("routes", routes), ("codes", codes)] {
        let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- end of {name} -->\n"));
        let (before, rest) = renewed.split_once(&begin).expect("the begin of the table");
        let (_, after) = rest.split_once(&end).expect("the end of the table");
        renewed = format!("{before}{begin}{table}{end}{after}");
    }
    if env::var_os("UPDATE").is_some() {
        fs::write(PAGE, &renewed).unwrap();
    } else {
        assert!(page == renewed, "docs/api.md: renew it with\nUPDATE=1 cargo test -p knockplane-control schema");
    }
}

/// No other place of the API adds a route, so the document has all of them.
#[tokio::test]
async fn each_route_of_the_router_is_in_the_document_and_vice_versa() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_table = path.ends_with("routes.rs") || path.ends_with("sweep.rs");
        assert!(is_table || !own.contains(".route(\"/api"), "{} has a route that is not in the table", path.display());
    }
    let document = document();
    let known = documented(&document);
    let table: BTreeSet<_> =
        routes::table().iter().map(|endpoint| (endpoint.method.to_string(), endpoint.path.to_owned())).collect();
    assert_eq!(known, table);
    let app = App::new(Dataplane::new("/nonexistent/dataplane.sock"), Resolver::default(), Metrics::default());
    let router = whole(app.into());
    for path in known.iter().map(|(_, path)| path).collect::<BTreeSet<_>>() {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            let uri: String = path.replace("{number}", "1").replace("{id}", "1").replace(['{', '}'], "");
            let request = Request::builder().method(&method).uri(&uri).body(Body::empty()).unwrap();
            let answer = router.clone().oneshot(request).await.unwrap();
            let is_known = known.contains(&(method.to_string(), path.clone()));
            let status = answer.status();
            assert_eq!(status != StatusCode::METHOD_NOT_ALLOWED, is_known, "{method} {path}");
            assert_ne!(status, StatusCode::NOT_FOUND, "{method} {path}");
            if !is_known {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("a failure in JSON");
                assert_eq!(body["code"], "method-not-allowed");
            }
        }
    }
}

#[test]
fn two_types_never_have_one_name() {
    let schemas = json!({ "List": 1, "ListJson": 2, "List2": 3, "DoorJson": 4 });
    let names = short_names(schemas.as_object().unwrap());
    assert_eq!(names.values().collect::<BTreeSet<_>>().len(), 4, "{names:?}");
    assert_eq!((names["List"].as_str(), names["DoorJson"].as_str()), ("List", "Door"));
    let used = renamed(json!({ "items": [{ "$ref": "#/components/schemas/ListJson" }] }), &names);
    assert_eq!(used["items"][0]["$ref"], format!("{REFERENCE}{}", names["ListJson"]));
}

#[test]
fn each_schema_is_valid_and_complete() {
    let document = document();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
        assert!(!reference.ends_with("Json"), "{reference}");
    }
    let events = &document["paths"]["/api/v1/events"]["get"]["responses"]["200"]["content"];
    assert!(events["text/event-stream"]["schema"].is_object(), "{events}");
    let mut ids = BTreeSet::new();
    for (method, path) in documented(&document) {
        let operation = &document["paths"][&path][method.to_ascii_lowercase()];
        assert!(ids.insert(operation["operationId"].to_string()), "{operation}");
        for status in ["200", "default"] {
            let content = operation["responses"][status]["content"].as_object();
            for media in content.into_iter().flat_map(|content| content.values()) {
                let schema = &media["schema"];
                let whole = json!({ "allOf": [schema], "components": document["components"] });
                jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            }
        }
        let placeholders = path.matches('{').count();
        let parameters =
            operation["parameters"].as_array().map_or(0, |all| all.iter().filter(|one| one["in"] == "path").count());
        assert_eq!(placeholders, parameters, "{path}");
    }
}

fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| match value {
            Value::String(target) if key == "$ref" => into.push(target.clone()),
            value => collect(value, into),
        }),
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        _ => {}
    }
}
