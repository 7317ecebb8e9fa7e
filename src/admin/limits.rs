//! `GET /v1/limits` and `POST /v1/limits/reset`: the status of a user's limits on each route, and their
//! reset.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::Query;
use super::code::Code;
use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::config;
use crate::limits::{LimitKind, LimitName, LimitStatus, UserLimit};
use crate::protocol::{Params, UserId};
use crate::redis_link::EngineUnavailable;
use crate::telemetry::admin::Action;

const MAX_BODY_BYTES: usize = 12 * 1024;

#[derive(Serialize)]
struct Body<'a> {
    user_id: &'a str,
    routes: Vec<Route<'a>>,
}

#[derive(Serialize)]
struct Route<'a> {
    route: &'a str,
    limits: Vec<Limit>,
}

#[derive(Serialize)]
pub(super) struct Limit {
    limit: LimitName,
    kind: LimitKind,
    /// `null` if the limit is counted by a parameter of the connection's path, which is not known here.
    standing: Option<Numbers>,
}

/// Times in seconds, rounded up.
#[derive(Serialize)]
struct Numbers {
    max: u64,
    used: u64,
    remaining: u64,
    retry_after: u64,
    reset_after: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    user_id: Value,
    /// Without a route, all routes.
    route: Option<String>,
    /// Without names, the rates.
    limits: Option<Vec<String>>,
}

impl Limit {
    /// Whether any of it is used at the moment.
    pub fn is_used(&self) -> bool {
        self.standing.as_ref().is_some_and(|numbers| numbers.used > 0)
    }
}

impl From<LimitStatus> for Numbers {
    fn from(status: LimitStatus) -> Self {
        let LimitStatus { max, used, retry_after, reset_after } = status;
        let seconds = |time: std::time::Duration| time.as_secs_f64().ceil() as u64;
        Self {
            max,
            used,
            remaining: max.saturating_sub(used),
            retry_after: seconds(retry_after),
            reset_after: seconds(reset_after),
        }
    }
}

impl Admin {
    pub(super) async fn look_at_limits(
        &self,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let mut query = Query::of(&request)?;
        let user = query.take_user()?;
        query.finish(&["user_id"])?;
        let user = user.ok_or_else(|| api::bad_request("user_id is missing"))?.to_string();
        let config = self.config.load_full();
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let limits = self
                .user_limits(route, &Params::default(), &user)
                .await
                .map_err(|_| api::engine_down())?;
            routes.push(Route { route: route.path.as_str(), limits });
        }
        Ok(api::json(StatusCode::OK, &Body { user_id: &user, routes }))
    }

    /// The status of a user's limits on one route, as far as these parameters of a connection's path tell it.
    pub(super) async fn user_limits(
        &self,
        route: &config::Route,
        params: &Params,
        user: &str,
    ) -> Result<Vec<Limit>, EngineUnavailable> {
        let mut limits = Vec::new();
        for limit in UserLimit::of(&route.limits) {
            let standing = self.limits.status(limit, route.path.as_str(), params, user).await?;
            let standing = standing.map(Numbers::from);
            limits.push(Limit { limit: limit.name(), kind: limit.kind(), standing });
        }
        Ok(limits)
    }

    pub(super) async fn reset_limits(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let reset: Reset = api::read(request, MAX_BODY_BYTES).await?;
        let wrong = || api::bad_request("user_id must be an integer or a non-empty string");
        let user = UserId::from_json(&reset.user_id).ok_or_else(wrong)?.to_string();
        if user.len() > api::MAX_USER_BYTES {
            return Err(api::bad_request("user_id has at most 1024 bytes"));
        }
        let rates = [LimitName::Messages, LimitName::Usage, LimitName::Connects];
        let names: Vec<LimitName> = match reset.limits {
            None => rates.into(),
            Some(names) => names.iter().map(|name| named(name)).collect::<Result<_, _>>()?,
        };
        let is_selected = |path: &str| reset.route.as_deref().is_none_or(|route| route == path);
        let routes = &self.config.load_full().routes;
        if !routes.iter().any(|route| is_selected(route.path.as_str())) {
            let message = "there is no route with this path";
            return Err(api::error(Code::NoRoute, message));
        }
        let (mut reset_count, mut not_known) = (0u64, 0u64);
        for route in routes.iter().filter(|route| is_selected(route.path.as_str())) {
            let limits = UserLimit::of(&route.limits);
            for limit in limits.into_iter().filter(|limit| names.contains(&limit.name())) {
                match self.limits.reset(limit, route.path.as_str(), &user).await {
                    Ok(Some(used)) => reset_count += u64::from(used),
                    Ok(None) => not_known += 1,
                    Err(_) => return Err(api::engine_down()),
                }
            }
        }
        caller.audit(Action::LimitsReset, &user);
        let body = serde_json::json!({ "reset": reset_count, "not_known": not_known });
        Ok(api::json(StatusCode::OK, &body))
    }
}

fn named(label: &str) -> Result<LimitName, Answer> {
    LimitName::from_label(label).ok_or_else(|| {
        api::bad_request(&format!("limits must be among: {}", LimitName::LABELS.join(", ")))
    })
}
