//! permessage-deflate (RFC 7692): what is agreed on, what is compressed, and what is refused.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::deflate::deflate;
use crate::rig::echo::Echo;
use crate::rig::raw::{Received, handshake};
use crate::rig::{API_KEY, Gateway, RawClient, Reply, Settings, Upstream, frame, http, until};

const PATH: &str = "/ws/chat/42/";
const OFFER: &str = "permessage-deflate; client_max_window_bits";

on_both_engines! {
    a_publication_is_compressed_once_for_all,
    a_history_comes_to_each_client_in_its_form,
    slow_clients_are_closed_and_a_drain_ends_all,
}

fn compressing(settings: Settings) -> Settings {
    settings.each_route(|route| {
        let (keys, tables) = route.split_once("[route.").unwrap_or((route, ""));
        let tables = if tables.is_empty() { String::new() } else { format!("[route.{tables}") };
        format!("{keys}\ncompression = \"deflate\"\n{tables}")
    })
}

fn settings() -> Settings {
    compressing(Settings::chat("http://127.0.0.1:1/"))
}

async fn open(gateway: &Gateway, path: &str, offer: Option<&str>) -> (RawClient, Value) {
    let mut client = match offer {
        Some(offer) => RawClient::open_compressed(gateway.addr(), path, offer).await,
        None => RawClient::open(gateway.addr(), path).await,
    };
    let connected = json(&mut client).await;
    assert_eq!(connected["event"], "connected");
    (client, connected)
}

async fn explain(gateway: &Gateway) -> Value {
    let (path, key) = ("/v1/explain?channel=chat_42", [("x-api-key", API_KEY)]);
    http::send(gateway.admin(), "GET", path, &key, "".into()).await.json()
}

async fn json(client: &mut RawClient) -> Value {
    loop {
        match client.next().await {
            Received::Text(text) => return serde_json::from_slice(&text).expect("JSON"),
            Received::Ping(payload) => client.send(&frame::pong(payload)).await,
            other => panic!("{other:?}"),
        }
    }
}

fn large(number: usize) -> Value {
    json!({"event": "news", "number": number, "text": format!("many words of {number} ").repeat(100)})
}

/// The answer to a handshake: its status, and the extensions.
async fn answer(gateway: &Gateway, path: &str, offers: &[&str]) -> (u16, Option<String>) {
    let mut client = RawClient::connect(gateway.addr()).await;
    let headers: Vec<(&str, &str)> =
        offers.iter().map(|offer| ("Sec-WebSocket-Extensions", *offer)).collect();
    client.write(handshake(path, &headers).as_bytes()).await;
    let head = client.read_head().await;
    (head.status, head.header("sec-websocket-extensions").map(str::to_owned))
}

#[tokio::test]
async fn what_is_agreed_on() {
    let echo = Echo::start().await;
    let gateway = Gateway::start(
        settings()
            .route("path = \"/off/\"\nchannel = \"off\"\nauth = [\"anonymous\"]")
            .route("path = \"/health/\"\nreply = \"1\"")
            .route("path = \"/closed/\"\nchannel = \"c\"\nauth = [\"cookie\"]\ncompression = \"deflate\"")
            .route("path = \"/raw/\"\nchannel = \"r\"\nupstream = \"echo\"\nprotocol = \"raw\"\nauth = [\"anonymous\"]\ncompression = \"deflate\"")
            .route("path = \"/pass/\"\nupstream = \"echo\"\nprotocol = \"pass\"\nauth = [\"anonymous\"]")
            .upstream("echo", &format!("kind = \"websocket\"\nurl = {:?}", echo.url())),
    )
    .await;
    let own = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offers, more) in [
        (&["permessage-deflate"][..], Some("")),
        (&[OFFER], Some("; client_max_window_bits=15")),
        (&["permessage-deflate; server_max_window_bits=8"], Some("; server_max_window_bits=8")),
        (&["permessage-deflate; x, permessage-deflate"], Some("")),
        (
            &["foo", "permessage-deflate; server_max_window_bits=\"10\""],
            Some("; server_max_window_bits=10"),
        ),
        (&["permessage-deflate; server_max_window_bits=16"], None),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["x-webkit-deflate-frame"], None),
        (&[";;;"], None),
        (&[], None),
    ] {
        for path in [PATH, "/raw/"] {
            let (status, extensions) = answer(&gateway, path, offers).await;
            let expected = more.map(|more| format!("{own}{more}"));
            assert_eq!((status, extensions), (101, expected), "{path} {offers:?}");
        }
    }
    // Elsewhere the offer is passed over, and so it is where a client is refused.
    for path in ["/off/", "/health/", "/closed/", "/pass/"] {
        assert_eq!(answer(&gateway, path, &[OFFER]).await, (101, None), "{path}");
    }
    // A client without compression may not send a compressed message.
    for path in [PATH, "/off/", "/pass/"] {
        let mut client = RawClient::open(gateway.addr(), path).await;
        if path != "/pass/" {
            assert_eq!(json(&mut client).await["event"], "connected");
        }
        client.send(&frame::text(deflate(b"{}")).rsv(4)).await;
        assert_eq!(client.read_close().await, Some(1002), "{path}");
    }
}

