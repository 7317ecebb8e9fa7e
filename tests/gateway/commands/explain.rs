//! `tidegate explain`.

use super::*;
use crate::engine::Engine;
use crate::rig::{API_KEY, Client, Upstream};

on_both_engines!(names_are_explained);

const KEY: [(&str, &str); 1] = [("TIDEGATE_API_KEY", API_KEY)];

async fn explain(gateway: &Gateway, more: &[&str]) -> CommandOutput {
    let url = format!("http://{}", gateway.admin());
    let arguments: Vec<_> = ["explain", "--url", &url].iter().chain(more).copied().collect();
    tidegate_with(&KEY, &arguments).await
}

async fn names_are_explained(engine: Engine) {
    let upstream = Upstream::accepting().await;
    let settings = || {
        let limits = "messages_per_user = \"1/1h\"";
        Settings::chat(&upstream.url("/")).route(&format!(
            "path = \"/limited/{{id}}/\"\nchannel = \"limited_{{id}}\"\nauth = \
             [\"connection_token\"]\nupstream = \"worker\"\n[route.limits]\n{limits}"
        ))
    };
    let gateway = engine.start(settings()).await;
    let other = match engine.server() {
        Some(_) => Some(engine.start(settings()).await),
        None => None,
    };
    let asked = other.as_ref().unwrap_or(&gateway);
    let token = gateway.token(json!({"user_id": "ana", "username": "Ana"})).await;
    let path = format!("/limited/1/?connection_token={token}");
    let (mut client, connected) = Client::connected(&gateway, &path).await;
    let id = connected["connection_id"].as_str().expect("an id").to_owned();
    client.send_json(&json!({"message": "one"})).await;
    client.next_event("task_queued").await;
    client.send_json(&json!({"message": "a secret text"})).await;
    assert_eq!(client.next_event("error").await["code"], "rate_limited");

    let common =
        ["user ana (Ana) from 127.0.0.1", "over messages_per_user: 0 of 1 left, the next in "];
    for (name, first) in
        [("ana", "user ana: "), ("limited_1", "channel limited_1: "), (&id, "connection ")]
    {
        let text = explain(asked, &[name]).await.ok();
        assert!(text.starts_with(first), "{text}");
        for part in
            common.iter().chain(&["answered with an error: rate_limited", "send queue: empty"])
        {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(text.contains(&format!("connection {id}")), "{text}");
        assert!(!text.contains("secret") && !text.contains(&token), "{text}");
    }
    for subject in [["--user", "ana"], ["--channel", "limited_1"], ["--connection", &id]] {
        let output = explain(asked, &[subject[0], subject[1], "--json"]).await.ok();
        let answer: Value = serde_json::from_str(&output).expect("JSON");
        assert_eq!((&answer["known"], &answer["total_connections"]), (&json!(true), &json!(1)));
    }
    for subject in [&["nobody"][..], &["--user", "limited_1"], &["--channel", "ana"]] {
        let failure = explain(asked, subject).await.failed();
        assert!(failure.contains("nothing is known of"), "{failure}");
    }
    for wrong in [&[][..], &["ana", "--user", "ana"], &["--connection", "x"]] {
        assert_eq!(explain(asked, wrong).await.code, Some(2), "{wrong:?}");
    }
}
