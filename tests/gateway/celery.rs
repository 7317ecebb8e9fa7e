//! Messages as Celery tasks on a real Redis, read as a worker would read them. The results, which Celery
//! would write, are written by the tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::rig::{Backend, Client, Gateway, Redis, Settings, http, until};

const PATH: &str = "/ws/chat/42/";

const KWARGS: &str = r#"kwargs = { conversation_id = "{conversation_id}", message = "{message}", user_id = { int = "{user_id}" }, channel_name = "{channel}", image_url = { field = "image_url", type = "text" } }
"#;

/// A config whose Celery broker is `redis` and whose engine is memory.
fn settings(redis: &Redis, more: &str) -> Settings {
    let url = redis.url();
    let lines = format!(
        "kind = \"celery\"\nbroker_url = \"{url}/3\"\ntask = \"chat.reply\"\n{KWARGS}{more}"
    );
    Settings::chat("http://127.0.0.1:1")
        .each_route(|route| format!("{route}[route.limits]\ngenerations_per_user = 0\n"))
        .upstream("worker", &lines)
}

/// A client of a gateway that is connected to its broker.
async fn ana_at(gateway: &Gateway, path: &str) -> Client {
    gateway.wait_for_event("redis_connected").await;
    let token = gateway.token(json!({"user_id": 7, "username": "ana"})).await;
    Client::connected(gateway, &format!("{path}?connection_token={token}")).await.0
}

async fn ana(gateway: &Gateway) -> Client {
    ana_at(gateway, PATH).await
}

async fn send(client: &mut Client, message: Value) -> Value {
    client.send_json(&message).await;
    client.next_json().await
}

/// Takes the oldest task from a list of database 3, and returns it with its arguments.
async fn pop(redis: &Redis, key: &str) -> (Value, Value) {
    let mut connection = redis.connection().await;
    let mut take = redis::pipe();
    take.cmd("SELECT").arg(3).ignore().cmd("BRPOP").arg(key).arg(5);
    let ((_, json),): ((String, String),) =
        take.query_async(&mut connection).await.expect("a task");
    let envelope: Value = serde_json::from_str(&json).expect("JSON");
    let body = STANDARD.decode(envelope["body"].as_str().expect("a body")).expect("base64");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    (envelope, body)
}

#[tokio::test]
async fn a_message_is_a_task() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis, "")).await;
    let mut client = ana(&gateway).await;
    let text = "say \"hi\" {user_id} 🚀";
    let queued = send(&mut client, json!({"message": text, "image_url": "https://x/y.png"})).await;
    assert_eq!(queued["event"], "task_queued", "{queued}");
    let (envelope, body) = pop(&redis, "celery").await;
    let id = queued["task_id"].as_str().expect("an id");
    let arguments = json!({
        "conversation_id": "42",
        "message": text,
        "user_id": 7,
        "channel_name": "chat_42",
        "image_url": "https://x/y.png",
    });
    let embed = json!({"callbacks": null, "errbacks": null, "chain": null, "chord": null});
    assert_eq!(body, json!([[], arguments, embed]));
    assert_eq!(envelope["headers"]["task"], "chat.reply");
    assert_eq!(envelope["headers"]["id"], id);
    assert_eq!(envelope["properties"]["correlation_id"], id);
    assert_eq!(envelope["properties"]["delivery_info"]["routing_key"], "celery");
    assert_eq!(envelope["properties"]["expiration"], "600000");
    assert!(!envelope.to_string().contains("say"), "the client's text is in the body alone");

    let second = send(&mut client, json!({"message": "two", "image_url": null})).await;
    assert_ne!(second["task_id"], queued["task_id"]);
    let (next, body) = pop(&redis, "celery").await;
    assert_eq!(body[1]["image_url"], Value::Null);
    let tag = |envelope: &Value| envelope["properties"]["delivery_tag"].clone();
    assert_ne!(tag(&next), tag(&envelope));
}

