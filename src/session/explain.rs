//! What this thread knows of a connection, a user or a channel: its sessions in full, and its recent errors.

use std::time::{Duration, Instant};

use super::{Services, Session};
use crate::clock;
use crate::config;
use crate::control::{
    Concerning, ConnectionDetails, Details, ErrorRow, Gathering, InboxStatus, LocalLimitStatus,
    Part, QueueStatus, Target, truncate,
};
use crate::limits::{LimitStatus, UserLimit};
use crate::protocol::PERMESSAGE_DEFLATE;
use crate::telemetry::messages::LocalLimit;
use crate::telemetry::recent_errors::{self, ErrorScope, RecentError};

impl Services {
    /// Describes the open sessions of a target, and returns how many it has.
    pub(super) async fn details(&self, query: &Details) -> (Part<ConnectionDetails>, u64) {
        let (mut rows, mut matching) = (Gathering::new(query.limit), 0);
        self.registry
            .for_each(|session| {
                let id = session.client.connection_id;
                if !session.is_target(&query.target) || !session.socket.is_open() {
                    return;
                }
                matching += 1;
                if rows.offer(&id) {
                    rows.add(session.details());
                }
            })
            .await;
        (rows.finish(), matching)
    }

    /// The latest errors that concern a target, or the replies on one of the channels.
    pub(super) fn recent_errors(&self, query: &Concerning) -> Part<ErrorRow> {
        let found = recent_errors::find(|error| concerns(error, query));
        let mut rows = Gathering::new(query.limit);
        for error in found {
            rows.add(row(error, self.control.node()));
        }
        rows.finish()
    }
}

fn concerns(error: &RecentError, query: &Concerning) -> bool {
    // What became of a reply concerns everybody on its channel.
    if error.scope == ErrorScope::Reply {
        return error.channel.as_ref().is_some_and(|channel| query.has_channel(channel));
    }
    match &query.target {
        Target::User(user) => error.user.as_ref() == Some(user),
        Target::Connection(id) => error.connection == Some(*id),
        Target::Channel(channel) => error.channel.as_ref() == Some(channel),
    }
}

fn row(error: RecentError, node: &str) -> ErrorRow {
    ErrorRow {
        at_ms: u64::try_from(error.at.as_millis()).unwrap_or(u64::MAX),
        node: node.into(),
        number: error.number,
        about: error.scope.label().into(),
        code: error.code.into(),
        connection_id: error.connection,
        user_id: error.user,
        channel: error.channel,
        task_id: error.task,
    }
}

impl Session {
    fn details(&self) -> ConnectionDetails {
        let (elapsed, unix_now) = (self.services.now(), clock::since_unix_epoch());
        let client = &self.client;
        let route = client.route.borrow();
        let left = self.time_left(Instant::now(), unix_now);
        let queue = self.socket.queue();
        let last = self.last_position();
        let is_replaying = self.is_replaying.get();
        let written = self.socket.written_up_to(last).filter(|_| !is_replaying);
        let config = self.services.config();
        let of_address = self.services.addresses.statuses(self.network(), &config.config);
        ConnectionDetails {
            row: self.row(self.services.control.node(), elapsed, unix_now),
            origin: client.origin().map(truncate),
            credentials: client.credentials.get().label().into(),
            closes_at: left.map(|left| (unix_now + left).as_secs()),
            upstream: route.upstream.as_deref().map(Into::into),
            send_queue: QueueStatus {
                messages: queue.messages as u64,
                bytes: queue.bytes as u64,
                max_messages: queue.limits.messages as u64,
                max_bytes: queue.limits.bytes as u64,
                since: queue.since,
                is_held: queue.is_held,
            },
            inbox: InboxStatus {
                waiting: self.waiting_messages() as u64,
                bytes: self.bytes_in_progress() as u64,
                is_relaying: self.is_relaying(),
            },
            is_replaying,
            began_after: self.socket.began_after().map(Into::into),
            written_up_to: written.map(Into::into),
            compression: self.socket.window().map(|_| PERMESSAGE_DEFLATE.into()),
            is_present: client.channel.is_some()
                && route.presence != config::Presence::Off
                && self.is_subscribed.get(),
            memory_bytes: self.held_bytes() as u64,
            limits: self.local_limits().into_iter().chain(of_address).map(local_status).collect(),
            limit_params: UserLimit::params_of(&route.limits, &client.params),
        }
    }
}

fn local_status((limit, status): (LocalLimit, LimitStatus)) -> LocalLimitStatus {
    let LimitStatus { max, used, retry_after, reset_after } = status;
    let seconds = |time: Duration| time.as_millis().div_ceil(1000) as u64;
    LocalLimitStatus {
        limit: limit.label().into(),
        max,
        used,
        remaining: max.saturating_sub(used),
        retry_after: seconds(retry_after),
        reset_after: seconds(reset_after),
    }
}
