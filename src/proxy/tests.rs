//! The proxy between a client and a loopback upstream; both are raw TCP connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what}"))
}

/// Starts a server that forwards every request to `upstream`.
async fn start_proxy(upstream: Option<String>, timeout: Duration) -> SocketAddr {
    let min_pace = config::MinPace { timeout: DEADLINE, min_rate: 1 };
    let route = "[[route]]\npath = \"/\"\nchannel = \"c\"";
    let mut config = config::Config::from_toml(route).expect("a configuration");
    config.proxy.urls = upstream.iter().map(|url| url.parse().unwrap()).collect();
    (config.proxy.timeout, config.server.min_pace) = (timeout, min_pace);
    let proxy = Proxy::new(&config, &SharedProxy::new(&config, None)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let proxy = proxy.clone();
            let service = service_fn(move |request| {
                let proxy = proxy.clone();
                let client = ClientAddress {
                    ip: peer.ip(),
                    peer: peer.ip(),
                    through_proxy: false,
                    has_tls: false,
                };
                async move {
                    let interim = InterimResponses::default();
                    Ok::<_, Infallible>(proxy.forward(request, client, &interim).await)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// A client's connection to a proxy, and the listener that stands for the upstream.
struct Setup {
    upstream: TcpListener,
    client: TcpStream,
}

impl Setup {
    async fn new(base: &str, timeout: Duration) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{base}", upstream.local_addr().unwrap());
        let client = TcpStream::connect(start_proxy(Some(url), timeout).await).await.unwrap();
        Self { upstream, client }
    }
}

/// Reads until `needle` has arrived, and returns everything that was read.
async fn read_until(stream: &mut TcpStream, needle: &str) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&text).contains(needle) {
        let read = within(needle, stream.read(&mut part)).await.unwrap();
        assert!(read > 0, "ended before {needle:?}: {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..read]);
    }
    String::from_utf8(text).unwrap()
}

async fn status_of(stream: &mut TcpStream) -> u16 {
    read_until(stream, "\r\n\r\n").await.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_event_arrives_before_the_stream_ends() {
    let Setup { upstream, mut client } = Setup::new("/base/", DEADLINE).await;
    client.write_all(b"GET /events?x=%20 HTTP/1.1\r\nhost: app.test\r\n\r\n").await.unwrap();
    let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
    let request = read_until(&mut server, "\r\n\r\n").await;
    assert!(request.starts_with("GET /base/events?x=%20 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("host: app.test\r\n"), "{request}");
    // An HTTP/1.0 upstream: its stream ends with its connection.
    server
        .write_all(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n")
        .await
        .unwrap();
    let answer = read_until(&mut client, "data: first\n\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("\r\n0\r\n"), "ended: {answer}");
    server.write_all(b"data: second\n\n").await.unwrap();
    read_until(&mut client, "data: second\n\n").await;
    drop(server);
    read_until(&mut client, "0\r\n\r\n").await;
}

#[tokio::test]
async fn a_broken_stream_does_not_look_complete() {
    let Setup { upstream, mut client } = Setup::new("", DEADLINE).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server
        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await
        .unwrap();
    read_until(&mut client, "half").await;
    drop(server);
    let mut rest = Vec::new();
    // The connection may end or be reset.
    let _ = within("end", client.read_to_end(&mut rest)).await;
    assert!(!rest.windows(5).any(|five| five == b"0\r\n\r\n"), "{rest:?}");
}

#[tokio::test]
async fn a_request_is_aborted_when_its_client_disconnects() {
    let Setup { upstream, mut client } = Setup::new("", DEADLINE).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    drop(client);
    let mut rest = Vec::new();
    // The connection may end or be reset.
    let _ = within("end of the request", server.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_upload_may_last_longer_than_the_timeout_while_it_makes_progress() {
    let timeout = Duration::from_millis(1500);
    let Setup { upstream, mut client } = Setup::new("", timeout).await;
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
    let started = Instant::now();
    while started.elapsed() < timeout * 2 {
        client.write_all(b"4\r\nmore\r\n").await.unwrap();
        read_until(&mut server, "more").await;
        // This is the speed of a slow client, not a wait for a condition.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut server, "0\r\n\r\n").await;
    server.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(status_of(&mut client).await, 201);
}

#[tokio::test]
async fn a_request_without_progress_times_out() {
    for (length, status, code) in [(5, "504", "\"timed_out\""), (6, "408", "client_timed_out")] {
        let Setup { upstream, mut client } = Setup::new("", Duration::from_secs(1)).await;
        let post = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nhello");
        client.write_all(post.as_bytes()).await.unwrap();
        let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
        read_until(&mut server, "hello").await;
        let answer = read_until(&mut client, code).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_forwarded_are_answered() {
    let Setup { upstream, mut client } = Setup::new("", DEADLINE).await;
    client.write_all(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(status_of(&mut client).await, 400);
    let proxy = client.peer_addr().unwrap();
    let mut tunnel = TcpStream::connect(proxy).await.unwrap();
    tunnel.write_all(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(status_of(&mut tunnel).await, 400);

    let mut switched = TcpStream::connect(proxy).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    switched.write_all(upgrade.as_bytes()).await.unwrap();
    let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
    let request = read_until(&mut server, "\r\n\r\n").await;
    assert!(!request.contains("upgrade"), "{request}");
    server
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status_of(&mut switched).await, 502);
}

#[tokio::test]
async fn no_request_leaves_the_upstreams_own_path() {
    let Setup { upstream, client } = Setup::new("/base", DEADLINE).await;
    let proxy = client.peer_addr().unwrap();
    for path in ["/..", "/../admin", "/a/../../admin", "/%2e%2e/admin", "/x/..%2fadmin", "/%252e./"]
    {
        let mut client = TcpStream::connect(proxy).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status_of(&mut client).await, 400, "{path}");
    }
    let mut client = TcpStream::connect(proxy).await.unwrap();
    client.write_all(b"GET /a..b/...?next=/../x HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (mut server, _) = within("upstream connection", upstream.accept()).await.unwrap();
    let request = read_until(&mut server, "\r\n\r\n").await;
    assert!(request.starts_with("GET /base/a..b/...?next=/../x HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn a_missing_upstream_and_an_unreachable_one_are_distinguished() {
    let mut nowhere = TcpStream::connect(start_proxy(None, DEADLINE).await).await.unwrap();
    nowhere.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answer = read_until(&mut nowhere, "no_upstream").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");

    let Setup { upstream, mut client } = Setup::new("", DEADLINE).await;
    drop(upstream);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answer = read_until(&mut client, "unreachable").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}