async fn a_publication_is_compressed_once_for_all(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let offers = [Some(OFFER), None, Some("permessage-deflate"), Some(OFFER)];
    let mut clients = Vec::new();
    // So many that both threads have some of each.
    for number in 0..24 {
        clients.push(open(&gateway, PATH, offers[number % 4]).await.0);
    }
    gateway.wait_for_metric("tidegate_compressed_connections", &[], 18.0).await;
    for number in 0..10 {
        gateway.publish("chat_42", large(number)).await;
        gateway.publish("chat_42", json!({"event": "small", "number": number})).await;
    }
    for (client, offer) in clients.iter_mut().zip(offers.iter().cycle()) {
        for number in 0..10 {
            let mut news = json(client).await;
            assert!(news["offset"].is_u64());
            for key in ["offset", "epoch"] {
                news.as_object_mut().unwrap().remove(key);
            }
            assert_eq!(news, large(number));
            assert_eq!(json(client).await["event"], "small");
        }
        assert_eq!(client.compressed(), if offer.is_some() { 10 } else { 0 });
    }
    let metric = async |name, labels: &[_]| gateway.metric(name, labels).await;
    let frames = "tidegate_compression_frames_total";
    assert_eq!(metric(frames, &[("direction", "out"), ("outcome", "done")]).await, 10.0);
    let plain = metric("tidegate_compression_plain_bytes_total", &[("direction", "out")]).await;
    let small =
        metric("tidegate_compression_compressed_bytes_total", &[("direction", "out")]).await;
    assert!(plain > 15_000.0 && small > 0.0 && small < plain / 5.0, "{small} of {plain}");
    // Another window is another form, made once as well.
    for _ in 0..2 {
        clients.push(
            open(&gateway, PATH, Some("permessage-deflate; server_max_window_bits=9")).await.0,
        );
    }
    gateway.publish("chat_42", large(11)).await;
    for client in &mut clients {
        assert_eq!(json(client).await["number"], 11);
    }
    assert_eq!(metric(frames, &[("direction", "out"), ("outcome", "done")]).await, 12.0);
    drop(clients);
    gateway.wait_for_metric("tidegate_compressed_connections", &[], 0.0).await;
}

async fn a_history_comes_to_each_client_in_its_form(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let (mut first, connected) = open(&gateway, PATH, Some(OFFER)).await;
    let resume = format!(
        "{PATH}?since={}&epoch={}",
        connected["offset"],
        connected["epoch"].as_str().unwrap()
    );
    for number in 0..30 {
        gateway.publish("chat_42", large(number)).await;
    }
    let mut expected = Vec::new();
    for number in 0..30 {
        expected.push(json(&mut first).await);
        assert_eq!(expected[number]["number"], number);
    }
    for offer in [Some(OFFER), None, Some("permessage-deflate; server_max_window_bits=10")] {
        let (mut client, connected) = open(&gateway, &resume, offer).await;
        assert_eq!(
            (&connected["recovered"], &connected["missed"]),
            (&json!(true), &json!(expected.len()))
        );
        for event in &expected {
            assert_eq!(json(&mut client).await, *event);
        }
        assert_eq!(client.compressed(), if offer.is_some() { expected.len() } else { 0 });
        // What is live follows.
        gateway.publish("chat_42", large(99)).await;
        assert_eq!(json(&mut client).await["number"], 99);
        expected.push(json(&mut first).await);
        // The first frame resumes as well.
        let since =
            json!({"type": "resume", "since": connected["offset"], "epoch": connected["epoch"]});
        client.send(&frame::text(since.to_string())).await;
        assert_eq!(json(&mut client).await["event"], "resumed");
        for event in &expected {
            assert_eq!(json(&mut client).await, *event);
        }
        let explained = explain(&gateway).await;
        let connections = explained["connections"].as_array().unwrap();
        let compressed =
            connections.iter().filter(|one| one["compression"] == "permessage-deflate");
        assert!((1..=connections.len()).contains(&compressed.count()), "{explained}");
    }
}

