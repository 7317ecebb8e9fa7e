//! `GET /v1/explain`: what all nodes know of a connection, a user or a channel.

use serde_json::{Value, json};

use super::chat::relayed;
use super::engine::Engine;
use super::rig::in_turn;
use super::rig::{API_KEY, Client, Gateway, Reply, Settings, Upstream, http, until};

const KEY: [(&str, &str); 1] = [("x-api-key", API_KEY)];

on_both_engines! {
    a_reply_is_explained_from_every_node_and_side,
    errors_are_remembered_after_the_connection,
    many_connections_are_counted,
    what_is_not_known_is_no_error,
}

async fn get(gateway: &Gateway, query: &str) -> http::Response {
    http::send(gateway.admin(), "GET", &format!("/v1/explain?{query}"), &KEY, "".into()).await
}

async fn explain(gateway: &Gateway, query: &str) -> Value {
    let answer = get(gateway, query).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

/// One node on memory, or two nodes that share a Redis.
async fn nodes(engine: &Engine, settings: impl Fn() -> Settings) -> Vec<Gateway> {
    let mut nodes = vec![engine.start(settings()).await];
    if engine.server().is_some() {
        nodes.push(engine.start(settings()).await);
    }
    nodes
}

async fn open(gateway: &Gateway, conversation: &str, user: Value) -> (Client, String) {
    let token = gateway.token(user).await;
    let path = format!("/ws/chat/{conversation}/?connection_token={token}");
    let (client, connected) = Client::connected(gateway, &path).await;
    (client, connected["connection_id"].as_str().expect("an id").to_owned())
}

fn limit<'a>(limits: &'a Value, name: &str) -> &'a Value {
    let limits = limits.as_array().expect("limits");
    limits.iter().find(|limit| limit["limit"] == name).unwrap_or_else(|| panic!("no {name}"))
}

