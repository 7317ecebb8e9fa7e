//! `POST /v1/debug`: debug log lines about one user, channel or connection, on every node, for a limited
//! time. `GET /v1/debug`: the subjects that this node logs at the moment.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::code::Code;
use super::connection::Caller;
use super::{Admin, Answer, api, lists};
use crate::control::{DebugCommand, DebugFields, InvalidDebug, InvalidTarget, NodeCommand};
use crate::telemetry::admin::Action;

/// A user id may be long, and a command has at most 16 KiB.
const MAX_BODY_BYTES: usize = 12 * 1024;

impl Admin {
    pub(super) async fn debug(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let fields: DebugFields = api::read(request, MAX_BODY_BYTES).await?;
        let command = DebugCommand::try_from(fields).map_err(refusal)?;
        let (target, seconds) = (command.target().clone(), command.seconds());
        let sent = self.control.send(NodeCommand::Debug(command)).await;
        caller.audit(Action::Debug, &format_args!("{} {target} ({seconds} s)", target.kind()));
        let reached = sent.map_err(lists::refusal)?;
        let nodes = reached.answered;
        if !reached.is_complete() {
            let message = format!("{nodes} of {} nodes answered", reached.asked);
            return Err(api::error(Code::Incomplete, &message));
        }
        if reached.affected < nodes {
            let message = "too many subjects are debugged at once; end one with 0 seconds";
            return Err(api::error(Code::TooManyDebugged, message));
        }
        Ok(api::json(StatusCode::OK, &json!({ "seconds": seconds, "nodes": nodes })))
    }

    pub(super) fn list_debugged(&self, request: &Request<Incoming>) -> Result<Answer, Answer> {
        api::Query::of(request)?.finish(&[])?;
        let debugged = self.log.debugged();
        let rows: Vec<_> = debugged
            .iter()
            .map(|debugged| {
                let (kind, id) = (debugged.subject.kind(), debugged.subject.id());
                json!({ kind: id, "seconds": debugged.left.as_secs_f64().ceil() as u64 })
            })
            .collect();
        let node = self.control.node();
        Ok(api::json(StatusCode::OK, &json!({ "node": node, "debugged": rows })))
    }
}

fn refusal(wrong: InvalidDebug) -> Answer {
    match wrong {
        InvalidDebug::Target(InvalidTarget::Channel(_)) => {
            api::error(Code::BadChannel, &wrong.to_string())
        }
        _ => api::bad_request(&wrong.to_string()),
    }
}
