//! Replies whose node has died: those that it streamed are reported as lost, those of workers are
//! monitored here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Replies;
use super::ended_post::Post;
use super::history_mark::HistoryMark;
use super::message::MessageContext;
use super::reply_publisher::ReplyPublisher;
use super::worker_reply::{ReplyMonitor, WorkerReply, unix_ms};
use crate::config::Route;
use crate::generations::{
    CLAIM_INTERVAL, Claimed, GenerationOrigin, GenerationRecord, TrackOutcome,
};
use crate::limits::{Lease, LeaseKey, LeaseKind};
use crate::protocol::{ErrorCode, ErrorEvent};
use crate::telemetry::replies::{GenerationEnd, ReplySpans, ReplyTiming};
use crate::telemetry::route::RouteMetrics;

/// The error of a reply that a dead node streamed.
const LOST: &str = "the gateway node that relayed the reply has failed";

/// The error that is posted of a reply whose end clients have got, and the history has not.
const UNKNOWN_END: &str =
    "the gateway node that relayed the reply has failed; how it ended is not known";

/// Takes over replies of dead nodes until this node drains. One thread of a node is enough.
pub async fn run_failover(replies: Rc<Replies>) {
    let mut ticks = tokio::time::interval(CLAIM_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = replies.services.shutdown.draining() => return,
        }
        loop {
            let claimed = replies.services.generations.ledger.claim().await;
            if claimed.is_empty() {
                break;
            }
            claimed.into_iter().for_each(|claimed| adopt(&replies, claimed));
        }
    }
}

fn adopt(replies: &Rc<Replies>, claimed: Claimed) {
    let config = Arc::clone(&replies.config().config);
    let route = config.routes.iter().find(|route| route.path.as_str() == claimed.record.route);
    let leases = adopt_leases(replies, &claimed);
    match route {
        Some(route) if !claimed.record.streams => monitor(replies, route, claimed, leases),
        // This node does not know the route, and so not how long the worker may be silent.
        None if !claimed.record.streams => {
            replies.services.generations.ledger.release(&claimed.task);
        }
        _ => {
            tokio::task::spawn_local(report_lost(
                Rc::clone(replies),
                claimed,
                route.cloned(),
                leases,
            ));
        }
    }
}

/// The leases of an adopted reply, renewed and released by this node from now on.
struct AdoptedLeases {
    /// Counts the reply for its user.
    user: Option<Lease>,
    /// The channel's turn.
    turn: Option<Lease>,
}

fn adopt_leases(replies: &Replies, claimed: &Claimed) -> AdoptedLeases {
    let Claimed { record, task, .. } = claimed;
    let leases = &replies.services.leases;
    let user = record.user_lease.as_ref().and_then(|(user, holder)| {
        let key = LeaseKey { kind: LeaseKind::Generation, route: &record.route, user };
        Some(leases.hold(key, holder.parse().ok()?))
    });
    let holder = record.turn.as_ref().and_then(|holder| holder.parse().ok());
    AdoptedLeases { user, turn: holder.map(|holder| leases.hold_turn(&task.channel, holder)) }
}

/// Monitors a worker's reply from here on.
fn monitor(replies: &Rc<Replies>, route: &Arc<Route>, claimed: Claimed, leases: AdoptedLeases) {
    let generations = &replies.services.generations;
    let Claimed { task, record, cancelled } = &claimed;
    let timing = ReplyTiming::taken_over(Arc::clone(&RouteMetrics::of(&route.path).replies));
    let tracked =
        match generations.tracker.register_pending(&task.channel).adopted().track(&task.id, timing)
        {
            TrackOutcome::Tracked(tracked) => tracked,
            TrackOutcome::Ended => {
                // Dropping the mark removes it.
                let _mark = HistoryMark::adopt(&replies.history, task.clone());
                return generations.ledger.release(task);
            }
            // Another node may have room when the lease of this claim is over.
            TrackOutcome::Full => return generations.ledger.resume(&claimed).abandon(),
        };
    let origin = GenerationOrigin {
        route: route.path.as_str().into(),
        upstream: route.upstream.as_deref().unwrap_or_default().into(),
        connection: None,
        user: None,
        streams: false,
        began: received_at(route, record),
    };
    let Some(guard) = generations.running.register(task.clone(), origin) else { return };
    guard.follow(tracked.activity());
    let entry = generations.ledger.resume(&claimed);
    if *cancelled {
        guard.canceller().cancel();
    }
    let time_left = time_left(route, record);
    let received_at = received_at(route, record);
    let context = MessageContext { received_at, spans: ReplySpans::default() };
    let mark = HistoryMark::adopt(&replies.history, task.clone());
    let AdoptedLeases { user: lease, turn } = leases;
    let reply =
        WorkerReply { mark, guard, tracked, entry, lease, turn, task: None, context, queue: None };
    ReplyMonitor::new(replies, route, reply, time_left).taken_over().start();
}

