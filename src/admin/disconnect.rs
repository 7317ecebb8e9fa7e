//! `POST /v1/disconnect`: closes one connection, or all connections of a user or a channel, on every node.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};

use super::code::Code;
use super::connection::Caller;
use super::{Admin, Answer, api, lists};
use crate::control::{Disconnect, DisconnectFields, InvalidDisconnect, InvalidTarget, NodeCommand};
use crate::telemetry;
use crate::telemetry::admin::{Action, Disconnected};

/// A user id may be long, and a command has at most 16 KiB.
const MAX_BODY_BYTES: usize = 12 * 1024;

impl Admin {
    pub(super) async fn disconnect(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let fields: DisconnectFields = api::read(request, MAX_BODY_BYTES).await?;
        let command = Disconnect::try_from(fields).map_err(refusal)?;
        let sent = self.control.send(NodeCommand::Disconnect(command.clone())).await;
        let reached = sent.ok().map(|done| Disconnected {
            connections: done.affected,
            answered: done.answered,
            nodes: done.asked,
        });
        let target = command.target();
        let id = target.to_string();
        let code = command.code();
        telemetry::admin::disconnected(target.kind(), &id, code, reached);
        let what = format_args!("{} {id} ({code})", target.kind());
        caller.audit(Action::Disconnect, &what);
        let reached = sent.map_err(lists::refusal)?;
        let (closed, nodes) = (reached.affected, reached.answered);
        if !reached.is_complete() {
            let asked = reached.asked;
            let message = format!("{nodes} of {asked} nodes answered; they closed {closed}");
            return Err(api::error(Code::Incomplete, &message));
        }
        Ok(api::json(StatusCode::OK, &serde_json::json!({ "closed": closed, "nodes": nodes })))
    }
}

fn refusal(wrong: InvalidDisconnect) -> Answer {
    match wrong {
        InvalidDisconnect::Target(InvalidTarget::Channel(_)) => {
            api::error(Code::BadChannel, &wrong.to_string())
        }
        _ => api::bad_request(&wrong.to_string()),
    }
}

#[cfg(test)]
mod tests;
