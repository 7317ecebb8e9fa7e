//! Reads responses without an upstream, for fuzz targets: from the head of a response to the events of its reply.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::value::RawValue;

use super::response::{self, RelayResponse};
use super::{
    Conclusion, Message, RelayError, Reply, ReplyBroken, ReplyEvent, SharedUpstreams, UpstreamKind,
    deadline_after,
};
use crate::config::Config;
use crate::protocol::{ChannelName, ConnectionId, Params, RequestId, SenderKey, TraceContext};
use crate::shutdown::Shutdown;
use crate::telemetry::upstreams::RequestOutcome;

/// Longer than reading a response from memory takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reads responses as if the first upstream of a configuration had sent them.
pub struct ResponseReader {
    upstreams: SharedUpstreams,
    message: Message,
}

/// What a response means.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadResponse {
    /// The message was accepted: the upstream's task id, and whether a worker will reply.
    Accepted(Option<String>, bool),
    /// The events of a streamed reply, and how it ended.
    Streamed(Vec<Bytes>, Option<ReplyBroken>),
    Refused(RelayError),
}

impl ResponseReader {
    /// # Panics
    /// The configuration has no HTTP upstream.
    pub fn new(config: &Config) -> Self {
        let upstreams = SharedUpstreams::new(&config.upstreams, &config.engine, &Shutdown::new())
            .expect("upstreams");
        let trace = TraceContext::new();
        let message = Message {
            text: "hi".to_owned(),
            data: RawValue::from_string(r#"{"message":"hi"}"#.to_owned()).expect("JSON"),
            channel: ChannelName::new("chat_1").expect("a name"),
            params: Params::default(),
            user_id: None,
            sender: SenderKey::new(None, Ipv4Addr::LOCALHOST.into(), 64),
            username: None,
            connection_id: ConnectionId::random(),
            request_id: RequestId::new(None, &trace),
            message_id: "1".to_owned(),
            task_id: "task".to_owned(),
            trace,
            forwarded: None,
        };
        Self { upstreams, message }
    }

    /// # Panics
    /// A permit of the upstream was not released.
    pub async fn read(&self, response: Response<Incoming>) -> ReadResponse {
        let (_, upstream) = self.upstreams.iter().next().expect("an upstream");
        let UpstreamKind::Http(config) = &upstream.config.kind else { panic!("an HTTP upstream") };
        let metrics = &upstream.gate.metrics;
        let read = response::read(
            response.map(Into::into),
            config.dialect,
            deadline_after(DEADLINE),
            metrics,
        )
        .await;
        let (format, dialect, body, input) = match read {
            RelayResponse::Accepted { task_id, is_queued } => {
                return ReadResponse::Accepted(task_id, is_queued);
            }
            RelayResponse::Refused(error, _) => return ReadResponse::Refused(error),
            RelayResponse::Streaming(format, dialect, body, input) => {
                (format, dialect, body, input)
            }
        };
        let pending = upstream.gate.enter(self.message.log_fields(), &self.message.sender);
        let pending = pending.expect("a permit");
        let in_flight = pending.accept(RequestOutcome::Streaming);
        let mut reply = Reply::new(body, input, format, dialect, config, in_flight, &self.message);
        let mut events = Vec::new();
        loop {
            match reply.next().await {
                Some(Ok(ReplyEvent::Own(event) | ReplyEvent::Publication(event))) => {
                    events.push(event);
                }
                Some(Ok(ReplyEvent::End(Conclusion { json, .. }))) => events.push(json),
                Some(Err(broken)) => return ReadResponse::Streamed(events, Some(broken)),
                None => return ReadResponse::Streamed(events, None),
            }
        }
    }
}
