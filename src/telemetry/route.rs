//! Facts about one route's connections, messages and generations.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, SharedString};
use tracing::debug;

use super::about::{About, line};
use super::connections::{CLOSES, CONNECTIONS, DUPLICATE, LEAVES, MESSAGES, QUEUED};
use super::definitions::{self, Configured};
use super::generations::{
    CHUNK_GAP, DURATION, Duplicate, FIRST_CHUNK, GENERATIONS, GenerationEnd, NOT_TRACKED,
    duplicates_caught,
};
use crate::protocol::{ChannelName, CloseReason, ErrorCode, PathPattern};

/// By path pattern. As many as there were in any config of this process, like the series themselves.
static ROUTES: LazyLock<RwLock<HashMap<Box<str>, Arc<RouteFacts>>>> =
    LazyLock::new(RwLock::default);

/// The handles of one route, made once; a route that is replaced by one of the same path goes on counting.
pub struct RouteFacts {
    path: Box<str>,
    connections: Gauge,
    /// By who ended them and why.
    closes: Vec<(&'static str, &'static str, Counter)>,
    queued: Counter,
    duplicates: Counter,
    /// In the order of [`ErrorCode::ALL`].
    refused: [Counter; ErrorCode::ALL.len()],
    /// In the order of [`GenerationEnd::LABELS`].
    generations: Vec<(Counter, Histogram)>,
    first_chunk: Histogram,
    chunk_gap: Histogram,
    not_tracked: Counter,
}

impl RouteFacts {
    /// Those of the route at `path`; from the first call on, its series are in each scrape.
    pub fn of(path: &PathPattern) -> Arc<Self> {
        let known =
            ROUTES.read().unwrap_or_else(PoisonError::into_inner).get(path.as_str()).cloned();
        known.unwrap_or_else(|| {
            let mut routes = ROUTES.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Self::new(path.as_str()));
            Arc::clone(routes.entry(path.as_str().into()).or_insert_with(new))
        })
    }

    pub(super) fn new(path: &str) -> Self {
        definitions::begin_configured(Configured::Route, path);
        let route = SharedString::from(path.to_owned());
        let message = |outcome: &'static str| MESSAGES.at([route.clone(), outcome.into()]);
        let generation = |outcome: &'static str| {
            let series = [route.clone(), outcome.into()];
            (GENERATIONS.at(series.clone()), DURATION.at(series))
        };
        let close = |(by, reason): (&'static str, &'static str)| {
            (by, reason, CLOSES.at([route.clone(), by.into(), reason.into()]))
        };
        let by_gateway = CloseReason::LABELS.map(|reason| ("gateway", reason));
        let by_client = LEAVES.iter().map(|reason| ("client", *reason));
        let by_server = [("server", CloseReason::Disconnected.label())];
        Self {
            path: path.into(),
            connections: CONNECTIONS.at([route.clone()]),
            closes: by_client.chain(by_gateway).chain(by_server).map(close).collect(),
            queued: message(QUEUED),
            duplicates: message(DUPLICATE),
            refused: ErrorCode::LABELS.map(message),
            generations: GenerationEnd::LABELS.iter().map(|end| generation(end)).collect(),
            first_chunk: FIRST_CHUNK.at([route.clone()]),
            chunk_gap: CHUNK_GAP.at([route.clone()]),
            not_tracked: GENERATIONS.at([route.clone(), NOT_TRACKED.into()]),
        }
    }

    /// An admitted client's session begins.
    pub fn opened(&self, about: About<'_>) {
        self.connections.increment(1);
        let route = &*self.path;
        line!(debug, about, event = "connection_opened", route, "connection opened");
    }

    /// It is over.
    pub fn closed(&self, about: About<'_>, by: &'static str, code: u16, reason: &'static str) {
        self.connections.decrement(1);
        let closes = self.closes.iter().find(|close| (close.0, close.1) == (by, reason));
        debug_assert!(closes.is_some(), "closed by {by}, {reason}");
        if let Some((_, _, closes)) = closes {
            closes.increment(1);
        }
        let route = &*self.path;
        line!(
            info,
            about,
            event = "connection_closed",
            route,
            by,
            code,
            reason,
            "connection closed"
        );
    }

    /// An upstream took a message.
    pub fn message_queued(&self, about: About<'_>, task_id: Option<&str>) {
        self.queued.increment(1);
        line!(debug, about, event = "message_queued", task_id, "an upstream took a message");
    }

    /// A message was answered with an error; `id` is the client's own name for it.
    pub fn message_refused(&self, about: About<'_>, code: ErrorCode, id: Option<&str>) {
        self.refused[code as usize].increment(1);
        let (code, message_id) = (code.label(), id);
        line!(debug, about, event = "message_refused", code, message_id, "a message was refused");
    }

    /// A message that had been relayed before was answered and not relayed again.
    pub fn duplicate_caught(&self, about: About<'_>, message_id: &str, task_id: &str) {
        self.duplicates.increment(1);
        duplicates_caught(Duplicate::Message, 1);
        line!(
            debug,
            about,
            event = "message_repeated",
            message_id,
            task_id,
            "a message that had been relayed before was answered as it was then"
        );
    }

    /// A generation is relayed and not tracked: as many as can be are tracked already.
    pub fn not_tracked(&self) {
        self.not_tracked.increment(1);
    }

    /// The reply to a message that came then has ended.
    pub fn generation_ended(
        &self,
        channel: &ChannelName,
        end: GenerationEnd,
        asked: Instant,
        task_id: &str,
    ) {
        let (count, duration) = &self.generations[end as usize];
        count.increment(1);
        duration.record(asked.elapsed());
        let (route, outcome) = (&*self.path, end.label());
        let channel = channel.as_str();
        debug!(event = "generation_ended", channel, route, outcome, task_id, "a reply has ended");
    }

    /// See [`super::pace::Pace`].
    pub(super) fn first_chunk_came(&self, after: Duration) {
        self.first_chunk.record(after);
    }

    pub(super) fn chunk_followed(&self, after: Duration) {
        self.chunk_gap.record(after);
    }
}
