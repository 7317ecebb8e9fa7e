//! `tidegate check --connect`.

use super::super::rig::sentinel::NAME;
use super::super::rig::{Gateway, Reply, Sentinels, Settings, TlsFront, Upstream};
use super::*;

/// Runs the command on a config with these sections, and returns the code and the lines about servers.
async fn check(sections: &str) -> (Option<i32>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, sections).unwrap();
    let output = tidegate(&["check", "--connect", "--config", text(&file)]).await;
    assert_eq!(output.stderr, "");
    let about_servers = output.stdout.lines().filter(|line| !line.starts_with(text(&file)));
    (output.code, about_servers.map(str::to_owned).collect())
}

fn route(upstream: &str) -> String {
    format!(
        "[[route]]\npath = \"/ws/{{room}}/\"\nchannel = \"room_{{room}}\"\nauth = [\"anonymous\"]\n\
         upstream = \"{upstream}\"\n"
    )
}

#[tokio::test]
async fn every_server_is_asked_once() {
    let redis = Redis::start().await;
    let url = redis.url();
    let upstream = Upstream::start(|request| match request.path.as_str() {
        "/keys" => Reply::json(
            200,
            &json!({"keys": [{
                "kty": "oct", "alg": "HS256", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy",
            }, {
                "kty": "EC", "crv": "P-256", "kid": "1",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }]}),
        ),
        _ => Reply::status(405),
    })
    .await;
    let sections = format!(
        "[engine]\nkind = \"redis\"\n[engine.redis]\nurl = \"{url}\"\n[jwt]\njwks_url = \"{}\"\n\
         {}[upstream.list]\nkind = \"redis-list\"\nkey = \"l\"\n\
         [upstream.ai]\nkind = \"http\"\nurl = \"{}\"\n\
         [upstream.socket]\nkind = \"websocket\"\nurl = \"{}\"\n",
        upstream.url("/keys"),
        route("ai"),
        upstream.url("/chat/{room}?secret=s3cret"),
        upstream.url("/ws/{room}").replacen("http", "ws", 1),
    );
    let (code, lines) = check(&sections).await;
    assert_eq!(code, Some(0), "{lines:?}");
    let origin = upstream.url("");
    let all = "engine.redis.url, engine.redis.tokens_url, engine.redis.limits_url, \
               engine.redis.pubsub_url, upstream.list.redis_url";
    let address = url.trim_start_matches("redis://").split('/').next().unwrap().to_owned();
    assert_eq!(
        lines,
        [
            format!("{all}: {address} is a primary that answers"),
            format!("jwt.jwks_url: {origin} has 1 usable key"),
            format!("upstream.ai.url: {origin} answers (with 405 Method Not Allowed to OPTIONS)"),
            format!(
                "upstream.socket.url: {origin} answers (with 405 Method Not Allowed to OPTIONS)"
            ),
        ]
    );
    let mut asked: Vec<(String, String)> =
        upstream.requests().iter().map(|it| (it.method.clone(), it.path.clone())).collect();
    asked.sort();
    let expected = [("GET", "/keys"), ("OPTIONS", "/chat/0?secret=s3cret"), ("OPTIONS", "/ws/0")];
    assert_eq!(asked, expected.map(|(method, path)| (method.to_owned(), path.to_owned())));
}

#[tokio::test]
async fn what_cannot_be_used_is_named_without_secrets() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    redis.stop();
    let upstream = Upstream::start(|request| match request.path.as_str() {
        "/keys" => Reply::json(200, &json!({"keys": []})),
        "/bad" => Reply::status(503),
        _ => Reply::Hang,
    })
    .await;
    let dead = unused_address();
    let sections = format!(
        "[engine]\nkind = \"redis\"\n[engine.redis]\nurl = \"{}\"\n[jwt]\njwks_url = \"{}\"\n\
         [proxy]\nupstream = \"http://{dead}/\"\n{}\
         [upstream.ai]\nkind = \"http\"\nurls = [\"{}\", \"{}\"]\ntimeout = \"300ms\"\n",
        url.replacen("redis://", "redis://user:s3cret@", 1),
        upstream.url("/keys"),
        route("ai"),
        upstream.url("/bad"),
        upstream.url("/hang"),
    );
    let (code, lines) = check(&sections).await;
    assert_eq!(code, Some(1), "{lines:?}");
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(" cannot be used: ")), "{lines:?}");
    assert!(!lines.concat().contains("s3cret"), "{lines:?}");
    for (at, end) in [
        (1, "the key set has no key that can be used"),
        (3, "answered 503 Service Unavailable"),
        (4, "no answer within 300ms"),
    ] {
        assert!(lines[at].ends_with(end), "{lines:?}");
    }
    assert!(lines[2].starts_with(&format!("proxy.upstream: http://{dead} ")), "{lines:?}");
    assert!(lines[3].starts_with("upstream.ai.urls[0]: "), "{lines:?}");
}

