//! What strangers on either side send to get past the gateway, or to make it and its other side see different things.

use serde_json::json;

use super::{pass, start};
use crate::rig::frame::{self, ClientFrame, continuation, ping, text};
use crate::rig::raw::{Received, handshake};
use crate::rig::raw_server::server_frame;
use crate::rig::{Gateway, RawClient, RawPeer, RawServer, Settings};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A pass route with every source of credentials.
fn all_sources(url: &str) -> Settings {
    let all = "\"connection_token\", \"cookie\", \"bearer\", \"query\", \"anonymous\"";
    pass(url, "")
        .each_route(|route| route.replace("\"connection_token\", \"anonymous\"", all))
        .section(
            "jwt",
            &format!("cookie = \"sid\"\nkeys = [{{ alg = \"HS256\", secret = {SECRET:?} }}]"),
        )
}

fn jwt() -> String {
    crate::rig::jwt::hs256(SECRET, &json!({"user_id": 7, "exp": 4_102_444_800u64}))
}

/// Sends this request head, and returns both ends before the upstream has answered.
async fn ask(gateway: &Gateway, server: &RawServer, head: &str) -> (RawClient, RawPeer) {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(head.as_bytes()).await;
    (client, server.accept().await)
}

/// Sends the head of a request that must not reach the upstream, and returns the status.
async fn refused(gateway: &Gateway, head: &str) -> u16 {
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(head.as_bytes()).await;
    client.read_head().await.status
}

/// Frames that RFC 6455 forbids, apart from the mask.
fn forbidden() -> Vec<(&'static str, Vec<ClientFrame>)> {
    let mut cases = vec![
        ("a ping in fragments", vec![ping("x").more()]),
        ("a close in fragments", vec![frame::close(1000, "").more()]),
        ("a long ping", vec![ping(vec![0; 126])]),
        ("a length with the highest bit", vec![text("").declaring(1 << 63)]),
        ("all bits of a length", vec![text("").declaring(u64::MAX)]),
        ("a ping with a length of eight bytes", vec![ping("x").eight_byte_length()]),
        ("a short length in two bytes", vec![text("x").two_byte_length()]),
        ("a short length in eight bytes", vec![text("x").eight_byte_length()]),
        ("RSV1, as for compression", vec![text("x").rsv(4)]),
        ("RSV1 on a ping", vec![ping("x").rsv(4)]),
        ("RSV2", vec![text("x").rsv(2)]),
        ("RSV3", vec![text("x").rsv(1)]),
        ("RSV1 on a continuation", vec![text("x").more(), continuation("y").rsv(4)]),
        ("a message inside a message", vec![text("x").more(), text("y")]),
        ("a continuation of nothing", vec![continuation("x")]),
        ("a continuation of a whole message", vec![text("x"), continuation("y")]),
        ("a close of one byte", vec![frame::frame(frame::CLOSE, "x")]),
        ("a reason that is not UTF-8", vec![frame::close(1000, [0xc3])]),
    ];
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        cases.push(("a close code that is not one", vec![frame::close(code, "")]));
    }
    for opcode in [3, 7, 11, 15] {
        cases.push(("an opcode that is not one", vec![frame::frame(opcode, "x")]));
    }
    cases
}

#[tokio::test]
async fn a_client_that_sends_what_is_forbidden_is_closed_and_its_upstream_gets_none_of_it() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let mut cases = forbidden();
    cases.push(("a frame without a mask", vec![text("x").unmasked()]));
    for (name, frames) in cases {
        // The client has offered compression, which was not negotiated.
        let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
        let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &offer)).await;
        let response = peer.response(&[]);
        peer.write(response.as_bytes()).await;
        assert_eq!(client.read_head().await.header("sec-websocket-extensions"), None);
        client.write(&frame::join(&frames)).await;
        for _ in 1..frames.len() {
            let allowed = peer.next().await.expect("what came before");
            assert_eq!(allowed.payload, b"x", "{name}");
        }
        let code = if name.contains("UTF-8") { 1007 } else { 1002 };
        assert_eq!(peer.expect_close().await.0, code, "{name}");
        peer.send(0x88, &code.to_be_bytes()).await;
        assert_eq!(client.read_close().await, Some(code), "{name}");
    }
}