/// Arguments are written as the bodies of HTTP requests are.
#[tokio::test]
async fn arguments_hold_values_at_any_depth() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(
        &redis,
        "[[upstream.worker.tasks]]\nchannel = \"chat_deep-*\"\ntask = \"deep\"\n\
         kwargs = { options = { text = \"{message}\", stop = [], list = [{ spread = \"items\" }, { int = \"{user_id}\" }] } }",
    ))
    .await;
    let mut client = ana_at(&gateway, "/ws/chat/deep-1/").await;
    let queued = send(&mut client, json!({"message": "hi \"", "items": [{"a": 1.5}, null]})).await;
    assert_eq!(queued["event"], "task_queued", "{queued}");
    let (_, body) = pop(&redis, "celery").await;
    let options = json!({"text": "hi \"", "stop": [], "list": [{"a": 1.5}, null, 7]});
    assert_eq!(body[1], json!({ "options": options }));
    let marked = json!({"message": "hi", "items": [{"__type__": "uuid", "__value__": "x"}]});
    let error = send(&mut client, marked).await;
    assert_eq!(error["error"], "items holds an object with \"__type__\" and \"__value__\"");
}

#[tokio::test]
async fn a_message_that_is_no_task_is_refused_before_the_broker() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(
        &redis,
        "[[upstream.worker.tasks]]\nchannel = \"chat_avatar-*\"\ntask = \"avatar\"\n\
         kwargs = { session_id = { field = \"session_id\", type = \"int\", required = true } }",
    ))
    .await;
    let mut client = ana_at(&gateway, "/ws/chat/avatar-1/").await;
    for (session, expected) in [
        ("null", "session_id is required"),
        ("\"5\"", "session_id must be an integer"),
        ("18446744073709551616", "session_id holds a number that is out of range"),
        ("1e999", "session_id holds text, a number or nesting that cannot be passed on"),
    ] {
        let text = format!(r#"{{"message":"hi","id":"m","session_id":{session}}}"#);
        client.send_text(&text).await;
        let error = client.next_json().await;
        assert_eq!(error["event"], "error", "{error}");
        assert_eq!(
            (&error["code"], &error["error"], &error["id"]),
            (&json!("upstream_rejected"), &json!(expected), &json!("m"))
        );
    }
    // Users that are not the user 7, although their ids can be read as that number.
    for user in ["007", "+7"] {
        let token = gateway.token(json!({ "user_id": user })).await;
        let path = format!("{PATH}?connection_token={token}");
        let (mut other, _) = Client::connected(&gateway, &path).await;
        let error = send(&mut other, json!({"message": "hi"})).await;
        assert_eq!(error["error"], "user_id is not an integer", "{user}");
    }
    // A task whose arguments include the user is refused for anonymous clients.
    let (mut anonymous, _) = Client::connected(&gateway, PATH).await;
    let error = send(&mut anonymous, json!({"message": "hi"})).await;
    assert_eq!(error["error"], "only signed-in users may send here");
    assert_eq!(redis.run::<String>(&["INFO", "keyspace"]).await.matches("db3").count(), 0);
    gateway
        .wait_for_metric(
            "tidegate_upstream_requests_total",
            &[("upstream", "worker"), ("outcome", "rejected")],
            7.0,
        )
        .await;
}

