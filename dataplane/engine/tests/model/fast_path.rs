//! Models of notes: the program notes the source of a frame that goes up, and the begin of a tick ends the notes of an earlier
//! one.

#[path = "../../../ring/src/fast_path/flow.rs"]
mod flow;
#[path = "../../../ring/src/fast_path/strangers.rs"]
mod strangers;

/// Replaces `ring/src/fast_path/sync.rs`.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
}

/// Replaces `ring/src/fast_path/shared.rs`: maps with few words, which the model of the program finds by their names.
mod shared {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;

    use super::sync::{AtomicU8, AtomicU32, AtomicU64};
    use crate::program;

    #[derive(Clone)]
    pub(super) struct SharedWords {
        of_64_bits: Arc<[AtomicU64]>,
        of_32_bits: Arc<[AtomicU32]>,
        of_8_bits: Arc<[AtomicU8]>,
    }

    thread_local! {
        static MAPS: RefCell<BTreeMap<String, SharedWords>> = RefCell::default();
    }

    /// The most words: the notes of one line of sources.
    const WORDS: usize = 4;

    impl SharedWords {
        #[allow(clippy::unnecessary_wraps)]
        pub(super) fn of_map(_: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
            let words = SharedWords {
                of_64_bits: (0..WORDS.min(bytes / 8)).map(|_| AtomicU64::new(0)).collect(),
                of_32_bits: (0..4 * WORDS).map(|_| AtomicU32::new(0)).collect(),
                of_8_bits: Arc::default(),
            };
            MAPS.with_borrow_mut(|maps| maps.insert(program::opened(), words.clone()));
            Ok(words)
        }

        /// The map with this name that was opened last.
        pub(super) fn named(name: &str) -> SharedWords {
            MAPS.with_borrow(|maps| maps[name].clone())
        }

        pub(super) fn of_64_bits(&self) -> &[AtomicU64] {
            &self.of_64_bits
        }

        pub(super) fn of_32_bits(&self) -> &[AtomicU32] {
            &self.of_32_bits
        }

        pub(super) fn of_8_bits(&self) -> &[AtomicU8] {
            &self.of_8_bits
        }
    }
}

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use self::shared::SharedWords;
use self::strangers::Strangers;
use crate::{Model, SOURCE, both};

pub(super) const MODELS: [Model; 2] = [
    ("a frame that goes up while a tick begins stays noted", notes_survive_the_begin_of_a_tick),
    ("a source is noted until it is known", noted_until_known),
];

/// The tables of the program, which is in this tick.
fn tables(tick: u32) -> (Strangers, Program) {
    let tables = Strangers::open(&crate::Object, 64, 7).expect("little memory");
    tables.begin_tick(tick, 0);
    let [control, known, passed] = ["strangers", "known", "passed"].map(SharedWords::named);
    (tables, Program { control, known, passed })
}

/// The XDP program: `bpf/strangers.h`. All sources have one bit.
struct Program {
    control: SharedWords,
    known: SharedWords,
    passed: SharedWords,
}

/// The place of the tick in `struct strangers`, in words of 32 bits.
const TICK: usize = 1;

impl Program {
    fn tick(&self) -> u32 {
        self.control.of_32_bits()[TICK].load(Acquire)
    }

    fn has_note(&self) -> bool {
        self.passed.of_64_bits().iter().any(|of_tick| of_tick.load(Acquire) != 0)
    }

    /// `note_source`
    fn note(&self) {
        let of_ticks = self.passed.of_64_bits();
        let of_tick = &of_ticks[self.tick() as usize % of_ticks.len()];
        if of_tick.load(Acquire) == 0 {
            of_tick.fetch_or(1, AcqRel);
        }
    }

    /// `is_strangers`
    fn is_strangers(&self) -> bool {
        let is_known = || self.known.of_64_bits()[0].load(Acquire) != 0;
        !(self.has_note() || is_known())
    }
}

fn notes_survive_the_begin_of_a_tick() {
    let (tables, program) = tables(4);
    both(move || tables.begin_tick(5, 0), || program.note());
    assert!(program.has_note(), "the frame waits");
}

/// A frame waits since tick 1. A worker decides it, adds an entry of its source, and begins tick 5, which ends the note. The
/// program takes no later frame for a stranger's.
fn noted_until_known() {
    let (tables, program) = tables(1);
    let known = tables.known_sources();
    program.note();
    let decide = move || {
        known.add(SOURCE);
        tables.begin_tick(5, 0);
    };
    both(decide, || assert!(!program.is_strangers(), "a knock is on its way"));
}
