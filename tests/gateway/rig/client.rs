//! A WebSocket client that shares no code with the gateway: hyper makes the handshake, fastwebsockets the frames.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use fastwebsockets::handshake::generate_key;
use fastwebsockets::{Role, WebSocket};
use http_body_util::{BodyExt, Empty};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::http::Response;
use super::{DEADLINE, Gateway, Socket, within};

/// An open connection to a gateway.
pub struct Client {
    socket: Socket,
    /// The headers of the 101 response.
    pub headers: HeaderMap,
}

/// The answer to a handshake that was refused: any status but 101.
pub type Refused = Response;

impl Client {
    /// Connects and returns the client with its `connected` event.
    pub async fn connected(gateway: &Gateway, path: &str) -> (Self, Value) {
        let mut client = Self::open(gateway.addr(), path, &[]).await;
        let connected = client.next_event("connected").await;
        (client, connected)
    }

    /// Connects, and panics if the handshake is refused.
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        match Self::try_open(addr, path, headers).await {
            Ok(client) => client,
            Err(refused) => panic!("refused with {}: {}", refused.status, refused.text()),
        }
    }

    /// Connects with additional headers, such as `Origin`, `Cookie` or `Sec-WebSocket-Protocol`.
    pub async fn try_open(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let mut request = Request::builder()
            .uri(path)
            .header("host", addr.to_string())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a valid request");
        within(&format!("answer to the handshake for {path}"), handshake(addr, request))
            .await
            .expect("the gateway answers")
    }

    /// Connects to a gateway that may be stopping or stopped. `None` means that this attempt failed.
    pub async fn attempt(addr: SocketAddr, path: &str) -> Option<Self> {
        let request = Request::builder()
            .uri(path)
            .header("host", addr.to_string())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key())
            .body(Empty::<Bytes>::new())
            .expect("a valid request");
        let opened = tokio::time::timeout(DEADLINE, handshake(addr, request)).await;
        opened.ok()?.ok()?.ok()
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn handshake(
    addr: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<Result<Client, Refused>, Broken> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    if status != 101 {
        let body = response.into_body().collect().await?.to_bytes();
        return Ok(Err(Refused { status, headers, body }));
    }
    let upgraded = hyper::upgrade::on(&mut response).await?;
    let socket = WebSocket::after_handshake(TokioIo::new(upgraded), Role::Client);
    Ok(Ok(Client { socket: Socket::new(socket), headers }))
}

impl Deref for Client {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }
}