#[tokio::test]
async fn tasks_are_chosen_by_channel_with_their_list_and_event() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(
        &redis,
        r#"queue = "chat"
global_keyprefix = "app_"
expires = "0s"
[[upstream.worker.tasks]]
channel = "chat_avatar-*"
task = "avatar.generate"
queue = "avatars"
priority = 7
expires = "90s"
queued_event = "avatar_task_queued"
kwargs = { prompt = "{message}", ratio = 0.5, nothing = { null = true }, tags = { value = ["a"] }, style = { field = "style", default = "omit" } }
[[upstream.worker.tasks]]
channel = "chat_*-3"
task = "three"
kwargs = { by = "{username} {message_id}" }
"#,
    ))
    .await;
    let mut avatar = ana_at(&gateway, "/ws/chat/avatar-3/").await;
    let message = json!({"message": "a cat", "id": "m-1"});
    let queued = send(&mut avatar, message.clone()).await;
    assert_eq!((&queued["event"], &queued["id"]), (&json!("avatar_task_queued"), &json!("m-1")));
    let again = send(&mut avatar, message).await;
    assert_eq!(
        (&again["event"], &again["task_id"], &again["duplicate"]),
        (&json!("avatar_task_queued"), &queued["task_id"], &json!(true))
    );
    let (envelope, body) = pop(&redis, "app_avatars\u{6}\u{16}6").await;
    assert_eq!(envelope["properties"]["priority"], 7);
    assert_eq!(envelope["properties"]["delivery_info"]["routing_key"], "avatars");
    assert_eq!(envelope["headers"]["task"], "avatar.generate");
    assert!(envelope["headers"]["expires"].as_str().is_some_and(|end| end.ends_with("+00:00")));
    assert_eq!(body[1], json!({"prompt": "a cat", "ratio": 0.5, "nothing": null, "tags": ["a"]}));

    let mut three = ana_at(&gateway, "/ws/chat/x-3/").await;
    let queued = send(&mut three, json!({"message": "hi", "id": "m-2"})).await;
    assert_eq!(queued["event"], "task_queued");
    let (envelope, body) = pop(&redis, "app_chat").await;
    assert_eq!(
        (&envelope["headers"]["expires"], &body[1]),
        (&Value::Null, &json!({"by": "ana m-2"}))
    );
}

#[tokio::test]
async fn a_list_that_is_full_is_busy() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis, "max_len = 2")).await;
    let mut client = ana(&gateway).await;
    for _ in 0..2 {
        assert_eq!(send(&mut client, json!({"message": "hi"})).await["event"], "task_queued");
    }
    let busy = send(&mut client, json!({"message": "hi", "id": "c"})).await;
    assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("c")));
    pop(&redis, "celery").await;
    assert_eq!(send(&mut client, json!({"message": "hi"})).await["event"], "task_queued");
}

#[tokio::test]
async fn a_stopped_broker_is_unavailable_until_it_restarts() {
    let mut redis = Redis::start().await;
    let gateway = Gateway::start(settings(&redis, "timeout = \"1s\"")).await;
    let mut client = ana(&gateway).await;
    assert_eq!(send(&mut client, json!({"message": "hi"})).await["event"], "task_queued");
    redis.stop();
    let error = send(&mut client, json!({"message": "hi", "id": "b"})).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("upstream_unavailable"), &json!("b")));
    redis.restart().await;
    gateway.wait_for_event("redis_reconnected").await;
    let queued = send(&mut client, json!({"message": "hi"})).await;
    assert_eq!(queued["event"], "task_queued");
    assert_eq!(pop(&redis, "celery").await.0["headers"]["id"], queued["task_id"]);
}

/// A config with results in database 4 and task ids in a key of database 5.
fn watched(redis: &Redis) -> Settings {
    let url = redis.url();
    let key = "app:1:conversation_tasks:{conversation_id}";
    settings(
        redis,
        &format!(
            "result_backend_url = \"{url}/4\"\nrevoke_signal = \"SIGINT\"\n\
             track = {{ key = \"{key}\", ttl = \"10m\", redis_url = \"{url}/5\" }}\n"
        ),
    )
}

async fn in_database<T: redis::FromRedisValue>(redis: &Redis, number: u8, words: &[&str]) -> T {
    let mut connection = redis.connection().await;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let () = redis::cmd("SELECT").arg(number).query_async(&mut connection).await.expect("SELECT");
    command.query_async(&mut connection).await.expect("the command succeeds")
}

