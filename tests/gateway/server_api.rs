//! The server API: what it lists of connections, channels and limits of all nodes, and what it does to a
//! node.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::chat::chat;
use super::engine::Engine;
use super::rig::{API_KEY, Client, Gateway, Settings, http, until, within};

const KEY: [(&str, &str); 1] = [("x-api-key", API_KEY)];

on_both_engines! {
    connections_are_listed_by_what_they_are,
    connections_are_listed_page_by_page,
    channels_are_listed_with_their_positions,
    a_history_is_read_from_a_position,
    a_channel_without_history_is_reported_as_such,
    a_tail_sees_what_is_published_from_now_on,
    a_tail_ends_when_the_node_stops,
    a_reader_that_does_not_read_is_cut_off,
    limits_are_listed_and_reset,
    a_drain_starts_once_and_the_process_exits,
    a_signal_after_a_drain_asks_for_the_same,
    unknown_parameters_are_refused,
}

fn settings() -> Settings {
    chat("auth = [\"connection_token\", \"anonymous\"]")
}

async fn get(gateway: &Gateway, path: &str) -> http::Response {
    http::send(gateway.admin(), "GET", path, &KEY, "".into()).await
}

async fn list(gateway: &Gateway, path: &str) -> Value {
    let answer = get(gateway, path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn open(gateway: &Gateway, conversation: &str, user: Value) -> (Client, String) {
    let mut path = format!("/ws/chat/{conversation}/");
    if !user.is_null() {
        path = format!("{path}?connection_token={}", gateway.token(user).await);
    }
    let (client, connected) = Client::connected(gateway, &path).await;
    (client, connected["connection_id"].as_str().expect("an id").to_owned())
}

fn ids(list: &Value) -> Vec<String> {
    let rows = list["connections"].as_array().expect("rows");
    rows.iter().map(|row| row["connection_id"].as_str().unwrap().to_owned()).collect()
}

/// One node on memory, or two nodes that share a Redis.
async fn nodes(engine: &Engine, settings: impl Fn() -> Settings) -> Vec<Gateway> {
    let mut nodes = vec![engine.start(settings()).await];
    if engine.server().is_some() {
        nodes.push(engine.start(settings()).await);
    }
    nodes
}

async fn connections_are_listed_by_what_they_are(engine: Engine) {
    let nodes = nodes(&engine, settings).await;
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    let (_a, ana) = open(first, "1", json!({"user_id": 7, "username": "ana"})).await;
    let bob = json!({"user_id": "b", "session_expires_in": 900});
    let (_b, bob) = open(last, "2", bob).await;
    let (_c, anonymous) = open(last, "2", Value::Null).await;

    let all = list(first, "/v1/connections").await;
    let mut expected = vec![ana.clone(), bob.clone(), anonymous.clone()];
    expected.sort();
    assert_eq!(ids(&all), expected);
    let count = nodes.len();
    assert_eq!(all["nodes"], json!({"answered": count, "asked": count}));
    assert_eq!((&all["complete"], &all["next_cursor"]), (&json!(true), &Value::Null));
    let rows = all["connections"].as_array().unwrap();
    let row = |id: &str| rows.iter().find(|row| row["connection_id"] == id).unwrap().clone();
    let received = row(&ana);
    assert_eq!((&received["user_id"], &received["username"]), (&json!(7), &json!("ana")));
    assert_eq!(
        (&received["channel"], &received["address"]),
        (&json!("chat_1"), &json!("127.0.0.1"))
    );
    assert_eq!(received["route"], "/ws/chat/{conversation_id}/");
    assert_eq!((&received["expires_at"], &received["send_queue_bytes"]), (&Value::Null, &json!(0)));
    let now = super::rig::jwt::in_seconds(0);
    assert!(received["connected_at"].as_i64().unwrap().abs_diff(now) < 60, "{received}");
    let expires = row(&bob)["expires_at"].as_i64().unwrap();
    assert!(expires.abs_diff(now + 900) < 60, "{expires}");
    assert_eq!(row(&anonymous)["user_id"], Value::Null);

    let node = row(&bob)["node"].as_str().unwrap().to_owned();
    let on_last = if count == 1 { expected.clone() } else { sorted([&bob, &anonymous]) };
    for (filter, expected) in [
        ("user_id=7".to_owned(), vec![ana.clone()]),
        ("user_id=b".to_owned(), vec![bob.clone()]),
        ("user_id=8".to_owned(), vec![]),
        ("channel=chat_2".to_owned(), sorted([&bob, &anonymous])),
        ("channel=chat_2&user_id=b".to_owned(), vec![bob.clone()]),
        ("route=/ws/chat/%7Bconversation_id%7D/".to_owned(), expected.clone()),
        ("route=/ws/".to_owned(), vec![]),
        (format!("node={node}"), on_last),
        ("node=00".to_owned(), vec![]),
    ] {
        for gateway in [first, last] {
            let some = list(gateway, &format!("/v1/connections?{filter}")).await;
            assert_eq!(
                (ids(&some), &some["complete"]),
                (expected.clone(), &json!(true)),
                "{filter}"
            );
        }
    }
}

fn sorted<const N: usize>(ids: [&String; N]) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().cloned().collect();
    ids.sort();
    ids
}

async fn connections_are_listed_page_by_page(engine: Engine) {
    let nodes = nodes(&engine, settings).await;
    let mut clients = Vec::new();
    for n in 0..12 {
        clients.push(open(&nodes[n % nodes.len()], "1", Value::Null).await);
    }
    let mut expected: Vec<_> = clients.iter().map(|(_, id)| id.clone()).collect();
    expected.sort();
    for limit in [1, 5, 12] {
        let (mut received, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = list(&nodes[0], &format!("/v1/connections?limit={limit}{cursor}")).await;
            received.extend(ids(&page));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(received, expected, "limit {limit}");
    }
}

async fn channels_are_listed_with_their_positions(engine: Engine) {
    let nodes = nodes(&engine, settings).await;
    let last = &nodes[nodes.len() - 1];
    let mut clients = Vec::new();
    for (gateway, conversation) in [(&nodes[0], "1"), (last, "1"), (&nodes[0], "2"), (last, "ü")] {
        let name = conversation.replace('ü', "%C3%BC");
        clients.push(open(gateway, &name, Value::Null).await);
    }
    nodes[0].publish("chat_1", json!({"event": "chunk"})).await;
    let all = list(last, "/v1/channels").await;
    let rows = all["channels"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["channel"].as_str().unwrap()).collect();
    assert_eq!(names, ["chat_1", "chat_2", "chat_ü"]);
    let counts: Vec<_> = rows.iter().map(|row| row["connections"].as_u64().unwrap()).collect();
    assert_eq!(counts, [2, 1, 1]);
    assert!(rows.iter().all(|row| row["history"] == true && row["epoch"].is_string()), "{all}");
    assert_eq!((&rows[0]["offset"], &rows[1]["offset"]), (&json!(1), &json!(0)));

    let first = list(last, "/v1/channels?limit=2&prefix=chat_").await;
    assert_eq!(first["next_cursor"], "chat_2");
    let second = list(last, "/v1/channels?limit=2&cursor=chat_2").await;
    assert_eq!(second["channels"].as_array().unwrap().len(), 1);
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!(list(last, "/v1/channels?prefix=x").await["channels"], json!([]));

    let one = list(&nodes[0], "/v1/channels/chat_1").await;
    assert_eq!((&one["connections"], &one["kept"]), (&json!(2), &json!(1)));
    assert_eq!((&one["offset"], &one["oldest_offset"]), (&json!(1), &json!(1)));
    let none = list(&nodes[0], "/v1/channels/chat_none").await;
    assert_eq!((&none["connections"], &none["epoch"]), (&json!(0), &Value::Null));
    assert_eq!(none["history"], true);
}

async fn a_history_is_read_from_a_position(engine: Engine) {
    let gateway = engine.start(chat("auth = [\"anonymous\"]\n[route.history]\nsize = 5\n")).await;
    let path = "/v1/channels/chat_1/history";
    let empty = list(&gateway, path).await;
    assert_eq!((&empty["epoch"], &empty["publications"]), (&Value::Null, &json!([])));
    for n in 1..=8 {
        gateway.publish("chat_1", json!({"n": n})).await;
    }
    let offsets = |page: &Value| -> Vec<u64> {
        let publications = page["publications"].as_array().unwrap();
        publications.iter().map(|one| one["offset"].as_u64().unwrap()).collect()
    };
    let all = list(&gateway, path).await;
    assert_eq!((offsets(&all), &all["recovered"]), (vec![4, 5, 6, 7, 8], &json!(true)));
    assert_eq!(all["publications"][0]["data"], json!({"n": 4, "offset": 4}));
    assert_eq!((&all["offset"], &all["next_since"]), (&json!(8), &Value::Null));
    let epoch = all["epoch"].as_str().unwrap();
    for (query, offsets_expected, recovered, next) in [
        ("since=6".to_owned(), vec![7, 8], true, Value::Null),
        (format!("since=6&epoch={epoch}"), vec![7, 8], true, Value::Null),
        ("since=3&limit=2".to_owned(), vec![4, 5], true, json!(5)),
        ("since=8".to_owned(), vec![], true, Value::Null),
        ("since=1".to_owned(), vec![4, 5, 6, 7, 8], false, Value::Null),
        ("since=99".to_owned(), vec![4, 5, 6, 7, 8], false, Value::Null),
        ("since=6&epoch=1".to_owned(), vec![4, 5, 6, 7, 8], false, Value::Null),
    ] {
        let page = list(&gateway, &format!("{path}?{query}")).await;
        assert_eq!(offsets(&page), offsets_expected, "{query}");
        assert_eq!(
            (&page["recovered"], &page["next_since"]),
            (&json!(recovered), &next),
            "{query}"
        );
    }
}

async fn a_channel_without_history_is_reported_as_such(engine: Engine) {
    let gateway = engine.start(chat("auth = [\"anonymous\"]").without_history()).await;
    let answer = get(&gateway, "/v1/channels/chat_1/history").await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("no_history")));
}

