//! Sockets to WebSocket servers: one for each client socket, messages whole both ways.
//!
//! [`shake_hands`] opens; `socket_task` moves frames. This file is the session's side of that task:
//! halves that may be dropped at any await without harm to the stream.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use sha1::{Digest, Sha1};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::gate::InFlightPermit;
use super::http::{NOT_IN_HEADER, TRACEPARENT, X_REQUEST_ID};
use super::socket_task::{Outgoing, SocketTask};
use super::{Opening, RelayError};
use crate::config;
use crate::http_client::{self, HttpClient, error_chain};
use crate::protocol::TemplateContext;

const X_CHANNEL: HeaderName = HeaderName::from_static("x-tidegate-channel");
const X_CONNECTION_ID: HeaderName = HeaderName::from_static("x-tidegate-connection-id");
const X_USER_ID: HeaderName = HeaderName::from_static("x-tidegate-user-id");
const X_USERNAME: HeaderName = HeaderName::from_static("x-tidegate-username");

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Both halves of an upstream socket; each may live in a task of its own on this thread.
pub struct UpstreamSocket {
    pub sender: UpstreamSender,
    pub receiver: UpstreamReceiver,
}

pub struct UpstreamSender {
    outgoing: mpsc::Sender<Outgoing>,
    /// Of one message, or of the close frame.
    deadline: Duration,
}

pub struct UpstreamReceiver {
    incoming: mpsc::Receiver<FromUpstream>,
}

/// A whole message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    Text(Bytes),
    Binary(Bytes),
}

/// What an upstream socket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromUpstream {
    Message(SocketMessage),
    /// The close frame's code and reason; `None` = it broke without one.
    Closed(Option<(u16, String)>),
}

impl UpstreamSender {
    /// Within a deadline; `Err` = the upstream is gone.
    pub async fn send(&mut self, message: SocketMessage) -> Result<(), ()> {
        self.hand_over(|written| Outgoing::Message(message, written)).await
    }

    /// Says goodbye with the client's close code.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let reason = reason.to_owned();
        let _written_or_gone =
            self.hand_over(|written| Outgoing::Close(code, reason, written)).await;
    }

    async fn hand_over(
        &self,
        outgoing: impl FnOnce(oneshot::Sender<()>) -> Outgoing,
    ) -> Result<(), ()> {
        let (written, is_written) = oneshot::channel();
        let handed = async {
            self.outgoing.send(outgoing(written)).await.map_err(drop)?;
            is_written.await.map_err(drop)
        };
        timeout(self.deadline, handed).await.unwrap_or(Err(()))
    }
}

impl UpstreamReceiver {
    /// After [`FromUpstream::Closed`] nothing else comes.
    pub async fn recv(&mut self) -> FromUpstream {
        self.incoming.recv().await.unwrap_or(FromUpstream::Closed(None))
    }
}

/// Why there is no socket, and the same for the log.
pub(super) type NotOpened = (RelayError, String);

/// An upgraded connection.
pub(super) type Stream = TokioIo<hyper::upgrade::Upgraded>;

/// Connects and shakes hands (RFC 6455 section 4.1). The caller keeps the deadline.
pub(super) async fn shake_hands(
    client: &HttpClient,
    config: &config::WebSocketUpstream,
    opening: &Opening<'_>,
) -> Result<Stream, NotOpened> {
    let unavailable = |reason: String| (RelayError::Unavailable, reason);
    let key = fastwebsockets::handshake::generate_key();
    let request = request(config, opening, &key).map_err(unavailable)?;
    let response =
        client.request(request).await.map_err(|error| unavailable(error_chain(&error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response.status()));
    }
    if !accepts(&response, &key) {
        return Err(unavailable("its answer accepts no WebSocket".to_owned()));
    }
    let upgraded = hyper::upgrade::on(response).await;
    Ok(TokioIo::new(upgraded.map_err(|error| unavailable(error_chain(&error)))?))
}

/// Starts the task that moves frames; `deadline` is that of each write.
pub(super) fn start(
    stream: Stream,
    max_message_bytes: usize,
    deadline: Duration,
    in_flight: InFlightPermit,
) -> UpstreamSocket {
    let (outgoing, to_send) = mpsc::channel(1);
    let (received, incoming) = mpsc::channel(1);
    let task = SocketTask { to_send, received, max_message_bytes, deadline, in_flight };
    tokio::spawn(task.run(stream));
    UpstreamSocket {
        sender: UpstreamSender { outgoing, deadline },
        receiver: UpstreamReceiver { incoming },
    }
}

fn request(
    config: &config::WebSocketUpstream,
    opening: &Opening<'_>,
    key: &str,
) -> Result<Request<Full<Bytes>>, String> {
    let value = |text: &str| utf8_percent_encode(text, NOT_IN_HEADER).to_string();
    let mut request = Request::get(url(config, opening))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(USER_AGENT, http_client::USER_AGENT)
        .header(X_REQUEST_ID, opening.request_id.to_string())
        .header(TRACEPARENT, opening.trace.child())
        .header(X_CHANNEL, value(opening.channel.as_str()))
        .header(X_CONNECTION_ID, opening.connection_id.to_string());
    if let Some(user) = opening.user_id {
        request = request.header(X_USER_ID, value(&user.to_string()));
    }
    if let Some(name) = opening.username {
        request = request.header(X_USERNAME, value(name));
    }
    request.body(Full::default()).map_err(|error| format!("no valid request: {error}"))
}

/// The scheme is that of the HTTP request which the handshake is.
fn url(config: &config::WebSocketUpstream, opening: &Opening<'_>) -> String {
    let Opening { params, channel, user_id, .. } = *opening;
    let user_id = super::user_in_template(user_id);
    let url =
        config.url.fill_url(TemplateContext { params, user_id, channel: Some(channel.as_str()) });
    match url.strip_prefix("ws") {
        Some(rest) => format!("http{rest}"),
        None => url,
    }
}

fn refusal(status: StatusCode) -> NotOpened {
    let error = if status == StatusCode::TOO_MANY_REQUESTS {
        RelayError::Busy
    } else if status.is_client_error() {
        RelayError::Rejected("the service refused the connection".to_owned())
    } else {
        RelayError::Unavailable
    };
    (error, format!("answered {status}"))
}

/// RFC 6455 section 4.1, the checks of a server's answer; nothing was offered that it may choose.
fn accepts<B>(response: &Response<B>, key: &str) -> bool {
    let has_token = |name: HeaderName, token: &str| {
        response.headers().get_all(name).iter().any(|value| {
            let mut tokens = value.to_str().unwrap_or_default().split(',');
            tokens.any(|given| given.trim().eq_ignore_ascii_case(token))
        })
    };
    let proof = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize());
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    has_token(UPGRADE, "websocket")
        && has_token(CONNECTION, "upgrade")
        && accept.is_some_and(|given| given.as_bytes().trim_ascii() == proof.as_bytes())
        && !response.headers().contains_key("sec-websocket-extensions")
}
