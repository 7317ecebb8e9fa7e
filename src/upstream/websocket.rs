//! Sockets to WebSocket servers, one for each client socket. They carry whole messages in both directions.
//!
//! [`connect`] opens a socket, `socket_task` reads and writes its frames. This file is the session's side
//! of that task: both halves are cancel-safe.

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
use super::message::user_in_template;
use super::socket_task::{Outgoing, SocketTask};
use super::{RelayError, SocketRequest};
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
    /// The time limit for writing one message or the close frame.
    deadline: Duration,
}

pub struct UpstreamReceiver {
    incoming: mpsc::Receiver<FromUpstream>,
}

/// A whole message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    Text(Bytes),
    Binary(Bytes),
}

/// An event of an upstream socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromUpstream {
    Message(SocketMessage),
    /// The close frame's code and reason; `None` = the connection ended without a close frame.
    Closed(Option<(u16, String)>),
}

impl UpstreamSender {
    /// Sends a message within the time limit; `Err` = the connection is closed.
    pub async fn send(&mut self, message: SocketMessage) -> Result<(), ()> {
        self.submit(|written| Outgoing::Message(message, written)).await
    }

    /// Sends a close frame with the client's close code.
    pub async fn close(&mut self, code: u16, reason: &str) {
        let reason = reason.to_owned();
        // There is nothing left to do if the connection is closed already.
        let _ = self.submit(|written| Outgoing::Close(code, reason, written)).await;
    }

    /// Passes a message to the task and waits until it is written.
    async fn submit(
        &self,
        outgoing: impl FnOnce(oneshot::Sender<()>) -> Outgoing,
    ) -> Result<(), ()> {
        let (written, is_written) = oneshot::channel();
        let submitted = async {
            self.outgoing.send(outgoing(written)).await.map_err(drop)?;
            is_written.await.map_err(drop)
        };
        timeout(self.deadline, submitted).await.unwrap_or(Err(()))
    }
}

impl UpstreamReceiver {
    /// Returns the next event. Nothing follows [`FromUpstream::Closed`].
    pub async fn recv(&mut self) -> FromUpstream {
        self.incoming.recv().await.unwrap_or(FromUpstream::Closed(None))
    }
}

/// Why a socket was not opened: the error for the client, and the reason for the log.
pub(super) type NotOpened = (RelayError, String);

/// The upgraded connection.
pub(super) type Stream = TokioIo<hyper::upgrade::Upgraded>;

/// Connects and performs the opening handshake (RFC 6455 section 4.1). The caller enforces the deadline.
pub(super) async fn connect(
    client: &HttpClient,
    config: &config::WebSocketUpstream,
    request: &SocketRequest<'_>,
) -> Result<Stream, NotOpened> {
    let unavailable = |reason: String| (RelayError::Unavailable, reason);
    let key = fastwebsockets::handshake::generate_key();
    let upgrade = upgrade_request(config, request, &key).map_err(unavailable)?;
    let response =
        client.request(upgrade).await.map_err(|error| unavailable(error_chain(&error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response.status()));
    }
    if !is_valid_handshake(&response, &key) {
        return Err(unavailable("its response is not a valid WebSocket handshake".to_owned()));
    }
    let upgraded = hyper::upgrade::on(response).await;
    Ok(TokioIo::new(upgraded.map_err(|error| unavailable(error_chain(&error)))?))
}

/// Starts the task that reads and writes frames. `deadline` is the time limit of each write.
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

fn upgrade_request(
    config: &config::WebSocketUpstream,
    request: &SocketRequest<'_>,
    key: &str,
) -> Result<Request<Full<Bytes>>, String> {
    let value = |text: &str| utf8_percent_encode(text, NOT_IN_HEADER).to_string();
    let mut upgrade = Request::get(url(config, request))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(USER_AGENT, http_client::USER_AGENT)
        .header(X_REQUEST_ID, request.request_id.to_string())
        .header(TRACEPARENT, request.trace.child())
        .header(X_CHANNEL, value(request.channel.as_str()))
        .header(X_CONNECTION_ID, request.connection_id.to_string());
    if let Some(user) = request.user_id {
        upgrade = upgrade.header(X_USER_ID, value(&user.to_string()));
    }
    if let Some(name) = request.username {
        upgrade = upgrade.header(X_USERNAME, value(name));
    }
    upgrade.body(Full::default()).map_err(|error| format!("invalid request: {error}"))
}

/// Returns the URL of the handshake, whose scheme is that of the HTTP request.
fn url(config: &config::WebSocketUpstream, request: &SocketRequest<'_>) -> String {
    let SocketRequest { params, channel, user_id, .. } = *request;
    let user_id = user_in_template(user_id);
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

/// Checks a server's handshake (RFC 6455 section 4.1). It must not select an extension, because none was
/// offered.
fn is_valid_handshake<B>(response: &Response<B>, key: &str) -> bool {
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
