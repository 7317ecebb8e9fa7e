use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::RedisUrl;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const KEY: &str = "app:1:session:version:7";

fn versions(url: &RedisUrl) -> SessionVersions {
    let key = Template::parse("app:1:session:version:{user_id}").unwrap();
    let settings =
        config::SessionVersion { claim: "session_version".into(), key, redis_url: url.clone() };
    let commands = Commands::start(url, "test", &Shutdown::new()).unwrap();
    SessionVersions::new(&settings, commands)
}

async fn outcome(versions: &SessionVersions, user_id: &UserId, claims: Value) -> SessionCheck {
    versions.compare(user_id, claims.as_object().unwrap()).await
}

#[tokio::test]
async fn a_claim_is_compared_with_the_stored_version() {
    let server = RedisServer::start();
    let versions = versions(&server.url());
    assert!(versions.commands.wait_up(Duration::from_secs(10)).await);
    let pickled = pickle::write_json(&json!(3));
    for (stored, claim, expected) in [
        (&b"3"[..], json!(3), SessionCheck::Current),
        (b"3", json!("3"), SessionCheck::Current),
        (&pickled, json!(3), SessionCheck::Current),
        (b"\x80\x04K\x03.", json!("3"), SessionCheck::Current),
        (b"I3\n.", json!(3), SessionCheck::Current),
        (b"K\x03.", json!(3), SessionCheck::Current),
        (b"-1", json!(-1), SessionCheck::Current),
        (b"4", json!(3), SessionCheck::Over),
        (b"2", json!("3"), SessionCheck::Over),
        (b"\x80\x04K\x04.", json!(3), SessionCheck::Over),
        (b"", json!(3), SessionCheck::MalformedValue),
        (b"3 ", json!(3), SessionCheck::MalformedValue),
        (b"+3", json!(3), SessionCheck::MalformedValue),
        (b"3.0", json!(3), SessionCheck::MalformedValue),
        (b"{\"v\": 3}", json!(3), SessionCheck::MalformedValue),
        (b"\x80\x04\x88.", json!(1), SessionCheck::MalformedValue),
        (b"99999999999999999999", json!(3), SessionCheck::MalformedValue),
        (b"\xff", json!(3), SessionCheck::MalformedValue),
        (b"3", json!(null), SessionCheck::MalformedClaim),
        (b"1", json!(true), SessionCheck::MalformedClaim),
        (b"3", json!(3.0), SessionCheck::MalformedClaim),
        (b"3", json!(""), SessionCheck::MalformedClaim),
        (b"3", json!([3]), SessionCheck::MalformedClaim),
    ] {
        let () = versions.commands.query(redis::cmd("SET").arg(KEY).arg(stored)).await.unwrap();
        for user in [UserId::Integer(7), UserId::Text("7".into())] {
            let claims = json!({"session_version": claim});
            assert_eq!(outcome(&versions, &user, claims).await, expected, "{stored:?} {claim}");
        }
    }
    let (seven, eight) = (UserId::Integer(7), UserId::Integer(8));
    assert_eq!(outcome(&versions, &seven, json!({})).await, SessionCheck::NotClaimed);
    let claims = json!({"session_version": 3});
    assert_eq!(outcome(&versions, &eight, claims.clone()).await, SessionCheck::NotKept);
    let list = redis::cmd("LPUSH").arg("app:1:session:version:8").arg("3").to_owned();
    let _: i64 = versions.commands.query(&list).await.unwrap();
    assert_eq!(outcome(&versions, &eight, claims).await, SessionCheck::MalformedValue);
}

#[tokio::test]
async fn without_redis_no_session_is_accepted_unchecked() {
    let mut server = RedisServer::start();
    server.kill();
    let versions = versions(&server.url());
    let claims = json!({"session_version": 1});
    let checked = versions.check(&UserId::Integer(7), claims.as_object().unwrap()).await;
    assert_eq!(checked, Err(CredentialRejection::EngineUnavailable));
    assert_eq!(versions.check(&UserId::Integer(7), &Map::new()).await, Ok(()));
}
