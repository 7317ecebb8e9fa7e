//! Sockets to an independent WebSocket server.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use fastwebsockets::upgrade::upgrade;
use fastwebsockets::{Frame, OpCode, Payload, WebSocket};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::server::{Script, Server};
use super::*;
use crate::socket::frame::Opcode;

type Peer = WebSocket<TokioIo<Upgraded>>;

const MAX_MESSAGE: usize = 64 * 1024;

/// The server's ends of the sockets, and the heads of the requests that opened them.
struct Sockets {
    config: config::Upstream,
    peers: mpsc::Receiver<Peer>,
    heads: mpsc::Receiver<hyper::http::request::Parts>,
}

fn socket_to(port: u16) -> config::Upstream {
    let url = Template::parse(&format!("ws://127.0.0.1:{port}/ws/{{id}}?u={{user_id}}")).unwrap();
    upstream(UpstreamKind::WebSocket(config::WebSocketUpstream { urls: vec![url] }))
}

async fn serve() -> Sockets {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = socket_to(listener.local_addr().unwrap().port());
    let ((to_peers, peers), (to_heads, heads)) = (mpsc::channel(8), mpsc::channel(8));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (to_peers, to_heads) = (to_peers.clone(), to_heads.clone());
            let service = service_fn(move |mut request| {
                let (response, upgraded) = upgrade(&mut request).unwrap();
                // No test reads more heads than fit into the channel.
                let _ = to_heads.try_send(request.into_parts().0);
                let to_peers = to_peers.clone();
                tokio::spawn(async move {
                    let mut peer = upgraded.await.unwrap();
                    peer.set_auto_close(false);
                    to_peers.send(peer).await.ok()
                });
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    Sockets { config, peers, heads }
}

fn socket_request(message: &Message) -> SocketRequest<'_> {
    SocketRequest {
        channel: Some(&message.channel),
        params: &message.params,
        user_id: message.user_id.as_ref(),
        username: message.username.as_deref(),
        sender: &message.sender,
        connection_id: message.connection_id,
        request_id: &message.request_id,
        trace: &message.trace,
        max_message_bytes: MAX_MESSAGE,
    }
}

async fn open(config: config::Upstream) -> Result<UpstreamSocket, RelayError> {
    upstreams(config).open_socket(UPSTREAM, &socket_request(&message())).await
}

/// What a session gets of an upstream's socket.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
    TooBig,
    Ended(SocketEnd),
}

/// A socket that a task drives, as a session does.
struct Driven {
    socket: Rc<UpstreamSocket>,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Driven {
    fn new(socket: UpstreamSocket) -> Self {
        let socket = Rc::new(socket);
        let (to_test, received) = mpsc::unbounded_channel();
        let driving = Rc::clone(&socket);
        tokio::task::spawn_local(async move {
            let mut on_event = |event: FromUpstream<'_>| {
                let received = match event {
                    FromUpstream::Text(text) => Received::Text(text.to_owned()),
                    FromUpstream::Binary(bytes) => Received::Binary(bytes.to_vec()),
                    FromUpstream::TooBig => Received::TooBig,
                };
                // The test may have ended.
                let _ = to_test.send(received);
            };
            let end = poll_fn(|cx| {
                loop {
                    if let Poll::Ready(end) = driving.poll_output(cx) {
                        return Poll::Ready(end);
                    }
                    if !ready!(driving.poll_input(cx, &mut on_event)) {
                        return Poll::Ready(SocketEnd::Closed(None));
                    }
                }
            });
            let end = end.await;
            // The test may have ended.
            let _ = to_test.send(Received::Ended(end));
        });
        Self { socket, received }
    }

    fn send(&self, opcode: Opcode, payload: &[u8]) {
        self.socket.push(opcode, payload);
        self.socket.flush();
    }

    async fn next(&mut self) -> Received {
        let received = tokio::time::timeout(LONG, self.received.recv()).await;
        received.expect("in time").expect("it has not ended before")
    }
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// Opens a socket and returns both ends.
async fn pair() -> (Driven, Peer) {
    let mut sockets = serve().await;
    let socket = open(sockets.config).await.expect("opened");
    (Driven::new(socket), sockets.peers.recv().await.unwrap())
}

fn closed(code: u16, reason: &str) -> Received {
    Received::Ended(SocketEnd::Closed(Some((code, reason.into()))))
}

/// Returns the opcode and payload of the next frame at the server.
async fn frame(peer: &mut Peer) -> (OpCode, Vec<u8>) {
    let frame = tokio::time::timeout(LONG, peer.read_frame()).await.expect("in time").unwrap();
    (frame.opcode, frame.payload.to_vec())
}

fn piece(fin: bool, opcode: OpCode, payload: &[u8]) -> Frame<'_> {
    Frame::new(fin, opcode, None, Payload::Borrowed(payload))
}

