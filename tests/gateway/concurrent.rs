//! What a second message on a channel does while a reply runs: `[route.generations] concurrent`.

use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::upstream::StreamWriter;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream, until};

const PATH: &str = "/ws/chat/42/";

on_both_engines! {
    queued_messages_are_relayed_one_at_a_time_in_order,
    a_message_while_a_reply_runs_is_rejected,
    a_full_queue_refuses,
    a_message_whose_client_leaves_gives_up_its_place,
    a_node_that_stops_answers_those_that_wait,
    a_workers_reply_is_waited_for_until_its_end,
    what_has_no_reply_is_not_waited_for,
    a_reload_lets_waiting_messages_go,
    a_repeat_of_a_waiting_message_is_not_relayed,
}

fn settings(upstream: &Upstream, generations: &str) -> Settings {
    Settings::chat(&upstream.url("/"))
        .each_route(|route| format!("{route}\n[route.generations]\n{generations}\n"))
}

type Writers = Arc<Mutex<Vec<StreamWriter>>>;

/// An upstream that streams every reply, and the writers of the replies in order.
async fn streaming_upstream() -> (Upstream, Writers) {
    let writers = Writers::default();
    let replies = Arc::clone(&writers);
    let upstream = Upstream::start(move |_| {
        let (writer, reply) = Reply::stream("text/event-stream");
        replies.lock().unwrap().push(writer);
        reply
    })
    .await;
    (upstream, writers)
}

/// Ends the last reply that began.
fn end(writers: &Writers) {
    drop(writers.lock().unwrap().pop().expect("a reply"));
}

async fn connect<const N: usize>(gateway: &Gateway) -> [Client; N] {
    let mut clients = Vec::new();
    for _ in 0..N {
        clients.push(Client::connected(gateway, PATH).await.0);
    }
    clients.try_into().unwrap_or_else(|_| unreachable!())
}

async fn send(client: &mut Client, id: &str) {
    client.send_json(&json!({"message": id, "id": id})).await;
}

/// Waits for the event and skips others.
async fn wait_for_event(client: &mut Client, event: &str) -> Value {
    loop {
        let json = client.next_json().await;
        if json["event"] == event {
            return json;
        }
    }
}

/// Sends a message and waits until it waits.
async fn wait_in_queue(gateway: &Gateway, client: &mut Client, id: &str, waiting: f64) {
    send(client, id).await;
    gateway.wait_for_metric("tidegate_messages_waiting", &[], waiting).await;
}

fn messages(upstream: &Upstream) -> Vec<String> {
    let text = |json: Value| json["message"].as_str().unwrap().to_owned();
    upstream.requests().iter().map(|request| text(request.json())).collect()
}

/// The events of replies that a client receives up to the `count`th end, with their tasks.
async fn events(client: &mut Client, count: usize) -> Vec<(String, String)> {
    let (mut events, mut ends) = (Vec::new(), 0);
    while ends < count {
        let json = client.next_json().await;
        let name = json["event"].as_str().unwrap().to_owned();
        if matches!(&*name, "processing_started" | "complete" | "cancelled" | "error") {
            ends += usize::from(name != "processing_started");
            events.push((name, json["task_id"].as_str().unwrap().to_owned()));
        }
    }
    events
}

async fn queued_messages_are_relayed_one_at_a_time_in_order(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream, "concurrent = \"queue\"")).await;
    let [mut one, mut two, mut three, mut viewer] = connect(&gateway).await;
    send(&mut one, "m-1").await;
    let first = wait_for_event(&mut one, "task_queued").await["task_id"].clone();
    wait_for_event(&mut one, "processing_started").await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    wait_in_queue(&gateway, &mut three, "m-3", 2.0).await;
    assert_eq!(messages(&upstream), ["m-1"]);
    end(&writers);
    let second = wait_for_event(&mut two, "task_queued").await["task_id"].clone();
    wait_for_event(&mut two, "processing_started").await;
    assert_eq!(messages(&upstream), ["m-1", "m-2"]);
    // The end by a cancellation is an end as any other.
    two.send_json(&json!({"type": "cancel", "task_id": second})).await;
    let third = wait_for_event(&mut three, "task_queued").await["task_id"].clone();
    wait_for_event(&mut three, "processing_started").await;
    end(&writers);
    let expected = [
        ("processing_started", &first),
        ("complete", &first),
        ("processing_started", &second),
        ("cancelled", &second),
        ("processing_started", &third),
        ("complete", &third),
    ]
    .map(|(name, task)| (name.to_owned(), task.as_str().unwrap().to_owned()));
    assert_eq!(events(&mut viewer, 3).await, expected);
    assert_eq!(messages(&upstream), ["m-1", "m-2", "m-3"]);
    for (outcome, count) in [("free", 1.0), ("waited", 2.0)] {
        gateway.wait_for_metric("tidegate_turns_total", &[("outcome", outcome)], count).await;
    }
    gateway.wait_for_metric("tidegate_messages_waiting", &[], 0.0).await;
}