/// Writes a result as a worker does.
async fn result(redis: &Redis, task_id: &Value, status: &str, result: Value) {
    let task_id = task_id.as_str().expect("an id");
    let json = json!({
        "status": status, "result": result, "traceback": null, "children": [],
        "date_done": "2026-11-23T23:51:48.403057+00:00", "task_id": task_id,
    });
    let key = format!("celery-task-meta-{task_id}");
    let () = in_database(redis, 4, &["SETEX", &key, "86400", &json.to_string()]).await;
}

#[tokio::test]
async fn a_task_that_ends_without_an_event_is_reported() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    for (status, why, code) in [
        ("FAILURE", json!({"exc_type": "ValueError", "exc_message": ["secret"]}), "task_failed"),
        ("FAILURE", json!({"exc_type": "NotRegistered", "exc_message": ["x"]}), "task_failed"),
        (
            "REVOKED",
            json!({"exc_type": "TaskRevokedError", "exc_message": ["expired"]}),
            "task_expired",
        ),
        (
            "REVOKED",
            json!({"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}),
            "task_revoked",
        ),
    ] {
        let queued = send(&mut client, json!({"message": "hi"})).await;
        // This state is not the end of the task.
        result(&redis, &queued["task_id"], "RETRY", Value::Null).await;
        result(&redis, &queued["task_id"], status, why).await;
        let error = client.next_json().await;
        assert_eq!((&error["event"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
        assert_eq!(error["task_id"], queued["task_id"]);
        assert!(!error.to_string().contains("secret"));
    }
    let queued = send(&mut client, json!({"message": "hi"})).await;
    result(&redis, &queued["task_id"], "SUCCESS", Value::Null).await;
    let complete = client.next_json().await;
    assert_eq!(
        (&complete["event"], &complete["task_id"]),
        (&json!("complete"), &queued["task_id"])
    );
}

#[tokio::test]
async fn the_terminal_event_of_the_worker_is_the_last() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    let queued = send(&mut client, json!({"message": "hi"})).await;
    result(&redis, &queued["task_id"], "FAILURE", json!({"exc_type": "E"})).await;
    // Workers with such result backends do not name a task.
    gateway.publish("chat_42", json!({"event": "error", "error": "mine"})).await;
    assert_eq!(client.next_json().await["error"], "mine");
    gateway.wait_for_metric("tidegate_generations_total", &[("outcome", "completed")], 1.0).await;
    let next = send(&mut client, json!({"message": "hi"})).await;
    assert_eq!(next["event"], "task_queued", "{next}");
}

/// The node stops while two replies run, and they end before another one starts.
#[tokio::test]
async fn a_reply_that_ended_while_no_node_ran_has_one_end() {
    let redis = Redis::start().await;
    let settings = || {
        watched(&redis).redis(&format!("{}/1", redis.url())).section("shutdown", "drain = \"0s\"")
    };
    let mut gateway = Gateway::start(settings()).await;
    let mut tasks = Vec::new();
    for path in ["/ws/chat/named/", "/ws/chat/plain/"] {
        let mut client = ana_at(&gateway, path).await;
        let queued = send(&mut client, json!({"message": "hi"})).await;
        tasks.push(queued["task_id"].clone());
    }
    assert_eq!(gateway.stop().await, Some(0));
    drop(gateway);
    let entered = async || in_database::<u64>(&redis, 1, &["ZCARD", "tg:generations"]).await;
    assert_eq!(entered().await, 2, "both replies are handed over");
    publish_at_worker(&redis, "chat_named", &json!({"event": "complete", "task_id": tasks[0]}))
        .await;
    publish_at_worker(&redis, "chat_plain", &json!({"event": "complete"})).await;
    for task_id in &tasks {
        result(&redis, task_id, "SUCCESS", Value::Null).await;
    }
    let gateway = Gateway::start(settings()).await;
    gateway.wait_for_metric("tidegate_generations_taken_over_total", &[], 2.0).await;
    until("both have ended", async || (entered().await == 0).then_some(())).await;
    for channel in ["chat_named", "chat_plain"] {
        let stream = format!("tg:{{{channel}}}:stream");
        assert_eq!(in_database::<u64>(&redis, 1, &["XLEN", &stream]).await, 1, "{channel}");
        let running = format!("tg:{{{channel}}}:running");
        until("the mark is removed", async || {
            (in_database::<u64>(&redis, 1, &["EXISTS", &running]).await == 0).then_some(())
        })
        .await;
    }
}

/// Publishes as a worker does that uses database 1, with the script in the documentation.
async fn publish_at_worker(redis: &Redis, channel: &str, json: &Value) {
    let (stream, meta) = (format!("tg:{{{channel}}}:stream"), format!("tg:{{{channel}}}:meta"));
    let script = include_str!("../../clients/redis/publish.lua");
    let json = json.to_string();
    let call = ["EVAL", script, "2", &stream, &meta, channel, "1000", "300000", &json];
    let _: redis::Value = in_database(redis, 1, &call).await;
}

#[tokio::test]
async fn a_cancel_is_a_revoke_to_all_workers() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    let url = redis::Client::open(redis.url()).unwrap();
    let mut workers = url.get_async_pubsub().await.unwrap();
    workers.subscribe("/3.celery.pidbox").await.unwrap();
    let queued = send(&mut client, json!({"message": "hi"})).await;
    client.send_json(&json!({"type": "cancel", "task_id": queued["task_id"]})).await;
    let cancelled = client.next_json().await;
    assert_eq!(
        (&cancelled["event"], &cancelled["task_id"]),
        (&json!("cancelled"), &queued["task_id"])
    );
    let order = workers.on_message().next().await.expect("an order");
    let envelope: Value = serde_json::from_slice(order.get_payload_bytes()).expect("JSON");
    let body = STANDARD.decode(envelope["body"].as_str().unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        body,
        json!({
            "method": "revoke",
            "arguments": {"task_id": queued["task_id"], "terminate": true, "signal": "SIGINT"},
            "destination": null, "pattern": null, "matcher": null,
        })
    );
    assert_eq!(envelope["properties"]["delivery_info"]["exchange"], "celery.pidbox");
}

#[tokio::test]
async fn the_task_ids_of_a_conversation_are_stored_for_the_backend() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let queued = send(&mut client, json!({"message": "hi"})).await;
        ids.push(queued["task_id"].as_str().expect("an id").to_owned());
    }
    let key = "app:1:conversation_tasks:42";
    until("a set of all ids", async || {
        let bytes: Option<Vec<u8>> = in_database(&redis, 5, &["GET", key]).await;
        let bytes = bytes?;
        assert_eq!(bytes[..4], [0x80, 0x04, 0x8f, b'('], "a pickled set");
        let holds = |id: &String| bytes.windows(id.len()).any(|part| part == id.as_bytes());
        ids.iter().all(holds).then_some(())
    })
    .await;
    let left: i64 = in_database(&redis, 5, &["PTTL", key]).await;
    assert!((500_000..=600_000).contains(&left), "{left}");
}

