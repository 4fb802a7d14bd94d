//! Rates under load, candidate against candidate, in turns.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::candidate::{Kind, Role, start};
use super::lab::Lab;
use super::results::{Arrangement, Counted, Throughput};
use super::rules::Rules;
use super::window::Bench;
use crate::generator::Spec;

/// A load, and what every candidate has to be for it.
#[derive(Clone, Debug)]
pub struct Load {
    /// The name in results.
    pub name: String,
    /// The frames.
    pub spec: Spec,
    /// What is compared.
    pub counted: Counted,
    /// What candidates without rules do.
    pub role: Role,
    /// What the others run.
    pub rules: Rules,
    /// Sent once, before anything is measured: fills the lists.
    pub first: Option<Spec>,
}

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(1);
/// The windows before the first one: so many that the rate at which frames are offered has settled.
const WARM_UP: Duration = Duration::from_millis(200);
const WARM_UPS: usize = 3;

/// Starts the candidates, lets them take turns under the load, and ends them.
///
/// # Errors
/// If a candidate does not start, or a window cannot be measured.
pub fn measure(
    load: &Load,
    arrangement: Arrangement,
    kinds: &[Kind],
    windows: usize,
    mut progress: impl FnMut(Kind, usize),
) -> Result<Vec<Throughput>> {
    let labs = kinds.iter().map(|_| Lab::new(arrangement)).collect::<Result<Vec<_>>>()?;
    let mut benches = Vec::new();
    for (kind, lab) in kinds.iter().zip(&labs) {
        let candidate = start(*kind, lab, &load.rules, load.role).with_context(|| format!("{kind} does not start"))?;
        let mut bench = Bench::new(lab, candidate);
        if let Some(first) = &load.first {
            bench.window(first)?;
        }
        for _ in 0..WARM_UPS {
            bench.window(&Spec { duration: WARM_UP, ..load.spec.clone() })?;
        }
        benches.push(bench);
    }
    let mut results: Vec<Throughput> = kinds
        .iter()
        .map(|kind| Throughput {
            load: load.name.clone(),
            arrangement,
            candidate: kind.to_string(),
            counted: load.counted,
            windows: Vec::with_capacity(windows),
        })
        .collect();
    let spec = Spec { duration: WINDOW, ..load.spec.clone() };
    for window in 0..windows {
        for ((kind, bench), result) in kinds.iter().zip(&mut benches).zip(&mut results) {
            progress(*kind, window);
            result.windows.push(bench.window(&spec).with_context(|| format!("{}, {kind}", load.name))?);
        }
    }
    Ok(results)
}
