//! What the proxy passes on beside heads and bodies: trailers and interim responses; and requests that meet a connection
//! which the upstream is closing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{DEADLINE, Gateway, RawClient, Settings, http, within};

async fn start() -> (TcpListener, Gateway) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let settings = Settings::chat("http://127.0.0.1:1/")
        .section("proxy", &format!("upstream = {url:?}"))
        // All connections share one pool.
        .section("server", "listen = \"127.0.0.1:0\"\nthreads = 1");
    (upstream, Gateway::start(settings).await)
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let byte = within(end, stream.read_u8()).await;
        text.push(char::from(byte.unwrap_or_else(|_| panic!("ended after {text:?}"))));
    }
    text
}

/// Reads what the client receives up to `end`.
async fn received(client: &mut RawClient, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(client.read_exact(1).await[0]));
    }
    text
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (upstream, gateway) = start().await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client
        .write(
            b"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum, X-Forwarded-For\r\n\
              Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        )
        .await;
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    let head = read_until(&mut server, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.contains("te: trailers\r\n"), "{head}");
    assert!(head.contains("connection: te\r\n"), "{head}");
    assert!(head.contains("trailer: x-sum"), "{head}");
    let body = read_until(&mut server, "0\r\nx-sum: 1\r\n\r\n").await;
    assert_eq!(body, "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n");
    server
        .write_all(
            b"HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nok\r\n0\r\nX-Check: 2\r\n\r\n",
        )
        .await
        .unwrap();
    let head = received(&mut client, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.contains("trailer: x-check\r\n"), "{head}");
    assert_eq!(
        received(&mut client, "0\r\nx-check: 2\r\n\r\n").await,
        "2\r\nok\r\n0\r\nx-check: 2\r\n\r\n"
    );
    // The connection goes on, and a client that takes no trailers gets none.
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut server, "\r\n\r\n").await;
    server
        .write_all(
            b"HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nok\r\n0\r\nX-Check: 2\r\n\r\n",
        )
        .await
        .unwrap();
    received(&mut client, "\r\n\r\n").await;
    assert_eq!(received(&mut client, "0\r\n\r\n").await, "2\r\nok\r\n0\r\n\r\n");
}

#[tokio::test]
async fn interim_responses_arrive_before_the_response() {
    let (upstream, gateway) = start().await;
    let mut client = RawClient::connect(gateway.addr()).await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write(get).await;
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\nConnection: x\r\nX: 1\r\n\r\n";
    server.write_all(hints.as_bytes()).await.unwrap();
    let passed = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n";
    assert_eq!(received(&mut client, "\r\n\r\n").await, passed);
    // Several at once, together with the response.
    let rest = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    server.write_all(format!("{rest}{hints}{response}").as_bytes()).await.unwrap();
    assert_eq!(received(&mut client, "\r\n\r\n").await, "HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(received(&mut client, "\r\n\r\n").await, passed);
    let head = received(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(client.read_exact(2).await, b"ok");
    // The next request of the connection, and one of a client that knows no interim responses.
    client.write(get).await;
    read_until(&mut server, "\r\n\r\n").await;
    server.write_all(format!("{hints}{response}").as_bytes()).await.unwrap();
    assert_eq!(received(&mut client, "\r\n\r\n").await, passed);
    received(&mut client, "\r\n\r\nok").await;
    let mut old = TcpStream::connect(gateway.addr()).await.unwrap();
    old.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server.write_all(format!("{hints}{response}").as_bytes()).await.unwrap();
    let answer = read_until(&mut old, "ok").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

/// An upstream that answers each request and closes a connection that idles for a moment.
async fn close_soon(upstream: TcpListener, idle: Duration) {
    while let Ok((mut stream, _)) = upstream.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            let mut part = [0; 4096];
            // The first request has all the time that a busy machine needs.
            let mut patience = DEADLINE;
            // The end of the connection is the end of the task.
            while let Ok(Ok(read @ 1..)) =
                tokio::time::timeout(patience, stream.read(&mut part)).await
            {
                patience = idle;
                head.extend_from_slice(&part[..read]);
                if head.ends_with(b"\r\n\r\n") || head.ends_with(b"}") {
                    head.clear();
                    let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(answer).await.ok()?;
                }
            }
            Some(())
        });
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_closes_is_sent_again() {
    let (upstream, gateway) = start().await;
    tokio::spawn(close_soon(upstream, Duration::from_millis(20)));
    let mut failed = 0;
    for _ in 0..100 {
        for method in ["GET", "HEAD", "DELETE"] {
            let answer = http::send(gateway.addr(), method, "/", &[], "".into()).await;
            failed += usize::from(answer.status != 202);
        }
        // The pause of the upstream, so that requests meet its end.
        tokio::time::sleep(Duration::from_millis(19)).await;
    }
    assert_eq!(failed, 0);
}

/// An upstream that answers once on each connection and then closes it when it has read the next request: such a
/// request is always lost.
async fn lose_second(
    upstream: TcpListener,
    requests: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
) {
    while let Ok((mut stream, _)) = upstream.accept().await {
        let requests = std::sync::Arc::clone(&requests);
        tokio::spawn(async move {
            for _ in 0..2 {
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                while !(request.ends_with(b"\r\n\r\n") || request.ends_with(b"}")) {
                    match stream.read(&mut part).await {
                        Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
                        _ => return,
                    }
                }
                let count = {
                    let mut requests = requests.lock().unwrap();
                    requests.push(String::from_utf8(request).unwrap());
                    requests.len()
                };
                if count == 2 {
                    return;
                }
                let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn only_idempotent_requests_are_sent_again_and_once() {
    for (method, body, status) in [
        ("GET", "", 202),
        ("DELETE", "", 202),
        ("PUT", "", 202),
        ("POST", "", 502),
        ("PUT", "{}", 502),
    ] {
        let (upstream, gateway) = start().await;
        let requests = std::sync::Arc::default();
        tokio::spawn(lose_second(upstream, std::sync::Arc::clone(&requests)));
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.read_head().await.status, 202);
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let second = format!("{method} / HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}");
        client.write(second.as_bytes()).await;
        assert_eq!(client.read_head().await.status, status, "{method} {body}");
        let sent = requests.lock().unwrap().len();
        assert_eq!(sent, if status == 202 { 3 } else { 2 }, "{method} {body}");
        let retries = gateway.metric("tidegate_proxy_retries_total", &[]).await;
        assert_eq!(retries, f64::from(u8::from(status == 202)));
    }
}

#[tokio::test]
async fn a_message_that_meets_a_closed_connection_is_sent_again_with_its_key() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", upstream.local_addr().unwrap());
    let settings = Settings::chat(&url).section("server", "listen = \"127.0.0.1:0\"\nthreads = 1");
    let gateway = Gateway::start(settings).await;
    let requests = std::sync::Arc::default();
    tokio::spawn(lose_second(upstream, std::sync::Arc::clone(&requests)));
    let mut client = super::rig::Client::open(gateway.addr(), "/ws/chat/1/", &[]).await;
    assert_eq!(client.next_json().await["event"], "connected");
    for id in ["a", "b"] {
        client.send_text(&serde_json::json!({"message": "hi", "id": id}).to_string()).await;
        assert_eq!(client.next_json().await["event"], "task_queued");
    }
    let requests = requests.lock().unwrap().clone();
    let keys: Vec<_> = requests
        .iter()
        .map(|request| {
            request.lines().find(|line| line.starts_with("idempotency-key")).unwrap().to_owned()
        })
        .collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert_eq!(keys[1], keys[2]);
    assert_ne!(keys[0], keys[1]);
}
