//! What a message needs of the engine before it is relayed: its claim, the limits of its user, the channel's turn, and the
//! mark at which its reply begins.
//!
//! Where all of that is in one Redis, it is asked for in one round trip; a message that waits for its turn, or for another
//! relay of itself, asks step by step. Either way it ends at the first refusal, and what was granted before is given back.

use super::deduplicate::{is_deduplicated, message_key, repeated};
use super::history_mark::HistoryMark;
use super::user_limits::usage_key;
use super::{CheckedMessage, Refusal, RelayOutcome, Replies, Sender};
use crate::config::{Concurrent, Route};
use crate::generations::{Claim, ClaimRequest, DedupOutcome};
use crate::limits::{self, Holder, Lease, LeaseKey, LeaseKind, LimitCheck, LimitName, Verdict};
use crate::protocol::label_enum;
use crate::redis_link::{RedisFailure, StepAnswer};

label_enum! {
    /// The outcome of the span of a message that was not relayed.
    pub(super) enum NotRelayed {
        /// It was a duplicate, and got the answer of the first one; or it could not be checked.
        Answered => "answered",
        Refused => "refused",
    }
}

/// What a message holds until the reply to it has ended.
pub(super) struct Admission {
    /// Counts the reply for its user.
    pub lease: Option<Lease>,
    /// The channel's turn, if its replies run one at a time.
    pub turn: Option<Lease>,
}

/// The claim of a message, which is to be settled, and whether it is relayed.
pub(super) type Admitted = (Option<Claim>, Result<Admission, (NotRelayed, RelayOutcome)>);

/// A limit that is checked in a chain.
struct Check<'a> {
    check: LimitCheck<'a>,
    kind: CheckKind,
}

enum CheckKind {
    /// The guard releases the lease if it is not known whether it was granted.
    Lease(limits::Claim, Holder),
    Usage,
    Rate,
}

impl Sender {
    /// Whether the engine is asked for anything before this message is relayed, besides the mark of its reply.
    pub(super) fn needs_admission(&self, message: &CheckedMessage) -> bool {
        let Route { limits, generations, .. } = &*self.route;
        let has_user_limits =
            limits.generations_per_user.is_some() || limits.messages_per_user.is_some();
        is_deduplicated(self, message)
            || generations.concurrent != Concurrent::Parallel
            || limits.usage_per_user.is_some()
            || self.user_id.is_some() && has_user_limits
    }
}

impl Replies {
    /// Claims the message and checks what its relay depends on. `mark` is that of its reply.
    pub(super) async fn admit(
        &self,
        sender: &Sender,
        message: &CheckedMessage,
        mark: &HistoryMark,
    ) -> Admitted {
        // In a box, so that it is not moved where it is not needed.
        if self.services.limits.commands().is_some()
            && let Some(admitted) = Box::pin(self.admit_at_once(sender, message, mark)).await
        {
            return admitted;
        }
        match self.deduplicate(sender, message).await {
            Ok(claim) => {
                let admission = self.admit_by_steps(sender, claim.as_ref()).await;
                (claim, admission.map_err(|outcome| (NotRelayed::Refused, outcome)))
            }
            Err(outcome) => (None, Err((NotRelayed::Answered, outcome))),
        }
    }

    /// Checks the limits that all nodes share, and waits for the channel's turn. A message that waits counts as a
    /// reply in progress of its user.
    pub(super) async fn admit_by_steps(
        &self,
        sender: &Sender,
        claim: Option<&Claim>,
    ) -> Result<Admission, RelayOutcome> {
        let lease = self.acquire_reply_lease(sender).await.map_err(RelayOutcome::Refused)?;
        let turn = match self.check_user_limits(sender).await {
            Ok(()) => self.take_turn(sender, claim).await,
            Err(refusal) => Err(RelayOutcome::Refused(refusal)),
        };
        let turn = match turn {
            // The replies that it waited for took tokens.
            Ok(Some(turn)) => match self.check_usage(sender).await {
                Ok(()) => Ok(Some(turn)),
                Err(refusal) => {
                    self.release([Some(turn), None]).await;
                    Err(RelayOutcome::Refused(refusal))
                }
            },
            turn => turn,
        };
        match turn {
            Ok(turn) => Ok(Admission { lease, turn }),
            Err(outcome) => {
                self.release([lease, None]).await;
                Err(outcome)
            }
        }
    }

    async fn check_user_limits(&self, sender: &Sender) -> Result<(), Refusal> {
        self.check_usage(sender).await?;
        self.take_user_rate(&sender.route, &sender.params, sender.user_id.as_ref()).await
    }

