//! Headers and cookies of a client's handshake that its messages are sent with.

use rustix::process::Signal;

use super::*;
use crate::chat::SECRET;
use crate::rig::jwt;

const FORWARD: &str = "forward_headers = [\"Authorization\", \"Accept-Language\", \"User-Agent\", \"X-Tenant\"]\n\
                       forward_cookies = [\"sessionid\", \"theme\"]";

async fn reload(gateway: &Gateway, settings: &Settings) {
    let before = gateway.events("config_reloaded");
    std::fs::write(gateway.config_file(), settings.to_string()).unwrap();
    gateway.signal(Signal::HUP);
    crate::rig::until("a reload", async || {
        (gateway.events("config_reloaded") > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_named_is_forwarded_and_nothing_else() {
    let upstream = Upstream::accepting().await;
    let settings = settings(&upstream, FORWARD)
        .section("log", "format = \"json\"\nlevel = \"debug\"")
        .section("engine", crate::rig::gateway::MEMORY_ONLY);
    let gateway = Gateway::start(&settings).await;
    let headers = [
        ("authorization", "Bearer hunter2"),
        ("accept-language", "de"),
        ("user-agent", "browser/1"),
        ("x-tenant", "a"),
        ("x-tenant", "b"),
        ("x-secret", "hunter2"),
        ("cookie", "other=1; sessionid=hunter2; theme=\"dark mode\"; Theme=x"),
        ("cookie", "theme=light; access_token_=y"),
    ];
    let mut client = opened(&gateway, &headers).await;
    let request = sent(&mut client, &upstream, &hello()).await;
    let values = |request: &Recorded, name: &str| -> Vec<String> {
        let values = request.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    for (name, expected) in [
        ("authorization", &["Bearer hunter2"][..]),
        ("accept-language", &["de"]),
        ("user-agent", &["browser/1"]),
        ("x-tenant", &["a", "b"]),
        ("x-secret", &[]),
        ("cookie", &["sessionid=hunter2; theme=\"dark mode\"; theme=light"]),
        ("sec-websocket-key", &[]),
        ("upgrade", &[]),
    ] {
        assert_eq!(values(&request, name), expected, "{name}");
    }
    assert!(!gateway.stderr_contains("hunter2"));

    // A client without any of them sends the gateway's own.
    let (mut plain, _) = Client::connected(&gateway, PATH).await;
    let request = sent(&mut plain, &upstream, &hello()).await;
    assert_eq!(values(&request, "cookie"), [""; 0]);
    assert!(values(&request, "user-agent")[0].starts_with("tidegate/"));

    // After a reload an open connection forwards what it has kept and what is still named.
    let fewer =
        "forward_headers = [\"X-Tenant\", \"X-Secret\"]\nforward_cookies = [\"theme\", \"other\"]";
    let settings =
        super::settings(&upstream, fewer).section("engine", crate::rig::gateway::MEMORY_ONLY);
    reload(&gateway, &settings).await;
    let request = sent(&mut client, &upstream, r#"{"message":"again"}"#).await;
    for (name, expected) in [
        ("authorization", &[][..]),
        ("x-tenant", &["a", "b"]),
        ("x-secret", &[]),
        ("cookie", &["theme=\"dark mode\"; theme=light"]),
    ] {
        assert_eq!(values(&request, name), expected, "{name} after the reload");
    }
    let mut later = opened(&gateway, &headers).await;
    let request = sent(&mut later, &upstream, &hello()).await;
    assert_eq!(values(&request, "x-secret"), ["hunter2"]);
    assert_eq!(values(&request, "cookie"), ["other=1; theme=\"dark mode\"; theme=light"]);
}

/// A page's address may have the token that its socket connected with.
#[tokio::test]
async fn no_token_of_the_gateway_is_forwarded_in_a_referer() {
    let upstream = Upstream::accepting().await;
    let gateway = Gateway::start(settings(&upstream, "forward_headers = [\"Referer\"]")).await;
    let referer = "https://app.example.com/chat?a=1&connection%5Ftoken=hunter2&b=2";
    let mut client = opened(&gateway, &[("referer", referer)]).await;
    let request = sent(&mut client, &upstream, &hello()).await;
    assert_eq!(request.header("referer"), Some("https://app.example.com/chat?a=1&b=2"));
}

/// The cookie of the gateway's own session is forwarded only where it is named.
#[tokio::test]
async fn the_session_cookie_is_forwarded_only_by_its_name() {
    let upstream = Upstream::accepting().await;
    let jwt = jwt::hs256(SECRET, &json!({"user_id": 7, "exp": jwt::in_seconds(600)}));
    let cookie = format!("access_token={jwt}; theme=dark");
    let expected = [
        ("forward_cookies = [\"theme\"]", "theme=dark".to_owned()),
        ("forward_cookies = [\"theme\", \"access_token\"]", cookie.clone()),
    ];
    for (lines, expected) in expected {
        let keys = format!("keys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]");
        let gateway = Gateway::start(settings(&upstream, lines).section("jwt", &keys)).await;
        let mut client = opened(&gateway, &[("cookie", &cookie)]).await;
        let request = sent(&mut client, &upstream, &hello()).await;
        assert_eq!(request.header("cookie"), Some(&*expected), "{lines}");
        assert_eq!(request.json()["user"]["id"], 7);
    }
}

#[tokio::test]
async fn a_handshake_with_more_than_can_be_kept_is_refused() {
    let upstream = Upstream::accepting().await;
    let settings = settings(&upstream, FORWARD)
        .each_route(|route| format!("{route}reject = \"http\"\n"))
        .section("engine", crate::rig::gateway::MEMORY_ONLY);
    let gateway = Gateway::start(&settings).await;
    let long = "v".repeat(8 * 1024);
    let refused = Client::try_open(gateway.addr(), PATH, &[("x-tenant", &long)]).await;
    let refused = refused.err().expect("a refusal");
    assert_eq!(refused.status, 431);
    assert!(refused.text().contains("larger than 8 KiB"), "{}", refused.text());
    let labels = [("outcome", "forwarded_too_large")];
    assert_eq!(gateway.metric("tidegate_handshakes_total", &labels).await, 1.0);
    // What is not kept has no such limit.
    opened(&gateway, &[("x-other", &long)]).await;
}

/// What is kept counts in the memory of the node, and is given back.
#[tokio::test]
async fn what_is_kept_is_counted() {
    let upstream = Upstream::accepting().await;
    let settings = settings(&upstream, FORWARD).section("engine", crate::rig::gateway::MEMORY_ONLY);
    let gateway = Gateway::start(&settings).await;
    let value = "v".repeat(4000);
    let client = opened(&gateway, &[("x-tenant", &value)]).await;
    let kept = 4008.0;
    gateway.wait_for_metric("tidegate_memory_bytes", &[("part", "in_progress")], kept).await;
    drop(client);
    gateway.wait_for_metric("tidegate_memory_bytes", &[("part", "in_progress")], 0.0).await;
}
