//! Requests, responses, retries, limits and circuit breakers of HTTP upstreams.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::server::{Script, Server};
use super::*;
use crate::config::Secret;

const JSON: &str = "application/json";

fn to(server: &Server) -> config::Upstream {
    upstream(UpstreamKind::Http(http_to(&server.url())))
}

fn with_retries(server: &Server, retries: u32) -> config::Upstream {
    upstream(UpstreamKind::Http(config::HttpUpstream { retries, ..http_to(&server.url()) }))
}

async fn outcome(upstreams: &Upstreams) -> Result<String, RelayError> {
    upstreams.relay(UPSTREAM, &message()).await.map(|taken| taken.task_id)
}

#[tokio::test]
async fn the_request_carries_all_data() {
    let server = Server::start([Script::answer("202 Accepted", JSON, "")]).await;
    let message = message();
    let taken = upstreams(to(&server)).relay(UPSTREAM, &message).await.unwrap();
    assert_eq!((taken.task_id.as_str(), taken.reply.is_from_worker()), ("our-task", true));

    let request = server.request(0);
    assert!(request.head.starts_with("POST /in/4%2F2/7 HTTP/1.1\r\n"), "{}", request.head);
    for (name, value) in [
        ("content-type", JSON),
        ("accept", "application/json, text/event-stream, application/x-ndjson"),
        ("idempotency-key", "7:m%201"),
        ("x-request-id", "our-task"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    let trace = request.header("traceparent").unwrap();
    let trace = TraceContext::parse(trace).unwrap();
    assert_eq!(trace.trace_id(), message.trace.trace_id());
    assert!(!trace.is_sampled());
    assert_eq!(request.header("x-tidegate-signature"), None);

    let raw = std::str::from_utf8(&request.body).unwrap();
    assert!(raw.contains(message.data.get()), "the client's object is untouched: {raw}");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected = json!({
        "message": "hi",
        "data": {"message": " hi ", "id": "m 1", "image_url": null},
        "channel": "chat_42",
        "params": {"id": "4/2"},
        "user": {"id": 7, "name": "Ana Ü"},
        "connection_id": message.connection_id.to_string(),
        "request_id": "request-1",
        "message_id": "m 1",
        "task_id": "our-task",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn anonymous_clients_have_no_user() {
    let server = Server::start([Script::answer("204 No Content", JSON, "")]).await;
    let message = Message { user_id: None, username: None, ..message() };
    upstreams(to(&server)).relay(UPSTREAM, &message).await.unwrap();
    let request = server.request(0);
    assert!(request.head.starts_with("POST /in/4%2F2/_anonymous_ "), "{}", request.head);
    let key = format!("{}:m%201", message.connection_id);
    assert_eq!(request.header("idempotency-key"), Some(&*key));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["user"], Value::Null);
}

#[tokio::test]
async fn keys_of_different_senders_never_collide() {
    let server = Server::start([Script::answer("204 No Content", JSON, "")]).await;
    let upstreams = upstreams(to(&server));
    for (user, id) in [("a:b", "c"), ("a", "b:c"), ("ü\n", "%0A")] {
        let user_id = Some(UserId::Text(user.into()));
        let message = Message { user_id, message_id: id.to_owned(), ..message() };
        upstreams.relay(UPSTREAM, &message).await.unwrap();
    }
    let key = |at| server.request(at).header("idempotency-key").map(str::to_owned).unwrap();
    assert_eq!([key(0), key(1), key(2)], ["a%3Ab:c", "a:b:c", "%C3%BC%0A:%250A"]);
}

#[tokio::test]
async fn bodies_are_signed() {
    let server = Server::start([Script::answer("204 No Content", JSON, "")]).await;
    let signing_secret = Some(Secret::new("s3cret"));
    let http = config::HttpUpstream { signing_secret, ..http_to(&server.url()) };
    outcome(&upstreams(upstream(UpstreamKind::Http(http)))).await.unwrap();

    let request = server.request(0);
    let signature = request.header("x-tidegate-signature").unwrap();
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(&request.body);
    let expected: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected);
    let now = crate::clock::unix_seconds();
    assert!(now.abs_diff(time.parse().unwrap()) < 3600);
}

#[tokio::test]
async fn responses_that_accept_the_message() {
    let long = format!(r#"{{"task_id":"{}"}}"#, "x".repeat(257));
    let huge = format!(r#"{{"task_id":"theirs","x":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    for (status, body, task_id, is_queued) in [
        ("200 OK", r#"{"task_id":"theirs"}"#, "theirs", true),
        ("201 Created", r#"{"task_id":12345678901}"#, "12345678901", true),
        ("202 Accepted", "", "our-task", true),
        ("204 No Content", "", "our-task", false),
        ("200 OK", "{}", "our-task", false),
        ("200 OK", "[1]", "our-task", false),
        ("200 OK", "<html>", "our-task", false),
        ("200 OK", r#"{"task_id":""}"#, "our-task", false),
        ("200 OK", r#"{"task_id":1.5}"#, "our-task", false),
        ("200 OK", r#"{"task_id":null}"#, "our-task", false),
        ("200 OK", &long, "our-task", false),
        ("200 OK", &huge, "our-task", false),
    ] {
        let server = Server::start([Script::answer(status, JSON, body)]).await;
        let taken = upstreams(to(&server)).relay(UPSTREAM, &message()).await.unwrap();
        let found = (taken.task_id.as_str(), taken.reply.is_from_worker());
        assert_eq!(found, (task_id, is_queued), "{status} {:.60}", body);
    }
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"task_id\":\"theirs\"";
    let server = Server::start([Script::closing(cut)]).await;
    assert_eq!(outcome(&upstreams(to(&server))).await.as_deref(), Ok("our-task"));
}

#[tokio::test]
async fn a_response_without_a_body_is_not_a_stream_whatever_its_type() {
    for kind in ["text/event-stream", "application/x-ndjson"] {
        let server = Server::start([Script::answer("202 Accepted", kind, "")]).await;
        let taken = upstreams(to(&server)).relay(UPSTREAM, &message()).await.unwrap();
        assert!(taken.reply.is_from_worker(), "{kind}");
    }
}

/// The kernel detects a peer that vanished: an upstream socket has no deadline.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_are_kept_alive() {
    let server = Server::start([Script::hanging("")]).await;
    let (upstreams, message) = (upstreams(to(&server)), message());
    let mut relay = Box::pin(upstreams.relay(UPSTREAM, &message));
    while server.request_count() == 0 {
        assert!(futures_util::poll!(&mut relay).is_pending());
        tokio::task::yield_now().await;
    }
    // Fields of proc_pid_net_tcp(5): slot, local, remote, state, queues, timer; state 01 is
    // established, timer 02 is keepalive.
    let remote = format!("0100007F:{:04X}", server.port);
    let is_kept_alive = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(&fields[..], [_, _, to, "01", _, timer, ..] if *to == remote && timer.starts_with("02:"))
    };
    // Until the sent data is acknowledged, the timer is the one of retransmissions.
    let deadline = Instant::now() + LONG;
    while !std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(is_kept_alive) {
        assert!(Instant::now() < deadline, "no keepalive timer");
        assert!(futures_util::poll!(&mut relay).is_pending());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn invalid_http_is_unavailable_and_not_retried() {
    for (bytes, error) in [
        ("", RelayError::Unavailable),
        ("garbage\r\n\r\n", RelayError::Malformed),
        ("HTTP/1.1 2", RelayError::Unavailable),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", RelayError::Malformed),
    ] {
        let server = Server::start([Script::closing(bytes)]).await;
        let outcome = outcome(&upstreams(with_retries(&server, 3))).await;
        assert_eq!(outcome, Err(error), "{bytes:?}");
        assert_eq!(server.request_count(), 1, "{bytes:?}");
    }
}

#[tokio::test]
async fn gateway_errors_are_retried_with_the_same_key() {
    let server = Server::start([
        Script::answer("503 Service Unavailable", JSON, ""),
        Script::answer("502 Bad Gateway", JSON, ""),
        Script::answer("504 Gateway Timeout", JSON, ""),
        Script::answer("200 OK", JSON, ""),
    ])
    .await;
    assert_eq!(outcome(&upstreams(with_retries(&server, 3))).await.as_deref(), Ok("our-task"));
    assert_eq!(server.request_count(), 4);
    let (first, last) = (server.request(0), server.request(3));
    assert_eq!(first.header("idempotency-key"), last.header("idempotency-key"));
    assert_eq!(first.body, last.body);
}

#[tokio::test]
async fn retries_are_limited_and_other_errors_are_not_retried() {
    for (status, retries, requests) in [
        ("503 Service Unavailable", 1, 2),
        ("500 Internal Server Error", 3, 1),
        ("501 Not Implemented", 3, 1),
        ("400 Bad Request", 3, 1),
        ("429 Too Many Requests", 3, 1),
    ] {
        let server = Server::start([Script::answer(status, JSON, "")]).await;
        assert!(outcome(&upstreams(with_retries(&server, retries))).await.is_err());
        assert_eq!(server.request_count(), requests, "{status}");
    }
}

#[tokio::test]
async fn connecting_is_retried_until_the_upstream_has_started() {
    // A bound socket that does not listen keeps the port and refuses connections.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let retrying = |retries| config::HttpUpstream { retries, ..http_to(&url) };
    let none = upstreams(upstream(UpstreamKind::Http(retrying(0))));
    assert_eq!(outcome(&none).await, Err(RelayError::Unreachable));

    let some = upstreams(upstream(UpstreamKind::Http(retrying(50))));
    let message = message();
    let mut relay = Box::pin(some.relay(UPSTREAM, &message));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut relay).await;
    assert!(early.is_err(), "it keeps retrying");
    let server = Server::on(socket.listen(8).unwrap(), [Script::answer("200 OK", JSON, "")]);
    assert_eq!(relay.await.map(|taken| taken.task_id), Ok("our-task".to_owned()));
    assert_eq!(server.request_count(), 1);
}

#[tokio::test]
async fn a_hanging_upstream_times_out_and_is_not_retried() {
    let server = Server::start([Script::hanging("HTTP/1.1 200")]).await;
    let mut config = with_retries(&server, 3);
    config.timeout = Duration::from_secs(1);
    assert_eq!(outcome(&upstreams(config)).await, Err(RelayError::TimedOut));
    server.wait_for_abandoned(1).await;
    assert_eq!(server.request_count(), 1);
}

#[tokio::test]
async fn a_hanging_body_does_not_make_an_accepted_message_fail() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{";
    let server = Server::start([Script::hanging(head)]).await;
    let mut config = to(&server);
    config.timeout = Duration::from_secs(2);
    assert_eq!(outcome(&upstreams(config)).await.as_deref(), Ok("our-task"));
}

/// Sends a message of this user.
async fn outcome_of(upstreams: &Upstreams, user: i64) -> Result<String, RelayError> {
    let message = Message { sender: SenderKey::User(UserId::Integer(user)), ..message() };
    upstreams.relay(UPSTREAM, &message).await.map(|accepted| accepted.task_id)
}

#[tokio::test]
async fn an_open_circuit_sends_no_requests() {
    let server = Server::start([Script::answer("503 No", JSON, "")]).await;
    let mut config = to(&server);
    config.circuit.failures = 2;
    let shared = shared(config);
    let threads = [Upstreams::new(&shared), Upstreams::new(&shared)];
    for _ in 0..3 {
        // However often one sender fails, the others are not refused.
        assert_eq!(outcome_of(&threads[0], 1).await, Err(RelayError::Unavailable));
    }
    for upstreams in threads.iter().cycle().take(4) {
        assert_eq!(outcome_of(upstreams, 2).await, Err(RelayError::Unavailable));
    }
    assert_eq!(server.request_count(), 4);
}

#[tokio::test]
async fn without_a_connection_the_circuit_opens_whoever_sends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let mut config = upstream(UpstreamKind::Http(http_to(&url)));
    config.circuit.failures = 2;
    let upstreams = upstreams(config);
    for expected in [RelayError::Unreachable, RelayError::Unreachable, RelayError::Unavailable] {
        assert_eq!(outcome_of(&upstreams, 1).await, Err(expected));
    }
}

#[tokio::test]
async fn a_probe_closes_the_circuit() {
    let server = Server::start([Script::answer("503 No", JSON, "")]).await;
    let mut config = to(&server);
    config.circuit = config::Circuit { failures: 1, window: LONG, open: Duration::ZERO };
    let upstreams = upstreams(config);
    for _ in 0..3 {
        assert_eq!(outcome(&upstreams).await, Err(RelayError::Unavailable));
    }
    server.set_script(Script::answer("429 Slower", JSON, ""));
    let limited = RelayError::Limited(Box::new(Limited { failure: None, retry_after: None }));
    assert_eq!(outcome(&upstreams).await, Err(limited));
    server.set_script(Script::answer("200 OK", JSON, ""));
    let (one, two) = tokio::join!(outcome(&upstreams), outcome(&upstreams));
    assert!(one.is_ok() && two.is_ok(), "closed: both are sent");
}

#[tokio::test]
async fn answers_of_the_upstreams_own_do_not_open_the_circuit() {
    for (status, error) in [
        ("500 No", RelayError::Failed),
        ("501 No", RelayError::Failed),
        ("505 No", RelayError::Failed),
        ("302 Elsewhere", RelayError::Redirected),
    ] {
        let server = Server::start([Script::answer(status, JSON, "{}")]).await;
        let mut config = to(&server);
        config.circuit.failures = 1;
        let upstreams = upstreams(config);
        for user in 0..3 {
            assert_eq!(outcome_of(&upstreams, user).await, Err(error.clone()), "{status}");
        }
        assert_eq!(server.request_count(), 3, "{status}");
    }
}

#[tokio::test]
async fn a_message_whose_values_have_no_place_in_the_url_is_refused() {
    let server = Server::start([Script::answer("200 OK", JSON, "")]).await;
    let mut config = to(&server);
    config.circuit.failures = 1;
    config.kind =
        UpstreamKind::Http(http_to(&format!("{}users/{{user_id}}/messages", server.url())));
    let upstreams = upstreams(config);
    for user in ["..", ".", "%2e%2e", "../admin"] {
        let message = Message { user_id: Some(UserId::Text(user.into())), ..message() };
        let refused = upstreams.relay(UPSTREAM, &message).await;
        assert!(matches!(refused.err(), Some(RelayError::Rejected(_))), "{user}");
    }
    assert_eq!(server.request_count(), 0);
    assert!(outcome(&upstreams).await.is_ok());
}

#[tokio::test]
async fn rejections_do_not_open_the_circuit() {
    let server = Server::start([Script::answer("400 No", JSON, "")]).await;
    let mut config = to(&server);
    config.circuit.failures = 1;
    let upstreams = upstreams(config);
    for _ in 0..3 {
        assert!(matches!(outcome(&upstreams).await, Err(RelayError::Rejected(_))));
    }
}

#[tokio::test]
async fn the_limit_in_flight_is_shared_by_all_threads_and_permits_are_released() {
    let server = Server::start([Script::hanging(""), Script::answer("200 OK", JSON, "")]).await;
    let mut config = to(&server);
    config.max_in_flight = 1;
    let shared = shared(config);
    let (one, two) = (Upstreams::new(&shared), Upstreams::new(&shared));
    let message = message();
    let mut first = Box::pin(one.relay(UPSTREAM, &message));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert_eq!(outcome(&two).await, Err(RelayError::Busy));
    while server.request_count() == 0 {
        assert!(futures_util::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    // The caller cancels the request.
    drop(first);
    server.wait_for_abandoned(1).await;
    assert_eq!(outcome(&two).await.as_deref(), Ok("our-task"));
    assert_eq!(outcome(&one).await.as_deref(), Ok("our-task"));
}
