//! Plain requests at several URLs: those of `[proxy]`, and those of a pass route's path at the route's own upstream.

use std::net::SocketAddr;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::rig::echo::Echo;
use super::rig::{
    Client, Gateway, RawClient, Reply, Settings, Upstream, free_address, http, until,
};

/// How requests get to the replicas: the name of the metrics, and the settings.
const WAYS: [&str; 2] = ["[proxy]", "app"];

fn settings(way: &str, replicas: &[SocketAddr], more: &str) -> Settings {
    let urls = |scheme| replicas.iter().map(|addr| format!("{scheme}://{addr}")).collect();
    let (of_proxy, of_route): (Vec<String>, Vec<String>) = (urls("http"), urls("ws"));
    let route = "protocol = \"pass\"\nauth = [\"anonymous\"]\nupstream = \"app\"";
    match way {
        "app" => Settings::new()
            .route(&format!("path = \"/{{rest*}}\"\n{route}"))
            .upstream("app", &format!("kind = \"websocket\"\nurls = {of_route:?}\n{more}")),
        _ => Settings::new()
            .route("path = \"/ws\"\nchannel = \"c\"\nauth = [\"anonymous\"]")
            .section("proxy", &format!("urls = {of_proxy:?}\n{more}")),
    }
}

async fn status(gateway: &Gateway, method: &str, body: Bytes) -> u16 {
    http::send(gateway.addr(), method, "/api", &[], body).await.status
}

#[tokio::test]
async fn a_request_goes_to_another_replica_if_nothing_was_sent() {
    let body = Bytes::from("0123456789abcdef".repeat(1 << 16));
    for way in WAYS {
        let app = Upstream::start(|_| Reply::status(204)).await;
        let replicas = [free_address(), app.addr(), free_address()];
        let gateway = Gateway::start(settings(way, &replicas, "")).await;
        for method in ["GET", "POST", "PUT", "POST", "DELETE", "PATCH"] {
            assert_eq!(status(&gateway, method, body.clone()).await, 204, "{way} {method}");
            assert!(app.next_request().await.body == body, "{way} {method}");
        }
        // One that cannot be reached is asked once, and then left out for a while.
        let name = "tidegate_upstream_replica_failures_total";
        for replica in ["0", "2"] {
            let labels = [("upstream", way), ("replica", replica)];
            assert!(gateway.metric(name, &labels).await <= 1.0, "{way} {replica}");
        }
        let labels = [("upstream", way)];
        assert!(gateway.metric(name, &labels).await >= 1.0, "{way}");
    }
}

