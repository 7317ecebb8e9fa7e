//! A connection token and the limits of its user in one round trip to Redis.
//!
//! The token's record says who the user is, and only Redis has it: a script takes the token and, if its record is a plain
//! one that is good for this connection, counts for its user in the same call. What would refuse the client before its
//! limits are looked at is checked before the call, as far as it is known, and everything unusual is done step by step.
//! The record itself is read by the gateway in either case.

use std::sync::Arc;

use redis::FromRedisValue as _;

use super::credentials::cookies;
use super::origin::RequestOrigin;
use super::{Handshake, HandshakeAttempt, OfferedCredentials, Rejection};
use crate::config::{self, AuthSource};
use crate::limits::{
    Claim, Holder, LeaseKey, LeaseKind, LimitCheck, LimitName, SharedLimits, Verdict,
};
use crate::protocol::{ChannelName, ClientNetwork, Params, TemplateContext};
use crate::redis_link::{ANSWERED, Commands, RedisFailure, Step, StepAnswer};
use crate::tokens::{CredentialContext, Identity, TokenUse};

/// What the limits of a user say; with a lease of a connection, if they have one.
pub(super) type Limited = Result<Option<Claim>, Rejection>;

/// A token and limits that can be asked for together.
pub(super) struct Question<'a> {
    commands: &'a Commands,
    token: String,
    steps: Vec<Step>,
    rate: Option<LimitCheck<'a>>,
    lease: Option<LimitCheck<'a>>,
}

/// What Redis has answered.
struct Answered {
    answers: Result<Vec<StepAnswer>, RedisFailure>,
    /// The user whose token it was; `None` if the steps after the first did not run.
    user: Option<String>,
    /// Responsible for the lease, if its step ran.
    claim: Option<Claim>,
}

