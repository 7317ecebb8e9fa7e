//! Request heads as RFC 9110 and RFC 9112 have them, on every port and path.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::raw::handshake;
use super::rig::{Gateway, RawClient, Reply, Settings, Upstream, until, within};

async fn status(addr: std::net::SocketAddr, request: &str) -> Option<u16> {
    let mut client = RawClient::connect(addr).await;
    client.write(request.as_bytes()).await;
    client.try_read_status().await
}

fn proxied(url: &str) -> Settings {
    Settings::chat("http://127.0.0.1:1/")
        .section("proxy", &format!("upstream = {url:?}"))
        .also("tokens", "issue_path = \"/auth/token\"")
        .route("path = \"/health\"\nreply = 'true'")
}

#[tokio::test]
async fn every_path_needs_exactly_one_valid_host() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(proxied(&upstream.url(""))).await;
    let ws = handshake("/ws/chat/1/", &[]);
    let upgrade = ws.split_once("Host: gateway.test\r\n").unwrap().1;
    for (target, rest) in [
        ("GET /ws/chat/1/", upgrade),
        ("GET /ws/chat/1/", "\r\n"),
        ("GET /nowhere/socket", upgrade),
        ("GET /health", "\r\n"),
        ("GET /health", upgrade),
        ("POST /auth/token", "Content-Length: 0\r\n\r\n"),
        ("OPTIONS /auth/token", "\r\n"),
        ("GET /api", "\r\n"),
        ("OPTIONS *", "\r\n"),
        ("GET http://a.test/api", "\r\n"),
    ] {
        for hosts in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nhost: b\r\n",
            "Host:\r\n",
            "Host: a b\r\n",
            "Host: a/b\r\n",
            "Host: a,b\r\n",
            "Host: me@a\r\n",
            "Host: a:port\r\n",
            "Host: [::1\r\n",
        ] {
            let request = format!("{target} HTTP/1.1\r\n{hosts}{rest}");
            assert_eq!(status(gateway.addr(), &request).await, Some(400), "{request}");
        }
    }
    assert!(upstream.requests().is_empty());
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host:\r\n", "Host: a/b\r\n"] {
        for path in ["/livez", "/readyz", "/metrics", "/v1/channels", "/nowhere"] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}\r\n");
            assert_eq!(status(gateway.admin(), &request).await, Some(400), "admin: {request}");
        }
    }
    let cause = [("cause", "host")];
    assert!(gateway.metric("tidegate_http_errors_total", &cause).await >= 100.0);
    let fine = "GET /api HTTP/1.1\r\nHost: [::1]:80\r\n\r\n";
    assert_eq!(status(gateway.addr(), fine).await, Some(204));
}

#[tokio::test]
async fn each_form_of_the_request_target_is_taken_where_it_belongs() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(proxied(&upstream.url(""))).await;
    let host = "Host: given.test\r\n";
    for (line, expected) in [
        ("GET /api", 204),
        ("GET http://named.test:81/api?x=1", 204),
        ("GET https://named.test", 204),
        ("OPTIONS *", 200),
        ("OPTIONS /api", 204),
        ("GET http://named.test/ws/chat/1/", 204),
        ("GET http://named.test/health", 200),
        ("GET *", 400),
        ("GET /api#part", 400),
        ("GET http://named.test/api#", 400),
        ("GET named.test:80", 400),
        ("GET named.test", 400),
        ("GET ftp://named.test/api", 400),
        ("GET http://me:pw@named.test/api", 400),
        ("CONNECT named.test:443", 501),
        ("CONNECT /api", 400),
        ("CONNECT http://named.test/api", 400),
    ] {
        let request = format!("{line} HTTP/1.1\r\n{host}\r\n");
        assert_eq!(status(gateway.addr(), &request).await, Some(expected), "{line}");
    }
    let hosts: Vec<_> =
        upstream.requests().iter().map(|r| r.header("host").unwrap().to_owned()).collect();
    assert_eq!(hosts, ["given.test", "named.test:81", "named.test", "given.test", "named.test"]);
    assert_eq!(upstream.requests()[1].path, "/api?x=1");
    let socket = handshake("http://named.test/ws/chat/1/", &[]);
    assert_eq!(status(gateway.addr(), &socket).await, Some(101));
}

