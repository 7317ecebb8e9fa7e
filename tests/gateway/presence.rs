//! Presence over all nodes: the server API lists who is connected and, where the route enables them, events announce it.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::chat::chat;
use super::engine::Engine;
use super::rig::{API_KEY, Client, Event, Gateway, Settings, http, until};

const LIST: &str = "/v1/channels/chat_42/presence";

fn settings(presence: &str) -> Settings {
    chat(&format!("auth = [\"connection_token\", \"anonymous\"]\npresence = {presence:?}"))
}

/// Connects a user. Returns the client and the id of its connection.
async fn join(gateway: &Gateway, user: Value) -> (Client, String) {
    let token = gateway.token(user).await;
    opened(gateway, &format!("/ws/chat/42/?connection_token={token}")).await
}

async fn join_anonymously(gateway: &Gateway) -> (Client, String) {
    opened(gateway, "/ws/chat/42/").await
}

async fn opened(gateway: &Gateway, path: &str) -> (Client, String) {
    let (client, connected) = Client::connected(gateway, path).await;
    (client, connected["connection_id"].as_str().expect("a connection_id").to_owned())
}

fn ana() -> Value {
    json!({"user_id": 1, "username": "ana"})
}

fn bob() -> Value {
    json!({"user_id": "b-2", "username": "bob"})
}

async fn get(gateway: &Gateway, path: &str) -> http::Response {
    let key = format!("Bearer {API_KEY}");
    http::send(gateway.admin(), "GET", path, &[("authorization", &key)], "".into()).await
}

