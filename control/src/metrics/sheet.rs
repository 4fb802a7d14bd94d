//! The metric families of one scrape, over the library's registry. Names get the prefix `knockplane_`, except the
//! standard ones of the process that is scraped.

use std::ops::Deref;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

/// Two registries that are filled once, rendered and dropped.
pub(super) struct Sheet {
    prefixed: SheetPart,
    bare: SheetPart,
}

/// The families that have a prefix, or those that have none.
pub(super) struct SheetPart(Registry);

impl Default for Sheet {
    fn default() -> Self {
        let prefixed = SheetPart(valid(Registry::new_custom(Some("knockplane".to_owned()), None)));
        Sheet { prefixed, bare: SheetPart(Registry::new()) }
    }
}

impl Sheet {
    /// The registry whose names get the prefix.
    pub(super) fn prefixed(&self) -> &SheetPart {
        &self.prefixed
    }

    /// The registry whose names stay unchanged.
    pub(super) fn bare(&self) -> &SheetPart {
        &self.bare
    }

    /// All families in the order of their names, those with the prefix first.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.prefixed.0.gather();
        families.extend(self.bare.0.gather());
        families
    }

    /// The text format.
    pub(super) fn text(&self) -> String {
        valid(TextEncoder::new().encode_to_string(&self.families()))
    }
}

impl Deref for Sheet {
    type Target = SheetPart;

    fn deref(&self) -> &SheetPart {
        &self.prefixed
    }
}

impl SheetPart {
    /// A counter of events or items.
    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let family = valid(IntCounterVec::new(Opts::new(name, help), labels));
        self.register(&family);
        family
    }

    /// A counter of seconds.
    pub(super) fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        let family = valid(CounterVec::new(Opts::new(name, help), labels));
        self.register(&family);
        family
    }

    /// A value that can increase and decrease.
    pub(super) fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let family = valid(GaugeVec::new(Opts::new(name, help), labels));
        self.register(&family);
        family
    }

    /// A counter without labels.
    pub(super) fn count(&self, name: &str, help: &str, value: u64) {
        self.counter(name, help, &[]).with_label_values::<&str>(&[]).inc_by(value);
    }

    /// A gauge without labels.
    pub(super) fn value(&self, name: &str, help: &str, value: f64) {
        self.gauge(name, help, &[]).with_label_values::<&str>(&[]).set(value);
    }

    /// A gauge without labels that is 1 or 0.
    pub(super) fn flag(&self, name: &str, help: &str, is_set: bool) {
        self.value(name, help, flag(is_set));
    }

    /// A family that outlives this sheet.
    pub(super) fn register<C: Collector + Clone + 'static>(&self, family: &C) {
        valid(self.0.register(Box::new(family.clone())));
    }
}

/// The value of a gauge that is 1 or 0.
pub(super) fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

/// The library checks only names. All names are literals, and a test renders all of them.
pub(super) fn valid<T>(result: prometheus::Result<T>) -> T {
    result.expect("metric names are valid and used once")
}