#[tokio::test]
async fn the_handshake_carries_user_and_channel() {
    let mut sockets = serve().await;
    let message = message();
    let upstreams = upstreams(sockets.config.clone());
    let _socket = upstreams.open_socket(UPSTREAM, &socket_request(&message)).await.unwrap();
    let head = sockets.heads.recv().await.unwrap();
    assert_eq!(head.uri, "/ws/4%2F2?u=7");
    let header = |name: &str| head.headers[name].to_str().unwrap();
    assert_eq!(header("x-tidegate-channel"), "chat_42");
    assert_eq!(header("x-tidegate-user-id"), "7");
    assert_eq!(header("x-tidegate-username"), "Ana%20%C3%9C");
    assert_eq!(header("x-tidegate-connection-id"), message.connection_id.to_string());
    let trace = TraceContext::parse(header("traceparent")).unwrap();
    assert_eq!(trace.trace_id(), message.trace.trace_id());
    assert!(!trace.is_sampled());
}

#[tokio::test]
async fn whole_messages_pass_in_both_directions() {
    local(async {
        let (mut socket, mut peer) = pair().await;
        let large = "ü".repeat(MAX_MESSAGE / 2);
        for sent in ["", "hi", &large] {
            socket.send(Opcode::Text, sent.as_bytes());
            assert_eq!(frame(&mut peer).await, (OpCode::Text, sent.as_bytes().to_vec()));
            peer.write_frame(piece(true, OpCode::Text, sent.as_bytes())).await.unwrap();
            assert_eq!(socket.next().await, Received::Text(sent.to_owned()));
        }
        socket.send(Opcode::Binary, b"\x00\xff");
        assert_eq!(frame(&mut peer).await, (OpCode::Binary, b"\x00\xff".to_vec()));
        peer.write_frame(piece(true, OpCode::Binary, b"\x00\xff")).await.unwrap();
        assert_eq!(socket.next().await, Received::Binary(b"\x00\xff".to_vec()));
    })
    .await;
}

#[tokio::test]
async fn messages_that_are_sent_together_leave_in_their_order() {
    local(async {
        let (socket, mut peer) = pair().await;
        for number in 0..100 {
            socket.socket.push(Opcode::Text, number.to_string().as_bytes());
        }
        socket.socket.flush();
        for number in 0..100 {
            assert_eq!(frame(&mut peer).await, (OpCode::Text, number.to_string().into_bytes()));
        }
        assert_eq!(socket.socket.waiting_bytes(), 0);
    })
    .await;
}