async fn a_message_while_a_reply_runs_is_rejected(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream, "concurrent = \"reject\"")).await;
    let [mut one, mut two] = connect(&gateway).await;
    let (mut elsewhere, _) = Client::connected(&gateway, "/ws/chat/43/").await;
    for round in 0..4 {
        // Whoever has seen the end of a reply may send.
        let (sender, other) =
            if round % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        send(sender, &format!("m-{round}")).await;
        wait_for_event(sender, "task_queued").await;
        wait_for_event(other, "processing_started").await;
        send(other, "early").await;
        let busy = wait_for_event(other, "error").await;
        assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("early")), "{busy}");
        assert!(busy["retry_after"].as_u64().is_some(), "{busy}");
        send(&mut elsewhere, &format!("e-{round}")).await;
        wait_for_event(&mut elsewhere, "task_queued").await;
        end(&writers);
        wait_for_event(&mut elsewhere, "complete").await;
        end(&writers);
        wait_for_event(sender, "complete").await;
        wait_for_event(other, "complete").await;
    }
    assert_eq!(upstream.requests().len(), 8);
    let busy = [("outcome", "busy"), ("route", "/ws/chat/{conversation_id}/")];
    assert_eq!(gateway.metric("tidegate_turns_total", &busy).await, 4.0);
    assert_eq!(gateway.metric("tidegate_messages_total", &busy).await, 4.0);
}

async fn a_full_queue_refuses(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let queue = "concurrent = \"queue\"\nmax_waiting = 1";
    let gateway = engine.start(settings(&upstream, queue)).await;
    let [mut one, mut two, mut three] = connect(&gateway).await;
    send(&mut one, "m-1").await;
    wait_for_event(&mut one, "processing_started").await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    send(&mut three, "m-3").await;
    let busy = wait_for_event(&mut three, "error").await;
    assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("m-3")), "{busy}");
    end(&writers);
    wait_for_event(&mut two, "task_queued").await;
    gateway.wait_for_metric("tidegate_messages_waiting", &[], 0.0).await;
    wait_in_queue(&gateway, &mut three, "m-3", 1.0).await;
    end(&writers);
    wait_for_event(&mut three, "task_queued").await;
    assert_eq!(messages(&upstream), ["m-1", "m-2", "m-3"]);
}

async fn a_message_whose_client_leaves_gives_up_its_place(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream, "concurrent = \"queue\"")).await;
    let [mut one, mut two, mut three] = connect(&gateway).await;
    send(&mut one, "m-1").await;
    wait_for_event(&mut one, "processing_started").await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    wait_in_queue(&gateway, &mut three, "m-3", 2.0).await;
    drop(two);
    gateway.wait_for_metric("tidegate_turns_total", &[("outcome", "left")], 1.0).await;
    end(&writers);
    wait_for_event(&mut three, "task_queued").await;
    assert_eq!(messages(&upstream), ["m-1", "m-3"]);
    // It was not relayed, so it can be sent again.
    let [mut two] = connect(&gateway).await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    end(&writers);
    let queued = wait_for_event(&mut two, "task_queued").await;
    assert_eq!(queued.get("duplicate"), None, "{queued}");
    assert_eq!(messages(&upstream), ["m-1", "m-3", "m-2"]);
}

async fn a_node_that_stops_answers_those_that_wait(engine: Engine) {
    let (upstream, _writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream, "concurrent = \"queue\"")).await;
    let [mut one, mut two, mut three] = connect(&gateway).await;
    send(&mut one, "m-1").await;
    wait_for_event(&mut one, "processing_started").await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    wait_in_queue(&gateway, &mut three, "m-3", 2.0).await;
    // This one waits behind the first message of its connection.
    send(&mut three, "m-4").await;
    gateway.signal(Signal::TERM);
    for (client, ids) in [(&mut two, &["m-2"][..]), (&mut three, &["m-3", "m-4"])] {
        for id in ids {
            let busy = wait_for_event(client, "error").await;
            assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!(id)), "{busy}");
        }
    }
    assert_eq!(messages(&upstream), ["m-1"]);
}