/// The rest of a pipelined head arrives later, and has a `#` that is no fragment.
#[tokio::test]
async fn a_pipelined_head_may_come_in_parts() {
    let gateway = Gateway::start(proxied("")).await;
    for before in 1..4 {
        let mut client = RawClient::connect(gateway.addr()).await;
        let get = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write(format!("{}GET /health HTTP/1.1\r\n", get.repeat(before)).as_bytes()).await;
        for _ in 0..before {
            assert_eq!(client.read_head().await.status, 200);
            client.read_exact(4).await;
        }
        client.write(b"X-Color: #fff\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.read_head().await.status, 200);
        client.read_exact(4).await;
        client.write(b"GET /health#part HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.read_head().await.status, 400);
    }
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_not_implemented() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(proxied(&upstream.url(""))).await;
    for path in ["/api", "/auth/token", "/ws/chat/1/", "/health"] {
        for coding in [
            "gzip",
            "identity",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "xchunked",
            "chunked\r\nTransfer-Encoding: chunked",
        ] {
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
            let mut client = RawClient::connect(gateway.addr()).await;
            client.write(format!("{head}0\r\n\r\n").as_bytes()).await;
            let head = client.read_head().await;
            assert_eq!(head.status, 501, "{path} {coding}");
            assert_eq!(head.header("connection"), Some("close"), "{path} {coding}");
        }
    }
    assert!(upstream.requests().is_empty());
    let old = "POST /api HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(status(gateway.addr(), old).await, Some(400));
}

#[tokio::test]
async fn a_request_with_both_lengths_is_the_last_of_its_connection() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(proxied(&upstream.url(""))).await;
    for headers in [
        "Content-Length: 40\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 40\r\n",
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = format!("POST /api HTTP/1.1\r\nHost: a\r\n{headers}\r\n0\r\n\r\n{smuggled}");
        client.write(post.as_bytes()).await;
        let head = client.read_head().await;
        assert!(matches!(head.status, 204 | 400), "{head:?}");
        assert_eq!(client.try_read_status().await, None, "the connection is closed");
    }
    assert!(upstream.requests().iter().all(|request| request.path == "/api"));
    for request in upstream.requests() {
        assert_eq!(request.header("content-length"), None);
    }
}

#[tokio::test]
async fn a_broken_body_is_the_clients_fault() {
    let upstream = Upstream::start(|_| Reply::status(204)).await;
    let gateway = Gateway::start(proxied(&upstream.url(""))).await;
    for chunks in
        ["zz\r\nhello\r\n", "5\r\nhelloXX\r\n", "5hello\r\n", "-1\r\n\r\n", "fffffffffffffffff\r\n"]
    {
        for path in ["/api", "/auth/token"] {
            let mut client = RawClient::connect(gateway.addr()).await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n");
            client.write(format!("{head}\r\n1\r\nx\r\n{chunks}").as_bytes()).await;
            let status = client.try_read_status().await;
            // The token endpoint refuses a caller without credentials before it reads the body.
            assert!(
                matches!((path, status), (_, Some(400)) | ("/auth/token", Some(401))),
                "{path} {chunks:?}: {status:?}"
            );
        }
    }
    // A client that breaks off is not the upstream's failure either.
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.shutdown().await;
    assert!(matches!(client.try_read_status().await, None | Some(400)));
    gateway.wait_for_metric("tidegate_proxy_requests_total", &[("outcome", "bad_body")], 6.0).await;
    let unreachable = [("outcome", "unreachable")];
    assert_eq!(gateway.metric("tidegate_proxy_requests_total", &unreachable).await, 0.0);
    assert_eq!(gateway.events("proxy_failed"), 0);
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway =
        Gateway::start(proxied(&format!("http://{}", upstream.local_addr().unwrap()))).await;
    for request in [
        "GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.as_bytes()).await;
        client.shutdown().await;
        let (mut server, _) =
            within("connection to the upstream", upstream.accept()).await.unwrap();
        read_head(&mut server).await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        server.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(client.read_head().await.status, 200);
        server.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(client.read_exact(10).await, b"5\r\nhello\r\n");
    }
    // The token endpoint and a refused handshake answer as well.
    for request in [
        "POST /auth/token HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /ws/chat/1/ HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: a\r\n\r\n",
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(request.as_bytes()).await;
        client.shutdown().await;
        assert!(matches!(client.read_head().await.status, 401 | 426));
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(within("request head", stream.read_u8()).await.unwrap()));
    }
    head
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let settings =
        proxied("").also("server", "header_timeout = \"200ms\"\nkeep_alive = \"1500ms\"");
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    let get = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write(get.as_bytes()).await;
    assert_eq!(client.read_head().await.status, 200);
    client.read_exact(4).await;
    // The pause of a client that is longer than a head may take.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    client.write(get.as_bytes()).await;
    assert_eq!(client.read_head().await.status, 200);
    client.read_exact(4).await;
    client.write(b"GET /he").await;
    assert_eq!(client.try_read_status().await, Some(408), "a head that has begun");
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(get.as_bytes()).await;
    assert_eq!(client.read_head().await.status, 200);
    client.read_exact(4).await;
    assert_eq!(client.try_read_status().await, None, "an idle connection ends without an answer");
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
}