#[tokio::test]
async fn an_upstream_that_sends_what_is_forbidden_is_closed_and_its_client_gets_none_of_it() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let mut cases: Vec<(&str, Vec<Vec<u8>>)> = forbidden()
        .into_iter()
        .map(|(name, frames)| {
            (name, frames.into_iter().map(|frame| frame.unmasked().bytes()).collect())
        })
        .collect();
    cases.push(("a frame with a mask", vec![text("x").bytes()]));
    for (name, frames) in cases {
        let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &[])).await;
        let response = peer.response(&[]);
        peer.write(&[response.into_bytes(), frames.concat()].concat()).await;
        assert_eq!(client.read_head().await.status, 101, "{name}");
        for _ in 1..frames.len() {
            let allowed = client.read_frame().await.expect("what came before");
            assert_eq!(allowed.payload, b"x", "{name}");
        }
        let close = client.read_frame().await.expect("a close frame");
        assert_eq!((close.opcode, &close.payload[..2]), (8, &1014u16.to_be_bytes()[..]), "{name}");
        assert_eq!(peer.expect_close().await.0, 1002, "{name}");
    }
}

#[tokio::test]
async fn ambiguous_handshakes_do_not_reach_the_upstream() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let valid = handshake("/app/x", &[]);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (name, head, status) in [
        ("two keys", valid.replace(key, &key.repeat(2)), 400),
        ("no key", valid.replace(key, ""), 400),
        ("a short key", valid.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        ("two versions", handshake("/app/x", &[("Sec-WebSocket-Version", "13")]), 426),
        ("another version", valid.replace("Version: 13", "Version: 8"), 426),
        ("two hosts", handshake("/app/x", &[("Host", "other.test")]), 400),
        ("a body", handshake("/app/x", &[("Content-Length", "5")]), 400),
        ("a chunked body", handshake("/app/x", &[("Transfer-Encoding", "chunked")]), 400),
        ("a new line in the path", handshake("/app/a%0d%0aX-Evil:%201", &[]), 404),
        ("a step up", handshake("/app/%2e%2e", &[]), 404),
        ("POST", valid.replace("GET", "POST"), 405),
    ] {
        assert_eq!(refused(&gateway, &head).await, status, "{name}");
    }
    let (_client, peer) = ask(&gateway, &server, &handshake("/app/first", &[])).await;
    assert_eq!(peer.request, "GET /app/first HTTP/1.1");
}

#[tokio::test]
async fn unusual_handshakes_pass_as_they_are() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    let valid = handshake("/app/x", &[]);
    let plain = "Connection: Upgrade\r\n";
    for connection in [
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\n",
        // A client that tries to take away what the gateway and proxies set.
        "Connection: Upgrade, X-Forwarded-For, X-Tidegate-Connection-Id, Host, Sec-WebSocket-Key\r\n",
    ] {
        let (mut client, mut peer) =
            ask(&gateway, &server, &valid.replace(plain, connection)).await;
        assert_eq!(peer.all("connection"), ["Upgrade"], "{connection}");
        for name in ["host", "x-forwarded-for", "x-tidegate-connection-id", "sec-websocket-key"] {
            assert_eq!(peer.all(name).len(), 1, "{name} with {connection}");
        }
        let response = peer.response(&[]);
        peer.write(response.as_bytes()).await;
        assert_eq!(client.read_head().await.status, 101, "{connection}");
    }
    // Many subprotocols, of which the last is selected.
    let offered: Vec<String> = (0..800).map(|number| format!("protocol.{number}")).collect();
    let offer = [("Sec-WebSocket-Protocol", &*offered.join(","))];
    let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &offer)).await;
    let found: Vec<&str> = peer.all("sec-websocket-protocol")[0].split(", ").collect();
    assert_eq!(found, offered);
    let response = peer.response(&[("Sec-WebSocket-Protocol", "protocol.799")]);
    peer.write(response.as_bytes()).await;
    assert_eq!(client.read_head().await.header("sec-websocket-protocol"), Some("protocol.799"));
    // A value that is not text is for the application to read.
    let mut head = handshake("/app/x", &[("X-Latin", "gr?n")]).into_bytes();
    let at = head.iter().position(|byte| *byte == b'?').expect("the mark");
    head[at] = 0xfc;
    let mut client = RawClient::connect(gateway.addr()).await;
    client.write(&head).await;
    assert_eq!(server.accept().await.all("x-latin"), ["gr\u{fc}n"]);
}

