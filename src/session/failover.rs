//! Generations whose node is gone: replies that it streamed are reported as lost, those of workers are
//! looked after here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Services;
use super::relay::MessageContext;
use super::reply_publisher::ReplyPublisher;
use super::worker_reply::{ReplyMonitor, Running, unix_ms};
use crate::config::Route;
use crate::generations::{Begun, Claimed, Facts, SWEEP};
use crate::limits::{Lease, LeaseKey, Leased};
use crate::protocol::{ErrorCode, ErrorEvent, cancelled};
use crate::telemetry::replies::{GenerationEnd, ReplySpans, ReplyTiming};
use crate::telemetry::route::RouteMetrics;

/// Looks for them for as long as this node takes clients; one thread of a node is enough.
pub async fn failover(services: Rc<Services>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = services.shutdown.draining() => return,
        }
        loop {
            let some = services.generations.ledger.claim().await;
            if some.is_empty() {
                break;
            }
            some.into_iter().for_each(|claimed| look_after(&services, claimed));
        }
    }
}

fn look_after(services: &Rc<Services>, claimed: Claimed) {
    let terms = services.terms();
    let route = terms.config.routes.iter().find(|route| route.path.as_str() == claimed.facts.route);
    let place = place(services, &claimed);
    match route {
        Some(route) if !claimed.facts.streams => go_on(services, route, claimed, place),
        // Nobody here knows how long it may be silent; it ends as it would have.
        None if !claimed.facts.streams => services.generations.ledger.release(&claimed.task),
        _ => {
            tokio::task::spawn_local(report(Rc::clone(services), claimed, route.cloned()));
        }
    }
}

/// Its user's, from now on held by this node.
fn place(services: &Rc<Services>, claimed: &Claimed) -> Option<Lease> {
    let (user, holder) = claimed.facts.place.as_ref()?;
    let holder = holder.parse().ok()?;
    let key = LeaseKey { of: Leased::Generation, route: &claimed.facts.route, user };
    Some(services.leases.hold(key, holder))
}

fn go_on(services: &Rc<Services>, route: &Arc<Route>, claimed: Claimed, place: Option<Lease>) {
    let generations = &services.generations;
    let Claimed { task, facts, cancelled } = &claimed;
    let timing = ReplyTiming::taken_over(Arc::clone(&RouteMetrics::of(&route.path).replies));
    let tracked = match generations.tracker.register_pending(&task.channel).begin(&task.id, timing)
    {
        Begun::Running(tracked) => tracked,
        Begun::Over => return generations.ledger.release(task),
        // Another node may have room when its lease is over.
        Begun::Full => return generations.ledger.resume(&claimed).abandon(),
    };
    let Some(run) = generations.running.begin(task.clone()) else { return };
    let entry = generations.ledger.resume(&claimed);
    if *cancelled {
        run.canceller().cancel();
    }
    let left = left(route, facts);
    let context = MessageContext { received_at: asked(route, facts), spans: ReplySpans::default() };
    let running = Running { run, tracked, entry, place, context };
    ReplyMonitor::new(services, route, running, left).start(false);
}

/// How much longer it may run.
fn left(route: &Route, facts: &Facts) -> Duration {
    let left = facts.ends_ms.saturating_sub(unix_ms(Duration::ZERO));
    Duration::from_millis(left).min(route.generations.max_duration)
}

/// When its message was taken, on another node: as long before its latest end as it may run.
fn asked(route: &Route, facts: &Facts) -> Instant {
    let now = Instant::now();
    now.checked_sub(route.generations.max_duration - left(route, facts)).unwrap_or(now)
}

/// A reply that its node streamed, and nobody can go on with.
async fn report(services: Rc<Services>, claimed: Claimed, route: Option<Arc<Route>>) {
    let Claimed { task, cancelled: wanted, facts } = claimed;
    let (end, json) = if wanted {
        (GenerationEnd::Cancelled, cancelled(&task.id))
    } else {
        let text = "the gateway that relayed the reply is gone";
        let lost = ErrorEvent::new(ErrorCode::WorkerLost, text).task_id(&task.id);
        (GenerationEnd::WorkerLost, lost.to_json())
    };
    // Where it cannot be said, the lease ends, and it is taken over again.
    if ReplyPublisher::new(&services.publisher, &task).say_last(json.into()).await.is_ok() {
        let _or_it_expires = services.history.generation_ended(&task.channel, &task.id).await;
        services.generations.ledger.bury(&task);
        if let Some(route) = route {
            let asked = asked(&route, &facts);
            RouteMetrics::of(&route.path).replies.ended(&task.channel, end, asked, &task.id);
        }
    }
}