impl Handshake {
    /// Redeems the token of a client that has no other credentials, and checks the limits of its user. Without a
    /// [`Limited`] the limits are still to be checked.
    pub(super) async fn redeem_at_once(
        &self,
        route: &Arc<config::Route>,
        question: Question<'_>,
        context: CredentialContext<'_>,
        attempt: &HandshakeAttempt,
    ) -> Result<(Identity, Option<Limited>), Rejection> {
        let Question { commands, token, steps, rate, lease } = question;
        let answered = match &lease {
            None => ask(commands.clone(), steps, None).await,
            // The answer says whose lease it is, so that a task waits for it even if the client does not.
            Some(_) => {
                let lease = (self.limits.clone(), Arc::clone(route), attempt.connection_id.into());
                let asked = tokio::spawn(ask(commands.clone(), steps, Some(lease)));
                match asked.await {
                    Ok(answered) => answered,
                    Err(_) => return Err(Rejection::engine()),
                }
            }
        };
        let Answered { answers, user, claim } = answered;
        let (first, mut rest) = match answers {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                (Ok(answers.next().flatten()), answers)
            }
            Err(failure) => (Err(failure), Vec::new().into_iter()),
        };
        let identity = self.authenticator.read_redeemed(&token, context, first);
        let identity = identity.map_err(Rejection::credential)?;
        let key = identity.key();
        if user.as_ref() != Some(&key) {
            return Ok((identity, None));
        }
        let limited = || {
            if let Some(rate) = rate {
                match rate.of_user(&key).read(rest.next().flatten()) {
                    Ok(Verdict::Allowed) => {}
                    Ok(Verdict::Refused { retry_after }) => {
                        return Err(Rejection::connects(retry_after));
                    }
                    Err(_) => return Err(Rejection::engine()),
                }
            }
            let Some(lease) = lease else { return Ok(None) };
            match lease.of_user(&key).read(rest.next().flatten()) {
                Ok(Verdict::Allowed) => Ok(claim),
                Ok(Verdict::Refused { retry_after }) => {
                    if let Some(claim) = claim {
                        claim.transfer();
                    }
                    Err(Rejection::connections(retry_after))
                }
                // The claim stays responsible: the lease may have been granted.
                Err(_) => Err(Rejection::engine()),
            }
        };
        let limited = limited();
        Ok((identity, Some(limited)))
    }

    /// What is to be asked; `None` if it has to be asked step by step, or nothing is counted.
    pub(super) fn question<'a>(
        &'a self,
        route: &'a config::Route,
        params: &Params,
        offered: &OfferedCredentials<'_>,
        origin: &RequestOrigin,
        attempt: &HandshakeAttempt,
    ) -> Option<Question<'a>> {
        let commands = self.authenticator.store().commands()?;
        self.limits.commands().filter(|limits| limits.is_same(commands))?;
        let token = self.only_token(route, offered)?;
        let channel = match &route.channel {
            Some(template) => Some(self.channel_of_anybody(template, params, attempt)?),
            None => None,
        };
        let channel = channel.as_ref().map(ChannelName::as_str);
        let purpose = TokenUse { channel, origin: origin.text() };
        let mut steps = vec![self.authenticator.redeem_step(&token, purpose)?];
        let path = route.path.as_str();
        let rate =
            route.limits.connects_per_user.as_ref().map(|rate| {
                self.limits.take_step(LimitName::Connects, path, params, ANSWERED, rate)
            });
        let lease = route.limits.connections_per_user.map(|max| {
            let key = LeaseKey { kind: LeaseKind::Connection, route: path, user: ANSWERED };
            self.limits.acquire_step(key, attempt.connection_id.into(), max)
        });
        let mut keep = |(step, check)| {
            steps.push(step);
            check
        };
        let (rate, lease) = (rate.map(&mut keep), lease.map(&mut keep));
        (steps.len() > 1).then_some(Question { commands, token, steps, rate, lease })
    }

    /// The token that says who the client is, if the request has no other credentials that the route looks at.
    fn only_token(
        &self,
        route: &config::Route,
        offered: &OfferedCredentials<'_>,
    ) -> Option<String> {
        let mut token = None;
        for source in &route.auth {
            let is_other = match source {
                AuthSource::ConnectionToken => {
                    token = Some(offered.connection_token()?.into_owned());
                    false
                }
                AuthSource::Cookie => {
                    token.is_none()
                        && cookies(offered.headers(), &self.session_cookie).next().is_some()
                }
                AuthSource::Bearer => offered.bearer().is_some(),
                AuthSource::Query => offered.query_token().is_some(),
                AuthSource::Anonymous => token.is_none(),
            };
            if is_other {
                return None;
            }
        }
        token
    }

    /// The channel of a route, if it is the same for all users and may be joined as far as that does not depend on them.
    fn channel_of_anybody(
        &self,
        template: &crate::protocol::Template,
        params: &Params,
        attempt: &HandshakeAttempt,
    ) -> Option<ChannelName> {
        let name = template.fill(TemplateContext { params, user_id: &ANSWERED, channel: None });
        // A name with the place of the user in it is none.
        let channel = ChannelName::new(&name).ok()?;
        let config::ClientLimits { channels_per_ip, ipv6_prefix, .. } = self.client_limits;
        let network = ClientNetwork::of(attempt.ip, ipv6_prefix);
        let may_be_joined = !self.reserved.contains(&channel)
            && self.new_channels.has_room(&channel, network, channels_per_ip);
        may_be_joined.then_some(channel)
    }
}

async fn ask(
    commands: Commands,
    steps: Vec<Step>,
    lease: Option<(SharedLimits, Arc<config::Route>, Holder)>,
) -> Answered {
    let answers = commands.invoke_chain(&steps).await;
    let user = answers.as_ref().ok().filter(|answers| answers.len() > 1).and_then(|answers| {
        let first = answers.first()?.clone()?;
        let (_, user) = <(redis::Value, Option<String>)>::from_redis_value(first).ok()?;
        user
    });
    let is_leased = answers.as_ref().is_ok_and(|answers| answers.len() == steps.len());
    let claim = match (lease, &user) {
        (Some((limits, route, holder)), Some(user)) if is_leased => {
            let route = route.path.as_str();
            let key = LeaseKey { kind: LeaseKind::Connection, route, user };
            Some(Claim::new(&limits, key, holder))
        }
        _ => None,
    };
    Answered { answers, user, claim }
}
