//! Patterns over payloads: passphrases as in `configs/passphrases.rsc`, of which the last matches, and an unanchored word that
//! does not occur in a full packet.

use std::hint::black_box;

use knockplane_engine::state::layer7::Patterns;

use super::{BATCH, Workload};

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    let passphrases = [1, 10, 100].map(|count| {
        let prepare = move || {
            let patterns = (1..=count).map(|number| format!("^supersecretpassword{number}$")).collect();
            work(patterns, format!("supersecretpassword{count}").into_bytes(), Some(count - 1))
        };
        Workload::new(format!("layer7/{count}-passphrases"), prepare)
    });
    let anywhere = || work(vec!["secret.?knock".to_owned()], b"letters ".repeat(175), None);
    passphrases.into_iter().chain([Workload::new("layer7/anywhere-in-1400-bytes".to_owned(), anywhere)]).collect()
}

/// Matches each payload of a batch against all patterns. The matching pattern is known.
fn work(regexps: Vec<String>, payload: Vec<u8>, matches: Option<usize>) -> impl FnMut() {
    let regexps: Vec<&str> = regexps.iter().map(String::as_str).collect();
    let patterns = Patterns::compile(&regexps).unwrap_or_else(|errors| panic!("{errors:?}"));
    let found = patterns.alone(&payload);
    assert!((0..regexps.len()).all(|pattern| found.contains(pattern) == (Some(pattern) == matches)));
    move || {
        for _ in 0..BATCH {
            black_box(patterns.alone(black_box(&payload)));
        }
    }
}
