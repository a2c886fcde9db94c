//! Metrics of one node. No global registry, so several nodes in one process do not mix.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::family::MetricConstructor;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Bounds of [`Scope::seconds`]: 50 µs to 30 s, about a factor of two to three apart.
pub const SECONDS_BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    30.0,
];

/// The metrics of one node; clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    registry: Registry,
    /// Handles by full name, so that a second part of the same kind counts into the same series.
    known: HashMap<String, Box<dyn Any + Send>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry; every name gets the prefix `linnet_`.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner { registry: Registry::with_prefix("linnet"), known: HashMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Registers metrics named `linnet_<service>_<what>…`. Each part calls it once, at start, and keeps the returned
    /// handles. A name that is registered again gives the same metric.
    pub fn scope<T>(&self, service: &str, register: impl FnOnce(&mut Scope<'_>) -> T) -> T {
        let Inner { registry, known } = &mut *self.inner.lock();
        register(&mut Scope { service, registry: registry.sub_registry_with_prefix(service), known })
    }

    /// The OpenMetrics text of everything registered.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.inner.lock().registry).expect("writing to a String cannot fail");
        out
    }

    /// The value of one exported series, as written in the text (`linnet_group_stored_total` or with `{labels}`).
    /// Encodes everything: for tests and operator commands.
    #[must_use]
    pub fn value(&self, series: &str) -> Option<f64> {
        self.encode().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// The sum over all label sets of one exported name; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        let text = self.encode();
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let base = series.split_once('{').map_or(series, |(base, _)| base);
            (base == name).then(|| value.parse::<f64>().ok())?
        });
        series.sum()
    }
}

/// Registers the metrics of one service.
pub struct Scope<'a> {
    service: &'a str,
    registry: &'a mut Registry,
    known: &'a mut HashMap<String, Box<dyn Any + Send>>,
}

impl Scope<'_> {
    /// A count of events; exported with `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// Counters told apart by labels from a closed set.
    pub fn counters<L: LabelSet>(&mut self, name: &str, help: &str) -> Family<L, Counter> {
        self.register(name, help, Family::default())
    }

    /// Gauges told apart by labels from a closed set.
    pub fn gauges<L: LabelSet>(&mut self, name: &str, help: &str) -> Family<L, Gauge> {
        self.register(name, help, Family::default())
    }

    /// A histogram of spans over [`SECONDS_BUCKETS`]; exported with `_seconds`.
    pub fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        self.once(name, Histogram::new(SECONDS_BUCKETS), |registry, histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram);
        })
    }

    /// Histograms of spans told apart by labels from a closed set; exported with `_seconds`.
    pub fn seconds_by<L: LabelSet>(&mut self, name: &str, help: &str) -> SecondsBy<L> {
        self.once(name, Family::new_with_constructor(Seconds), |registry, family| {
            registry.register_with_unit(name, help, Unit::Seconds, family);
        })
    }

    /// A histogram over bounds of the caller's choice (batch sizes, bytes).
    pub fn histogram(&mut self, name: &str, help: &str, bounds: impl IntoIterator<Item = f64>) -> Histogram {
        self.register(name, help, Histogram::new(bounds))
    }

    /// Registers any metric and gives back a handle to it.
    ///
    /// # Panics
    /// When the name is taken by a metric of another type: two parts of the program disagree about it.
    pub fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.once(name, metric, |registry, metric| registry.register(name, help, metric))
    }

    fn once<M: Metric + Clone>(&mut self, name: &str, metric: M, register: impl FnOnce(&mut Registry, M)) -> M {
        let full = format!("{}_{name}", self.service);
        if let Some(known) = self.known.get(&full) {
            return known.downcast_ref::<M>().expect("a metric's name stands for one type").clone();
        }
        self.known.insert(full, Box::new(metric.clone()));
        register(self.registry, metric.clone());
        metric
    }
}

/// Histograms of spans by label set.
pub type SecondsBy<L> = Family<L, Histogram, Seconds>;

/// Makes the histograms of [`Scope::seconds_by`].
#[derive(Clone, Copy, Debug)]
pub struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS_BUCKETS)
    }
}

/// What a label set must be able to do; implemented by every type that derives `EncodeLabelSet`, `Clone`, `Debug`, `Hash`
/// and `Eq`, and by arrays of name and value.
pub trait LabelSet: EncodeLabelSet + Clone + std::fmt::Debug + std::hash::Hash + Eq + Send + Sync + 'static {}
impl<L> LabelSet for L where L: EncodeLabelSet + Clone + std::fmt::Debug + std::hash::Hash + Eq + Send + Sync + 'static {}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = [(&'static str, &'static str); 1];

    #[test]
    fn exported_names_follow_the_convention() {
        let metrics = Metrics::new();
        let (sent, span) = metrics.scope("group", |scope| {
            (scope.counters::<Outcome>("sent", "messages"), scope.seconds("append", "append of a batch"))
        });
        sent.get_or_create(&[("outcome", "stored")]).inc_by(2);
        sent.get_or_create(&[("outcome", "shaped")]).inc();
        span.observe(0.003);
        assert_eq!(metrics.value("linnet_group_sent_total{outcome=\"stored\"}"), Some(2.0));
        assert_eq!(metrics.sum("linnet_group_sent_total"), 3.0);
        assert_eq!(metrics.value("linnet_group_append_seconds_count"), Some(1.0));
        assert_eq!(metrics.value("linnet_group_append_seconds_bucket{le=\"0.005\"}"), Some(1.0));
    }

    #[test]
    fn second_registration_counts_into_the_same_series() {
        let metrics = Metrics::new();
        let register = || metrics.scope("group", |scope| scope.counters::<Outcome>("sent", "messages"));
        register().get_or_create(&[("outcome", "stored")]).inc();
        register().get_or_create(&[("outcome", "stored")]).inc();
        assert_eq!(metrics.value("linnet_group_sent_total{outcome=\"stored\"}"), Some(2.0));
        assert_eq!(metrics.encode().matches("# HELP linnet_group_sent ").count(), 1);
    }

    #[test]
    fn nodes_do_not_share_metrics() {
        let (a, b) = (Metrics::new(), Metrics::new());
        a.scope("bus", |scope| scope.counter("published", "x")).inc();
        b.scope("bus", |scope| scope.counter("published", "x"));
        assert_eq!((a.sum("linnet_bus_published_total"), b.sum("linnet_bus_published_total")), (1.0, 0.0));
    }
}
