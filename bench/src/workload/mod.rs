//! The measured work of the engine, the same for time (`benches/engine.rs`) and for counted instructions
//! (`bin/instructions.rs`).
//!
//! A workload has a name of several parts (`decide/accept/4-rules/100k`) and is prepared only when it is measured. Its
//! work is the same at every start, because secrets and seeds are constant. A run does many operations (packets,
//! lookups, slots of a sweep), so that the cost of the measurement is small. Figures are for one operation.
//!
//! | module      | part of the engine |
//! |-------------|--------------------|
//! | [`headers`] | reading headers, beside etherparse |
//! | [`layer7`]  | patterns over payloads |
//! | [`lists`]   | the address lists alone, almost full and full |
//! | [`entries`] | the entries of a rule file |
//! | [`decide`]  | the whole decision, by batches |
//! | [`linear`]  | decisions by the reference evaluator, for comparison |
//! | [`tracking`] | the same with connections |
//! | [`compile`] | compilation of rules and lists |

mod compile;
mod decide;
mod entries;
mod headers;
mod layer7;
mod linear;
mod lists;
mod tracking;

pub(crate) use lists::Size;

/// Default number of operations of a run: a batch.
const BATCH: usize = knockplane_engine::pipeline::BATCH;

/// Default number of runs in sequence: some 0.1 to 1 ms.
const RUNS: u32 = 400;

/// A measured piece of work.
pub(crate) struct Workload<'a> {
    /// Operation, variant, and size of the lists.
    pub(crate) name: String,
    /// Operations of a run.
    pub(crate) operations: u32,
    /// Maximum number of runs before the state must be reset.
    pub(crate) runs: u32,
    prepare: Box<dyn Fn() -> Box<dyn Work + 'a> + 'a>,
}

impl<'a> Workload<'a> {
    /// A workload whose run is a batch, without a reset.
    fn new<W: Work + 'a>(name: String, prepare: impl Fn() -> W + 'a) -> Workload<'a> {
        let prepare = Box::new(move || Box::new(prepare()) as Box<dyn Work + 'a>);
        Workload { name, operations: BATCH as u32, runs: RUNS, prepare }
    }

    /// Prepares the work. This changes the lists that the work uses: prepare and run workloads in the order of [`all`].
    pub(crate) fn prepare(&self) -> Box<dyn Work + 'a> {
        (self.prepare)()
    }
}

/// Prepared work.
pub(crate) trait Work {
    /// Does all operations of a run once.
    fn run(&mut self);

    /// Resets the state that runs have consumed. The reset is not measured.
    fn reset(&mut self) {}
}

impl<F: FnMut()> Work for F {
    fn run(&mut self) {
        self();
    }
}

/// All workloads, with those on lists once for each size.
pub(crate) fn all(sizes: &[Size]) -> Vec<Workload<'_>> {
    let on_lists = |size| {
        let (almost_full, full) = lists::workloads(size);
        let (on_almost_full, on_full) = decide::workloads(size);
        [almost_full, on_almost_full, full, on_full].into_iter().flatten()
    };
    let alone = [
        headers::workloads(),
        layer7::workloads(),
        entries::workloads(),
        linear::workloads(),
        tracking::workloads(),
        compile::workloads(),
    ];
    alone.into_iter().flatten().chain(sizes.iter().flat_map(on_lists)).collect()
}

/// SplitMix64: the same numbers at every start, at a nanosecond each. Source: Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        (((self.number() >> 32) * u64::from(limit)) >> 32) as u32
    }
}