    /// Does the same in one round trip, and sets the mark in it. `None` = that is not possible, or saves nothing.
    async fn admit_at_once(
        &self,
        sender: &Sender,
        message: &CheckedMessage,
        mark: &HistoryMark,
    ) -> Option<Admitted> {
        let route = &sender.route;
        if route.generations.concurrent != Concurrent::Parallel {
            return None;
        }
        let user = sender.user_id.as_ref().map(ToString::to_string);
        let usage_key = route.limits.usage_per_user.as_ref().map(|_| usage_key(&sender.key));
        let mut steps = Vec::new();
        let dedup = &self.services.generations.dedup;
        let claim = match message_key(sender, message) {
            Some(key) => {
                let relay_timeout = self.config().upstreams.relay_timeout(sender.upstream());
                let ttl = route.generations.dedup_ttl;
                let (step, request) = dedup.claim_step(key, relay_timeout, ttl)?;
                steps.push(step);
                Some(request)
            }
            None => None,
        };
        let limits = &self.services.limits;
        let mut checks = Vec::new();
        let path = route.path.as_str();
        if let (Some(max), Some(user)) = (route.limits.generations_per_user, &user) {
            let key = LeaseKey { kind: LeaseKind::Generation, route: path, user };
            let holder = Holder::random();
            let (step, check) = limits.acquire_step(key, holder, max);
            steps.push(step);
            let kind = CheckKind::Lease(limits::Claim::new(limits, key, holder), holder);
            checks.push(Check { check, kind });
        }
        if let (Some(rate), Some(user)) = (&route.limits.usage_per_user, &usage_key) {
            let (step, check) = limits.usage_step(path, &sender.params, user, rate);
            steps.push(step);
            checks.push(Check { check, kind: CheckKind::Usage });
        }
        if let (Some(rate), Some(user)) = (&route.limits.messages_per_user, &user) {
            let (step, check) =
                limits.take_step(LimitName::Messages, path, &sender.params, user, rate);
            steps.push(step);
            checks.push(Check { check, kind: CheckKind::Rate });
        }
        let (step, commands) = mark.step()?;
        let is_here = |other| commands.is_same(other);
        let is_one = (claim.is_none() || dedup.commands().is_some_and(is_here))
            && (checks.is_empty() || limits.commands().is_some_and(is_here));
        if !is_one || steps.is_empty() {
            // Nothing was sent.
            mark.take_answer(None);
            checks.into_iter().for_each(Check::dismiss);
            return None;
        }
        steps.push(step);
        let answers = commands.invoke_chain(&steps).await;
        self.read_answers(sender, message, mark, (claim, checks), answers).await
    }

    async fn read_answers(
        &self,
        sender: &Sender,
        message: &CheckedMessage,
        mark: &HistoryMark,
        (claim, checks): (Option<ClaimRequest>, Vec<Check<'_>>),
        answers: Result<Vec<StepAnswer>, RedisFailure>,
    ) -> Option<Admitted> {
        let Ok(answers) = answers else {
            // What Redis did not answer may have been done: the dropped guards give it back.
            let refusal = match claim {
                Some(_) => (NotRelayed::Answered, Refusal::DedupUnavailable),
                None => {
                    let first = checks.into_iter().next();
                    let _ = first.map(|Check { check, .. }| check.read(None));
                    (NotRelayed::Refused, Refusal::LimitsUnavailable)
                }
            };
            return Some((None, Err((refusal.0, RelayOutcome::Refused(refusal.1)))));
        };
        let mut answers = answers.into_iter();
        let claim = match claim.map(|claim| claim.read(answers.next().flatten())).transpose() {
            Ok(None) => None,
            Ok(Some(Some(DedupOutcome::First(claim)))) => Some(claim),
            not_first => {
                mark.take_answer(None);
                checks.into_iter().for_each(Check::dismiss);
                let outcome = match not_first {
                    Ok(Some(Some(DedupOutcome::Repeat { task_id }))) => {
                        repeated(sender, message, task_id)
                    }
                    Err(_) => RelayOutcome::Refused(Refusal::DedupUnavailable),
                    // Its other relay is waited for.
                    _ => return None,
                };
                return Some((None, Err((NotRelayed::Answered, outcome))));
            }
        };
        let mut lease = None;
        let mut checks = checks.into_iter();
        for Check { check, kind } in checks.by_ref() {
            let refusal = match (check.read(answers.next().flatten()), kind) {
                (Ok(Verdict::Allowed), CheckKind::Lease(guard, holder)) => {
                    let user = sender.user_id.as_ref().map(ToString::to_string);
                    let user = user.as_deref().unwrap_or_default();
                    let route = sender.route.path.as_str();
                    let key = LeaseKey { kind: LeaseKind::Generation, route, user };
                    lease = Some(self.services.leases.hold(key, holder));
                    guard.transfer();
                    continue;
                }
                (Ok(Verdict::Allowed), CheckKind::Usage | CheckKind::Rate) => continue,
                (Ok(Verdict::Refused { .. }), CheckKind::Lease(guard, _)) => {
                    guard.transfer();
                    Refusal::TooManyReplies
                }
                (Ok(Verdict::Refused { retry_after }), CheckKind::Usage) => {
                    Refusal::UsageExceeded { retry_after }
                }
                (Ok(Verdict::Refused { retry_after }), CheckKind::Rate) => {
                    Refusal::RateLimited { retry_after }
                }
                (Err(_), _) => Refusal::LimitsUnavailable,
            };
            mark.take_answer(None);
            checks.for_each(Check::dismiss);
            self.release([lease, None]).await;
            return Some((claim, Err((NotRelayed::Refused, RelayOutcome::Refused(refusal)))));
        }
        mark.take_answer(answers.next().as_ref());
        Some((claim, Ok(Admission { lease, turn: None })))
    }
}

impl Check<'_> {
    /// The step has not run, so that there is nothing to give back.
    fn dismiss(self) {
        if let CheckKind::Lease(guard, _) = self.kind {
            guard.transfer();
        }
    }
}