/// Regression test: the time limit of the request was over when that of the connection was.
#[tokio::test]
async fn a_replica_that_does_not_answer_to_a_connection_leaves_time_for_another() {
    // The system drops further connections to a listener whose queue is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let silent = socket.listen(1).unwrap();
    let addr = silent.local_addr().unwrap();
    let queued = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    for way in WAYS {
        let app = Upstream::start(|_| Reply::status(204)).await;
        let settings = settings(way, &[addr, app.addr()], "").also("proxy", "timeout = \"1s\"");
        let gateway = Gateway::start(settings).await;
        for method in ["POST", "GET", "POST"] {
            assert_eq!(status(&gateway, method, "body".into()).await, 204, "{way} {method}");
        }
        let labels = [("upstream", way), ("replica", "0")];
        assert!(gateway.metric("tidegate_upstream_replica_failures_total", &labels).await >= 1.0);
    }
    // A socket has the time limit of its upstream.
    let echo = Echo::start().await;
    let settings = settings("app", &[addr, echo.addr()], "timeout = \"1s\"");
    let gateway = Gateway::start(settings).await;
    for _ in 0..2 {
        let mut client = Client::open(gateway.addr(), "/ws", &[]).await;
        client.send_text("hello").await;
        assert_eq!(client.next_text().await, "hello");
    }
    drop((silent, queued));
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_to_another_replica() {
    for way in WAYS {
        let broken = Upstream::start(|_| Reply::Hangup).await;
        let other = Upstream::start(|_| Reply::Hangup).await;
        let gateway = Gateway::start(settings(way, &[broken.addr(), other.addr()], "")).await;
        for (number, method) in ["GET", "POST"].into_iter().enumerate() {
            assert_eq!(status(&gateway, method, "body".into()).await, 502, "{way} {method}");
            let sent = broken.requests().len() + other.requests().len();
            assert_eq!(sent, number + 1, "{way} {method}");
        }
    }
}

#[tokio::test]
async fn no_replica_that_can_be_reached_is_a_502() {
    for way in WAYS {
        let replicas = [free_address(), free_address()];
        let gateway = Gateway::start(settings(way, &replicas, "")).await;
        let post = http::send(gateway.addr(), "POST", "/api", &[], "body".into()).await;
        assert_eq!(
            (post.status, &*post.text()),
            (502, r#"{"code":"unreachable","error":"the service cannot be reached"}"#),
            "{way}"
        );
    }
}

#[tokio::test]
async fn a_replica_whose_circuit_is_open_is_passed_over_unless_all_are() {
    let circuit = "circuit = { failures = 1, open = \"1h\" }";
    for way in WAYS {
        let (broken, good) =
            (Upstream::start(|_| Reply::Hangup).await, Upstream::accepting().await);
        let replicas = [broken.addr(), good.addr()];
        let gateway = Gateway::start(settings(way, &replicas, circuit)).await;
        let is_open = "tidegate_upstream_replica_circuit_open";
        let mut answers = Vec::new();
        while broken.requests().is_empty() {
            answers.push(status(&gateway, "GET", Bytes::new()).await);
        }
        assert_eq!(answers.last(), Some(&502), "{way} {answers:?}");
        gateway.wait_for_metric(is_open, &[("upstream", way), ("replica", "0")], 1.0).await;
        for _ in 0..6 {
            assert_eq!(status(&gateway, "GET", Bytes::new()).await, 202, "{way}");
        }
        assert_eq!(broken.requests().len(), 1, "{way}");

        let both = [broken.addr(), Upstream::start(|_| Reply::Hangup).await.addr()];
        let gateway = Gateway::start(settings(way, &both, circuit)).await;
        for _ in 0..4 {
            assert_eq!(status(&gateway, "GET", Bytes::new()).await, 502, "{way}");
        }
        for replica in ["0", "1"] {
            let labels = [("upstream", way), ("replica", replica)];
            assert_eq!(gateway.metric(is_open, &labels).await, 1.0, "{way} {replica}");
        }
        assert!(broken.requests().len() > 1, "{way}: requests are tried all the same");
    }
}

#[tokio::test]
async fn requests_go_to_the_replica_with_the_fewest() {
    for way in WAYS {
        let (release, released) = watch::channel(false);
        let waiting = move |_: &_| Reply::Delayed(released.clone(), Box::new(Reply::status(202)));
        let (one, two) = (Upstream::start(waiting.clone()).await, Upstream::start(waiting).await);
        let gateway = Gateway::start(settings(way, &[one.addr(), two.addr()], "")).await;
        let mut clients = Vec::new();
        for number in 1..=3 {
            for _ in 0..2 {
                let mut client = RawClient::connect(gateway.addr()).await;
                client.write(b"GET /api HTTP/1.1\r\nhost: a\r\n\r\n").await;
                clients.push(client);
                let sent = || one.requests().len() + two.requests().len();
                let expected = clients.len();
                until("the request", async || (sent() == expected).then_some(())).await;
            }
            // Of each two requests either replica gets one.
            assert_eq!((one.requests().len(), two.requests().len()), (number, number), "{way}");
        }
        let labels = [("upstream", way), ("replica", "0")];
        let name = "tidegate_upstream_replica_in_flight";
        assert_eq!(gateway.metric(name, &labels).await, 3.0, "{way}");
        release.send_replace(true);
        gateway.wait_for_metric(name, &labels, 0.0).await;
    }
}

#[tokio::test]
async fn a_reload_changes_the_replicas() {
    let (old, new) = (Upstream::accepting().await, Upstream::start(|_| Reply::status(204)).await);
    let gateway = Gateway::start(settings("[proxy]", &[old.addr(), free_address()], "")).await;
    assert_eq!(status(&gateway, "GET", Bytes::new()).await, 202);
    let text = std::fs::read_to_string(gateway.config_file()).unwrap();
    let text = text.replace(&old.addr().to_string(), &new.addr().to_string());
    std::fs::write(gateway.config_file(), text).unwrap();
    gateway.signal(Signal::HUP);
    gateway.wait_for_event("config_reloaded").await;
    for method in ["GET", "POST"] {
        assert_eq!(status(&gateway, method, "body".into()).await, 204);
    }
    assert_eq!(old.requests().len(), 1);
}

#[tokio::test]
async fn an_address_has_one_replica_where_that_is_configured() {
    for (way, balance) in [("[proxy]", "balance = \"address\""), ("app", "balance = \"user\"")] {
        let (one, two) = (Upstream::accepting().await, Upstream::accepting().await);
        let settings = settings(way, &[one.addr(), two.addr()], balance)
            .also("server", "trusted_proxies = [\"127.0.0.1\"]");
        let gateway = Gateway::start(settings).await;
        for client in 0..12 {
            let address = format!("192.0.2.{client}");
            for path in ["/a", "/b"] {
                let path = format!("{path}/{client}");
                let headers = [("x-forwarded-for", &*address)];
                let answer = http::send(gateway.addr(), "GET", &path, &headers, Bytes::new()).await;
                assert_eq!(answer.status, 202);
            }
        }
        let clients = |replica: &Upstream| {
            let of = |request: &super::rig::upstream::Recorded| request.path[2..].to_owned();
            replica.requests().iter().map(of).collect::<Vec<_>>()
        };
        let (of_one, of_two) = (clients(&one), clients(&two));
        assert_eq!(of_one.len() + of_two.len(), 24, "{way}");
        assert!(!of_one.is_empty() && !of_two.is_empty(), "{way} {of_one:?} {of_two:?}");
        assert!(of_one.iter().all(|client| !of_two.contains(client)), "{way}");
    }
}