/// A client that reads nothing of an answer that is larger than all buffers.
#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_hold_the_upstream() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let settings = proxied(&url).also("server", "progress_timeout = \"500ms\"\nmin_rate = 0");
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    read_head(&mut server).await;
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    let piece = vec![b'x'; 1 << 20];
    until("end of the upstream's connection", async || server.write_all(&piece).await.err()).await;
    gateway.wait_for_metric("tidegate_http_errors_total", &[("cause", "too_slow")], 1.0).await;
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
    drop(client);
}

/// A quiet upstream is no slow client.
#[tokio::test]
async fn a_quiet_stream_is_kept() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let settings = proxied(&url).also(
        "server",
        "progress_timeout = \"200ms\"\nkeep_alive = \"200ms\"\nheader_timeout = \"200ms\"",
    );
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    read_head(&mut server).await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    for part in [head, "5\r\nfirst\r\n", "6\r\nsecond\r\n"] {
        server.write_all(part.as_bytes()).await.unwrap();
        // The quiet of the upstream, longer than any time limit of the client.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
    assert_eq!(client.read_head().await.status, 200);
    assert_eq!(client.read_exact(21).await, b"5\r\nfirst\r\n6\r\nsecond\r\n");
}

#[tokio::test]
async fn an_upload_that_trickles_is_ended() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let settings = proxied(&url).also("server", "progress_timeout = \"500ms\"\nmin_rate = 1000");
    let gateway = Gateway::start(settings).await;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let (mut server, _) = within("connection to the upstream", upstream.accept()).await.unwrap();
    read_head(&mut server).await;
    let trickle = async {
        until("end of the upload", async || {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            client
                .try_write(b"x")
                .await
                .err()
                .map(drop)
                .or_else(|| (gateway.events("none") > 0).then_some(()))
        })
        .await;
    };
    let ended = async {
        let mut rest = Vec::new();
        // The connection ends or is reset.
        let _ = within("end of the upload", server.read_to_end(&mut rest)).await;
    };
    tokio::select! {
        () = trickle => {}
        () = ended => {}
    }
    let outcome = [("outcome", "client_timed_out")];
    gateway.wait_for_metric("tidegate_proxy_requests_total", &outcome, 1.0).await;
}