async fn list(gateway: &Gateway) -> Value {
    let answer = get(gateway, LIST).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Waits until this many connections are listed, and returns the list.
async fn listed(gateway: &Gateway, connections: usize) -> Value {
    until(&format!("{connections} connections in the list"), async || {
        let list = list(gateway).await;
        (list["total_connections"] == connections).then_some(list)
    })
    .await
}

fn ids(list: &Value) -> Vec<&str> {
    let id = |connection: &'_ Value| connection["connection_id"].as_str().is_some();
    let connections = list["connections"].as_array().expect("a list");
    assert!(connections.iter().all(id), "{list}");
    connections.iter().filter_map(|connection| connection["connection_id"].as_str()).collect()
}

/// Waits for the next event, and returns it without its offset.
async fn next(client: &mut Client) -> Value {
    let mut event = client.next_json().await;
    event.as_object_mut().expect("an object").retain(|name, _| name != "offset" && name != "epoch");
    event
}

fn joined(user: Value) -> Value {
    event("join", user)
}

fn left(user: Value) -> Value {
    event("leave", user)
}

fn event(name: &str, mut user: Value) -> Value {
    user["event"] = name.into();
    user
}

/// The events that `client` receives before a publication that the test makes now.
async fn events_until_marker(gateway: &Gateway, client: &mut Client) -> Vec<Value> {
    gateway.publish("chat_42", json!({"event": "marker"})).await;
    let mut events = Vec::new();
    loop {
        match next(client).await {
            event if event["event"] == "marker" => return events,
            event => events.push(event),
        }
    }
}

async fn users_are_announced_when_they_join_and_leave(engine: Engine) {
    let gateway = engine.start(settings("events")).await;
    let (mut first, first_id) = join(&gateway, ana()).await;
    assert_eq!(next(&mut first).await, joined(ana()), "its own, after connected");
    let (mut other, other_id) = join(&gateway, bob()).await;
    assert_eq!(next(&mut first).await, joined(bob()));
    assert_eq!(next(&mut other).await, joined(bob()));
    let (second, second_id) = join(&gateway, ana()).await;

    let all = listed(&gateway, 3).await;
    assert_eq!(all["channel"], "chat_42");
    assert_eq!((&all["total_users"], &all["next_cursor"]), (&json!(2), &Value::Null));
    let mut expected = vec![first_id.as_str(), &other_id, &second_id];
    expected.sort_unstable();
    assert_eq!(ids(&all), expected);
    for connection in all["connections"].as_array().unwrap() {
        let at = connection["connected_at"].as_i64().expect("unix seconds");
        assert!(at.abs_diff(super::rig::jwt::in_seconds(0)) < 60, "{connection}");
        let user = if connection["connection_id"] == other_id { bob() } else { ana() };
        assert_eq!(connection["user_id"], user["user_id"]);
        assert_eq!(connection["username"], user["username"]);
    }
    let users = all["users"].as_array().unwrap();
    assert_eq!(users.len(), 2, "{all}");
    for (user, connections) in [(ana(), 2), (bob(), 1)] {
        let mut user = user;
        user["connections"] = connections.into();
        assert!(users.contains(&user), "{all}");
    }
    gateway.wait_for_metric("tidegate_presence_members", &[], 3.0).await;

    // A second connection is not a second join, and the first to close is not a leave.
    drop(second);
    listed(&gateway, 2).await;
    other.close(1000, "").await;
    drop(other);
    assert_eq!(next(&mut first).await, left(bob()));
    assert_eq!(events_until_marker(&gateway, &mut first).await, [json!(null); 0]);
    drop(first);
    let anonymous = listed(&gateway, 0).await;
    assert_eq!((&anonymous["users"], &anonymous["connections"]), (&json!([]), &json!([])));
    gateway.wait_for_metric("tidegate_presence_members", &[], 0.0).await;
    if let Some(redis) = engine.server() {
        let keys: Vec<String> = redis.run(&["KEYS", "*:presence*"]).await;
        assert_eq!(keys, [""; 0]);
    }
}

async fn anonymous_clients_are_distinguished_by_their_connections(engine: Engine) {
    let gateway = engine.start(settings("events")).await;
    let (mut first, first_id) = join_anonymously(&gateway).await;
    let anonymous = |id: &str| json!({"user_id": null, "username": null, "connection_id": id});
    assert_eq!(next(&mut first).await, joined(anonymous(&first_id)));
    let (second, second_id) = join_anonymously(&gateway).await;
    assert_eq!(next(&mut first).await, joined(anonymous(&second_id)));
    let all = listed(&gateway, 2).await;
    assert_eq!((&all["users"], &all["total_users"]), (&json!([]), &json!(0)));
    drop(second);
    assert_eq!(next(&mut first).await, left(anonymous(&second_id)));
}

async fn without_events_only_the_api_lists_members(engine: Engine) {
    let gateway = engine.start(settings("on")).await;
    let (mut client, _) = join(&gateway, ana()).await;
    let (other, _) = join(&gateway, bob()).await;
    listed(&gateway, 2).await;
    drop(other);
    listed(&gateway, 1).await;
    assert_eq!(events_until_marker(&gateway, &mut client).await, [json!(null); 0]);
}

async fn without_presence_nobody_is_listed(engine: Engine) {
    let gateway = engine.start(settings("off")).await;
    let (mut client, _) = join(&gateway, ana()).await;
    let (other, _) = join(&gateway, bob()).await;
    drop(other);
    gateway.wait_for_metric("tidegate_connections", &[], 1.0).await;
    assert_eq!(events_until_marker(&gateway, &mut client).await, [json!(null); 0]);
    assert_eq!(list(&gateway).await["total_connections"], 0);
    assert_eq!(gateway.metric("tidegate_presence_members", &[]).await, 0.0);
    if let Some(redis) = engine.server() {
        let keys: Vec<String> = redis.run(&["KEYS", "*:presence*"]).await;
        assert_eq!(keys, [""; 0]);
    }
}

async fn long_lists_are_paged(engine: Engine) {
    let gateway = engine.start(settings("on")).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(join(&gateway, ana()).await);
        clients.push(join_anonymously(&gateway).await);
    }
    listed(&gateway, 6).await;
    let mut expected: Vec<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    expected.sort_unstable();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let part = get(&gateway, &format!("{LIST}?limit=4{cursor}")).await.json();
        assert_eq!(part["total_connections"], 6, "{part}");
        for user in part["users"].as_array().unwrap() {
            assert_eq!(user, &json!({"user_id": 1, "username": "ana", "connections": 3}));
        }
        seen.extend(ids(&part).into_iter().map(str::to_owned));
        match part["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
}

async fn clients_of_raw_routes_are_listed(engine: Engine) {
    let route = "path = \"/raw/{room}\"\nchannel = \"room/{room}\"\nauth = [\"anonymous\"]\n\
                 protocol = \"raw\"\npresence = \"on\"";
    let gateway = engine.start(Settings::new().route(route)).await;
    let client = Client::open(gateway.addr(), "/raw/7%25", &[]).await;
    let count = async || {
        let path = "/v1/channels/room%2F7%25/presence";
        get(&gateway, path).await.json()["total_connections"].as_u64()
    };
    until("the raw client", async || (count().await == Some(1)).then_some(())).await;
    drop(client);
    until("empty channel", async || (count().await == Some(0)).then_some(())).await;
}

#[tokio::test]
async fn nodes_that_share_a_redis_see_each_others_clients() {
    let engine = Engine::redis().await;
    let nodes = [engine.start(settings("events")).await, engine.start(settings("events")).await];
    let (mut on_one, one) = join(&nodes[0], ana()).await;
    assert_eq!(next(&mut on_one).await, joined(ana()));
    let (mut on_two, two) = join(&nodes[1], bob()).await;
    for client in [&mut on_one, &mut on_two] {
        assert_eq!(next(client).await, joined(bob()));
    }
    let (again, third) = join(&nodes[1], ana()).await;
    let mut expected = vec![one, two, third];
    expected.sort_unstable();
    for node in &nodes {
        assert_eq!(ids(&listed(node, 3).await), expected);
    }
    drop(again);
    listed(&nodes[0], 2).await;
    drop(on_one);
    assert_eq!(next(&mut on_two).await, left(ana()));
    assert_eq!(events_until_marker(&nodes[1], &mut on_two).await, [json!(null); 0]);
}

#[tokio::test]
async fn the_clients_of_a_dead_node_leave_once_when_their_leases_have_expired() {
    let engine = Engine::redis().await;
    let redis = engine.server().expect("a Redis");
    let mut doomed = engine.start(settings("events")).await;
    let (alive, third) =
        (engine.start(settings("events")).await, engine.start(settings("events")).await);
    let (mut witness, _) = join(&alive, bob()).await;
    assert_eq!(next(&mut witness).await, joined(bob()));
    let (_lost, lost_id) = join(&doomed, ana()).await;
    assert_eq!(next(&mut witness).await, joined(ana()));
    // Bob has another connection, besides that on the dead node, and stays present.
    let (_also_lost, also_lost_id) = join(&doomed, bob()).await;
    listed(&alive, 3).await;

    doomed.signal(Signal::KILL);
    assert_eq!(doomed.wait_exit().await, None);
    assert_eq!(list(&alive).await["total_connections"], 3, "the leases still hold");
    let leases = "tg:{chat_42}:presence";
    let expired: u64 =
        redis.run(&["ZADD", leases, "XX", "CH", "1", &lost_id, "1", &also_lost_id]).await;
    assert_eq!(expired, 2);
    // Both nodes check at the same time; only one of them announces the change.
    let (one, other) = tokio::join!(list(&alive), list(&third));
    for list in [one, other] {
        assert_eq!(list["total_connections"], 1, "{list}");
        let bob = json!({"user_id": "b-2", "username": "bob", "connections": 1});
        assert_eq!(list["users"], json!([bob]));
    }
    assert_eq!(events_until_marker(&alive, &mut witness).await, [left(ana())]);
}

#[tokio::test]
async fn a_node_that_stops_announces_that_its_clients_leave() {
    let engine = Engine::redis().await;
    let (mut stops, stays) =
        (engine.start(settings("events")).await, engine.start(settings("events")).await);
    let (mut witness, _) = join(&stays, bob()).await;
    assert_eq!(next(&mut witness).await, joined(bob()));
    let (mut client, _) = join(&stops, ana()).await;
    assert_eq!(next(&mut witness).await, joined(ana()));
    stops.signal(Signal::TERM);
    let goodbye = async move { while !matches!(client.next().await, Event::Closed(..)) {} };
    let (code, ()) = tokio::join!(stops.wait_exit(), goodbye);
    assert_eq!(code, Some(0));
    assert_eq!(list(&stays).await["total_connections"], 1);
    assert_eq!(events_until_marker(&stays, &mut witness).await, [left(ana())]);
}

#[tokio::test]
async fn without_redis_the_api_is_unavailable_and_clients_stay() {
    let mut engine = Engine::redis().await;
    let gateway = engine.start(settings("on")).await;
    let (_client, _) = join(&gateway, ana()).await;
    listed(&gateway, 1).await;
    engine.server_mut().expect("a Redis").stop();
    let answer = get(&gateway, LIST).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("engine_down")));
    let failures = [("step", "list")];
    assert!(gateway.metric("tidegate_presence_engine_failures_total", &failures).await >= 1.0);
    assert_eq!(gateway.metric("tidegate_presence_members", &[]).await, 1.0);
}

on_both_engines!(
    users_are_announced_when_they_join_and_leave,
    anonymous_clients_are_distinguished_by_their_connections,
    without_events_only_the_api_lists_members,
    without_presence_nobody_is_listed,
    long_lists_are_paged,
    clients_of_raw_routes_are_listed,
);
