//! One scrape's worth of metric families, over the library's registry. All names get the prefix `knockplane_`.

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

/// A registry that is filled once, rendered and thrown away.
pub(super) struct Sheet(Registry);

impl Default for Sheet {
    fn default() -> Self {
        Sheet(valid(Registry::new_custom(Some("knockplane".to_owned()), None)))
    }
}

impl Sheet {
    /// A counter of whole things.
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

    /// A value that goes up and down.
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

    /// A family that outlives this sheet.
    pub(super) fn register<C: Collector + Clone + 'static>(&self, family: &C) {
        valid(self.0.register(Box::new(family.clone())));
    }

    /// The text format.
    pub(super) fn text(&self) -> String {
        valid(TextEncoder::new().encode_to_string(&self.0.gather()))
    }
}

/// The library's checks are about names, and ours are literals that a test renders.
pub(super) fn valid<T>(result: prometheus::Result<T>) -> T {
    result.expect("metric names are valid and used once")
}
