//! Requests that match no route: passed on unchanged, streamed both ways, with forwarding headers.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{Gateway, RawClient, Reply, Settings, Upstream, http, until, within};

/// How long the upstream may take to answer, and how long an upload may stand still.
const TIMEOUT: Duration = Duration::from_secs(1);

fn settings(upstream_url: &str) -> Settings {
    Settings::chat("http://127.0.0.1:1/")
        .section("proxy", &format!("upstream = {upstream_url:?}\ntimeout = \"{TIMEOUT:?}\""))
}

#[tokio::test]
async fn without_an_upstream_there_is_nothing() {
    let gateway = Gateway::start(Settings::chat("http://127.0.0.1:1/")).await;
    for path in ["/", "/ws/chat/", "/ws/chat/1/2/", "/api"] {
        let answer = http::get(gateway.addr(), path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["code"], "no_upstream");
    }
}

#[tokio::test]
async fn requests_and_answers_pass_as_they_are() {
    let upstream = Upstream::start(|_| Reply::Answer {
        status: 418,
        headers: vec![
            ("x-answer", "yes".to_owned()),
            ("set-cookie", "a=1; Path=/".to_owned()),
            ("set-cookie", "b=2".to_owned()),
            ("keep-alive", "timeout=5".to_owned()),
        ],
        body: "tea".into(),
    })
    .await;
    let gateway = Gateway::start(settings(&upstream.url("/base/"))).await;
    let path = "/api/items/a%2Fb?x=1&y=%20z&empty=";
    let headers = [("host", "app.example.com"), ("x-own", "kept"), ("cookie", "c=3")];
    let answer = http::send(gateway.addr(), "PUT", path, &headers, "body".into()).await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "tea"));
    assert_eq!(answer.header("x-answer"), Some("yes"));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(answer.header("keep-alive"), None);

    let request = upstream.next_request().await;
    assert_eq!((request.method.as_str(), &*request.body), ("PUT", &b"body"[..]));
    assert_eq!(request.path, format!("/base{path}"));
    for (name, value) in headers {
        assert_eq!(request.header(name), Some(value));
    }
    assert_eq!(request.header("content-length"), Some("4"));
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("app.example.com"));
    assert_eq!(request.header("x-request-id").map(str::len), Some(32));
}

#[tokio::test]
async fn hop_by_hop_headers_are_removed() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(settings(&upstream.url(""))).await;
    let headers = [
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
        ("x-end-to-end", "1"),
    ];
    http::send(gateway.addr(), "GET", "/", &headers, "".into()).await;
    let request = upstream.next_request().await;
    for (name, _) in &headers[1..7] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert!(!request.header("connection").is_some_and(|value| value.contains("x-hop")));
    assert_eq!(request.header("x-end-to-end"), Some("1"));
}

#[tokio::test]
async fn only_a_trusted_proxy_may_set_forwarding_headers() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let given = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.test"),
        ("x-request-id", "given-1"),
        ("x-real-ip", "203.0.113.9"),
        ("x-original-url", "/admin"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("baggage", "tenant=1"),
    ];
    // Applications may take these for the ones above, and a proxy does not set them.
    let never = [
        ("x_forwarded_for", "6.6.6.6"),
        ("x_real_ip", "6.6.6.6"),
        ("x_request_id", "given-2"),
        ("proxy", "http://6.6.6.6"),
        ("x-tidegate-user-id", "1"),
        ("x_tidegate_signature", "t=1"),
    ];
    let all = [&given[..], &never[..]].concat();
    for (trusted, chain, proto, host) in [
        (false, "127.0.0.1", "http", "app.test"),
        (true, "203.0.113.9, 127.0.0.1", "https", "public.test"),
    ] {
        let mut settings = settings(&upstream.url(""));
        if trusted {
            settings = settings.also("server", "trusted_proxies = [\"127.0.0.0/8\"]");
        }
        let gateway = Gateway::start(settings).await;
        let headers = [&[("host", "app.test")][..], &all].concat();
        http::send(gateway.addr(), "GET", "/", &headers, "".into()).await;
        let request = upstream.next_request().await;
        assert_eq!(request.header("x-forwarded-for"), Some(chain));
        assert_eq!(request.header("x-forwarded-proto"), Some(proto));
        assert_eq!(request.header("x-forwarded-host"), Some(host));
        for (name, value) in &given[4..] {
            assert_eq!(request.header(name), trusted.then_some(*value), "{name}");
        }
        for (name, _) in never {
            assert_eq!(request.header(name), None, "{name}");
        }
        let id = request.header("x-request-id").expect("an id");
        assert!(if trusted { id == "given-1" } else { id.len() == 32 }, "{id}");
    }
}

