//! `docs/threat-model.md` names tests. Each name exists in the source tree, and each row names one or states that there
//! is none.

use std::fs;
use std::path::{Path, PathBuf};

/// The places of tests, as the page names them, and their directories.
const PLACES: [(&str, &str); 9] = [
    ("e2e", "tests/tests/e2e"),
    ("engine", "dataplane/engine"),
    ("policy", "dataplane/policy"),
    ("ring", "dataplane/ring"),
    ("limits", "dataplane/limits"),
    ("log", "dataplane/log"),
    ("dataplane", "dataplane"),
    ("control", "control"),
    ("knocker", "control/client"),
];

/// Assertions that run in a guest: scripts, not functions.
const GUEST: &str = "tests/vm/guest/checks";

/// The first line of every table.
const HEADER: &str = "| can | cannot | shown by |";

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's directory");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).expect("the page");
    let mut wrong = Vec::new();
    let mut rows = 0;
    for cell in shown_by(&page) {
        rows += 1;
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !cell.starts_with("no test") {
            wrong.push(format!("neither a test nor \"no test\": {cell}"));
        }
        wrong.extend(names.into_iter().filter(|name| !exists(root, name)).map(|name| format!("no such test: {name}")));
    }
    assert!(rows > 0, "no table begins with {HEADER}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The last cell of each row of the tables.
fn shown_by(page: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let mut is_table = false;
    for line in page.lines() {
        is_table = line == HEADER || is_table && line.starts_with('|');
        if is_table && line != HEADER && !line.starts_with("|-") {
            cells.extend(line.trim_end_matches(" |").rsplit(" | ").next());
        }
    }
    cells
}

/// Whether a test with this name exists: a place, then the end of a module's path and a function, as in `e2e
/// doors::a_test`.
fn exists(root: &Path, name: &str) -> bool {
    let Some((place, path)) = name.split_once(' ') else { return false };
    if place == "vm" {
        return root.join(GUEST).join(format!("{path}.sh")).is_file();
    }
    let Some((_, directory)) = PLACES.iter().find(|(other, _)| *other == place) else { return false };
    let Some((module, function)) = path.rsplit_once("::") else { return false };
    let module = module.replace("::", "/");
    sources(&root.join(directory)).iter().any(|file| is_module(file, &module) && has_test(file, function))
}

/// All Rust files below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Whether the module path of the file ends with this one, with slashes.
fn is_module(file: &Path, module: &str) -> bool {
    let mut file = file.with_extension("");
    if file.ends_with("mod") {
        file.pop();
    }
    file.ends_with(module)
}

/// Whether the file has the function, with `#[test]` or `#[tokio::test]` before it.
fn has_test(file: &Path, function: &str) -> bool {
    let source = fs::read_to_string(file).expect("a source file");
    let Some((before, _)) = source.split_once(&format!("fn {function}(")) else { return false };
    before.trim_end().trim_end_matches("async").trim_end().ends_with("test]")
}
