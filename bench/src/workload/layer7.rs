//! Patterns over payloads: passphrases as in `configs/passphrases.rsc`, of which the last matches, and a word anywhere
//! in a full packet, which is not there.

use std::hint::black_box;

use knockplane_engine::layer7::{Pattern, Scratch};
use knockplane_policy::rule::Layer7Pattern;

use super::{BATCH, Workload};

pub(super) fn workloads<'a>() -> Vec<Workload<'a>> {
    let passphrases = [1, 10, 100].map(|count| {
        let prepare = move || {
            let patterns = (1..=count).map(|number| format!("^supersecretpassword{number}$")).map(compile).collect();
            work(patterns, format!("supersecretpassword{count}").into_bytes(), true)
        };
        Workload::new(format!("layer7/{count}-passphrases"), prepare)
    });
    let anywhere = || work(vec![compile("secret.?knock".to_owned())], b"letters ".repeat(175), false);
    passphrases.into_iter().chain([Workload::new("layer7/anywhere-in-1400-bytes".to_owned(), anywhere)]).collect()
}

/// A batch of payloads, each tried with all patterns; the last one's answer is known.
fn work(patterns: Vec<Pattern>, payload: Vec<u8>, found: bool) -> impl FnMut() {
    let mut scratch = Scratch::default();
    let mut matches = move || {
        scratch.clear();
        let payload = black_box(&payload);
        patterns.iter().fold(false, |_, pattern| black_box(pattern.matches(scratch.buffer(payload))))
    };
    assert_eq!(matches(), found);
    move || {
        for _ in 0..BATCH {
            black_box(matches());
        }
    }
}

fn compile(regexp: String) -> Pattern {
    let pattern = Layer7Pattern { name: "knock".to_owned(), regexp, comment: String::new(), line: 0 };
    Pattern::compile(&pattern).unwrap_or_else(|error| panic!("{}: {error}", pattern.regexp))
}
