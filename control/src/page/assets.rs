//! The files of `control/page`. A release build contains them, and compresses each once. A debug build reads them from the source
//! folder at each request, so that a change needs no build.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "page/"]
struct Files;

/// A file.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) content_type: &'static str,
    /// A hash of the content, in quotes.
    pub(super) etag: String,
    pub(super) content: Bytes,
    /// The content in gzip form.
    pub(super) compressed: Bytes,
}

/// The file with this name. `None` if there is none.
pub(super) fn find(name: &str) -> Option<Arc<Asset>> {
    static PREPARED: Mutex<Option<HashMap<String, Arc<Asset>>>> = Mutex::new(None);
    if cfg!(debug_assertions) {
        return read(name).map(Arc::new);
    }
    let mut prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
    let prepared = prepared.get_or_insert_with(|| {
        Files::iter().filter_map(|name| Some((name.to_string(), Arc::new(read(&name)?)))).collect()
    });
    prepared.get(name).cloned()
}

fn read(name: &str) -> Option<Asset> {
    let content_type = content_type(name)?;
    let file = Files::get(name)?;
    let content = Bytes::from(file.data.into_owned());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // A write to memory does not fail.
    encoder.write_all(&content).ok()?;
    let compressed = encoder.finish().ok()?.into();
    let etag = format!("\"{}\"", HEXLOWER.encode(&file.metadata.sha256_hash()[..16]));
    Some(Asset { content_type, etag, content, compressed })
}

/// The media type of a file; `None` if the page has no such files.
fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use knockplane_policy::rsc;
    use knockplane_policy::rule::MENUS;

    use super::*;

    /// The names of all files.
    fn names() -> Vec<String> {
        Files::iter().map(|name| name.to_string()).filter(|name| !name.ends_with(".md")).collect()
    }

    #[test]
    fn all_files_together_are_small() {
        let total: usize = names().iter().filter_map(|name| read(name)).map(|asset| asset.compressed.len()).sum();
        assert!((10_000..150_000).contains(&total), "{total} bytes");
    }

    #[test]
    fn no_script_makes_markup_or_code_from_text_and_no_file_names_another_host() {
        for name in names().iter().filter(|name| !name.starts_with("vendor/")) {
            let text =
                String::from_utf8(read(name).unwrap_or_else(|| panic!("{name} has no type")).content.to_vec()).unwrap();
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"]
            {
                assert!(!text.contains(word), "{name} has {word}");
            }
            for word in [" style=", "<style", " onclick=", "javascript:"] {
                assert!(!text.contains(word), "{name} has {word}");
            }
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("\"//"), "{name}");
        }
    }

    /// The texts of an array of a script, which begins with these words.
    fn texts(script: &str, begin: &str) -> BTreeSet<String> {
        let (_, rest) = script.split_once(begin).unwrap_or_else(|| panic!("{begin}"));
        let (array, _) = rest.split_once(']').expect("the end of the array");
        let texts: Vec<_> = array.split('\'').skip(1).step_by(2).collect();
        let different: BTreeSet<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(texts.len(), different.len(), "{begin}: nothing is there twice");
        different
    }

    #[test]
    fn the_form_suggests_the_properties_and_actions_of_rules_that_run() {
        let form = read("js/rules/form.js").expect("the form");
        let form = str::from_utf8(&form.content).expect("a text");
        let rules =
            rsc::reference().into_iter().find(|menu| menu.menus.contains(&MENUS[0].2)).expect("the menu of rules");
        let runs = rules.properties.iter().filter(|property| property.is_run).map(|property| property.name.to_owned());
        assert_eq!(texts(form, "const NAMES = ["), runs.collect());
        let actions = rules.actions.iter().map(|action| action.name.to_owned());
        assert_eq!(texts(form, "  action: ["), actions.collect());
    }

    #[test]
    fn files_outside_of_the_folder_are_not_found() {
        for name in ["../Cargo.toml", "js/../../Cargo.toml", "README.md", "", "js", "/etc/passwd"] {
            assert!(find(name).is_none(), "{name}");
        }
        assert!(find("index.html").is_some());
    }
}