/// The stream of a tail, read event by event.
struct Tail {
    stream: http::Stream,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Sse {
    event: String,
    id: Option<String>,
    data: String,
}

impl Tail {
    async fn open(gateway: &Gateway, channel: &str) -> Self {
        let path = format!("/v1/channels/{channel}/tail");
        let stream = http::stream(gateway.admin(), &path, &KEY).await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        let mut tail = Self { stream, text: String::new() };
        let live = tail.next().await.expect("an event");
        assert_eq!(live.event, "live");
        tail
    }

    /// Waits for the next event and skips comments. `None` means that the stream has ended.
    async fn next(&mut self) -> Option<Sse> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let mut sse = Sse { event: "message".into(), id: None, data: String::new() };
                let mut is_comment = true;
                for line in event.lines() {
                    match line.split_once(": ") {
                        Some(("event", name)) => sse.event = name.to_owned(),
                        Some(("id", id)) => sse.id = Some(id.to_owned()),
                        Some(("data", data)) => {
                            is_comment = false;
                            sse.data.push_str(data);
                        }
                        _ => {}
                    }
                }
                self.text = rest.to_owned();
                if !is_comment {
                    return Some(sse);
                }
                continue;
            }
            let piece = self.stream.next().await?;
            self.text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
        }
    }

    async fn message(&mut self) -> Sse {
        let sse = self.next().await.expect("an event");
        assert_eq!(sse.event, "message", "{sse:?}");
        sse
    }
}