async fn a_workers_reply_is_waited_for_until_its_end(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let gateway = engine.start(settings(&upstream, "concurrent = \"queue\"")).await;
    let [mut one, mut two] = connect(&gateway).await;
    for (round, names_its_task) in [true, false].into_iter().enumerate() {
        send(&mut one, &format!("a-{round}")).await;
        let task = wait_for_event(&mut one, "task_queued").await["task_id"].clone();
        wait_in_queue(&gateway, &mut two, &format!("b-{round}"), 1.0).await;
        for name in ["processing_started", "chunk", "complete"] {
            assert_eq!(upstream.requests().len(), 2 * round + 1, "before {name}");
            let mut event = json!({ "event": name });
            if names_its_task {
                event["task_id"] = task.clone();
            }
            gateway.publish("chat_42", event).await;
        }
        let task = wait_for_event(&mut two, "task_queued").await["task_id"].clone();
        two.send_json(&json!({"type": "cancel", "task_id": task})).await;
        wait_for_event(&mut two, "cancelled").await;
    }
}

async fn what_has_no_reply_is_not_waited_for(engine: Engine) {
    let upstream = Upstream::start(|request| match request.json()["message"].as_str() {
        Some("refused") => Reply::status(400),
        _ => Reply::status(200),
    })
    .await;
    for concurrent in ["queue", "reject"] {
        let rule = format!("concurrent = {concurrent:?}");
        let gateway = engine.start(settings(&upstream, &rule)).await;
        let [mut client] = connect(&gateway).await;
        for round in 0..3 {
            send(&mut client, &format!("m-{round}")).await;
            assert_eq!(client.next_json().await["event"], "task_queued");
            send(&mut client, "refused").await;
            assert_eq!(client.next_json().await["code"], "upstream_rejected");
        }
    }
}

async fn a_reload_lets_waiting_messages_go(engine: Engine) {
    let (upstream, _writers) = streaming_upstream().await;
    let gateway = engine.start(settings(&upstream, "concurrent = \"queue\"")).await;
    let [mut one, mut two, mut three] = connect(&gateway).await;
    send(&mut one, "m-1").await;
    wait_for_event(&mut one, "processing_started").await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    let toml = std::fs::read_to_string(gateway.config_file()).unwrap();
    let change = |rule: &str| {
        let changed = toml.replace("concurrent = \"queue\"", rule);
        std::fs::write(gateway.config_file(), changed).unwrap();
        gateway.signal(Signal::HUP);
    };
    change("concurrent = \"reject\"");
    let busy = wait_for_event(&mut two, "error").await;
    assert_eq!((&busy["code"], &busy["id"]), (&json!("busy"), &json!("m-2")), "{busy}");
    change("concurrent = \"queue\"");
    until("reloaded route", async || {
        send(&mut two, "m-2").await;
        let is_waiting = gateway.metric("tidegate_messages_waiting", &[]).await == 1.0;
        is_waiting.then_some(())
    })
    .await;
    change("");
    wait_for_event(&mut two, "task_queued").await;
    send(&mut three, "m-3").await;
    wait_for_event(&mut three, "task_queued").await;
}

async fn a_repeat_of_a_waiting_message_is_not_relayed(engine: Engine) {
    let (upstream, writers) = streaming_upstream().await;
    let user = crate::chat::session();
    let cookie = format!("access_token={user}");
    let settings = crate::chat::relayed(
        &upstream.url("/"),
        "auth = [\"cookie\"]\n[route.generations]\nconcurrent = \"queue\"",
    );
    let gateway = engine.start(settings).await;
    let open = async || {
        crate::outcome::attempt(&gateway, PATH, &[("cookie", &cookie)]).await.expect("a session")
    };
    let (mut one, mut two, mut again) = (open().await, open().await, open().await);
    send(&mut one, "m-1").await;
    wait_for_event(&mut one, "processing_started").await;
    wait_in_queue(&gateway, &mut two, "m-2", 1.0).await;
    send(&mut again, "m-2").await;
    again.send_json(&json!({"type": "ping"})).await;
    wait_for_event(&mut again, "pong").await;
    end(&writers);
    let task = wait_for_event(&mut two, "task_queued").await["task_id"].clone();
    let repeat = wait_for_event(&mut again, "task_queued").await;
    assert_eq!((&repeat["task_id"], &repeat["duplicate"]), (&task, &json!(true)), "{repeat}");
    assert_eq!(messages(&upstream), ["m-1", "m-2"]);
}

