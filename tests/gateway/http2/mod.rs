//! HTTP/2 (`[server] http2`), and WebSockets over it (RFC 8441).

mod heads;
mod routes;

use bytes::Bytes;
use h2::Reason;
use serde_json::json;

use crate::chat::{APP, chat, open_to_all, session};
use crate::rig::h2::{Http2, head};
use crate::rig::{Gateway, RawClient, Reply, Settings, Upstream, frame, within};

const PATH: &str = "/ws/chat/1/";
const STREAMS: &str = "tidegate_http2_streams_total";

fn on(settings: Settings) -> Settings {
    settings.also("server", "http2 = true")
}

#[tokio::test]
async fn sockets_share_a_connection_and_work_as_by_themselves() {
    let upstream = Upstream::start(|_| Reply::status(202)).await;
    let gateway = Gateway::start(on(Settings::chat(&upstream.url("/")))).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let mut sockets = Vec::new();
    for number in 0..20 {
        let path = format!("/ws/chat/{number}/");
        let mut socket = client.open(&path, &[]).await.unwrap();
        socket.expect_text("\"connected\"").await;
        sockets.push(socket);
    }
    assert_eq!(gateway.metric("tidegate_connections", &[]).await, 20.0);
    assert_eq!(gateway.metric(STREAMS, &[("kind", "connect")]).await, 20.0);
    assert_eq!(gateway.metric("tidegate_http2_connections", &[]).await, 1.0);
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.write(&frame::text(json!({"message": format!("from {number}")}).to_string()));
        let request = upstream.next_request().await;
        assert_eq!(request.json()["message"], format!("from {number}"));
        socket.expect_text("task_queued").await;
        gateway.publish(&format!("chat_{number}"), json!({"event": "news"})).await;
        socket.expect_text("news").await;
        socket.write(&frame::ping("p"));
        assert_eq!(socket.read().await.opcode, frame::PONG);
    }
    // The closing handshake, then the ends of both halves.
    let mut closed = sockets.pop().unwrap();
    closed.write(&frame::close(1000, "bye"));
    assert_eq!(closed.read().await.opcode, frame::CLOSE);
    assert_eq!(closed.try_read().await, Ok(None));
    gateway.wait_for_metric("tidegate_connections", &[], 19.0).await;
    // A client that resets its stream, or ends its half without a close frame.
    sockets.pop().unwrap().send.send_reset(Reason::CANCEL);
    gateway.wait_for_metric("tidegate_connections", &[], 18.0).await;
    sockets.pop().unwrap().send.send_data(Bytes::new(), true).unwrap();
    gateway.wait_for_metric("tidegate_connections", &[], 17.0).await;
    // What is left ends with its connection.
    client.ended.abort();
    gateway.wait_for_metric("tidegate_connections", &[], 0.0).await;
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
    gateway.wait_for_metric("tidegate_http2_connections", &[], 0.0).await;
}

#[tokio::test]
async fn checks_and_refusals_are_those_of_http_1() {
    for reject in ["http", "close"] {
        let gateway = Gateway::start(on(chat(&format!(
            "auth = [\"cookie\", \"bearer\"]\nreject = {reject:?}"
        ))))
        .await;
        let mut client = Http2::connect(gateway.addr()).await;
        let (jwt, other) = (session(), ("cookie", "theme=dark"));
        let token = format!("access_token={jwt}");
        let bearer = format!("Bearer {jwt}");
        for headers in [
            vec![APP, other, ("cookie", token.as_str()), ("cookie", "z=1")],
            vec![APP, ("authorization", &bearer)],
            vec![("authorization", &bearer)],
        ] {
            let mut socket = client.open(PATH, &headers).await.unwrap();
            socket.expect_text("\"connected\"").await;
        }
        for (headers, status, code) in [
            (vec![APP, other], 401, 4001),
            (vec![APP, ("authorization", "Bearer nonsense")], 401, 4001),
            (vec![("origin", "https://evil.test"), ("authorization", bearer.as_str())], 403, 4003),
        ] {
            match client.open(PATH, &headers).await {
                Err(refused) => assert_eq!((reject, refused.status), ("http", status)),
                Ok(mut socket) => {
                    assert_eq!((reject, socket.close_code().await), ("close", Some(code)));
                }
            }
        }
        let missing = client.open("/elsewhere", &[]).await.err().unwrap();
        assert_eq!(missing.status, 404);
    }
}

#[tokio::test]
async fn limits_count_each_socket() {
    let limits =
        "max_connections_per_ip = 3\nmax_connections = 4\ntrusted_proxies = [\"127.0.0.2\"]";
    let gateway = Gateway::start(on(open_to_all().also("server", limits))).await;
    let mut client = Http2::connect(gateway.addr()).await;
    // The connection is one of the address's three.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = client.open(PATH, &[]).await.unwrap();
        socket.expect_text("connected").await;
        held.push(socket);
    }
    let mut refused = client.open(PATH, &[]).await.unwrap();
    assert_eq!(refused.close_code().await, Some(4029));
    assert_eq!(gateway.metric("tidegate_client_sockets", &[]).await, 3.0);
    // Somebody else takes the last place of the process, and then finds none.
    let tcp = RawClient::connect_from("127.0.0.2", gateway.addr()).await.into_stream();
    let mut proxy = Http2::on(tcp).await;
    let of = |client| [("x-forwarded-for", client)];
    let full = proxy.open(PATH, &of("203.0.113.1")).await.err().unwrap();
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")));
    held.pop().unwrap().send.send_reset(Reason::CANCEL);
    gateway.wait_for_metric("tidegate_connections", &[], 1.0).await;
    let mut room = proxy.open(PATH, &of("203.0.113.1")).await.unwrap();
    room.expect_text("connected").await;
    drop((held, room));
}