/// [`watched`], with `lines` in `[route.generations]`.
fn watched_with(redis: &Redis, lines: &str) -> Settings {
    watched(redis).each_route(|route| format!("{route}[route.generations]\n{lines}\n"))
}

async fn wait_for_ends(gateway: &Gateway, count: f64) {
    let ended = [("outcome", "completed")];
    gateway.wait_for_metric("tidegate_generations_total", &ended, count).await;
}

/// Publishes an event without a task id, as tasks do, and expects it as the next event.
async fn publish_and_expect(gateway: &Gateway, client: &mut Client, event: &str) {
    gateway.publish("chat_42", json!({"event": event, "by": "worker"})).await;
    let next = client.next_json().await;
    assert_eq!((&next["event"], &next["by"]), (&json!(event), &json!("worker")), "{next}");
}

#[tokio::test]
async fn a_complete_of_the_worker_is_the_only_one() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched_with(&redis, "terminal_events = [\"done\"]")).await;
    let mut client = ana(&gateway).await;
    // The event is heard before and after the result is read, with and without the task's id.
    for (count, named, result_first) in
        [(1.0, false, false), (2.0, false, true), (3.0, true, false), (4.0, true, true)]
    {
        let queued = send(&mut client, json!({"message": "hi"})).await;
        let mut complete = json!({"event": "complete"});
        if named {
            complete["task_id"] = queued["task_id"].clone();
        }
        if result_first {
            result(&redis, &queued["task_id"], "SUCCESS", Value::Null).await;
            let outcome = [("outcome", "succeeded")];
            gateway.wait_for_metric("tidegate_celery_tasks_total", &outcome, count).await;
        }
        gateway.publish("chat_42", complete).await;
        if !result_first {
            result(&redis, &queued["task_id"], "SUCCESS", Value::Null).await;
        }
        assert_eq!(client.next_json().await["event"], "complete");
        wait_for_ends(&gateway, count).await;
        publish_and_expect(&gateway, &mut client, "marker").await;
    }
    assert_eq!(gateway.events("reply_unheard"), 0);
}