/// What answers at all can be used: most APIs do not know OPTIONS, and an on_complete URL takes POST only.
#[tokio::test]
async fn any_other_status_is_an_answer() {
    let upstream = Upstream::start(|request| match request.path.as_str() {
        "/missing" => Reply::status(404),
        "/broken" => Reply::status(500),
        "/moved" => Reply::status(301),
        _ => Reply::status(401),
    })
    .await;
    let sections = format!(
        "{}[upstream.ai]\nkind = \"http\"\nurls = [\"{}\", \"{}\", \"{}\"]\non_complete = {{ url = \"{}\" }}\n",
        route("ai"),
        upstream.url("/missing"),
        upstream.url("/broken"),
        upstream.url("/moved"),
        upstream.url("/replies?key=s3cret"),
    );
    let (code, lines) = check(&sections).await;
    assert_eq!(code, Some(0), "{lines:?}");
    for (line, (key, status)) in lines.iter().zip([
        ("upstream.ai.urls[0]", "404 Not Found"),
        ("upstream.ai.urls[1]", "500 Internal Server Error"),
        ("upstream.ai.urls[2]", "301 Moved Permanently"),
        ("upstream.ai.on_complete.url", "401 Unauthorized"),
    ]) {
        let expected = format!("{key}: {} answers (with {status} to OPTIONS)", upstream.url(""));
        assert_eq!(*line, expected);
    }
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn why_a_server_cannot_be_used_is_said_without_its_secrets() {
    let redis = Redis::start().await;
    let () = redis.run(&["CONFIG", "SET", "requirepass", "the-right-one"]).await;
    let upstream = Upstream::accepting().await;
    let address = upstream.url("").trim_start_matches("http://").to_owned();
    let tls = TlsFront::start("localhost", address.parse().expect("an address")).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sections = format!(
        "[engine]\nkind = \"redis\"\n[engine.redis]\nurl = \"redis://:wr0ng-s3cret@{}\"\n\
         [jwt]\njwks_url = \"https://{address}/keys?token=s3cret\"\n\
         [proxy]\nupstream = \"https://{address}\"\ntimeout = \"2s\"\n\
         {}authorize = {{ url = \"http://nowhere.invalid/may?token=s3cret\" }}\n\
         [upstream.ai]\nkind = \"http\"\nurl = \"https://127.0.0.1:{}/s3cret\"\n\
         [upstream.ai.on_complete]\nurl = \"http://{}/?s3cret\"\ntimeout = \"200ms\"\n",
        redis.address(),
        route("ai").replace("[\"anonymous\"]", "[\"bearer\"]"),
        tls.port(),
        silent.local_addr().unwrap(),
    );
    let (code, lines) = check(&sections).await;
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(!lines.concat().contains("s3cret"), "{lines:?}");
    for (line, (key, parts)) in lines.iter().zip([
        ("engine.redis.url", ["WRONGPASS", "invalid"]),
        ("jwt.jwks_url", ["", ""]),
        ("proxy.upstream", ["", ""]),
        ("authorize of /ws/{room}/", ["http://nowhere.invalid ", "lookup"]),
        ("upstream.ai.url", ["certificate", ""]),
        ("upstream.ai.on_complete.url", ["no answer within 200ms", ""]),
    ]) {
        assert!(line.starts_with(key) && line.contains(" cannot be used: "), "{line}");
        for part in parts {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    assert_eq!(lines.len(), 6, "{lines:?}");
}

#[tokio::test]
async fn sentinels_are_asked_for_the_server() {
    let all = Sentinels::start_with_password("of-sentinels").await;
    let url = format!("{}?sentinel_password=of-sentinels", all.url());
    let about = async |url: &str| {
        let list = "[upstream.list]\nkind = \"redis-list\"\nkey = \"l\"\n";
        let engine = format!("[engine]\nkind = \"redis\"\n[engine.redis]\nurl = \"{url}\"\n");
        let (code, lines) = check(&format!("{engine}{}{list}", route("list"))).await;
        let text = lines.join("\n");
        assert!(!text.contains("of-sentinels"), "{text}");
        (code, text)
    };
    let (code, text) = about(&url).await;
    let expected = format!("{NAME} of the sentinels {}", all.sentinels[0].address());
    assert!(text.contains(&expected) && text.contains("is a primary that answers"), "{text}");
    assert_eq!(code, Some(0));
    let (code, text) = about(&all.url()).await;
    assert!(text.contains("cannot be used: sentinel 127.0.0.1:"), "{text}");
    assert_ne!(code, Some(0));
    let (_, text) = about(&url.replace(NAME, "other")).await;
    assert!(text.contains("No such master"), "{text}");
    let gateway = Gateway::start(Settings::chat("http://127.0.0.1:1/").redis(&url)).await;
    let named = gateway.wait_for_event("redis_primary_named").await;
    assert_eq!(named["address"], all.servers[0].address());
}
