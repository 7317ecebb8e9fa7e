//! What a metric is: its name, kind, meaning, labels and buckets, written once.
//!
//! Each area defines its metrics with [`metrics!`], in front of the functions that count them. What the recorder
//! describes, the series that exist from the start and the page docs/metrics.md follow from these definitions.
//! Nothing else names a metric, so a metric cannot be counted under a name or with labels that are not defined.

use std::marker::PhantomData;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};

/// One metric.
#[derive(Debug)]
pub(super) struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    /// The text of its comment, with the leading space.
    pub help: &'static str,
    pub labels: &'static [(&'static str, Values)],
    pub appears: Appears,
}

/// From when on the series of a metric are in scrapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appears {
    /// From when the values of their labels are known, with the value 0.
    Early,
    /// From when they are first counted.
    Late,
    /// Always: they are read for each scrape.
    Read,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// The upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The possible values of a label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// One of these words.
    Words(&'static [&'static [&'static str]]),
    /// A name from the config.
    Configured(Configured),
    /// A value that is known when the gateway is built or started; the text describes it.
    Fixed(&'static str),
}

/// What a name from the config stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Configured {
    /// A route; the name is its path pattern.
    Route,
    Upstream,
    /// A connection to Redis; the name is the key of its URL.
    Redis,
}

pub(super) const ROUTE: Values = Values::Configured(Configured::Route);
pub(super) const UPSTREAM: Values = Values::Configured(Configured::Upstream);
pub(super) const REDIS: Values = Values::Configured(Configured::Redis);

pub(super) const fn words(lists: &'static [&'static [&'static str]]) -> Values {
    Values::Words(lists)
}

/// Defines the metrics of an area, and lists them as `METRICS`:
///
/// ```text
/// metrics! {
///     /// The help text, on the reference page and in each scrape.
///     NAME = counter "tidegate_name_total" [route: ROUTE, outcome: words(&[Outcome::LABELS])];
///     OTHER = histogram "tidegate_other_seconds" in buckets::REQUEST;
/// }
/// ```
///
/// A final `late` keeps the series out of scrapes until they are counted. A final `read` marks a metric that is
/// read for each scrape.
macro_rules! metrics {
    ($(
        $(#[doc = $help:literal])+
        $name:ident = $kind:ident $metric:literal
        $([$($label:ident: $values:expr),+ $(,)?])? $(in $buckets:expr)? $(, $appears:ident)?;
    )+) => {
        $(
            $(#[doc = $help])+
            pub(super) static $name: $crate::telemetry::definitions::Family<
                $crate::telemetry::definitions::metrics!(@type $kind),
                { <[&str]>::len(&[$($(stringify!($label)),+)?]) },
            > = $crate::telemetry::definitions::Family::new(
                $crate::telemetry::definitions::Definition {
                    name: $metric,
                    kind: $crate::telemetry::definitions::metrics!(@kind $kind $($buckets)?),
                    help: concat!($($help),+),
                    labels: &[$($((stringify!($label), $values)),+)?],
                    appears: $crate::telemetry::definitions::metrics!(@appears $($appears)?),
                },
            );
        )+
        pub(super) static METRICS: &[&$crate::telemetry::definitions::Definition] =
            &[$(&$name.definition),+];
    };
    (@type counter) => { ::metrics::Counter };
    (@type gauge) => { ::metrics::Gauge };
    (@type histogram) => { ::metrics::Histogram };
    (@kind counter) => { $crate::telemetry::definitions::Kind::Counter };
    (@kind gauge) => { $crate::telemetry::definitions::Kind::Gauge };
    (@kind histogram $buckets:expr) => { $crate::telemetry::definitions::Kind::Histogram($buckets) };
    (@appears) => { $crate::telemetry::definitions::Appears::Early };
    (@appears late) => { $crate::telemetry::definitions::Appears::Late };
    (@appears read) => { $crate::telemetry::definitions::Appears::Read };
}
pub(super) use metrics;

/// A defined metric of the kind `K` with `N` labels.
pub(super) struct Family<K, const N: usize> {
    pub definition: Definition,
    kind: PhantomData<fn() -> K>,
}

impl<K: Instrument, const N: usize> Family<K, N> {
    pub const fn new(definition: Definition) -> Self {
        Self { definition, kind: PhantomData }
    }

    /// The series with these values, in the order of the labels. This is a look-up: whatever is counted for each
    /// publication or message keeps the handle.
    pub fn at<V: Into<SharedString>>(&self, values: [V; N]) -> K {
        let values = values.map(Into::into);
        for ((label, known), value) in self.definition.labels.iter().zip(&values) {
            debug_assert!(known.contains(value), "{}: {label}={value:?}", self.definition.name);
        }
        let labels = self.definition.labels.iter().zip(values);
        let labels = labels.map(|((label, _), value)| Label::new(*label, value)).collect();
        self.definition.register(labels)
    }
}

impl<K: Instrument> Family<K, 0> {
    /// The only series of a metric without labels.
    pub fn get(&self) -> K {
        self.definition.register(Vec::new())
    }

    /// Adds a metric that is read for each scrape to the page.
    pub fn write(&self, page: &mut String, value: f64) {
        let (name, kind) = (self.definition.name, self.definition.kind.name());
        let help = self.definition.help();
        page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"));
    }
}

impl Definition {
    pub fn help(&self) -> &'static str {
        self.help.trim()
    }

    fn register<K: Instrument>(&self, labels: Vec<Label>) -> K {
        let key = Key::from_parts(self.name, labels);
        metrics::with_recorder(|recorder| K::register(recorder, &key))
    }

    /// Registers all series whose label values are known: from the definition alone, or with the name that
    /// `configured` gives to a route, an upstream or a Redis.
    fn register_series(&self, configured: Option<(Configured, &SharedString)>) {
        let mut needed = self.labels.iter().filter_map(|(_, values)| match values {
            Values::Configured(what) => Some(*what),
            Values::Words(_) | Values::Fixed(_) => None,
        });
        let fixed = self.labels.iter().any(|(_, values)| matches!(values, Values::Fixed(_)));
        if self.appears != Appears::Early
            || fixed
            || !needed.by_ref().eq(configured.map(|(what, _)| what))
        {
            return;
        }
        let mut series = vec![Vec::new()];
        for (label, values) in self.labels {
            let values: Vec<SharedString> = match values {
                Values::Words(lists) => lists.concat().into_iter().map(Into::into).collect(),
                _ => configured.map(|(_, name)| name.clone()).into_iter().collect(),
            };
            series = series
                .iter()
                .flat_map(|labels: &Vec<Label>| {
                    values.iter().map(|value| {
                        let label = Label::new(*label, value.clone());
                        labels.iter().cloned().chain([label]).collect()
                    })
                })
                .collect();
        }
        for labels in series {
            match self.kind {
                Kind::Counter => drop(self.register::<Counter>(labels)),
                Kind::Gauge => drop(self.register::<Gauge>(labels)),
                Kind::Histogram(_) => drop(self.register::<Histogram>(labels)),
            }
        }
    }
}

/// Registers the series of these metrics that do not depend on the configuration: from now on, they are in each
/// scrape.
pub(super) fn register(metrics: &[&Definition]) {
    metrics.iter().for_each(|metric| metric.register_series(None));
}

/// Registers the series of these metrics that belong to a route, an upstream or a Redis of the configuration.
/// Repeating it changes nothing.
pub(super) fn register_configured(metrics: &[&Definition], what: Configured, name: &str) {
    let name = SharedString::from(name.to_owned());
    metrics.iter().for_each(|metric| metric.register_series(Some((what, &name))));
}

/// Whole milliseconds, for log fields.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Values {
    fn contains(self, value: &str) -> bool {
        match self {
            Self::Words(lists) => lists.iter().any(|list| list.contains(&value)),
            Self::Configured(_) | Self::Fixed(_) => true,
        }
    }
}

/// A counter, gauge or histogram.
pub(super) trait Instrument {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self;
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl Instrument for Counter {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_counter(key, &METADATA)
    }
}

impl Instrument for Gauge {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_gauge(key, &METADATA)
    }
}

impl Instrument for Histogram {
    fn register(recorder: &dyn Recorder, key: &Key) -> Self {
        recorder.register_histogram(key, &METADATA)
    }
}

/// Upper bounds, in seconds.
pub(super) mod buckets {
    /// From a hand-over within the process to a stalled thread.
    pub const DELIVERY: &[f64] = &[
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
        2.5, 5.0, 10.0,
    ];

    /// From an answer on the same host to a long timeout.
    pub const REQUEST: &[f64] = &[
        0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        30.0, 60.0,
    ];

    /// From a cached answer to a slow model.
    pub const FIRST_CHUNK: &[f64] =
        &[0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0];

    /// From chunks that arrive together to a slow tool call.
    pub const CHUNK_GAP: &[f64] =
        &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

    /// From a short answer to the longest `max_duration`.
    pub const GENERATION: &[f64] =
        &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
}
