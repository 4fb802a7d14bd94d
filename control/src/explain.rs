//! The explanation of the packet that a line of text describes.

use knockplane_policy::packet::Side;
use knockplane_policy::rule::RuleSet;
use knockplane_policy::settings::Settings;
use knockplane_policy::wire::KernelVerdict;
use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::{Bench, Explained, Held, KernelJson, KernelVerdictJson};
use crate::json;
use crate::running::now;

/// A packet, and the list entries after it, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Single {
    #[serde(flatten)]
    pub(crate) explained: Explained,
    pub(crate) lists: Vec<Held>,
}

/// Explains a frame that comes from this side, at the present time. `fill` adds the list entries.
///
/// # Errors
/// `fill` fails.
pub(crate) fn explain<E>(
    frame: &[u8],
    from: Side,
    rules: &RuleSet,
    settings: &Settings,
    fill: impl FnOnce(&mut Bench<'_>) -> Result<(), E>,
) -> Result<Single, E> {
    let mut bench = Bench::new(rules, settings, now());
    fill(&mut bench)?;
    let explained = bench.explain(frame, |_| from);
    Ok(Single { explained, lists: bench.lists() })
}

impl Explained {
    /// Adds what the kernel does with such frames now.
    pub(crate) fn note_kernel(&mut self, verdict: KernelVerdict) {
        let (verdict, time_left) = match verdict {
            KernelVerdict::Off => (KernelVerdictJson::Off, None),
            KernelVerdict::Carries(time_left) => (KernelVerdictJson::Carries, time_left),
            KernelVerdict::Drops => (KernelVerdictJson::Drops, None),
            KernelVerdict::Passes => (KernelVerdictJson::Passes, None),
        };
        let because = self.workers_decide.take().filter(|_| verdict == KernelVerdictJson::Passes);
        self.kernel = Some(KernelJson { verdict, time_left_seconds: time_left.map(json::seconds), because });
    }
}
