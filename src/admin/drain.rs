//! `POST /v1/drain`: this node drains and stops, as on SIGTERM.

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::telemetry::admin::Action;

const MAX_BODY_BYTES: usize = 1024;

/// The call has no parameters.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {}

impl Admin {
    /// May be called any number of times; the first call begins the drain.
    pub(super) async fn drain(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let Body {} = api::read_if_any(request, MAX_BODY_BYTES).await?;
        let already = self.shutdown.is_draining();
        if !already {
            // The process must not end before this answer is sent.
            caller.hold_process(&self.shutdown);
            caller.audit(Action::Drain, &self.control.node());
            self.shutdown.begin();
        }
        let stop = self.config.load().shutdown;
        let body = serde_json::json!({
            "draining": true,
            "already": already,
            "node": self.control.node(),
            "drain_seconds": stop.drain.as_secs_f64(),
            "grace_seconds": stop.grace.as_secs_f64(),
        });
        let mut answer = api::json(StatusCode::ACCEPTED, &body);
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(answer)
    }
}
