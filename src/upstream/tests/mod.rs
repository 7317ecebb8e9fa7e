//! Upstreams against servers on loopback, a real Redis included.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::*;
use crate::protocol::{
    ConnectionId, Dialect, Params, PathPattern, RequestId, SenderKey, Template, UserId,
};
use crate::shutdown::Shutdown;

impl ReplySource {
    fn is_from_worker(&self) -> bool {
        matches!(self, Self::Worker)
    }

    fn into_stream(self) -> Option<Reply> {
        match self {
            Self::Stream(reply) => Some(*reply),
            Self::None | Self::Worker => None,
        }
    }
}

mod http;
mod queue;
mod refusals;
mod reply;
mod server;
mod upstream_metrics;
mod websocket;

/// Longer than any step of these tests takes.
const LONG: Duration = Duration::from_secs(30);
const UPSTREAM: &str = "worker";

fn http_to(url: &str) -> config::HttpUpstream {
    config::HttpUpstream {
        urls: vec![Template::parse(url).unwrap()],
        request: config::HttpRequest::default(),
        max_reply: LONG,
        stream_idle_timeout: None,
        end: config::StreamEnd::Body,
        on_disconnect: config::OnDisconnect::Continue,
        dialect: Dialect::Events,
        publish: config::Publish::Events,
        retries: 0,
        signing_secret: None,
        on_complete: None,
    }
}

fn upstream(kind: UpstreamKind) -> config::Upstream {
    config::Upstream {
        name: UPSTREAM.to_owned(),
        kind,
        timeout: LONG,
        max_in_flight: 64,
        max_in_flight_per_user: 0,
        circuit: config::Circuit { failures: 1000, window: LONG, open: LONG },
        balance: config::Balance::Least,
    }
}

fn shared(config: config::Upstream) -> SharedUpstreams {
    let upstreams = BTreeMap::from([(config.name.clone(), Arc::new(config))]);
    let engine = config::Engine {
        kind: config::EngineKind::Memory,
        channel_prefix: String::new(),
        max_publication_bytes: 1 << 20,
        max_history_bytes: 1 << 20,
    };
    SharedUpstreams::new(&upstreams, &engine, &Shutdown::new()).unwrap()
}

fn upstreams(config: config::Upstream) -> Upstreams {
    Upstreams::new(&shared(config))
}

fn params() -> Params {
    PathPattern::parse("/{id}").unwrap().matches("/4%2F2").unwrap()
}

pub(super) fn message() -> Message {
    let data = r#"{ "message":" hi ","id":"m 1","image_url": null }"#;
    Message {
        text: "hi".to_owned(),
        data: RawValue::from_string(data.to_owned()).unwrap(),
        channel: ChannelName::new("chat_42").unwrap(),
        params: params(),
        user_id: Some(UserId::Integer(7)),
        username: Some("Ana Ü".into()),
        sender: SenderKey::User(UserId::Integer(7)),
        connection_id: ConnectionId::random(),
        message_id: "m 1".to_owned(),
        task_id: "our-task".to_owned(),
        request_id: RequestId::new(Some("request-1"), &TraceContext::new()),
        trace: TraceContext::new(),
        forwarded: None,
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_exist_is_unavailable() {
    let upstreams = upstreams(upstream(UpstreamKind::Http(http_to("http://127.0.0.1:1/"))));
    let outcome = upstreams.relay("other", &message()).await;
    assert_eq!(outcome.err(), Some(RelayError::Unavailable));
}