async fn a_tail_sees_what_is_published_from_now_on(engine: Engine) {
    let nodes = nodes(&engine, settings).await;
    let last = &nodes[nodes.len() - 1];
    nodes[0].publish("chat_1", json!({"n": 0})).await;
    let mut tail = Tail::open(&nodes[0], "chat_1").await;
    let mut other = Tail::open(&nodes[0], "chat_1").await;
    last.publish("chat_1", json!({"n": 1})).await;
    last.publish("chat_2", json!({"n": 9})).await;
    last.publish("chat_1", json!({"n": 2})).await;
    for tail in [&mut tail, &mut other] {
        for n in [1, 2] {
            let sse = tail.message().await;
            assert_eq!(sse.id, Some((n + 1).to_string()));
            assert_eq!(sse.data, format!("{{\"n\":{n},\"offset\":{}}}", n + 1));
        }
    }
    // A channel without history, and a text with more than one line.
    let mut plain = Tail::open(last, "other").await;
    let body = "{\"channel\":\"other\",\"data\":{\n\"n\": 1\n}}";
    let published = http::send(nodes[0].admin(), "POST", "/v1/publish", &KEY, body.into()).await;
    assert_eq!(published.status, 200);
    let sse = plain.message().await;
    assert_eq!((sse.id, sse.data.as_str()), (None, "{\"n\": 1}"));
    // HEAD does not open a tail.
    let head = http::send(last.admin(), "HEAD", "/v1/channels/a/tail", &KEY, "".into()).await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    // The last tail ends the subscription to the channel, and another tail starts as the first did.
    drop((tail, other));
    let mut again = Tail::open(&nodes[0], "chat_1").await;
    last.publish("chat_1", json!({"n": 3})).await;
    assert_eq!(again.message().await.id.as_deref(), Some("4"));
    for channel in ["", "a%20b", "%FF"] {
        let path = format!("/v1/channels/{channel}/tail");
        assert_eq!(get(&nodes[0], &path).await.status, 400, "{path}");
    }
}