/// The tasks' events have no ids, and the one that began later ends first.
#[tokio::test]
async fn tasks_side_by_side_end_once_each() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched_with(&redis, "")).await;
    let (mut client, mut other) = (ana(&gateway).await, ana(&gateway).await);
    let slow = send(&mut client, json!({"message": "slow"})).await;
    let fast = send(&mut other, json!({"message": "fast"})).await;
    publish_and_expect(&gateway, &mut client, "complete").await;
    result(&redis, &fast["task_id"], "SUCCESS", Value::Null).await;
    wait_for_ends(&gateway, 1.0).await;
    // The slow one is still running: it can be cancelled.
    publish_and_expect(&gateway, &mut client, "chunk").await;
    publish_and_expect(&gateway, &mut client, "complete").await;
    result(&redis, &slow["task_id"], "SUCCESS", Value::Null).await;
    wait_for_ends(&gateway, 2.0).await;
    publish_and_expect(&gateway, &mut client, "marker").await;
}

#[tokio::test]
async fn a_task_that_ended_unheard_is_reported() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    // A task that fails need not have published anything.
    let failed = send(&mut client, json!({"message": "hi"})).await;
    result(&redis, &failed["task_id"], "FAILURE", json!({"exc_type": "E"})).await;
    assert_eq!(client.next_json().await["code"], "task_failed");
    let queued = send(&mut client, json!({"message": "hi"})).await;
    result(&redis, &queued["task_id"], "SUCCESS", Value::Null).await;
    assert_eq!(client.next_json().await["event"], "complete");
    let warning = gateway.wait_for_event("reply_unheard").await;
    assert_eq!(warning["task_id"], queued["task_id"], "{warning}");
    assert_eq!((&warning["outcome"], &warning["level"]), (&json!("succeeded"), &json!("WARN")));
    assert!(warning["check"].as_str().is_some_and(|text| text.contains("[engine")));
    assert_eq!(gateway.events("reply_unheard"), 1);
    let when = [("route", "/ws/chat/{conversation_id}/"), ("when", "succeeded")];
    assert_eq!(gateway.metric("tidegate_generations_unheard_total", &when).await, 1.0);
}

