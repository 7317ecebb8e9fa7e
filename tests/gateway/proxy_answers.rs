//! What the proxy makes of its upstream's answers: those whose headers and body do not agree, those that break off, and
//! those that come before the request has ended.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::rig::{API_KEY, Gateway, RawClient, Settings};

/// A gateway whose proxy's upstream sends `answer` on each connection and then closes it. It reads the request's head.
async fn start(answer: &'static str) -> Gateway {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let settings = Settings::chat("http://127.0.0.1:1/")
        .each_route(|route| format!("http = \"off\"\n{route}"))
        .section("proxy", &format!("upstream = {url:?}"))
        .also("tokens", "issue_path = \"/auth/token\"")
        .route("path = \"/health\"\nreply = 'true'");
    Gateway::start(settings).await
}

/// Sends a request, and returns the status of the response, its lengths and transfer codings, and its body.
async fn answer(gateway: &Gateway, method: &str) -> (u16, Vec<String>, String) {
    let mut client = RawClient::connect(gateway.addr()).await;
    let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.write(request.as_bytes()).await;
    let head = client.read_head().await;
    let framing = head.headers.iter().filter_map(|(name, value)| match name.as_str() {
        "content-length" | "transfer-encoding" => Some(value.clone()),
        _ => None,
    });
    let framing = framing.collect();
    (head.status, framing, String::from_utf8(client.read_to_end().await).unwrap())
}

#[tokio::test]
async fn the_head_and_the_body_of_an_answer_agree() {
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for (method, given, status, framing, body) in [
        ("GET", "Content-Length: 2\r\n\r\nok", 200, &["2"][..], "ok"),
        ("GET", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, &["2"], "ok"),
        ("GET", "Content-Length: 2, 2\r\n\r\nok", 200, &["2"], "ok"),
        ("GET", "Content-Length: 002\r\n\r\nok", 200, &["2"], "ok"),
        ("GET", "Content-Length: 2\r\nConnection: content-length\r\n\r\nok", 200, &["2"], "ok"),
        ("HEAD", "Content-Length: 7\r\n\r\n", 200, &["7"], ""),
        ("HEAD", "Content-Length: 7, 7\r\n\r\n", 200, &["7"], ""),
        ("HEAD", "Content-Length: 7\r\nContent-Length: 7\r\n\r\n", 200, &["7"], ""),
        ("HEAD", "Content-Length: 7\r\nContent-Length: 8\r\n\r\n", 200, &[], ""),
        (
            "GET",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            200,
            &["chunked"],
            chunked,
        ),
        (
            "GET",
            "Transfer-Encoding: Chunked\r\nContent-Length: 50\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            200,
            &["chunked"],
            chunked,
        ),
        ("GET", "\r\nhello", 200, &["chunked"], chunked),
    ] {
        // The answers are literals, so that the upstream can own them.
        let gateway = start(format!("HTTP/1.1 200 OK\r\n{given}").leak()).await;
        let answer = answer(&gateway, method).await;
        let framing = framing.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(answer, (status, framing, body.to_owned()), "{method} {given:?}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_decoded_is_malformed() {
    for given in [
        "Transfer-Encoding: gzip\r\n\r\nxxx",
        "Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nxxx\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n3\r\nxxx\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxxx\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "Content-Length: +2\r\n\r\nok",
    ] {
        let gateway = start(format!("HTTP/1.1 200 OK\r\n{given}").leak()).await;
        let (status, _, body) = answer(&gateway, "GET").await;
        assert_eq!(status, 502, "{given:?}");
        assert!(body.contains("\"malformed\""), "{body}");
        let malformed = [("outcome", "malformed")];
        assert_eq!(gateway.metric("tidegate_proxy_requests_total", &malformed).await, 1.0);
        let event = gateway.wait_for_event("proxy_failed").await;
        assert_eq!(event["cause"], "malformed");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_the_upstreams_failure() {
    for given in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n8\r\nhel",
    ] {
        let gateway = start(format!("HTTP/1.1 200 OK\r\n{given}").leak()).await;
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.read_head().await.status, 200);
        let body = client.read_to_end().await;
        assert!(!body.ends_with(b"0\r\n\r\n"), "{given:?} looks complete");
        let broken = [("outcome", "broken_off")];
        gateway.wait_for_metric("tidegate_proxy_requests_total", &broken, 1.0).await;
        assert_eq!(gateway.wait_for_event("proxy_failed").await["cause"], "broken_off");
        let of_client = [("cause", "broken")];
        assert_eq!(gateway.metric("tidegate_http_errors_total", &of_client).await, 0.0);
    }
}

/// Each of these is answered before the body has been read. A client that sends all of it first still gets its answer.
#[tokio::test]
async fn an_answer_before_the_end_of_a_large_upload_arrives() {
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    let gateway = start(refusal).await;
    let bytes = 5_000_000;
    for (path, status) in [
        ("/upload", 413),
        ("/health", 405),
        ("/ws/chat/1/", 405),
        ("/auth/token", 401),
        ("/upload#part", 400),
    ] {
        for head in [format!("Content-Length: {bytes}"), "Transfer-Encoding: chunked".to_owned()] {
            let mut body = vec![b'x'; bytes];
            if !head.contains(&bytes.to_string()) {
                let size = format!("{bytes:x}\r\n");
                body = [size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
            }
            let mut client = RawClient::connect(gateway.addr()).await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
            client.write(head.as_bytes()).await;
            client.write(&body).await;
            assert_eq!(client.try_read_status().await, Some(status), "{head}");
        }
    }
    // The limit of a publication is exceeded after a part of it.
    let head =
        format!("POST /v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {API_KEY}\r\n");
    let mut client = RawClient::connect(gateway.admin()).await;
    client.write(format!("{head}Content-Length: 15000000\r\n\r\n").as_bytes()).await;
    client.write(&vec![b'x'; 15_000_000]).await;
    assert_eq!(client.try_read_status().await, Some(413));
    assert_eq!(gateway.events("proxy_failed"), 0);
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
}
