//! `GET /v1/explain` and `tidegate explain` where not everything can be known: a node or the engine does not answer, a
//! client takes nothing, frames are not the gateway's own, a limit is counted by the path.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::chat::chat;
use crate::commands::{CommandOutput, tidegate_with};
use crate::engine::Engine;
use crate::rig::frame;
use crate::rig::raw::{Received, handshake};
use crate::rig::{API_KEY, Client, Gateway, RawClient, RawServer, Settings, http, until};

const KEY: [(&str, &str); 1] = [("x-api-key", API_KEY)];

async fn explain(gateway: &Gateway, query: &str) -> Value {
    let path = format!("/v1/explain?{query}");
    let answer = http::send(gateway.admin(), "GET", &path, &KEY, "".into()).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

async fn command(gateway: &Gateway, name: &str) -> CommandOutput {
    let url = format!("http://{}", gateway.admin());
    tidegate_with(&[("TIDEGATE_API_KEY", API_KEY)], &["explain", "--url", &url, name]).await
}

fn settings() -> Settings {
    chat("auth = [\"anonymous\"]\n[route.history]\nsize = 10")
}

#[tokio::test]
async fn a_node_that_does_not_answer_in_time_is_named() {
    let engine = Engine::redis().await;
    let (one, two) = (engine.start(settings()).await, engine.start(settings()).await);
    let _on_one = Client::connected(&one, "/ws/chat/1/").await;
    let _on_two = Client::connected(&two, "/ws/chat/1/").await;
    let answer = explain(&one, "channel=chat_1").await;
    assert_eq!((&answer["complete"], &answer["missing_nodes"]), (&json!(true), &json!([])));
    let rows = answer["connections"].as_array().unwrap().iter();
    let nodes: Vec<_> = rows.map(|row| row["node"].as_str().unwrap().to_owned()).collect();
    two.signal(Signal::STOP);
    let partly = explain(&one, "channel=chat_1").await;
    let output = command(&one, "chat_1").await;
    two.signal(Signal::CONT);
    assert_eq!(partly["nodes"], json!({"answered": 1, "asked": 2}), "{partly}");
    assert_eq!(
        [&partly["complete"], &partly["local"], &partly["total_connections"]],
        [&json!(false), &json!(false), &json!(1)]
    );
    let own = partly["connections"][0]["node"].as_str().expect("the node that answered");
    let other = nodes.iter().find(|node| *node != own).expect("the other node");
    assert_eq!(partly["missing_nodes"], json!([other]), "{partly}");
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let line = format!("only 1 of 2 nodes answered; what node {other} may know is missing");
    assert!(output.stderr.contains(&line), "{}", output.stderr);
}

#[tokio::test]
async fn without_the_engine_a_node_says_what_it_knows_itself() {
    let mut engine = Engine::redis().await;
    let limits = "auth = [\"connection_token\"]\n[route.limits]\nmessages_per_user = \"5/1h\"";
    let (one, two) = (engine.start(chat(limits)).await, engine.start(chat(limits)).await);
    let token = one.token(json!({"user_id": "ana"})).await;
    let path = format!("/ws/chat/1/?connection_token={token}");
    let (_client, connected) = Client::connected(&one, &path).await;
    let id = connected["connection_id"].as_str().expect("an id");
    // So that each knows of the other.
    assert_eq!(explain(&one, "user_id=ana").await["nodes"]["answered"], 2);
    engine.server_mut().expect("a Redis").stop();
    for query in [format!("connection_id={id}"), "user_id=ana".into(), "channel=chat_1".into()] {
        let answer = explain(&one, &query).await;
        assert_eq!(
            [&answer["known"], &answer["local"], &answer["complete"], &answer["nodes"]],
            [&json!(true), &json!(true), &json!(false), &json!({"answered": 1, "asked": 2})],
            "{answer}"
        );
        assert_eq!(answer["missing_nodes"].as_array().map(Vec::len), Some(1), "{answer}");
        assert_eq!(answer["connections"][0]["connection_id"], id);
        assert_eq!((&answer["limits"], &answer["channels"]), (&Value::Null, &Value::Null));
    }
    let output = command(&one, "ana").await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(
        output.stderr.contains("the engine is unavailable: only the node"),
        "{}",
        output.stderr
    );
    for part in ["user ana from 127.0.0.1", "the limits are not known"] {
        assert!(output.stdout.contains(part), "no {part} in\n{}", output.stdout);
    }
    // The other node has no such connection, and says what it could not ask.
    let output = command(&two, "ana").await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("nothing is known of \"ana\""), "{}", output.stderr);
    assert!(output.stderr.contains("the engine is unavailable"), "{}", output.stderr);
}