/// How much longer the reply may last.
fn time_left(route: &Route, record: &GenerationRecord) -> Duration {
    let left = record.ends_ms.saturating_sub(unix_ms(Duration::ZERO));
    Duration::from_millis(left).min(route.generations.max_duration)
}

/// When another node received the message: `max_duration` before the reply must end.
fn received_at(route: &Route, record: &GenerationRecord) -> Instant {
    let now = Instant::now();
    now.checked_sub(route.generations.max_duration - time_left(route, record)).unwrap_or(now)
}

/// Ends a reply that a dead node streamed, and that nobody can continue.
async fn report_lost(
    replies: Rc<Replies>,
    claimed: Claimed,
    route: Option<Arc<Route>>,
    leases: AdoptedLeases,
) {
    let Claimed { task, cancelled: is_cancelled, record } = claimed;
    let publisher = ReplyPublisher::new(&replies.services.publisher, &task);
    let post = adopted_post(&replies, &record);
    let past = replies.reply_in_history(&task, post.as_ref().map(Post::collected)).await;
    // Its node may have published the terminal event before it died.
    let (is_over, end) = if past.has_ended {
        (true, GenerationEnd::Completed)
    } else if is_cancelled {
        (publisher.publish_cancelled(None).await.is_ok(), GenerationEnd::Cancelled)
    } else {
        let lost = ErrorEvent::new(ErrorCode::WorkerLost, LOST).task_id(&task.id).to_json();
        let published = publisher.publish_terminal(lost.clone().into()).await.is_ok();
        if let Some(post) = &post {
            post.set_end(lost.as_bytes());
        }
        (published, GenerationEnd::WorkerLost)
    };
    // If it cannot be published, the lease of this claim expires and a node takes the reply over again.
    drop(leases);
    if !is_over {
        return;
    }
    if let Some(post) = post {
        // Its node may have posted it, or may yet do so: both have the same key.
        if let Some(json) = &past.terminal {
            post.set_end(json);
        }
        let is_unknown = past.has_ended && past.terminal.is_none();
        let end = if is_unknown {
            let unknown = ErrorEvent::new(ErrorCode::WorkerLost, UNKNOWN_END).task_id(&task.id);
            post.set_end(unknown.to_json().as_bytes());
            GenerationEnd::WorkerLost
        } else {
            end
        };
        let shutdown = &replies.services.shutdown;
        let stops_after = replies.config().config.shutdown.abandon_posts_after();
        post.send(&task.id, &task.channel, end, &past.summary, shutdown, stops_after);
    }
    HistoryMark::adopt(&replies.history, task.clone()).remove().await;
    replies.services.generations.ledger.mark_lost(&task);
    if let Some(route) = route {
        let received_at = received_at(&route, &record);
        let metrics = &RouteMetrics::of(&route.path).replies;
        metrics.ended(&task.channel, end, None, received_at, &task.id);
    }
}

/// The post of a reply that a dead node streamed, if this node posts the replies of its upstream.
fn adopted_post(replies: &Replies, record: &GenerationRecord) -> Option<Post> {
    let posted = record.post.as_ref()?;
    let poster = replies.config().upstreams.reply_poster(&posted.upstream)?;
    let age = unix_ms(Duration::ZERO).saturating_sub(posted.received_ms);
    let now = Instant::now();
    let received_at = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
    Some(Post::of_record(poster, &record.route, posted.clone(), received_at))
}