async fn a_tail_ends_when_the_node_stops(engine: Engine) {
    let mut gateway = engine.start(settings()).await;
    let mut tail = Tail::open(&gateway, "chat_1").await;
    gateway.signal(Signal::TERM);
    let end = tail.next().await.expect("an event");
    assert_eq!((end.event.as_str(), end.data.as_str()), ("end", "{\"reason\":\"draining\"}"));
    assert_eq!(tail.next().await, None);
    assert_eq!(gateway.wait_exit().await, Some(0));
}

async fn a_reader_that_does_not_read_is_cut_off(engine: Engine) {
    let gateway = engine.start(settings()).await;
    let mut slow = tokio::net::TcpStream::connect(gateway.admin()).await.unwrap();
    let request =
        format!("GET /v1/channels/other/tail HTTP/1.1\r\nhost: a\r\nx-api-key: {API_KEY}\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut quick = Tail::open(&gateway, "other").await;
    // The tail exists as soon as the head of its answer has arrived.
    slow.readable().await.unwrap();
    let large = json!({"text": "x".repeat(900_000)});
    for _ in 0..40 {
        gateway.publish("other", large.clone()).await;
        quick.message().await;
    }
    // What was already sent arrives, then the connection ends, after the reason if there was room for it.
    let mut rest = Vec::new();
    let _ = within("end of the stream", slow.read_to_end(&mut rest)).await;
    assert!(rest.len() < 30_000_000, "{}", rest.len());
    gateway.publish("other", json!(1)).await;
    assert_eq!(quick.message().await.data, "1");
}

async fn limits_are_listed_and_reset(engine: Engine) {
    let limits = "[route.limits]\nmessages_per_user = \"2/1h\"\nconnects_per_user = { limit = \
                  \"3/1h\", window = \"fixed\" }\nconnections_per_user = 5\n";
    let upstream = super::rig::Upstream::accepting().await;
    let settings = super::chat::relayed(
        &upstream.url("/"),
        &format!("auth = [\"connection_token\"]\n{limits}"),
    );
    let gateway = engine.start(settings).await;
    let (mut client, _) = open(&gateway, "1", json!({"user_id": 7})).await;
    for n in 0..2 {
        client.send_json(&json!({"message": n.to_string()})).await;
        client.next_event("task_queued").await;
    }
    client.send_json(&json!({"message": "more"})).await;
    client.next_event("error").await;
    let standing = async |name: &str| {
        let all = list(&gateway, "/v1/limits?user_id=7").await;
        assert_eq!(all["routes"][0]["route"], "/ws/chat/{conversation_id}/");
        let limits = all["routes"][0]["limits"].as_array().unwrap().clone();
        limits.into_iter().find(|limit| limit["limit"] == name).unwrap()
    };
    let messages = standing("messages_per_user").await;
    assert_eq!((&messages["kind"], &messages["standing"]["used"]), (&json!("bucket"), &json!(2)));
    assert_eq!(messages["standing"]["remaining"], 0);
    let wait = messages["standing"]["retry_after"].as_u64().unwrap();
    assert!((1..=1800).contains(&wait), "{messages}");
    let connects = standing("connects_per_user").await;
    assert_eq!((&connects["kind"], &connects["standing"]["used"]), (&json!("window"), &json!(1)));
    assert_eq!(connects["standing"]["retry_after"], 0);
    let open = standing("connections_per_user").await;
    assert_eq!((&open["kind"], &open["standing"]["used"]), (&json!("leases"), &json!(1)));
    assert_eq!((&open["standing"]["max"], &open["standing"]["remaining"]), (&json!(5), &json!(4)));
    let anonymous = list(&gateway, "/v1/limits?user_id=8").await;
    assert_eq!(anonymous["routes"][0]["limits"][0]["standing"]["used"], 0);

    let reset = gateway.api("/v1/limits/reset", json!({"user_id": 7})).await;
    assert_eq!((reset.status, reset.json()), (200, json!({"reset": 2, "not_known": 0})));
    assert_eq!(standing("messages_per_user").await["standing"]["used"], 0);
    assert_eq!(standing("connections_per_user").await["standing"]["used"], 1, "it is open");
    client.send_json(&json!({"message": "again"})).await;
    client.next_event("task_queued").await;
    let audit = gateway.wait_for_event("admin_limits_reset").await;
    assert_eq!(audit["target"], "audit", "{audit}");
    for (body, status) in [
        (json!({}), 400),
        (json!({"user_id": ""}), 400),
        (json!({"user_id": 1, "limits": ["all"]}), 400),
        (json!({"user_id": 1, "route": "/none"}), 404),
        (json!({"user_id": 1, "limits": ["generations_per_user"]}), 200),
    ] {
        let answer = gateway.api("/v1/limits/reset", body.clone()).await;
        assert_eq!(answer.status, status, "{body}");
    }
    assert_eq!(get(&gateway, "/v1/limits").await.status, 400);
}

async fn a_drain_starts_once_and_the_process_exits(engine: Engine) {
    let settings = settings().section("shutdown", "drain = \"200ms\"\ngrace = \"5s\"");
    let mut gateway = engine.start(settings).await;
    let (mut client, _) = open(&gateway, "1", Value::Null).await;
    let refused = gateway.api("/v1/drain", json!({"force": true})).await;
    assert_eq!(refused.status, 400);
    let answer = http::send(gateway.admin(), "POST", "/v1/drain", &KEY, "".into()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let status = answer.json();
    assert_eq!((&status["draining"], &status["already"]), (&json!(true), &json!(false)));
    assert_eq!((&status["drain_seconds"], &status["grace_seconds"]), (&json!(0.2), &json!(5.0)));
    client.next_event("going_away").await;
    assert_eq!(client.closed().await, Some(1012));
    assert_eq!(gateway.wait_exit().await, Some(0));
    assert_eq!(gateway.events("admin_drain"), 1);
    assert_eq!(gateway.events("draining"), 1);
}

/// A deployment hook may drain a node before its process receives a signal.
async fn a_signal_after_a_drain_asks_for_the_same(engine: Engine) {
    let settings = settings().section("shutdown", "drain = \"1s\"\ngrace = \"20s\"");
    let mut gateway = engine.start(settings).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(open(&gateway, "1", Value::Null).await.0);
    }
    assert_eq!(gateway.api("/v1/drain", json!({})).await.status, 202);
    gateway.wait_for_event("draining").await;
    gateway.signal(Signal::TERM);
    for client in &mut clients {
        client.next_event("going_away").await;
        assert_eq!(client.closed().await, Some(1012), "no connection is forced to close");
    }
    assert_eq!(gateway.wait_exit().await, Some(0));
}

async fn unknown_parameters_are_refused(engine: Engine) {
    let gateway = engine.start(settings()).await;
    for path in [
        "/v1/connections?user=7",
        "/v1/connections?user_id=",
        "/v1/connections?limit=0",
        "/v1/connections?limit=1001",
        "/v1/connections?limit=1&limit=2",
        "/v1/connections?cursor=x",
        "/v1/connections?node=x",
        "/v1/channels?cursor=",
        "/v1/channels?name=a",
        "/v1/channels/a?limit=1",
        "/v1/channels/a/tail?since=1",
        "/v1/channels/a/history?since=-1",
        "/v1/channels/a/history?since=9007199254740992",
        "/v1/channels/a/history?epoch=0",
        "/v1/limits?user_id=1&more=1",
        "/v1/openapi.json?x",
    ] {
        let answer = get(&gateway, path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.json()["error"]["code"], "bad_request", "{path}");
    }
    let body = json!({"channel": "chat_1", "data": 1});
    assert_eq!(gateway.api("/v1/publish?x=1", body).await.status, 400);
    for path in ["/v1/publish", "/v1/channels/a", "/livez"] {
        let options = http::send(gateway.admin(), "OPTIONS", path, &[], "".into()).await;
        assert_eq!(options.status, 204, "{path}");
        assert!(options.header("allow").unwrap().ends_with("OPTIONS"), "{path}");
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_reported() {
    let engine = Engine::redis().await;
    let (a, b) = (engine.start(settings()).await, engine.start(settings()).await);
    let (_client, id) = open(&a, "1", Value::Null).await;
    let _other = open(&b, "1", Value::Null).await;
    b.signal(Signal::STOP);
    let some = list(&a, "/v1/connections").await;
    b.signal(Signal::CONT);
    assert_eq!((ids(&some), &some["complete"]), (vec![id], &json!(false)));
    assert_eq!(some["nodes"], json!({"answered": 1, "asked": 2}));
    until("both nodes again", async || {
        let all = list(&a, "/v1/channels/chat_1").await;
        (all["complete"] == true && all["connections"] == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tail_learns_what_it_may_have_missed() {
    let engine = Engine::redis().await;
    let gateway = engine.start(settings()).await;
    let mut with_history = Tail::open(&gateway, "chat_1").await;
    let mut plain = Tail::open(&gateway, "other").await;
    gateway.publish("chat_1", json!({"n": 1})).await;
    assert_eq!(with_history.message().await.id.as_deref(), Some("1"));
    let redis = engine.server().expect("a Redis");
    let _killed: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    gateway.publish("chat_1", json!({"n": 2})).await;
    // A channel without history may have lost something; a channel with history has everything.
    let gap = plain.next().await.expect("an event");
    assert_eq!(gap.event, "gap");
    assert_eq!(with_history.message().await.id.as_deref(), Some("2"));
    gateway.publish("other", json!(3)).await;
    assert_eq!(plain.message().await.data, "3");
}
