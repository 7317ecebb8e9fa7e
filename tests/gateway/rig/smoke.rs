//! Tests of the rig itself, without a gateway.

use serde_json::json;

use super::echo::{Echo, WebSocketServer};
use super::raw::Received;
use super::{Client, Event, RawClient, Redis, Reply, Upstream, frame, http};

#[tokio::test]
async fn the_clients_and_the_echo_server_understand_each_other() {
    let echo = Echo::start().await;
    let mut client = Client::open(echo.addr(), "/", &[]).await;
    client.send_text("hello").await;
    assert_eq!(client.next_text().await, "hello");
    client.close(4000, "bye").await;
    assert_eq!(client.next().await, Event::Closed(Some(4000), "bye".to_owned()));

    let mut raw = RawClient::open(echo.addr(), "/").await;
    for size in [0, 125, 126, 65_535, 65_536] {
        let payload = vec![b'x'; size];
        raw.send(&frame::binary(&payload)).await;
        raw.expect(Received::Binary(payload.clone())).await;
        raw.write(&frame::join(&frame::fragmented(frame::TEXT, &payload, 1000))).await;
        raw.expect(Received::Text(payload)).await;
    }
    raw.send(&frame::close(1000, "")).await;
    assert_eq!(raw.read_close().await, Some(1000));
}

#[tokio::test]
async fn an_accepted_socket_is_played_by_the_test() {
    let mut server = WebSocketServer::start().await;
    let mut client = Client::open(server.addr(), "/path?q=1", &[("x-user-id", "7")]).await;
    let mut accepted = server.accept().await;
    assert_eq!(accepted.uri, "/path?q=1");
    assert_eq!(accepted.headers["x-user-id"], "7");
    accepted.socket.send_text("first").await;
    assert_eq!(client.next_text().await, "first");
    drop(accepted);
    assert_eq!(client.next().await, Event::Lost);
}

#[tokio::test]
async fn the_upstream_records_requests_and_replies() {
    let (writer, stream) = Reply::stream("text/event-stream");
    let stream = std::sync::Arc::new(std::sync::Mutex::new(Some(stream)));
    let upstream = Upstream::start(move |request| match request.path.as_str() {
        "/json" => Reply::json(202, &json!({"task_id": "t"})),
        "/stream" => stream.lock().unwrap().take().unwrap_or(Reply::Hangup),
        _ => Reply::status(404),
    })
    .await;
    let answer = http::post(upstream.addr(), "/json", &[("x-a", "b")], &json!({"n": 1})).await;
    assert_eq!((answer.status, answer.json()), (202, json!({"task_id": "t"})));
    let recorded = upstream.next_request().await;
    assert_eq!((recorded.json(), recorded.header("x-a")), (json!({"n": 1}), Some("b")));
    assert_eq!(http::get(upstream.addr(), "/other").await.status, 404);
    assert!(writer.write("one ") && writer.write("two"));
    drop(writer);
    assert_eq!(http::get(upstream.addr(), "/stream").await.text(), "one two");
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn redis_stops_and_starts_again_on_its_port() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    assert_eq!(redis.run::<String>(&["SET", "key", "value"]).await, "OK");
    assert_eq!(redis.run::<Option<String>>(&["GET", "key"]).await.as_deref(), Some("value"));
    redis.restart().await;
    assert_eq!(redis.url(), url);
    assert_eq!(redis.run::<Option<String>>(&["GET", "key"]).await, None);
}