#[tokio::test]
async fn fragments_are_joined_and_pings_between_them_answered() {
    local(async {
        let (mut socket, mut peer) = pair().await;
        let bytes = "aüb".as_bytes();
        peer.write_frame(piece(false, OpCode::Text, &bytes[..2])).await.unwrap();
        peer.write_frame(piece(true, OpCode::Ping, b"beat")).await.unwrap();
        peer.write_frame(piece(false, OpCode::Continuation, b"")).await.unwrap();
        peer.write_frame(piece(true, OpCode::Continuation, &bytes[2..])).await.unwrap();
        assert_eq!(frame(&mut peer).await, (OpCode::Pong, b"beat".to_vec()));
        assert_eq!(socket.next().await, Received::Text("aüb".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn messages_of_many_sizes_arrive_once_and_in_order() {
    local(async {
        let (mut socket, mut peer) = pair().await;
        for number in 0..50_usize {
            let sent = format!("{number}").repeat(1 + number * 600);
            peer.write_frame(piece(true, OpCode::Text, sent.as_bytes())).await.unwrap();
            assert_eq!(socket.next().await, Received::Text(sent));
        }
    })
    .await;
}

/// RFC 6455 forbids it, but no harm is done.
#[tokio::test]
async fn a_server_that_masks_its_frames_is_understood() {
    local(async {
        let (mut socket, mut peer) = pair().await;
        let mut masked =
            Frame::new(true, OpCode::Text, Some([1, 2, 3, 4]), Payload::Owned(b"hi".to_vec()));
        masked.mask();
        peer.write_frame(masked).await.unwrap();
        assert_eq!(socket.next().await, Received::Text("hi".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn the_upstreams_close_is_reported_and_answered() {
    local(async {
        for (sent, reported, answer) in [
            (Some((4001, "who?")), Some((4001, "who?")), 4001),
            (Some((1000, "")), Some((1000, "")), 1000),
            (None, Some((1000, "")), 0),
            (Some((1005, "")), None, 1002),
            (Some((999, "")), None, 1002),
        ] {
            let (mut socket, mut peer) = pair().await;
            let close = match sent {
                Some((code, reason)) => Frame::close(code, reason.as_bytes()),
                None => Frame::close_raw(Payload::Borrowed(b"")),
            };
            peer.write_frame(close).await.unwrap();
            let reported = reported.map(|(code, reason): (u16, &str)| (code, reason.into()));
            let payload = if answer == 0 { Vec::new() } else { u16::to_be_bytes(answer).to_vec() };
            assert_eq!(frame(&mut peer).await, (OpCode::Close, payload), "{sent:?}");
            let end = Received::Ended(SocketEnd::Closed(reported));
            assert_eq!(socket.next().await, end, "{sent:?}");
            socket.send(Opcode::Text, b"late");
            assert_eq!(socket.socket.waiting_bytes(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn our_close_is_sent_and_its_answer_reported() {
    local(async {
        let (mut socket, mut peer) = pair().await;
        let reason = "ü".repeat(100);
        socket.socket.close(4002, &reason);
        let (opcode, payload) = frame(&mut peer).await;
        assert_eq!((opcode, &payload[..2]), (OpCode::Close, &4002u16.to_be_bytes()[..]));
        assert_eq!(std::str::from_utf8(&payload[2..]).unwrap(), "ü".repeat(61));
        // What the upstream has sent before its answer still arrives, and is not answered.
        peer.write_frame(piece(true, OpCode::Ping, b"beat")).await.unwrap();
        peer.write_frame(piece(true, OpCode::Text, b"last")).await.unwrap();
        peer.write_frame(Frame::close(4002, b"")).await.unwrap();
        assert_eq!(socket.next().await, Received::Text("last".to_owned()));
        assert_eq!(socket.next().await, closed(4002, ""));
        drop(socket);
        assert!(peer.read_frame().await.is_err(), "nothing follows the close frame");
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_our_close_is_left() {
    local(async {
        let (mut socket, mut peer) = pair().await;
        socket.socket.close(1000, "");
        assert_eq!(frame(&mut peer).await.0, OpCode::Close);
        assert_eq!(socket.next().await, Received::Ended(SocketEnd::Unanswered));
    })
    .await;
}

#[tokio::test]
async fn protocol_violations_end_the_socket() {
    let over = vec![b'x'; MAX_MESSAGE + 1];
    let part = vec![b'x'; MAX_MESSAGE / 2 + 1];
    let cases: [(&str, Vec<Frame<'_>>, u16); 6] = [
        ("one large frame", vec![piece(true, OpCode::Text, &over)], 1009),
        (
            "many fragments",
            vec![piece(false, OpCode::Binary, &part), piece(true, OpCode::Continuation, &part)],
            1009,
        ),
        ("invalid UTF-8", vec![piece(true, OpCode::Text, b"\xff")], 1007),
        (
            "invalid UTF-8 over fragments",
            vec![piece(false, OpCode::Text, b"\xc3"), piece(true, OpCode::Continuation, b"a")],
            1007,
        ),
        ("a fragment of nothing", vec![piece(true, OpCode::Continuation, b"a")], 1002),
        (
            "a message in a message",
            vec![piece(false, OpCode::Text, b"a"), piece(true, OpCode::Text, b"b")],
            1002,
        ),
    ];
    local(async {
        for (name, frames, code) in cases {
            let (mut socket, mut peer) = pair().await;
            for frame in frames {
                peer.write_frame(frame).await.unwrap();
            }
            let close = (OpCode::Close, code.to_be_bytes().to_vec());
            assert_eq!(frame(&mut peer).await, close, "{name}");
            if code == 1009 {
                assert_eq!(socket.next().await, Received::TooBig, "{name}");
            }
            assert_eq!(socket.next().await, Received::Ended(SocketEnd::Closed(None)), "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_connection_is_reported() {
    local(async {
        let (mut socket, peer) = pair().await;
        drop(peer);
        assert_eq!(socket.next().await, Received::Ended(SocketEnd::Closed(None)));
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_does_not_read_times_out() {
    local(async {
        let mut sockets = serve().await;
        sockets.config.timeout = Duration::from_secs(2);
        let mut socket = Driven::new(open(sockets.config).await.unwrap());
        let _peer = sockets.peers.recv().await.unwrap();
        for _ in 0..64 {
            socket.send(Opcode::Binary, &[0; 1024 * 1024]);
        }
        assert_eq!(socket.next().await, Received::Ended(SocketEnd::Stalled));
    })
    .await;
}

#[tokio::test]
async fn a_dropped_socket_is_closed_and_releases_its_permit() {
    let mut sockets = serve().await;
    sockets.config.max_in_flight = 1;
    let (upstreams, message) = (upstreams(sockets.config.clone()), message());
    let socket = upstreams.open_socket(UPSTREAM, &socket_request(&message)).await.unwrap();
    let mut peer = sockets.peers.recv().await.unwrap();
    let busy = upstreams.open_socket(UPSTREAM, &socket_request(&message)).await.err();
    assert_eq!(busy, Some(RelayError::Busy));
    drop(socket);
    assert_eq!(frame(&mut peer).await, (OpCode::Close, 1001u16.to_be_bytes().to_vec()));
    assert!(peer.read_frame().await.is_err(), "the connection is over");
    assert!(upstreams.open_socket(UPSTREAM, &socket_request(&message)).await.is_ok());
}

/// A server that answers with the right `Sec-WebSocket-Accept` and more `headers`.
async fn serve_handshake(headers: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(stream.read_u8().await.unwrap()));
        }
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let accept = crate::protocol::websocket_accept(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{headers}\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        // A close frame with 1014, which the library of the other tests does not know.
        stream.write_all(&[0x88, 2, 0x03, 0xf6]).await.unwrap();
        // The connection stays open for as long as the client keeps it.
        let _ = stream.read_u8().await;
    });
    port
}

#[tokio::test]
async fn a_close_code_that_was_registered_later_is_reported() {
    local(async {
        let socket = open(socket_to(serve_handshake("").await)).await.unwrap();
        assert_eq!(Driven::new(socket).next().await, closed(1014, ""));
    })
    .await;
}

#[tokio::test]
async fn a_server_may_select_only_what_was_offered() {
    assert!(open(socket_to(serve_handshake("").await)).await.is_ok());
    for unrequested in [
        "Sec-WebSocket-Protocol: chat\r\n",
        "Sec-WebSocket-Protocol: tidegate.v1\r\n",
        "Sec-WebSocket-Protocol:\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        "Sec-WebSocket-Accept: AAAA\r\n",
    ] {
        let opened = open(socket_to(serve_handshake(unrequested).await)).await;
        assert_eq!(opened.err(), Some(RelayError::Malformed), "{unrequested}");
    }
}

#[tokio::test]
async fn responses_that_open_no_socket() {
    let upgrading = |accept: &str| {
        Script::hanging(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\n"
        ))
    };
    for (script, error) in [
        (Script::answer("200 OK", "text/plain", "hi"), RelayError::Failed),
        (Script::answer("302 Found", "text/plain", ""), RelayError::Redirected),
        (Script::answer("429 Slower", "text/plain", ""), RelayError::Busy),
        (
            Script::answer("403 Forbidden", "text/plain", ""),
            RelayError::rejected("the service refused the connection"),
        ),
        (Script::answer("500 No", "text/plain", ""), RelayError::Failed),
        (upgrading(""), RelayError::Malformed),
        (upgrading("Sec-WebSocket-Accept: AAAA\r\n"), RelayError::Malformed),
        (Script::closing("garbage\r\n\r\n"), RelayError::Malformed),
    ] {
        let server = Server::start([script]).await;
        assert_eq!(open(socket_to(server.port)).await.err(), Some(error));
    }
    let server = Server::start([Script::hanging("")]).await;
    let mut config = socket_to(server.port);
    config.timeout = Duration::from_millis(100);
    assert_eq!(open(config).await.err(), Some(RelayError::TimedOut));
}
