//! `POST /v1/drain`: this node stops, as on SIGTERM.

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::telemetry::admin::Action;

const MAX_BODY_BYTES: usize = 1024;

/// There is nothing to say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {}

impl Admin {
    /// Any number of times; the first counts.
    pub(super) async fn drain(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let Body {} = api::read_if_any(request, MAX_BODY_BYTES).await?;
        let already = self.shutdown.is_draining();
        if !already {
            // The process does not end before this connection has, which is when the answer is out.
            caller.hold_the_process(&self.shutdown);
            caller.did(Action::Drain, &self.control.node());
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