async fn slow_clients_are_closed_and_a_drain_ends_all(engine: Engine) {
    let settings = settings()
        .each_route(|route| format!("{route}send_queue = {{ messages = 8, bytes = \"64KiB\" }}\n"));
    let mut gateway = engine.start(settings).await;
    let mut slow = RawClient::connect_with_buffer(gateway.addr(), 4096).await;
    slow.write(handshake(PATH, &[("Sec-WebSocket-Extensions", OFFER)]).as_bytes()).await;
    assert_eq!(slow.read_head().await.status, 101);
    slow.allow_compressed();
    let (mut client, _) = open(&gateway, PATH, Some(OFFER)).await;
    let noise = |number: usize| {
        let digits = (0..200_000_u64).map(|at| {
            let mixed = (at + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29;
            char::from(b'a' + (mixed % 26) as u8)
        });
        json!({"event": "noise", "number": number, "text": digits.collect::<String>()})
    };
    let mut number = 0;
    until("close of the slow client", async || {
        gateway.publish("chat_42", noise(number)).await;
        assert_eq!(json(&mut client).await["number"], number);
        number += 1;
        (gateway.metric("tidegate_delivery_drops_total", &[]).await > 0.0).then_some(())
    })
    .await;
    let last = loop {
        match slow.next().await {
            Received::Text(text) => assert!(!text.is_empty()),
            Received::Ping(_) => {}
            other => break other,
        }
    };
    // Whole messages came before it.
    assert!(matches!(last, Received::Close(Some(4008), _)), "{last:?}");
    assert!(client.compressed() > 0);
    let stopped = gateway.stop();
    let closed = async {
        assert_eq!(json(&mut client).await["event"], "going_away");
        assert_eq!(client.read_close().await, Some(1012));
    };
    let (code, ()) = tokio::join!(stopped, closed);
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn compressed_messages_are_relayed_as_plain_ones() {
    let upstream = Upstream::start(|_| Reply::status(202)).await;
    let gateway = Gateway::start(compressing(Settings::chat(&upstream.url("/")))).await;
    let (mut client, _) = open(&gateway, PATH, Some(OFFER)).await;
    let greetings = format!("{}!", "grüße ".repeat(1000));
    let message = json!({"message": greetings}).to_string();
    let compressed = deflate(message.as_bytes());
    // Whole, in fragments with a ping between them, and plain.
    let [begin, rest] = [&compressed[..5], &compressed[5..]];
    let pieces = [
        frame::text(begin).rsv(4).more(),
        frame::ping("now"),
        frame::continuation("").more(),
        frame::continuation(rest),
    ];
    client.send(&frame::text(&compressed).rsv(4)).await;
    assert_eq!(json(&mut client).await["event"], "task_queued");
    for piece in &pieces {
        client.send(piece).await;
    }
    client.expect(Received::Pong(b"now".to_vec())).await;
    assert_eq!(json(&mut client).await["event"], "task_queued");
    client.send(&frame::text(&message)).await;
    assert_eq!(json(&mut client).await["event"], "task_queued");
    let requests = upstream.requests();
    let texts: Vec<Value> =
        requests.iter().map(|request| request.json()["message"].clone()).collect();
    assert_eq!(texts, vec![json!(greetings); 3]);
    let labels = [("direction", "in"), ("outcome", "done")];
    assert_eq!(gateway.metric("tidegate_compression_frames_total", &labels).await, 2.0);
}

#[tokio::test]
async fn what_a_client_must_not_send_closes_its_connection() {
    let gateway = Gateway::start(
        settings().each_route(|route| format!("max_message_bytes = \"64KiB\"\n{route}")),
    )
    .await;
    let hello = deflate(b"{\"type\":\"ping\"}");
    let bomb = deflate(&vec![b' '; 64 << 20]);
    let most = deflate(format!("{{\"type\":\"ping\"}}{}", " ".repeat((64 << 10) - 15)).as_bytes());
    let (mut client, _) = open(&gateway, PATH, Some(OFFER)).await;
    client.send(&frame::text(&most).rsv(4)).await;
    assert_eq!(json(&mut client).await["event"], "pong");
    for (name, frames, code) in [
        ("a bomb", vec![frame::text(&bomb).rsv(4)], 1009),
        ("a bomb in pieces", frame::fragmented(frame::TEXT, &bomb, 1000), 1009),
        ("more than any form has", vec![frame::text(vec![0; 80 << 10]).rsv(4)], 1009),
        ("one byte too many", vec![frame::text(deflate(&vec![b' '; (64 << 10) + 1])).rsv(4)], 1009),
        ("not DEFLATE", vec![frame::text(vec![0xff; 100]).rsv(4)], 1007),
        ("nothing", vec![frame::text("").rsv(4)], 1007),
        ("not UTF-8", vec![frame::text(deflate(b"\xff\xfe")).rsv(4)], 1007),
        ("RSV1 on a ping", vec![frame::ping("").rsv(4)], 1002),
        ("RSV2", vec![frame::text(&hello).rsv(2)], 1002),
        (
            "RSV1 on a continuation",
            vec![frame::text(&hello[..3]).rsv(4).more(), frame::continuation(&hello[3..]).rsv(4)],
            1002,
        ),
        ("a binary message", vec![frame::binary(&hello).rsv(4)], 1003),
    ] {
        let (mut client, _) = open(&gateway, PATH, Some(OFFER)).await;
        for (index, one) in frames.into_iter().enumerate() {
            let one = if name == "a bomb in pieces" && index == 0 { one.rsv(4) } else { one };
            // The gateway may have closed the connection already.
            let _ = client.try_write(&one.bytes()).await;
        }
        assert_eq!(client.read_close().await, Some(code), "{name}");
    }
}

#[tokio::test]
async fn raw_routes_compress_in_both_directions() {
    let echo = Echo::start().await;
    let gateway = Gateway::start(compressing(Settings::echo(&echo.url()))).await;
    let mut client = RawClient::open_compressed(gateway.addr(), "/echo", OFFER).await;
    let text = "a text of some length, ".repeat(1000);
    let noise: Vec<u8> = (0..40_000_u64)
        .flat_map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).to_le_bytes())
        .collect();
    for (opcode, payload, compressed) in [
        (frame::TEXT, text.as_bytes(), 1),
        (frame::BINARY, text.as_bytes(), 2),
        // It is not made smaller, is short, or is too long.
        (frame::BINARY, &noise[..], 2),
        (frame::TEXT, &b"short"[..], 2),
        (frame::TEXT, "long ".repeat(100_000).as_bytes(), 2),
    ] {
        client.send(&frame::frame(opcode, deflate(payload)).rsv(4)).await;
        let received = client.next().await;
        match (opcode, received) {
            (frame::TEXT, Received::Text(bytes)) | (frame::BINARY, Received::Binary(bytes)) => {
                assert!(bytes == payload);
            }
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(client.compressed(), compressed, "{}", payload.len());
    }
}

#[tokio::test]
async fn a_reload_concerns_new_connections() {
    let gateway = Gateway::start(settings()).await;
    let (mut old, _) = open(&gateway, PATH, Some(OFFER)).await;
    std::fs::write(gateway.config_file(), Settings::chat("http://127.0.0.1:1/").to_string())
        .unwrap();
    gateway.signal(Signal::HUP);
    until("the new config", async || {
        (answer(&gateway, PATH, &[OFFER]).await.1.is_none()).then_some(())
    })
    .await;
    gateway.publish("chat_42", large(1)).await;
    assert_eq!(json(&mut old).await["number"], 1);
    assert_eq!(old.compressed(), 1);
    old.send(&frame::text(deflate(b"{\"type\":\"ping\"}")).rsv(4)).await;
    assert_eq!(json(&mut old).await["event"], "pong");
}
