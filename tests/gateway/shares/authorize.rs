//! The backend that authorizes clients is asked within limits.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use super::{BEHIND_PROXY, address, others_are_served};
use crate::chat::{chat, session, session_with};
use crate::outcome::Outcome::{Closed, Connected};
use crate::outcome::outcome;
use crate::rig::upstream::Recorded;
use crate::rig::{Client, Gateway, Reply, Settings, Upstream, until};

/// A backend that admits everybody but to `chat_secret`, and never answers about `chat_hang`.
async fn backend() -> Upstream {
    Upstream::start(|request: &Recorded| match request.json()["channel"].as_str() {
        Some("chat_hang") => Reply::Hang,
        Some("chat_secret") => Reply::status(403),
        _ => Reply::status(204),
    })
    .await
}

/// A route that asks `backend`, with more keys of `authorize` and of `[route.limits]`.
fn settings(backend: &Upstream, keys: &str, limits: &str) -> Settings {
    let url = backend.url("/may");
    chat(&format!(
        "auth = [\"cookie\", \"anonymous\"]\nauthorize = {{ url = {url:?}{keys} }}\n\
         [route.limits]\n{limits}"
    ))
    .section("server", BEHIND_PROXY)
}

fn cookie(session: &str) -> String {
    format!("access_token={session}")
}

#[tokio::test]
async fn limits_are_checked_before_the_backend_is_asked() {
    let backend = backend().await;
    let limits = "connects_per_user = \"2/1h\"\nconnections_per_user = 1";
    let gateway = Gateway::start(settings(&backend, "", limits)).await;
    let cookie = cookie(&session());
    let headers = [("cookie", cookie.as_str())];
    let _open = Client::open(gateway.addr(), "/ws/chat/42/", &headers).await;
    for _ in 0..5 {
        assert_eq!(outcome(&gateway, "/ws/chat/42/", &headers).await, Closed(4029));
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn a_client_that_the_backend_refuses_holds_no_connection() {
    let backend = backend().await;
    let limits = "connects_per_user = \"off\"\nconnections_per_user = 1";
    let gateway = Gateway::start(settings(&backend, "", limits)).await;
    let cookie = cookie(&session());
    let headers = [("cookie", cookie.as_str())];
    assert_eq!(outcome(&gateway, "/ws/chat/secret/", &headers).await, Closed(4003));
    until("connection given back", async || {
        (outcome(&gateway, "/ws/chat/42/", &headers).await == Connected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn questions_are_signed_like_messages() {
    let backend = backend().await;
    let keys = ", signing_secret = \"a secret of the backend\"";
    let gateway = Gateway::start(settings(&backend, keys, "")).await;
    assert_eq!(outcome(&gateway, "/ws/chat/42/", &[]).await, Connected);
    let question = backend.next_request().await;
    let signature = question.header("x-tidegate-signature").expect("a signature");
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret of the backend").unwrap();
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(&question.body);
    let expected: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, expected);
}

#[tokio::test]
async fn one_address_has_a_share_of_the_questions() {
    let backend = backend().await;
    let keys = ", timeout = \"20s\", max_in_flight = 8";
    let gateway = Gateway::start(settings(&backend, keys, "")).await;
    let (name, stranger) = address(200);
    let address = gateway.addr();
    let strangers: Vec<_> = (0..40)
        .map(|_| {
            let stranger = stranger.clone();
            tokio::spawn(async move {
                Client::open(address, "/ws/chat/hang/", &[(name, &stranger)]).await.closed().await
            })
        })
        .collect();
    // Two are asked about, thirty wait, and the others are refused at once.
    until("refused strangers", async || {
        let refused = strangers.iter().filter(|one| one.is_finished()).count();
        (refused == 8).then_some(())
    })
    .await;
    let labels = [("outcome", "authorize_busy")];
    gateway.wait_for_metric("tidegate_handshakes_total", &labels, 8.0).await;
    assert_eq!(backend.requests().len(), 2);
    others_are_served(&gateway, async |_, _| {}).await;
    assert_eq!(backend.requests().len(), 52);
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn decisions_are_cached_for_one_user_and_question() {
    let backend = backend().await;
    let limits = "connects_per_user = \"off\"";
    let gateway = Gateway::start(settings(&backend, ", cache = \"1h\"", limits)).await;
    let (ana, bob) = (cookie(&session()), cookie(&session_with(json!({"user_id": 8}))));
    let (ana, bob) = ([("cookie", ana.as_str())], [("cookie", bob.as_str())]);
    let app = [ana[0], crate::chat::APP];
    // The client, the path, the outcome, and whether the backend is asked.
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Headers<'_>, &str, _, usize); 10] = [
        (&ana, "42", Connected, 1),
        (&ana, "42", Connected, 0),
        (&ana, "43", Connected, 1),
        (&app, "42", Connected, 1),
        (&bob, "42", Connected, 1),
        (&ana, "secret", Closed(4003), 1),
        (&ana, "secret", Closed(4003), 0),
        (&bob, "secret", Closed(4003), 1),
        (&[], "42", Connected, 1),
        (&[], "42", Connected, 1),
    ];
    let mut asked = 0;
    for (number, (headers, id, expected, questions)) in cases.into_iter().enumerate() {
        let path = format!("/ws/chat/{id}/");
        assert_eq!(outcome(&gateway, &path, headers).await, expected, "case {number}");
        asked += questions;
        assert_eq!(backend.requests().len(), asked, "case {number}");
    }
}
