//! What a metric is: its name, kind, meaning, labels and buckets, written once.
//!
//! Each stage defines its metrics in front of the functions that count them, with [`metrics!`], and is
//! listed in [`STAGES`]. Everything else follows from that: what the recorder describes, which series
//! exist from the start, the page docs/metrics.md. Nothing else names a metric, so a metric cannot be
//! counted under a name or with labels that are not defined.

use std::marker::PhantomData;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};

use super::{
    admin, canary, channel_layer, connections, control, credentials, delivery, engine, generations,
    handshake, history, lifecycle, limits, listener, log, presence, process, proxy, reload, spans,
    subscription, tokens, upstream,
};

/// A headline of the reference page, with the metrics under it.
pub(super) type Stage = (&'static str, &'static [&'static Definition]);

/// All that there are.
pub(super) const STAGES: &[Stage] = &[
    ("Connections and messages", connections::METRICS),
    ("Generations", generations::METRICS),
    ("Delivery", delivery::METRICS),
    ("History", history::METRICS),
    ("Listener", listener::METRICS),
    ("Handshakes", handshake::METRICS),
    ("Tokens and JWTs", tokens::METRICS),
    ("Credentials of open connections", credentials::METRICS),
    ("Limits", limits::METRICS),
    ("Presence", presence::METRICS),
    ("Upstreams", upstream::METRICS),
    ("Proxy", proxy::METRICS),
    ("Redis", engine::METRICS),
    ("Subscription to Redis", subscription::METRICS),
    ("The node's own publications through Redis", canary::METRICS),
    ("Channel layer", channel_layer::METRICS),
    ("Server API", admin::METRICS),
    ("Orders between nodes", control::METRICS),
    ("Readiness and shutdown", lifecycle::METRICS),
    ("Reload", reload::METRICS),
    ("Log", log::METRICS),
    ("Tracing", spans::METRICS),
    ("Process", process::METRICS),
];

pub(super) fn all() -> impl Iterator<Item = &'static Definition> {
    STAGES.iter().flat_map(|(_, metrics)| *metrics).copied()
}

/// One metric.
#[derive(Debug)]
pub(super) struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    /// As it stands in the source: with the spaces of its comment.
    pub help: &'static str,
    pub labels: &'static [(&'static str, Values)],
    pub appears: Appears,
}

/// Since when a metric's series are in scrapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appears {
    /// As 0, as soon as the values of their labels are known.
    Early,
    /// When they are first counted.
    Late,
    /// Read anew for each scrape.
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

/// What a label may say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// A word of these lists.
    Words(&'static [&'static [&'static str]]),
    /// A name from the config.
    Configured(Configured),
    /// Something that is known when the gateway is built or starts; described here.
    Fixed(&'static str),
}

/// What the config names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Configured {
    /// A route, by its path pattern.
    Route,
    Upstream,
    /// A connection to Redis, by its key.
    Redis,
}

pub(super) const ROUTE: Values = Values::Configured(Configured::Route);
pub(super) const UPSTREAM: Values = Values::Configured(Configured::Upstream);
pub(super) const REDIS: Values = Values::Configured(Configured::Redis);

pub(super) const fn words(lists: &'static [&'static [&'static str]]) -> Values {
    Values::Words(lists)
}

/// Defines the metrics of a stage, and lists them as `METRICS`:
///
/// ```text
/// metrics! {
///     /// Its meaning, on the reference page and in each scrape.
///     NAME = counter "tidegate_name_total" [route: ROUTE, outcome: words(&[Outcome::LABELS])];
///     OTHER = histogram "tidegate_other_seconds" in buckets::REQUEST;
/// }
/// ```
///
/// At the end, `late` keeps its series out of scrapes until they are counted, and `read` makes it one that
/// is read for each scrape.
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

/// Defines an enum whose variants are the words of a label.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$of_variant:meta])* $variant:ident = $label:literal),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$of_variant])* $variant),+
        }

        impl $name {
            /// In the order of the variants.
            pub const LABELS: &'static [&'static str] = &[$($label),+];

            /// A stable word for logs and metrics.
            pub fn label(self) -> &'static str {
                Self::LABELS[self as usize]
            }
        }
    };
}
pub(super) use labels;

/// A defined metric that counts as `K` and has `N` labels.
pub(super) struct Family<K, const N: usize> {
    pub definition: Definition,
    kind: PhantomData<fn() -> K>,
}

impl<K: Instrument, const N: usize> Family<K, N> {
    pub const fn new(definition: Definition) -> Self {
        Self { definition, kind: PhantomData }
    }

    /// The series with these values, in the order of the labels. Looked up: what is counted for each
    /// publication or message keeps its handle.
    pub fn at<V: Into<SharedString>>(&self, values: [V; N]) -> K {
        let values = values.map(Into::into);
        for ((label, known), value) in self.definition.labels.iter().zip(&values) {
            debug_assert!(known.contain(value), "{}: {label}={value:?}", self.definition.name);
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

    /// Adds a metric that is read for each scrape to its page.
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

    /// Registers all series that `configured`, or nothing but the definition, gives values to.
    fn begin(&self, configured: Option<(Configured, &SharedString)>) {
        let mut needs = self.labels.iter().filter_map(|(_, values)| match values {
            Values::Configured(what) => Some(*what),
            Values::Words(_) | Values::Fixed(_) => None,
        });
        let fixed = self.labels.iter().any(|(_, values)| matches!(values, Values::Fixed(_)));
        if self.appears != Appears::Early
            || fixed
            || !needs.by_ref().eq(configured.map(|(what, _)| what))
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

/// From now on, all series that need nothing from the config are in each scrape.
pub(super) fn begin() {
    all().for_each(|metric| metric.begin(None));
}

/// The same of the series of a route, an upstream or a connection to Redis. May be called again.
pub(super) fn begin_configured(what: Configured, name: &str) {
    let name = SharedString::from(name.to_owned());
    all().for_each(|metric| metric.begin(Some((what, &name))));
}

impl Values {
    fn contain(self, value: &str) -> bool {
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
    /// From a hand-over inside the process to a stalled thread.
    pub const DELIVERY: &[f64] = &[
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
        2.5, 5.0, 10.0,
    ];

    /// From an answer on the same host to a patient time-out.
    pub const REQUEST: &[f64] = &[
        0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        30.0, 60.0,
    ];

    /// From a cached answer to a model that thinks.
    pub const FIRST_CHUNK: &[f64] =
        &[0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0];

    /// From chunks that come together to a tool that works.
    pub const CHUNK_GAP: &[f64] =
        &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

    /// From an answer in one piece to the longest `max_duration`.
    pub const GENERATION: &[f64] =
        &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
}
