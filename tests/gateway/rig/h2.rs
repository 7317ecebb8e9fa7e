//! A client over HTTP/2, by itself without TLS (prior knowledge), with WebSockets on its streams (RFC 8441).

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::frame::{self, ClientFrame, ServerFrame, take_server_frame};
use super::within;

/// One connection.
pub struct Http2 {
    send: SendRequest<Bytes>,
    /// Ends with the connection: its error, if there is one.
    pub ended: JoinHandle<Result<(), h2::Error>>,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

/// A WebSocket on a stream.
pub struct Http2Socket {
    pub send: SendStream<Bytes>,
    pub receive: RecvStream,
    /// Those of the response.
    pub headers: HeaderMap,
    buffer: Vec<u8>,
}

impl Http2 {
    pub async fn connect(addr: SocketAddr) -> Self {
        let tcp = within("accepted connection", TcpStream::connect(addr)).await.unwrap();
        Self::on(tcp).await
    }

    /// Connects over `io`, and waits for the gateway's settings.
    pub async fn on<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: T) -> Self {
        let connecting = h2::client::Builder::new()
            .enable_push(false)
            // As browsers do: a stream that is not read leaves room for others.
            .initial_connection_window_size(16 << 20)
            .handshake(io);
        let (send, connection) = within("a connection", connecting).await.unwrap();
        let ended = tokio::spawn(connection);
        let mut send = within("room for a stream", send.ready()).await.unwrap();
        // The settings come with the first answers.
        while !send.is_extended_connect_protocol_enabled() {
            send = within("settings", send.ready()).await.unwrap();
            tokio::task::yield_now().await;
        }
        Self { send, ended }
    }

    /// Sends a head. Returns what may follow it, and the response.
    pub async fn begin(
        &mut self,
        request: Request<()>,
        is_end: bool,
    ) -> Result<(SendStream<Bytes>, h2::client::ResponseFuture), h2::Error> {
        let ready = within("room for a stream", self.send.clone().ready()).await?;
        self.send = ready;
        let (response, send) = self.send.send_request(request, is_end)?;
        Ok((send, response))
    }

    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let request = head(method, path, headers).body(()).unwrap();
        let (mut send, response) = self.begin(request, body.is_empty()).await.unwrap();
        if !body.is_empty() {
            send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        answer(within("a response", response).await.unwrap()).await
    }

    /// Opens a WebSocket, or returns the refusal.
    pub async fn open(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Http2Socket, Answer> {
        self.try_open(path, headers).await.expect("a response")
    }

    pub async fn try_open(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Result<Http2Socket, Answer>, h2::Error> {
        let request = connect(path, "websocket", headers);
        let (send, response) = self.begin(request, false).await?;
        let response = within("a response", response).await?;
        if response.status() != StatusCode::OK {
            return Ok(Err(answer(response).await));
        }
        for absent in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
            assert!(!response.headers().contains_key(absent), "{response:?}");
        }
        let (parts, receive) = response.into_parts();
        Ok(Ok(Http2Socket { send, receive, headers: parts.headers, buffer: Vec::new() }))
    }
}

/// The head of an extended CONNECT.
pub fn connect(path: &str, protocol: &'static str, headers: &[(&str, &str)]) -> Request<()> {
    let request = head("CONNECT", path, headers).header("sec-websocket-version", "13");
    request.extension(Protocol::from_static(protocol)).body(()).unwrap()
}

pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> hyper::http::request::Builder {
    let uri = format!("http://gateway.test{path}");
    let request = Request::builder().method(method).uri(uri).version(hyper::Version::HTTP_2);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

/// Writes as the gateway makes room.
pub async fn write_all(send: &mut SendStream<Bytes>, left: &mut Bytes, is_end: bool) {
    send.reserve_capacity(left.len());
    while !left.is_empty() {
        let room = within("room", std::future::poll_fn(|cx| send.poll_capacity(cx))).await;
        let room = room.expect("an open stream").expect("an open stream").min(left.len());
        let data = left.split_to(room);
        send.send_data(data, is_end && left.is_empty()).expect("an open stream");
    }
}

async fn answer(response: Response<RecvStream>) -> Answer {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = within("a body", stream.data()).await {
        let data = data.expect("a body");
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    let trailers = within("trailers", stream.trailers()).await.expect("trailers");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers }
}

impl Http2Socket {
    pub fn write(&mut self, frame: &ClientFrame) {
        self.send.send_data(frame.bytes().into(), false).expect("an open stream");
    }

    /// Writes as the gateway makes room.
    pub async fn write_all(&mut self, mut bytes: Bytes) {
        write_all(&mut self.send, &mut bytes, false).await;
    }

    /// Reads a frame. `None` = the gateway has ended its half; `Err` = it has reset the stream.
    pub async fn try_read(&mut self) -> Result<Option<ServerFrame>, Option<Reason>> {
        loop {
            if let Some(frame) = take_server_frame(&mut self.buffer) {
                return Ok(Some(frame));
            }
            match within("a frame", self.receive.data()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.reason()),
                Some(Ok(data)) => {
                    self.receive.flow_control().release_capacity(data.len()).unwrap();
                    self.buffer.extend_from_slice(data.chunk());
                }
            }
        }
    }

    pub async fn read(&mut self) -> ServerFrame {
        self.try_read().await.expect("no reset").expect("a frame")
    }

    /// Reads a text frame that has `part`. A busy machine may take so long that the gateway has pinged before.
    pub async fn expect_text(&mut self, part: &str) -> String {
        let mut read = self.read().await;
        while read.opcode == frame::PING {
            read = self.read().await;
        }
        let text = String::from_utf8(read.payload).expect("text");
        assert!(read.opcode == frame::TEXT && text.contains(part), "{text} has no {part}");
        text
    }

    /// Reads up to the close frame, answers it and ends the stream. Returns its code.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            let read = self.try_read().await.expect("no reset")?;
            if read.opcode != frame::CLOSE {
                continue;
            }
            let code = read.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            let answer = frame::close(code.unwrap_or(1000), "").bytes();
            // The gateway may not wait for it.
            let _ = self.send.send_data(answer.into(), true);
            return code;
        }
    }
}