/// A client that takes nothing: how much waits, since when, and up to where its channel was written to it.
#[tokio::test]
async fn a_client_that_takes_nothing_is_seen() {
    let lines = "auth = [\"anonymous\"]\nsend_queue = { messages = 1000, bytes = \"64MiB\" }\n\
                 [route.history]\nsize = 100";
    let gateway = Gateway::start(chat(lines)).await;
    let mut client = RawClient::connect_with_buffer(gateway.addr(), 8 * 1024).await;
    client.write(handshake("/ws/chat/1/", &[]).as_bytes()).await;
    assert_eq!(client.read_head().await.status, 101);
    assert!(matches!(client.next().await, Received::Text(_)));
    let text = "x".repeat(256 * 1024);
    gateway.publish("chat_1", json!({"event": "chunk", "n": 1})).await;
    let one = until("one publication that is written", async || {
        let one = explain(&gateway, "channel=chat_1").await["connections"][0].clone();
        (one["written_up_to"]["offset"] == 1).then_some(one)
    })
    .await;
    assert_eq!(
        (&one["send_queue"]["since"], &one["send_queue"]["bytes"]),
        (&Value::Null, &json!(0))
    );
    for _ in 0..40 {
        gateway.publish("chat_1", json!({"event": "chunk", "text": text})).await;
    }
    let answer = until("all of them", async || {
        let answer = explain(&gateway, "channel=chat_1").await;
        let (queue, written) = (
            answer["connections"][0]["send_queue"]["messages"].as_u64().unwrap(),
            answer["connections"][0]["written_up_to"]["offset"].as_u64().unwrap(),
        );
        // One that is written in part waits.
        (queue > 0 && queue + written == 41).then_some(answer)
    })
    .await;
    let queue = &answer["connections"][0]["send_queue"];
    assert!(
        queue["since"].as_u64().unwrap()
            >= answer["connections"][0]["connected_at"].as_u64().unwrap()
    );
    let messages = queue["messages"].as_u64().unwrap();
    let bytes = queue["bytes"].as_u64().unwrap();
    assert!(bytes > (messages - 1) * text.len() as u64, "{queue}");
    let output = command(&gateway, "chat_1").await.ok();
    assert!(
        output.contains(&format!("; written up to {}, {messages} behind", 41 - messages)),
        "{output}"
    );
    assert!(output.contains("; the client has not taken all of it for "), "{output}");
    let end = b"\"offset\":41}";
    while !matches!(client.next().await, Received::Text(text) if text.ends_with(end)) {}
    let one = until("nothing that waits", async || {
        let one = explain(&gateway, "channel=chat_1").await["connections"][0].clone();
        (one["send_queue"]["messages"] == 0).then_some(one)
    })
    .await;
    assert_eq!(
        (&one["written_up_to"]["offset"], &one["send_queue"]["since"]),
        (&json!(41), &Value::Null)
    );
}