/// A client that does not read one of its sockets loses that one, and no other.
#[tokio::test]
async fn a_stream_that_is_not_read_stalls_no_other() {
    let settings = on(open_to_all()).each_route(|route| {
        format!("{route}\nsend_queue = {{ messages = 50, bytes = \"256KiB\" }}")
    });
    let gateway = Gateway::start(settings).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let mut slow = client.open("/ws/chat/slow/", &[]).await.unwrap();
    slow.expect_text("connected").await;
    let mut fast = client.open("/ws/chat/fast/", &[]).await.unwrap();
    fast.expect_text("connected").await;
    let text = "x".repeat(10_000);
    let slow_closes = [("reason", "too_slow")];
    let mut number = 0;
    while gateway.metric("tidegate_closes_total", &slow_closes).await < 1.0 {
        assert!(number < 1000, "nobody is too slow");
        gateway.publish("chat_slow", json!({"event": "big", "text": text})).await;
        gateway.publish("chat_fast", json!({"event": "big", "text": text, "n": number})).await;
        fast.expect_text(&format!("\"n\":{number}")).await;
        number += 1;
    }
    let closed = gateway.wait_for_event("connection_closed").await;
    assert_eq!((&closed["code"], &closed["channel"]), (&json!(4008), &json!("chat_slow")));
    fast.write(&frame::ping(""));
    assert_eq!(fast.read().await.opcode, frame::PONG);
}

/// The client is told not to open further streams, and its sockets are closed one after the other with their code.
#[tokio::test]
async fn a_drain_closes_sockets_with_their_codes() {
    let mut gateway = Gateway::start(on(open_to_all())).await;
    let mut client = Http2::connect(gateway.addr()).await;
    let mut idle = Http2::connect(gateway.addr()).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = client.open(PATH, &[]).await.unwrap();
        socket.expect_text("connected").await;
        sockets.push(socket);
    }
    gateway.signal(rustix::process::Signal::TERM);
    for socket in &mut sockets {
        socket.expect_text("going_away").await;
        assert_eq!(socket.close_code().await, Some(1012));
    }
    assert_eq!(gateway.wait_exit().await, Some(0));
    for ended in [&mut client.ended, &mut idle.ended] {
        within("the end of the connection", ended).await.unwrap().expect("no error");
    }
}

#[tokio::test]
async fn connections_without_streams_are_closed() {
    let timeouts = "keep_alive = \"200ms\"\nheader_timeout = \"300ms\"";
    let gateway = Gateway::start(on(open_to_all().also("server", timeouts))).await;
    let mut unused = Http2::connect(gateway.addr()).await;
    within("the end of the connection", &mut unused.ended).await.unwrap().expect("no error");
    let mut used = Http2::connect(gateway.addr()).await;
    let mut socket = used.open(PATH, &[]).await.unwrap();
    socket.expect_text("connected").await;
    used.request("GET", "/", &[], b"").await;
    // One stream keeps it open.
    gateway.wait_for_metric("tidegate_http2_connections", &[], 1.0).await;
    let mut silent = RawClient::connect(gateway.addr()).await;
    silent.write(b"PRI * HTTP/2.0\r\n").await;
    assert_eq!(silent.read_to_end().await, b"");
    socket.write(&frame::ping(""));
    assert_eq!(socket.read().await.opcode, frame::PONG);
    socket.send.send_reset(Reason::CANCEL);
    within("the end of the connection", &mut used.ended).await.unwrap().expect("no error");
    gateway.wait_for_metric("tidegate_client_sockets", &[], 0.0).await;
}

/// CVE-2023-44487: a client that resets its requests at once makes the gateway begin any number of them.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let upstream = Upstream::start(|_| Reply::Hang).await;
    let settings =
        on(open_to_all()).section("proxy", &format!("upstream = {:?}", upstream.url("")));
    let gateway = Gateway::start(settings).await;
    let mut other = Http2::connect(gateway.addr()).await;
    let mut kept = other.open(PATH, &[]).await.unwrap();
    kept.expect_text("connected").await;
    let mut client = Http2::connect(gateway.addr()).await;
    for _ in 0..1000 {
        let Ok((mut send, _response)) =
            client.begin(head("GET", "/", &[]).body(()).unwrap(), true).await
        else {
            break;
        };
        send.send_reset(Reason::CANCEL);
        tokio::task::yield_now().await;
    }
    let ended = within("the end of the connection", &mut client.ended).await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
    kept.write(&frame::ping(""));
    assert_eq!(kept.read().await.opcode, frame::PONG);
    gateway.wait_for_metric("tidegate_http2_connections", &[], 1.0).await;
}
