//! Upstreams that refuse, break the protocol, or do nothing.

use super::{UNLIMITED, pass, start};
use crate::rig::frame::{ClientFrame, binary, close, continuation, frame, text};
use crate::rig::raw::{Head, Received, handshake};
use crate::rig::raw_server::server_frame;
use crate::rig::{Gateway, RawClient, RawPeer, RawServer, Settings};

/// Connects, answers the upstream's handshake with what `answer` makes of it, and returns the client's response.
async fn refused(
    gateway: &Gateway,
    server: &RawServer,
    headers: &[(&str, &str)],
    answer: impl Fn(&RawPeer) -> String,
) -> (Head, String) {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(handshake("/app/x", headers).as_bytes()).await;
    let mut peer = server.accept().await;
    let response = answer(&peer);
    peer.write(response.as_bytes()).await;
    peer.shutdown().await;
    let head = client.read_head().await;
    let length = head.header("content-length").map_or(0, |length| length.parse().unwrap());
    let body = client.read_exact(length).await;
    (head, String::from_utf8(body).unwrap())
}

/// A config whose circuit does not open.
fn patient(url: &str, more: &str) -> Settings {
    let upstream =
        format!("kind = \"websocket\"\nurl = {url:?}\ncircuit = {{ failures = 1000000 }}");
    pass(url, more).upstream("app", &upstream)
}

#[tokio::test]
async fn an_invalid_acceptance_is_a_bad_gateway() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(patient(&server.url(), "")).await;
    let offers = [("Sec-WebSocket-Protocol", "mqtt")];
    let without = |peer: &RawPeer, header: &str| {
        let response = peer.response(&[]);
        let kept = response.split("\r\n").filter(|line| !line.starts_with(header));
        kept.collect::<Vec<_>>().join("\r\n")
    };
    type Answer<'a> = &'a dyn Fn(&RawPeer) -> String;
    let answers: [(&str, Answer<'_>); 9] = [
        ("no accept", &|peer| without(peer, "Sec-WebSocket-Accept")),
        ("another accept", &|peer| peer.response(&[]).replace("Accept: ", "Accept: x")),
        ("two accepts", &|peer| peer.response(&[("Sec-WebSocket-Accept", "x")])),
        ("no upgrade", &|peer| without(peer, "Upgrade")),
        ("no connection", &|peer| without(peer, "Connection")),
        ("an extension", &|peer| {
            peer.response(&[("Sec-WebSocket-Extensions", "permessage-deflate")])
        }),
        ("another subprotocol", &|peer| peer.response(&[("Sec-WebSocket-Protocol", "soap")])),
        ("two subprotocols", &|peer| {
            peer.response(&[("Sec-WebSocket-Protocol", "mqtt"), ("Sec-WebSocket-Protocol", "mqtt")])
        }),
        ("no HTTP", &|_| "SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
    ];
    for (name, answer) in answers {
        let (head, body) = refused(&gateway, &server, &offers, answer).await;
        assert_eq!(head.status, 502, "{name}");
        assert!(body.contains("\"code\":\"overloaded\""), "{name}: {body}");
        assert_eq!(head.header("sec-websocket-accept"), None, "{name}");
    }
    // A subprotocol although the client offered none.
    let selects = |peer: &RawPeer| peer.response(&[("Sec-WebSocket-Protocol", "mqtt")]);
    assert_eq!(refused(&gateway, &server, &[], selects).await.0.status, 502);
}

#[tokio::test]
async fn a_refusal_is_the_clients_as_it_is() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(patient(&server.url(), "")).await;
    for (status, headers, body) in [
        ("200 OK", "Content-Type: text/html\r\n", "<p>no socket here</p>"),
        ("302 Found", "Location: https://login.example.com/?next=%2Fapp\r\n", ""),
        ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"app\"\r\n", "{\"detail\":\"who?\"}"),
        ("403 Forbidden", "X-Reason: origin\r\nSet-Cookie: a=1\r\n", "no"),
        ("503 Service Unavailable", "Retry-After: 7\r\n", "busy"),
    ] {
        let answer = format!(
            "HTTP/1.1 {status}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (head, found) = refused(&gateway, &server, &[], |_| answer.clone()).await;
        assert_eq!((head.status.to_string().as_str(), found.as_str()), (&status[..3], body));
        for header in headers.trim_end().split("\r\n") {
            let (name, value) = header.split_once(": ").unwrap();
            assert_eq!(head.header(&name.to_lowercase()), Some(value));
        }
        assert_eq!(head.header("x-hop"), None);
    }
    // Bodies are bounded: of a larger one there is only the head.
    let endless = format!(
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n200001\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x200001)
    );
    let (head, body) = refused(&gateway, &server, &[], |_| endless.clone()).await;
    assert_eq!((head.status, &*body), (403, ""));
}

