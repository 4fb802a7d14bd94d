//! Checks the arrows of ARCHITECTURE.md in the sources: the layers of the engine, and that modules do not import each other in
//! cycles. Each failure names file, line and import.

mod rules;
mod source;
mod violations;

use std::path::Path;

use crate::rules::{Layer, against_layers, cycles};
use crate::source::Crate;

/// The layers of the engine, the top first.
const LAYERS: [Layer; 4] = [
    Layer { module: "pipeline", may_import: &["table", "state", "headers"] },
    Layer { module: "table", may_import: &["state"] },
    Layer { module: "state", may_import: &[] },
    Layer { module: "headers", may_import: &[] },
];

/// Reads the crate in this folder of the workspace.
fn read(folder: &str) -> Crate {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
    let source = Crate::read(&workspace.join(folder).join("src/lib.rs")).expect("sources that compile");
    assert!(source.modules.len() > 1, "{folder} has modules");
    source
}

#[test]
fn engine_imports_point_down_the_layers() {
    let violations = against_layers(&read("dataplane/engine"), &LAYERS);
    assert!(violations.is_empty(), "forbidden imports:\n{}", violations.join("\n"));
}

#[test]
fn engine_has_no_import_cycle() {
    assert_no_cycle("dataplane/engine");
}

#[test]
fn dataplane_has_no_import_cycle() {
    assert_no_cycle("dataplane");
}

#[test]
fn client_has_no_import_cycle() {
    assert_no_cycle("control/client");
}

#[track_caller]
fn assert_no_cycle(folder: &str) {
    let cycles = cycles(&read(folder));
    assert!(cycles.is_empty(), "modules of {folder} import each other in cycles:\n{}", cycles.join("\n"));
}