#[tokio::test]
async fn a_streamed_answer_arrives_while_it_is_made() {
    let (stream, reply) = Reply::stream("text/event-stream");
    let reply = std::sync::Arc::new(Mutex::new(Some(reply)));
    let upstream =
        Upstream::start(move |_| reply.lock().unwrap().take().unwrap_or(Reply::Hangup)).await;
    let gateway = Gateway::start(settings(&upstream.url(""))).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.read_head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    for event in ["data: first\n\n", "data: second\n\n"] {
        stream.write(event);
        // A chunk of HTTP/1.1: its size in hexadecimal, then its data.
        let chunk = format!("{:x}\r\n{event}\r\n", event.len()).to_ascii_uppercase();
        let read = client.read_exact(chunk.len()).await.to_ascii_uppercase();
        assert_eq!(String::from_utf8(read).unwrap(), chunk);
    }
    drop(client);
    stream.closed().await;
}

#[tokio::test]
async fn a_large_upload_is_passed_on_while_it_arrives() {
    const TOTAL: usize = 30 << 20;
    const FIRST: usize = 1 << 20;
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway =
        Gateway::start(settings(&format!("http://{}", upstream.local_addr().unwrap()))).await;
    let mut client = TcpStream::connect(gateway.addr()).await.unwrap();
    let head = format!("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {TOTAL}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; FIRST];
    client.write_all(&piece).await.unwrap();

    // The upstream receives the first mebibyte before the rest is sent.
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    let mut received = Vec::new();
    let body_start = loop {
        let mut part = vec![0; 64 * 1024];
        let read = within("head", server.read(&mut part)).await.unwrap();
        received.extend_from_slice(&part[..read]);
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let mut body_bytes = received.len() - body_start;
    let mut part = vec![0; 256 * 1024];
    while body_bytes < FIRST {
        body_bytes += within("first part", server.read(&mut part)).await.unwrap();
    }
    let rest = tokio::spawn(async move {
        for _ in 1..TOTAL / FIRST {
            client.write_all(&piece).await.unwrap();
        }
        client
    });
    while body_bytes < TOTAL {
        let read = within("rest", server.read(&mut part)).await.unwrap();
        assert!(read > 0, "the upload ended after {body_bytes} bytes");
        body_bytes += read;
    }
    assert_eq!(body_bytes, TOTAL);
    let memory = gateway.memory("RssAnon");
    assert!(memory < 24 << 20, "{memory} bytes for an upload that passes by");
    server.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let mut client = rest.await.unwrap();
    let mut answer = vec![0; 12];
    within("answer", client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 201");
}

/// Uploads byte by byte for longer than [`TIMEOUT`], each byte once the one before has arrived. Returns the
/// status and the longest time in which nothing moved.
async fn slow_upload(gateway: &Gateway, upstream: &TcpListener) -> (u16, Duration) {
    let (started, mut moved, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    let mut arrived = read_until(&mut server, b"\r\n\r\n").await;
    while arrived && started.elapsed() < TIMEOUT * 2 {
        // The pace of a slow client.
        tokio::time::sleep(TIMEOUT / 20).await;
        client.write(b"1\r\nx\r\n").await;
        arrived = read_until(&mut server, b"1\r\nx\r\n").await;
        longest = longest.max(moved.elapsed());
        moved = Instant::now();
    }
    if arrived {
        client.write(b"0\r\n\r\n").await;
        if read_until(&mut server, b"0\r\n\r\n").await {
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    }
    let status = client.read_head().await.status;
    (status, longest.max(moved.elapsed()))
}

/// Reads up to the end of `needle`; `false` where the connection ends before.
async fn read_until(stream: &mut TcpStream, needle: &[u8]) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(needle) {
        match within("a byte of the request", stream.read_u8()).await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_upstream_may() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway =
        Gateway::start(settings(&format!("http://{}", upstream.local_addr().unwrap()))).await;
    // On a busy machine the upload itself may stand still; such an attempt proves nothing.
    until("upload that never pauses for long", async || {
        let (status, longest) = slow_upload(&gateway, &upstream).await;
        assert!(status == 200 || longest >= TIMEOUT / 2, "{status} after {longest:?} at most");
        (status == 200).then_some(())
    })
    .await;
    // An upload that stands still is given up.
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 80\r\n\r\n0123").await;
    assert_eq!(client.read_head().await.status, 408);
}

#[tokio::test]
async fn an_upstream_that_fails_is_reported_in_json() {
    let hanging = Upstream::start(|_| Reply::Hang).await;
    let hanging_up = Upstream::start(|_| Reply::Hangup).await;
    let garbage = Upstream::sending(b"nonsense\r\n\r\n").await;
    let stopped = Upstream::accepting().await;
    let stopped_url = stopped.url("");
    drop(stopped);
    for (url, status, code) in [
        (stopped_url, 502, "unreachable"),
        (hanging_up.url(""), 502, "unreachable"),
        (garbage.url(""), 502, "malformed"),
        (hanging.url(""), 504, "timed_out"),
    ] {
        let gateway = Gateway::start(settings(&url)).await;
        let answer = http::post(gateway.addr(), "/api", &[], &json!({})).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{url}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let outcome = [("outcome", code)];
        assert_eq!(gateway.metric("tidegate_proxy_requests_total", &outcome).await, 1.0);
    }
}

#[tokio::test]
async fn one_connection_serves_routes_and_the_proxy() {
    let upstream = Upstream::start(|request| Reply::json(200, &json!(request.path))).await;
    let gateway = Gateway::start(settings(&upstream.url(""))).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    // These are pipelined. A request of a route's path without an upgrade goes to the upstream as well.
    let paths = ["/one", "/ws/chat/1/", "/two"];
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.write(paths.map(get).concat().as_bytes()).await;
    for path in paths {
        let head = client.read_head().await;
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        assert_eq!(client.read_exact(length).await, format!("\"{path}\"").as_bytes());
    }
    // A handshake that has lost its `Upgrade` does not.
    client.write(b"GET /ws/chat/1/ HTTP/1.1\r\nhost: a\r\nsec-websocket-key: a\r\n\r\n").await;
    assert_eq!(client.read_head().await.status, 426);
    assert_eq!(upstream.requests().len(), 3);
}

/// Regression test: a client that vanished while it waited for an answer was never noticed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_probes_a_client_that_waits_for_an_answer() {
    let upstream = Upstream::start(|_| Reply::Hang).await;
    let gateway = Gateway::start(settings(&upstream.url(""))).await;
    let mut client = TcpStream::connect(gateway.addr()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    upstream.next_request().await;
    // The gateway's end has the client's port as its remote one; timer 2 is that of keepalive probes.
    let port = format!(":{:04X}", client.local_addr().unwrap().port());
    crate::rig::until("a timer of probes", async || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut sockets = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let socket = sockets.find(|fields| fields[2].ends_with(&port))?;
        socket[5].starts_with("02:").then_some(())
    })
    .await;
}