async fn a_reply_is_explained_from_every_node_and_side(engine: Engine) {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let settings = || {
        relayed(
            &upstream.url("/"),
            "auth = [\"connection_token\"]\npresence = \"on\"\n[route.history]\nsize = 10\n\
             [route.limits]\nmessages_per_user = \"1/1h\"\nmessages_per_connection = \"9/1h\"\n\
             generations_per_user = 2\n",
        )
    };
    let nodes = nodes(&engine, settings).await;
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    let user = json!({"user_id": 7, "username": "ana", "session_expires_in": 900});
    let (mut asker, asked) = open(first, "1", user).await;
    let (_other, listener) = open(last, "1", json!({"user_id": "b"})).await;
    asker.send_json(&json!({"message": "a secret text"})).await;
    let queued = asker.next_event("task_queued").await;
    let task = queued["task_id"].as_str().unwrap();
    asker.next_event("processing_started").await;
    stream.write("data: {\"event\":\"chunk\",\"chunk\":\"another secret\"}\n\n");
    asker.next_event("chunk").await;

    for node in [first, last] {
        for query in [format!("connection_id={asked}"), "user_id=7".into(), "channel=chat_1".into()]
        {
            let answer = explain(node, &query).await;
            assert_eq!((&answer["known"], &answer["complete"]), (&json!(true), &json!(true)));
            assert_eq!(answer["nodes"]["answered"], nodes.len(), "{answer}");
            let running = &answer["generations"][0];
            assert_eq!(running["task_id"], task, "{query}: {answer}");
            assert_eq!(
                (&running["connection_id"], &running["user_id"], &running["upstream"]),
                (&json!(asked), &json!(7), &json!("worker"))
            );
            let (began, event) = (&running["began_at"], &running["last_event_at"]);
            assert!(running["streams"] == true && event.as_u64() >= began.as_u64(), "{running}");
            let channel = &answer["channels"][0];
            assert_eq!(
                (&channel["channel"], &channel["history"]),
                (&json!("chat_1"), &json!(true))
            );
            assert!(channel["offset"].as_u64().unwrap() >= 2, "{channel}");
            assert!(!answer.to_string().contains("secret"), "{answer}");
        }
        let answer = explain(node, "channel=chat_1").await;
        assert_eq!(answer["total_connections"], 2);
        // The other side of the channel sees the reply as well.
        let answer = explain(node, &format!("connection_id={listener}")).await;
        assert_eq!(answer["generations"][0]["task_id"], task);
        assert_eq!(answer["connections"].as_array().map(Vec::len), Some(1));
    }

    let answer = explain(last, "user_id=7").await;
    let one = &answer["connections"][0];
    assert_eq!(
        [&one["connection_id"], &one["username"], &one["address"], &one["credentials"]],
        [&json!(asked), &json!("ana"), &json!("127.0.0.1"), &json!("connection_token")]
    );
    assert_eq!(
        [&one["channel"], &one["upstream"], &one["present"], &one["replaying"]],
        [&json!("chat_1"), &json!("worker"), &json!(true), &json!(false)]
    );
    assert_eq!(one["closes_at"].as_u64().unwrap().abs_diff(one["expires_at"].as_u64().unwrap()), 0);
    assert_eq!(one["send_queue"]["messages"], 0, "{one}");
    assert_eq!(limit(&one["limits"], "messages_per_connection")["remaining"], 8);
    assert!(one["began_after"]["epoch"].is_string(), "{one}");
    let limits = &answer["limits"][0];
    assert_eq!(limits["user_id"], "7");
    let messages = &limit(&limits["limits"], "messages_per_user")["standing"];
    assert_eq!((&messages["remaining"], &messages["max"]), (&json!(0), &json!(1)));
    assert!(messages["retry_after"].as_u64().unwrap() > 3000, "{messages}");
    let running = &limit(&limits["limits"], "generations_per_user")["standing"];
    assert_eq!((&running["used"], &running["remaining"]), (&json!(1), &json!(1)));

    // The end of the reply is known everywhere.
    stream.write("data: {\"event\":\"complete\"}\n\n");
    asker.next_event("complete").await;
    until("no reply in progress", async || {
        let answer = explain(last, "channel=chat_1").await;
        answer["generations"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

async fn errors_are_remembered_after_the_connection(engine: Engine) {
    let (stream, reply) = Reply::stream("text/event-stream");
    let upstream = Upstream::start(in_turn([reply])).await;
    let settings = || {
        relayed(
            &upstream.url("/"),
            "auth = [\"connection_token\"]\n[route.limits]\nmessages_per_user = \"1/1h\"\n\
             connections_per_user = 1\n",
        )
    };
    let nodes = nodes(&engine, settings).await;
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    let (mut client, id) = open(first, "1", json!({"user_id": 7})).await;
    client.send_json(&json!({"message": "one"})).await;
    client.next_event("task_queued").await;
    client.next_event("processing_started").await;
    client.send_json(&json!({"message": "a secret text"})).await;
    assert_eq!(client.next_event("error").await["code"], "rate_limited");
    // The reply breaks off.
    stream.abort();
    assert_eq!(client.next_event("error").await["code"], "worker_lost");
    // A second connection of the user is refused.
    let token = first.token(json!({"user_id": 7})).await;
    let path = format!("/ws/chat/1/?connection_token={token}");
    // How it is refused does not matter here.
    let _ = Client::attempt(first.addr(), &path).await;
    let closed = first.api("/v1/disconnect", json!({"connection_id": id})).await;
    assert_eq!(closed.json()["closed"], 1);
    let codes = |answer: &Value| -> Vec<(String, String)> {
        let errors = answer["errors"].as_array().unwrap();
        let texts = |error: &Value| {
            let text = |name: &str| error[name].as_str().unwrap().to_owned();
            (text("about"), text("code"))
        };
        errors.iter().map(texts).collect()
    };
    let wanted =
        [("close", "disconnected"), ("handshake", "connections"), ("answer", "rate_limited")]
            .map(|(about, code)| (about.to_owned(), code.to_owned()));
    let answer = until("all errors", async || {
        let answer = explain(last, "user_id=7").await;
        let found = codes(&answer);
        wanted.iter().all(|one| found.contains(one)).then_some(answer)
    })
    .await;
    assert_eq!((&answer["connections"], &answer["known"]), (&json!([]), &json!(true)));
    let times: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|it| it["at_ms"].as_u64()).collect();
    assert!(times.is_sorted_by(|later, earlier| later >= earlier), "{times:?}");
    assert!(!answer.to_string().contains("secret") && !answer.to_string().contains(&token));
    // The connection is closed, and its errors are still known by its id.
    let answer = explain(last, &format!("connection_id={id}")).await;
    assert_eq!(answer["total_connections"], 0);
    let found = codes(&answer);
    assert!(found.contains(&wanted[0]) && found.contains(&wanted[2]), "{found:?}");
    // What became of a reply is known by its channel.
    let found = codes(&explain(last, "channel=chat_1").await);
    assert!(found.contains(&("reply".into(), "worker_lost".into())), "{found:?}");
    // Nobody else is concerned.
    assert_eq!(explain(last, "user_id=8").await["errors"], json!([]));
}

async fn many_connections_are_counted(engine: Engine) {
    let settings = || super::chat::chat("auth = [\"anonymous\"]\n");
    let nodes = nodes(&engine, settings).await;
    let mut clients = Vec::new();
    for n in 0..25 {
        let gateway = &nodes[n % nodes.len()];
        clients.push(Client::connected(gateway, "/ws/chat/5/").await);
    }
    let answer = explain(&nodes[0], "channel=chat_5").await;
    assert_eq!(answer["connections"].as_array().map(Vec::len), Some(20), "{answer}");
    assert_eq!((&answer["total_connections"], &answer["complete"]), (&json!(25), &json!(true)));
    let open = limit(&answer["connections"][0]["limits"], "frames_per_connection");
    assert_eq!(open["remaining"], open["max"]);
}

async fn what_is_not_known_is_no_error(engine: Engine) {
    let settings = || super::chat::chat("auth = [\"anonymous\"]\n");
    let gateway = engine.start(settings()).await;
    let unknown = "0".repeat(32);
    for query in
        ["user_id=9".to_owned(), "channel=nothing".into(), format!("connection_id={unknown}")]
    {
        let answer = explain(&gateway, &query).await;
        assert_eq!((&answer["known"], &answer["total_connections"]), (&json!(false), &json!(0)));
    }
    for wrong in ["", "user_id=1&channel=a", "user_id=", "connection_id=x", "channel=", "user=1"] {
        assert_eq!(get(&gateway, wrong).await.status, 400, "{wrong}");
    }
    let without_key = http::get(gateway.admin(), "/v1/explain?user_id=9").await;
    assert_eq!(without_key.status, 401);
}
