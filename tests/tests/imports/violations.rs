//! The checks find violations: small crates with one planted violation each.

use std::fs;
use std::path::{Path, PathBuf};

use crate::rules::{Layer, against_layers, cycles};
use crate::source::Crate;

const LAYERS: [Layer; 2] =
    [Layer { module: "top", may_import: &["bottom"] }, Layer { module: "bottom", may_import: &[] }];

/// Writes a crate of these files, by name and content, and reads it. `name` is unique among the tests.
fn read(name: &str, files: &[(&str, &str)]) -> (PathBuf, Crate) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("imports").join(name);
    for (file, content) in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the file");
        fs::write(path, content).expect("the file is written");
    }
    let source = Crate::read(&folder.join("lib.rs")).expect("the crate is read");
    (folder, source)
}

/// The layer violations of a crate whose `bottom` has this content, without the folder in front of file names.
fn violations(name: &str, bottom: &str) -> Vec<String> {
    let files = [
        ("lib.rs", "pub mod bottom;\npub mod top;\npub const ITEM: u8 = 0;\n"),
        ("top/mod.rs", "use crate::bottom::B;\npub mod inner;\npub struct T(B);\n"),
        ("top/inner.rs", "pub fn f() {}\n"),
        ("bottom.rs", bottom),
    ];
    let (folder, source) = read(name, &files);
    let prefix = format!("{}/", folder.display());
    against_layers(&source, &LAYERS).into_iter().map(|line| line.replace(&prefix, "")).collect()
}

#[test]
fn imports_down_the_layers_are_allowed() {
    assert_eq!(violations("down", "pub struct B;\n"), [""; 0]);
}

#[test]
fn an_import_up_the_layers_is_found_wherever_it_is() {
    let expected = |line: u32, from: &str, path: &str| {
        vec![format!("bottom.rs:{line}: `{from}` imports `{path}`; `bottom` may import [] only")]
    };
    for (name, bottom, line, from, path) in [
        ("use", "\nuse crate::top::T;\n", 2, "bottom", "crate::top::T"),
        ("super", "use super::top::T;\n", 1, "bottom", "super::top::T"),
        ("group", "use std::{fmt, io};\nuse crate::{top::{inner::f}};\n", 2, "bottom", "crate::top::inner::f"),
        ("glob", "use crate::top::*;\n", 1, "bottom", "crate::top::*"),
        ("module", "use crate::top::{self as other};\n", 1, "bottom", "crate::top"),
        ("renamed", "use crate::top::T as Other;\n", 1, "bottom", "crate::top::T"),
        ("expression", "fn f() {\n    crate::top::inner::f();\n}\n", 2, "bottom", "crate::top::inner::f"),
        ("type", "fn f(_: Option<super::top::T>) {}\n", 1, "bottom", "super::top::T"),
        ("macro", "fn f() {\n    assert!(vec![crate::top::A].is_empty());\n}\n", 2, "bottom", "crate::top::A"),
        ("attribute", "#[cfg_attr(test, path(crate::top::T))]\nstruct S;\n", 1, "bottom", "crate::top::T"),
        ("test", "#[cfg(test)]\nmod tests {\n    use crate::top::T;\n}\n", 3, "bottom::tests", "crate::top::T"),
        ("root-item", "use crate::ITEM;\n", 1, "bottom", "crate::ITEM"),
        ("root-glob", "use super::*;\n", 1, "bottom", "super::*"),
    ] {
        assert_eq!(violations(name, bottom), expected(line, from, path), "{name}");
    }
}

#[test]
fn a_doc_link_up_the_layers_is_found() {
    let expected = "bottom.rs:2: `bottom` links to `crate::top::T`; `bottom` may import [] only";
    assert_eq!(violations("doc", "/// One line.\n/// See [T](crate::top::T).\npub struct B;\n"), [expected]);
    assert_eq!(violations("doc-inner", "//! One line.\n//! [`crate::top::T`]\n"), [expected]);
}

#[test]
fn a_module_without_a_layer_and_a_layer_without_a_module_are_found() {
    let (_, source) = read("unknown", &[("lib.rs", "mod top;\nmod other;\n"), ("top.rs", ""), ("other.rs", "")]);
    assert_eq!(against_layers(&source, &LAYERS), ["`other` is in no layer", "the layer `bottom` has no module"]);
}

/// The cycles of a crate of these files, without the folder in front of file names.
fn cycles_of(name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let (folder, source) = read(name, files);
    let prefix = format!("{}/", folder.display());
    cycles(&source).into_iter().map(|text| text.replace(&prefix, "")).collect()
}

#[test]
fn a_cycle_of_two_modules_is_found_with_both_imports() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "use crate::b::B;\npub struct A;\n"),
        ("b.rs", "\npub fn f(_: super::a::A) {}\npub struct B;\n"),
    ];
    let expected = "a → b → a\n    a.rs:1: `a` imports `crate::b::B`\n    b.rs:2: `b` imports `super::a::A`";
    assert_eq!(cycles_of("two", &files), [expected]);
}

#[test]
fn a_long_cycle_through_modules_inside_others_is_found_as_a_chain() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("a/mod.rs", "mod deep;\npub struct A;\n"),
        ("a/deep.rs", "use crate::b::B;\n"),
        ("b.rs", "use crate::c::inner::C;\npub struct B;\n"),
        ("c/mod.rs", "pub mod inner;\n"),
        ("c/inner.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\npub struct C;\n"),
    ];
    let expected = "a → b → c → a\n    a/deep.rs:1: `a::deep` imports `crate::b::B`\n    b.rs:1: `b` imports \
                    `crate::c::inner::C`\n    c/inner.rs:3: `c::inner::tests` imports `crate::a::A`";
    assert_eq!(cycles_of("long", &files), [expected]);
}

#[test]
fn a_cycle_of_siblings_deep_in_a_module_is_found() {
    let files = [
        ("lib.rs", "mod a;\n"),
        ("a/mod.rs", "mod one;\n#[path = \"two_here.rs\"]\nmod two;\n"),
        ("a/one.rs", "use super::two::f;\npub fn g() { f() }\n"),
        ("a/two_here.rs", "pub fn f() { crate::a::one::g() }\n"),
    ];
    let expected = "a::one → a::two → a::one\n    a/one.rs:1: `a::one` imports `super::two::f`\n    \
                    a/two_here.rs:1: `a::two` imports `crate::a::one::g`";
    assert_eq!(cycles_of("siblings", &files), [expected]);
}

#[test]
fn a_module_and_modules_inside_it_may_import_each_other_and_doc_links_make_no_cycle() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a/mod.rs", "mod inner;\nuse self::inner::I;\nuse crate::b::B;\npub struct A(I, B);\n"),
        ("a/inner.rs", "use super::A;\npub struct I;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"),
        ("b.rs", "/// See [`crate::a::A`].\npub struct B;\n"),
    ];
    assert_eq!(cycles_of("parent", &files), [""; 0]);
}

#[test]
fn a_module_whose_file_is_missing_is_an_error() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("imports").join("missing");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("lib.rs"), "mod nowhere;\n").expect("the file is written");
    let error = Crate::read(&folder.join("lib.rs")).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("nowhere/mod.rs cannot be read"), "{error}");
}