#[tokio::test]
async fn a_task_that_no_worker_takes_is_reported_with_its_queue() {
    let redis = Redis::start().await;
    let lines = "first_event_warning = \"100ms\"";
    let gateway = Gateway::start(watched_with(&redis, lines)).await;
    let mut client = ana(&gateway).await;
    let queued = send(&mut client, json!({"message": "hi"})).await;
    let warning = gateway.wait_for_event("reply_unheard").await;
    assert_eq!(warning["task_id"], queued["task_id"], "{warning}");
    assert_eq!((&warning["outcome"], &warning["queue"]), (&json!("running"), &json!("celery")));
    assert_eq!((&warning["waiting"], &warning["consumers"]), (&json!(1), &json!(0)), "{warning}");
    // One reply is reported once while it runs.
    publish_and_expect(&gateway, &mut client, "complete").await;
    wait_for_ends(&gateway, 1.0).await;
    assert_eq!(gateway.events("reply_unheard"), 1);
}

#[tokio::test]
async fn a_result_that_cannot_be_read_names_the_setting() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    let queued = send(&mut client, json!({"message": "hi"})).await;
    let key = format!("celery-task-meta-{}", queued["task_id"].as_str().expect("an id"));
    // The beginning of what Celery 5.7 writes with `result_compression = "gzip"`.
    let () = in_database(&redis, 4, &["SETEX", &key, "60", "\0celery-compressed\0x"]).await;
    let warning = gateway.wait_for_event("celery_result_unreadable").await;
    assert_eq!(warning["setting"], "result_compression", "{warning}");
    let unreadable = [("outcome", "unreadable")];
    assert_eq!(gateway.metric("tidegate_celery_tasks_total", &unreadable).await, 1.0);
}

/// A task that returns `other.delay()` has succeeded, but the other task still writes the reply.
#[tokio::test]
async fn a_reply_ends_when_the_promised_task_ends() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(watched(&redis)).await;
    let mut client = ana(&gateway).await;
    let queued = send(&mut client, json!({"message": "hi"})).await;
    let other = json!("11111111-2222-3333-4444-555555555555");
    result(&redis, &queued["task_id"], "SUCCESS", json!([[other, null], null])).await;
    let warning = gateway.wait_for_event("celery_task_promised").await;
    assert_eq!((&warning["tasks"], &warning["awaited"]), (&json!(1), &json!(true)), "{warning}");
    result(&redis, &other, "FAILURE", json!({"exc_type": "ValueError", "exc_message": []})).await;
    let error = client.next_event("error").await;
    assert_eq!(error["code"], "task_failed", "{error}");
    assert_eq!(error["task_id"], queued["task_id"], "{error}");
}

/// The result is read while the worker's last event still stands in the node's mailbox, at another Redis.
#[tokio::test]
async fn a_complete_in_the_mailbox_is_the_only_one() {
    let (redis, layer) = (Redis::start().await, Redis::start().await);
    let settings = watched(&redis)
        .redis(&redis.url())
        .also("engine.redis", "wire = \"channels-core\"")
        .also("engine.redis.channels", &format!("hosts = [{:?}]", layer.url()));
    let gateway = Gateway::start(settings).await;
    until("ready gateway", async || {
        (http::get(gateway.admin(), "/readyz").await.status == 200).then_some(())
    })
    .await;
    let mut backend = Backend::new(&layer).await;
    let mut client = ana(&gateway).await;
    let queued = send(&mut client, json!({"message": "hi"})).await;
    let complete = json!({"type": "chat.message", "event": "complete", "by": "worker"});
    // Longer than the gateway waits for the event after it has read the result, and shorter than it waits for Redis.
    let blocked = std::time::Duration::from_millis(3200);
    tokio::join!(backend.send_and_block("chat_42", &complete, blocked), async {
        result(&redis, &queued["task_id"], "SUCCESS", Value::Null).await;
    });
    let end = client.next_json().await;
    assert_eq!((&end["event"], &end["by"]), (&json!("complete"), &json!("worker")), "{end}");
    wait_for_ends(&gateway, 1.0).await;
    gateway.publish("chat_42", json!({"event": "marker"})).await;
    assert_eq!(client.next_json().await["event"], "marker");
}