#[tokio::test]
async fn who_claims_to_be_somebody_is_not_believed() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "channel = \"app_{name}\"")).await;
    let headers = [
        ("Forwarded", "for=10.0.0.1;host=evil.test;proto=https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Proto", "https"),
        ("X_Forwarded_For", "10.0.0.1"),
        ("X-Tidegate-User-Id", "1"),
        ("X-Tidegate-Channel", "app_other"),
        ("x_tidegate_user_id", "1"),
        ("Remote-User", "root"),
    ];
    let (_client, peer) = ask(&gateway, &server, &handshake("/app/a%62c", &headers)).await;
    assert_eq!(peer.all("forwarded"), ["for=127.0.0.1;host=\"gateway.test\";proto=http"]);
    assert_eq!(peer.all("x-forwarded-host"), ["gateway.test"]);
    assert_eq!(peer.all("x-forwarded-proto"), ["http"]);
    assert_eq!(peer.all("x-tidegate-channel"), ["app_abc"]);
    for name in ["x_forwarded_for", "x-tidegate-user-id", "x_tidegate_user_id", "remote-user"] {
        assert_eq!(peer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn no_credential_of_the_gateway_gets_through_however_it_is_written() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(all_sources(&server.url())).await;
    let jwt = jwt();
    let token = || gateway.token(json!({"user_id": 7}));
    let bearer = format!("bEARER   {jwt}");
    let cookie = format!("a=1;sid={jwt}; b=2; sid=\"{jwt}\"");
    let referer = format!("https://gateway.test/app/?token={jwt}&page=2");
    for (path, headers) in [
        (format!("/app/x?%74oken={jwt}&a=1"), vec![]),
        (format!("/app/x?to%6ben={jwt}&%74oken={jwt}"), vec![("Referer", &*referer)]),
        (format!("/app/x?connection%5Ftoken={}", token().await), vec![]),
        ("/app/x".to_owned(), vec![("Authorization", &*bearer)]),
        ("/app/x".to_owned(), vec![("Cookie", &*cookie)]),
        (format!("/app/x?token={jwt}"), vec![("Cookie", &*cookie), ("Authorization", &*bearer)]),
    ] {
        let (_client, peer) = ask(&gateway, &server, &handshake(&path, &headers)).await;
        assert_eq!(peer.all("x-tidegate-user-id"), ["7"], "{path} {headers:?}");
        let all = format!("{} {:?}", peer.request, peer.headers);
        assert!(!all.contains(&jwt) && !all.contains("oken"), "{path} {headers:?}: {all}");
    }
    // What only looks like a token of ours is no credential, but may hold one.
    let token = token().await;
    for offered in
        ["mqtt, Tidegate.Token.X", "mqtt, \"tidegate.token.X\"", "mqtt, TIDEGATE.TOKEN.X"]
    {
        let offered = offered.replace('X', &token);
        let head = handshake("/app/x", &[("Sec-WebSocket-Protocol", &offered)]);
        assert_eq!(refused(&gateway, &head).await, 401, "{offered}");
    }
}

#[tokio::test]
async fn answers_that_say_more_than_a_101() {
    let server = RawServer::start().await;
    let gateway = Gateway::start(pass(&server.url(), "")).await;
    // Interim answers come first.
    let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &[])).await;
    let response = peer.response(&[
        ("Content-Length", "5"),
        ("X-Long", &"y".repeat(60_000)),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
    ]);
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let answer = [interim.as_bytes(), response.as_bytes(), &server_frame(0x81, b"first")].concat();
    peer.write(&answer).await;
    let head = client.read_head().await;
    assert_eq!((head.status, head.header("x-long").map(str::len)), (101, Some(60_000)));
    for name in ["content-length", "x-hop", "keep-alive", "link"] {
        assert_eq!(head.header(name), None, "{name}");
    }
    assert_eq!(head.header("connection"), Some("Upgrade"));
    client.expect(Received::Text(b"first".to_vec())).await;

    for (name, line) in [
        ("another status line", "X-A: 1\r\n HTTP/1.1 200 OK"),
        ("a name with a space", "X A: 1"),
        ("a zero byte", "X-A: a\0b"),
        ("a line without a name", ": 1"),
    ] {
        let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &[])).await;
        let response = peer.response(&[]);
        let response = response.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
        peer.write(response.as_bytes()).await;
        assert_eq!(client.read_head().await.status, 502, "{name}");
    }
}

#[tokio::test]
async fn interim_answers_without_end_are_no_answer() {
    let server = RawServer::start().await;
    let upstream = format!("kind = \"websocket\"\nurl = {:?}\ntimeout = \"300ms\"", server.url());
    let gateway = Gateway::start(pass("ws://x", "").upstream("app", &upstream)).await;
    let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &[])).await;
    let sending = async {
        loop {
            if peer.try_write(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = sending => {}
        head = client.read_head() => assert_eq!(head.status, 504),
    }
}

#[tokio::test]
async fn an_upgrade_to_something_else_is_none() {
    let (gateway, server, _client, _peer) = start("").await;
    for upgrade in ["h2c", "websocket/13x", "\"websocket\""] {
        let (mut client, mut peer) = ask(&gateway, &server, &handshake("/app/x", &[])).await;
        let response =
            peer.response(&[]).replace("Upgrade: websocket", &format!("Upgrade: {upgrade}"));
        peer.write(response.as_bytes()).await;
        assert_eq!(client.read_head().await.status, 502, "{upgrade}");
    }
}
