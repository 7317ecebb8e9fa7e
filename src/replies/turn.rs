//! The turn of a channel whose replies run one at a time: a message takes it before it is relayed, and holds it until
//! the reply to it has ended.

use std::time::{Duration, Instant};

use super::{Refusal, RelayOutcome, Replies, Sender};
use crate::config::Concurrent;
use crate::generations::Claim;
use crate::limits::{Lease, Turn, TurnRequest};
use crate::telemetry::messages::{TurnOutcome, WaitingMessage};

/// The pauses between two requests for a turn. The pause grows, and begins again when a reply has ended.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a message that would be refused is tried again: the client may have seen the end of a reply whose turn is
/// about to be given back.
const RELEASE_DELAY: Duration = Duration::from_millis(300);

/// How long a waiting message tries to reach the engine.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the route of a message says about messages that come while a reply runs.
#[derive(Clone, Copy)]
struct Rule {
    concurrent: Concurrent,
    max_waiting: usize,
    max_waiting_per_user: usize,
}

impl Replies {
    /// Takes the turn of the sender's channel, for which the message waits if the route says so. `None` if the route
    /// relays messages at once. `claim` is renewed meanwhile.
    pub(super) async fn take_turn(
        &self,
        sender: &Sender,
        claim: Option<&Claim>,
    ) -> Result<Option<Lease>, RelayOutcome> {
        if sender.route.generations.concurrent == Concurrent::Parallel {
            return Ok(None);
        }
        // In a box, so that it takes no room where messages are relayed at once.
        let (outcome, result) = Box::pin(self.wait_for_turn(sender, claim)).await;
        sender.route_metrics.messages.turn(outcome);
        result
    }

    async fn wait_for_turn(
        &self,
        sender: &Sender,
        claim: Option<&Claim>,
    ) -> (TurnOutcome, Result<Option<Lease>, RelayOutcome>) {
        let refused = |outcome, refusal| (outcome, Err(RelayOutcome::Refused(refusal)));
        let shutdown = &self.services.shutdown;
        let request = TurnRequest::new(&self.services.limits, &sender.channel, &sender.key);
        let ends = self.services.generations.tracker.watch_ends(&sender.channel);
        let began = Instant::now();
        let (mut pause, mut answered_at, mut claimed_at) = (FIRST_PAUSE, began, began);
        let mut waiting = None;
        loop {
            let Rule { concurrent, max_waiting, max_waiting_per_user } = self.current_rule(sender);
            let max_waiting = match concurrent {
                Concurrent::Parallel => return (TurnOutcome::Reloaded, Ok(None)),
                Concurrent::Queue => max_waiting,
                Concurrent::Reject => 0,
            };
            // Half of it where nothing is configured: a channel often has two clients only.
            let share = match max_waiting_per_user {
                0 => max_waiting.div_ceil(2),
                configured => configured,
            };
            match request.take(max_waiting, share).await {
                Ok(Turn::Taken) => {
                    let holder = request.transfer();
                    let turn = self.services.leases.hold_turn(&sender.channel, holder);
                    let outcome = match waiting {
                        Some(_) => TurnOutcome::Waited,
                        None => TurnOutcome::Free,
                    };
                    return (outcome, Ok(Some(turn)));
                }
                Ok(Turn::Full) if began.elapsed() >= RELEASE_DELAY => {
                    return refused(TurnOutcome::Busy, busy(concurrent));
                }
                Ok(Turn::Waiting) if concurrent == Concurrent::Reject => {
                    // The route has let messages wait until a reload.
                    return refused(TurnOutcome::Busy, busy(concurrent));
                }
                Ok(Turn::Waiting) => {
                    answered_at = Instant::now();
                    waiting.get_or_insert_with(WaitingMessage::new);
                }
                Ok(Turn::Full) => answered_at = Instant::now(),
                Err(_) if waiting.is_none() || answered_at.elapsed() >= ENGINE_TIMEOUT => {
                    return refused(TurnOutcome::EngineDown, Refusal::LimitsUnavailable);
                }
                Err(_) => {}
            }
            if let Some(claim) = claim.filter(|claim| claimed_at.elapsed() >= claim.lease() / 3) {
                claim.renew().await;
                claimed_at = Instant::now();
            }
            let longest = if waiting.is_some() { LONGEST_PAUSE } else { FIRST_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause.min(longest)) => pause *= 2,
                () = ends.next_end() => pause = FIRST_PAUSE,
                () = shutdown.draining() => {
                    return refused(TurnOutcome::Stopping, Refusal::Stopping);
                }
            }
            pause = pause.min(LONGEST_PAUSE);
            if !sender.socket.is_open() {
                return (TurnOutcome::Left, Err(RelayOutcome::SenderLeft));
            }
        }
    }

    /// The rule of the sender's route, as it is now.
    fn current_rule(&self, sender: &Sender) -> Rule {
        let config = self.config();
        let route = config.config.routes.iter().find(|route| route.path == sender.route.path);
        let generations = &route.unwrap_or(&sender.route).generations;
        Rule {
            concurrent: generations.concurrent,
            max_waiting: generations.max_waiting,
            max_waiting_per_user: generations.max_waiting_per_user,
        }
    }
}

fn busy(concurrent: Concurrent) -> Refusal {
    match concurrent {
        Concurrent::Queue => Refusal::QueueFull,
        Concurrent::Reject | Concurrent::Parallel => Refusal::ReplyRunning,
    }
}