#[tokio::test]
async fn with_reject_close_a_refusal_has_a_close_code() {
    let server = RawServer::start().await;
    let settings =
        patient(&server.url(), "reject = \"close\"").also("server", "refusal_delay = \"0s\"");
    let gateway = Gateway::start(settings).await;
    for (status, code) in [
        ("200 OK", 1013),
        ("401 Unauthorized", 4001),
        ("403 Forbidden", 4003),
        ("404 Not Found", 4003),
        ("429 Too Many Requests", 4029),
        ("500 Internal Server Error", 1013),
    ] {
        let mut client = RawClient::connect(gateway.addr()).await;
        let offers = [("Sec-WebSocket-Protocol", "mqtt")];
        client.write(handshake("/app/x", &offers).as_bytes()).await;
        let mut peer = server.accept().await;
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        peer.write(answer.as_bytes()).await;
        let head = client.read_head().await;
        assert_eq!(head.status, 101, "{status}");
        assert_eq!(head.header("sec-websocket-protocol"), Some("mqtt"));
        let mut received = client.next().await;
        if let Received::Text(event) = received {
            assert!(String::from_utf8(event).unwrap().contains("retry_after"), "{status}");
            received = client.next().await;
        }
        assert!(
            matches!(received, Received::Close(Some(found), _) if found == code),
            "{received:?}"
        );
    }
    // There is no close code for a redirect.
    let redirect =
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let (head, _) = refused(&gateway, &server, &[], |_| redirect.to_owned()).await;
    assert_eq!((head.status, head.header("location")), (307, Some("/elsewhere")));
}

#[tokio::test]
async fn an_upstream_that_hangs_times_out() {
    let server = RawServer::start().await;
    let upstream = format!("kind = \"websocket\"\nurl = {:?}\ntimeout = \"200ms\"", server.url());
    let gateway = Gateway::start(pass(&server.url(), "").upstream("app", &upstream)).await;
    for begins_to_answer in [false, true] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(handshake("/app/x", &[]).as_bytes()).await;
        let mut peer = server.accept().await;
        if begins_to_answer {
            peer.write(b"HTTP/1.1 101 Switching").await;
        }
        assert_eq!(client.read_head().await.status, 504);
        peer.ended().await;
    }
    gateway
        .wait_for_metric(
            "tidegate_handshakes_total",
            &[("route", "/app/{name}"), ("outcome", "upstream_timeout")],
            2.0,
        )
        .await;
}

#[tokio::test]
async fn a_client_that_gives_up_ends_the_request_to_the_upstream() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    for resets in [false, true] {
        let mut client = RawClient::connect(gateway.addr()).await;
        client.write(handshake("/app/x", &[]).as_bytes()).await;
        let mut peer = server.accept().await;
        match resets {
            true => client.reset(),
            false => drop(client),
        }
        // Long before the upstream's time is over.
        peer.ended().await;
    }
    gateway.wait_for_metric("tidegate_upstream_in_flight", &[("upstream", "app")], 0.0).await;
}