/// Routes whose frames the gateway only passes on.
#[tokio::test]
async fn connections_of_raw_and_pass_routes_are_explained() {
    let server = RawServer::start().await;
    let route = |protocol: &str| {
        // A pass route needs no channel.
        let channel = if protocol == "raw" { "channel = \"c\"\n" } else { "" };
        format!(
            "path = \"/{protocol}/\"\nprotocol = \"{protocol}\"\nupstream = \"app\"\n{channel}\
             auth = [\"connection_token\"]\n[route.limits]\nmessages_per_user = \"5/1h\""
        )
    };
    let settings = Settings::new()
        .section("origins", "missing = \"allow\"")
        .upstream("app", &format!("kind = \"websocket\"\nurl = {:?}", server.url()))
        .route(&route("pass"))
        .route(&route("raw"));
    let gateway = Gateway::start(settings).await;
    let mut open = Vec::new();
    for protocol in ["pass", "raw"] {
        let token = gateway.token(json!({"user_id": protocol})).await;
        let mut client = RawClient::connect(gateway.addr()).await;
        let path = format!("/{protocol}/?connection_token={token}");
        client.write(handshake(&path, &[("cookie", "c=s3cret")]).as_bytes()).await;
        let mut peer = server.open().await;
        assert_eq!(client.read_head().await.status, 101);
        client.send(&frame::text("a secret text")).await;
        assert_eq!(peer.expect(0x81).await, b"a secret text");
        let answer = explain(&gateway, &format!("user_id={protocol}")).await;
        let one = &answer["connections"][0];
        assert_eq!(
            [&one["route"], &one["upstream"], &one["present"]],
            [&json!(format!("/{protocol}/")), &json!("app"), &json!(false)],
            "{one}"
        );
        let is_raw = protocol == "raw";
        let channel = if is_raw { json!("c") } else { Value::Null };
        assert_eq!(one["channel"], channel);
        let all: Vec<_> = answer["limits"].as_array().unwrap().iter().collect();
        let of_route = all.iter().find(|one| one["route"] == format!("/{protocol}/")).unwrap();
        let limits = of_route["limits"].as_array().unwrap();
        let messages = limits.iter().find(|one| one["limit"] == "messages_per_user").unwrap();
        assert_eq!(messages["standing"]["remaining"], 4, "{answer}");
        assert!(!answer.to_string().contains("secret") && !answer.to_string().contains(&token));
        let output = command(&gateway, protocol).await.ok();
        let line = if is_raw { "channel c, upstream app" } else { "no channel, upstream app" };
        assert!(output.contains(line), "{output}");
        open.push((client, peer));
    }
}

/// A window under a key of the path is counted for each path of its own.
#[tokio::test]
async fn limits_by_the_path_are_those_of_the_open_connections() {
    let engine = Engine::redis().await;
    let upstream = crate::rig::Upstream::accepting().await;
    let limits = "auth = [\"connection_token\"]\n[route.limits]\nmessages_per_user = \
        { limit = \"5/1h\", window = \"fixed\", key = \"app:{user_id}:{conversation_id}\" }";
    let settings = || crate::chat::relayed(&upstream.url("/"), limits);
    let (one, two) = (engine.start(settings()).await, engine.start(settings()).await);
    let standings = async || {
        let answer = explain(&two, "user_id=ana").await;
        let of = |one: &Value| {
            let limits = one["limits"].as_array().unwrap().iter();
            let found = limits.filter(|limit| limit["limit"] == "messages_per_user");
            let [messages] = &found.collect::<Vec<_>>()[..] else { panic!("{one}") };
            (one["params"].clone(), messages["standing"]["used"].clone())
        };
        answer["limits"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(standings().await, [(Value::Null, Value::Null)], "no path is known");
    let mut open = Vec::new();
    for (conversation, count) in [("1", 2), ("2", 1)] {
        let token = one.token(json!({"user_id": "ana"})).await;
        let path = format!("/ws/chat/{conversation}/?connection_token={token}");
        let (mut client, _) = Client::connected(&one, &path).await;
        for _ in 0..count {
            client.send_json(&json!({"message": "hello"})).await;
            client.next_event("task_queued").await;
        }
        open.push(client);
    }
    let mut found = standings().await;
    found.sort_by_key(|one| one.0.to_string());
    assert_eq!(
        found,
        [(json!({"conversation_id": "1"}), json!(2)), (json!({"conversation_id": "2"}), json!(1))]
    );
    let output = command(&two, "ana").await.ok();
    let line = "limits of user ana on route /ws/chat/{conversation_id}/ with conversation_id 1\n  \
                messages_per_user: 3 of 5 left";
    assert!(output.contains(line), "{output}");
}