#[tokio::test]
async fn of_two_messages_at_once_on_two_nodes_one_is_relayed() {
    let engine = Engine::redis().await;
    let (upstream, writers) = streaming_upstream().await;
    let rule = "concurrent = \"reject\"";
    let nodes = [
        engine.start(settings(&upstream, rule)).await,
        engine.start(settings(&upstream, rule)).await,
    ];
    let ([mut one], [mut two]) = (connect(&nodes[0]).await, connect(&nodes[1]).await);
    for round in 1..=5 {
        let id = format!("m-{round}");
        let outcome = async |client: &mut Client| loop {
            let json = client.next_json().await;
            match json["event"].as_str() {
                Some("task_queued") => return true,
                Some("error") => {
                    assert_eq!((&json["code"], &json["id"]), (&json!("busy"), &json!(id)));
                    return false;
                }
                _ => {}
            }
        };
        tokio::join!(send(&mut one, &id), send(&mut two, &id));
        let outcomes = tokio::join!(outcome(&mut one), outcome(&mut two));
        assert!(outcomes.0 != outcomes.1, "{outcomes:?}");
        assert_eq!(upstream.requests().len(), round);
        end(&writers);
        tokio::join!(wait_for_event(&mut one, "complete"), wait_for_event(&mut two, "complete"));
    }
}

#[tokio::test]
async fn two_nodes_share_one_queue() {
    let engine = Engine::redis().await;
    let (upstream, writers) = streaming_upstream().await;
    let rule = "concurrent = \"queue\"";
    let nodes = [
        engine.start(settings(&upstream, rule)).await,
        engine.start(settings(&upstream, rule)).await,
    ];
    let mut viewer = Client::connected(&nodes[0], PATH).await.0;
    let mut clients = Vec::new();
    for n in 0..6 {
        let node = &nodes[n % 2];
        let mut client = Client::connected(node, PATH).await.0;
        send(&mut client, &format!("m-{n}")).await;
        match n {
            0 => drop(wait_for_event(&mut client, "processing_started").await),
            _ => node.wait_for_metric("tidegate_messages_waiting", &[], n.div_ceil(2) as f64).await,
        }
        clients.push(client);
    }
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        end(&writers);
        wait_for_event(client, "task_queued").await;
        wait_for_event(client, "processing_started").await;
        assert_eq!(upstream.requests().len(), n + 1);
    }
    end(&writers);
    let events = events(&mut viewer, 6).await;
    for pair in events.chunks(2) {
        assert_eq!((&*pair[0].0, &*pair[1].0), ("processing_started", "complete"), "{events:?}");
        assert_eq!(pair[0].1, pair[1].1, "one at a time: {events:?}");
    }
    assert_eq!(messages(&upstream), ["m-0", "m-1", "m-2", "m-3", "m-4", "m-5"]);
}

/// The turn of a worker's reply goes with the reply to the node that monitors it from then on.
#[tokio::test]
async fn the_turn_of_a_node_that_stops_is_handed_over() {
    let engine = Engine::redis().await;
    let upstream = Upstream::accepting().await;
    let rule = "concurrent = \"queue\"";
    let mut leaving = engine.start(settings(&upstream, rule)).await;
    let staying = engine.start(settings(&upstream, rule)).await;
    let ([mut one], [mut two]) = (connect(&leaving).await, connect(&staying).await);
    send(&mut one, "m-1").await;
    let task = wait_for_event(&mut one, "task_queued").await["task_id"].clone();
    wait_in_queue(&staying, &mut two, "m-2", 1.0).await;
    assert_eq!(leaving.stop().await, Some(0));
    staying.publish("chat_42", json!({"event": "chunk", "task_id": task})).await;
    wait_for_event(&mut two, "chunk").await;
    assert_eq!(messages(&upstream), ["m-1"], "its worker is not done");
    staying.publish("chat_42", json!({"event": "complete", "task_id": task})).await;
    wait_for_event(&mut two, "task_queued").await;
    assert_eq!(messages(&upstream), ["m-1", "m-2"]);
}