#[tokio::test]
async fn an_upstream_that_breaks_the_protocol_is_closed_and_its_client_with_it() {
    let masked = text("masked").bytes();
    let reserved = server_frame(0xc1, b"x");
    let unfinished = [server_frame(0x01, b"a"), server_frame(0x81, b"b")].concat();
    for bytes in [masked, reserved, unfinished, server_frame(0x83, b""), server_frame(0x88, b"x")] {
        let (gateway, _server, mut client, mut peer) = start("").await;
        peer.send(0x81, b"before").await;
        peer.write(&bytes).await;
        client.expect(Received::Text(b"before".to_vec())).await;
        let mut received = client.read_frame().await.expect("a frame");
        if received.opcode == 1 {
            received = client.read_frame().await.expect("a frame");
        }
        assert_eq!((received.opcode, &received.payload[..2]), (8, &1014u16.to_be_bytes()[..]));
        assert_eq!(peer.expect_close().await.0, 1002);
        gateway.wait_for_event("upstream_broke_protocol").await;
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_closed_after_the_upstreams_answers() {
    let cases: [(Vec<ClientFrame>, u16); 5] = [
        (vec![text("x").unmasked()], 1002),
        (vec![text("x").rsv(4)], 1002),
        (vec![continuation("x")], 1002),
        (vec![frame(11, "")], 1002),
        (vec![close(1005, "")], 1002),
    ];
    for (frames, code) in cases {
        let (_gateway, _server, mut client, mut peer) = start("").await;
        client.send(&text("before")).await;
        for frame in &frames {
            client.send(frame).await;
        }
        assert_eq!(peer.expect(0x81).await, b"before");
        assert_eq!(peer.expect_close().await.0, code);
        peer.send(0x81, b"answer").await;
        peer.send(0x88, &code.to_be_bytes()).await;
        client.expect(Received::Text(b"answer".to_vec())).await;
        assert_eq!(client.read_close().await, Some(code));
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_closes_who_sent_it_with_1009() {
    let limited = "max_message_bytes = \"1KiB\"";
    let (gateway, _server, mut client, mut peer) = start(limited).await;
    client.send(&binary(vec![0; 1000]).more()).await;
    assert_eq!(peer.expect(0x02).await.len(), 1000);
    client.send(&continuation(vec![0; 25])).await;
    let (code, reason) = peer.expect_close().await;
    assert_eq!((code, &*reason), (1009, "1025 bytes are over max_message_bytes (1024)"));
    peer.send(0x88, &1009u16.to_be_bytes()).await;
    assert_eq!(client.read_close().await, Some(1009));
    let event = gateway.wait_for_event("message_too_big").await;
    let event = event.to_string();
    for part in ["\"from\":\"client\"", "\"bytes\":1025", "\"max\":1024"] {
        assert!(event.contains(part), "{event}");
    }

    let (gateway, _server, mut client, mut peer) = start(limited).await;
    peer.send(0x82, &[0; 1025]).await;
    assert_eq!(peer.expect_close().await.0, 1009);
    match client.next().await {
        Received::Close(Some(1014), reason) => {
            let reason = String::from_utf8(reason).unwrap();
            assert!(reason.contains("max_message_bytes (1024)"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(gateway.wait_for_event("message_too_big").await.to_string().contains("upstream"));
}

#[tokio::test]
async fn a_client_that_sends_too_many_messages_is_told_which_limit() {
    let limits = "[route.limits]\nmessages_per_connection = \"1/1h burst 3\"";
    let (gateway, _server, mut client, mut peer) = start(limits).await;
    for _ in 0..4 {
        client.send(&text("x")).await;
    }
    for _ in 0..3 {
        assert_eq!(peer.expect(0x81).await, b"x");
    }
    let expected = (1008, "over messages_per_connection".to_owned());
    assert_eq!(peer.expect_close().await, expected);
    let reason = expected.1.clone().into_bytes();
    client.expect(Received::Close(Some(1008), reason)).await;
    gateway.wait_for_event("closed_over_limit").await;
}

#[tokio::test]
async fn a_large_message_within_no_limit_passes() {
    let (_gateway, _server, mut client, mut peer) = start(UNLIMITED).await;
    client.send(&binary(vec![1; 3 << 20])).await;
    assert_eq!(peer.expect(0x82).await.len(), 3 << 20);
}
