use redis::FromRedisValue as _;

use super::*;
use crate::redis_link::ANSWERED;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(10);

const PURPOSE: TokenUse<'_> =
    TokenUse { channel: Some("chat_1"), origin: Some("https://app.example.com") };

/// The users whose records a second step may follow, each with the text of its key.
const PLAIN: [(&str, &str); 9] = [
    (r#"{"user_id": 7, "username": "ana"}"#, "7"),
    (r#"{"username":null,"user_id":9007199254740991}"#, "9007199254740991"),
    (r#"{"user_id":"ana@example.com","used":false}"#, "ana@example.com"),
    (r#"{"user_id":"50%1","created_at":"2026-01-01","more":[1,{"a":2}]}"#, "50%1"),
    (r#"{"user_id":7,"channels":["other","chat_1"]}"#, "7"),
    (r#"{"user_id":7,"channels":null,"origin":null,"session_expires_at":null}"#, "7"),
    (r#"{"user_id":7,"origin":"https://app.example.com"}"#, "7"),
    (r#"{"user_id":7,"session_expires_at":99999999999}"#, "7"),
    (r#"{"user_id":7,"connection_id":"ws:7"}"#, "7"),
];

/// Records that the gateway refuses, or that it must read before anything is counted.
const UNUSUAL: [&str; 24] = [
    "",
    "no JSON",
    "[1]",
    "7",
    "{}",
    r#"{"user_id":null}"#,
    r#"{"user_id":""}"#,
    r#"{"user_id":"_anonymous_"}"#,
    r#"{"user_id":7.0}"#,
    r#"{"user_id":7.5}"#,
    r#"{"user_id":-7}"#,
    r#"{"user_id":9223372036854775807}"#,
    r#"{"user_id":7,"user_id":8}"#,
    r#"{"user_id":7,"us\u0065r_id":8}"#,
    r#"{"claims":{"user_id":7}}"#,
    r#"{"user_id":7,"used":true}"#,
    r#"{"user_id":7,"username":7}"#,
    r#"{"user_id":7,"channels":[]}"#,
    r#"{"user_id":7,"channels":["chat_*"]}"#,
    r#"{"user_id":7,"channels":["chat_1",2]}"#,
    r#"{"user_id":7,"channels":"chat_1"}"#,
    r#"{"user_id":7,"origin":"https://other.example.com"}"#,
    r#"{"user_id":7,"session_expires_at":1}"#,
    r#"{"user_id":7,"session_expires_at":"99999999999"}"#,
];

#[tokio::test]
async fn nothing_is_counted_for_a_record_that_is_not_plain() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    let ttl = Duration::from_secs(60);
    let tokens = RedisTokens::new(commands.clone(), "token:", ttl, TokenFormat::Json);
    let count = |text: &str| {
        let key = format!("count:{text}");
        Step::new("return redis.call('INCR', KEYS[1])", "true").key(key)
    };
    let plain = PLAIN.iter().map(|(record, user)| (*record, Some(*user)));
    for (record, user) in plain.chain(UNUSUAL.map(|record| (record, None))) {
        tokens.put("a", record.as_bytes()).await.unwrap();
        let take = || tokens.take_step("a", PURPOSE).unwrap();
        let answers = commands.invoke_chain(&[take(), count(ANSWERED)]).await.unwrap();
        let first = answers[0].clone().unwrap();
        let (taken, found) = <(String, Option<String>)>::from_redis_value(first).unwrap();
        assert_eq!((&*taken, found.as_deref()), (record, user));
        assert_eq!(answers.len(), if user.is_some() { 2 } else { 1 }, "{record}");
        if let Some(user) = user {
            let read = tokens.read(record.as_bytes()).unwrap();
            assert_eq!(read.user_id.to_string(), user);
            let key = format!("count:{user}");
            let counted: Option<u64> =
                commands.query(redis::cmd("GETDEL").arg(&key)).await.unwrap();
            assert!(counted.is_some(), "{key}");
        }
        // It is used up in either case.
        let again = commands.invoke_chain(&[take(), count(ANSWERED)]).await.unwrap();
        assert_eq!(again.len(), 1);
        assert_eq!(Option::<String>::from_redis_value(again[0].clone().unwrap()).unwrap(), None);
    }
    let left: Vec<String> = commands.query(redis::cmd("KEYS").arg("count:*")).await.unwrap();
    assert_eq!(left, Vec::<String>::new());
    // A key of another type is no token.
    let () = commands.query(redis::cmd("LPUSH").arg("token:a").arg(1)).await.unwrap();
    let wrong = commands.invoke_chain(&[tokens.take_step("a", PURPOSE).unwrap()]).await;
    let code = |failure: &RedisFailure| match failure {
        RedisFailure::Refused(error) => error.code().map(str::to_owned),
        RedisFailure::Unavailable => None,
    };
    assert_eq!(wrong.as_ref().err().and_then(code).as_deref(), Some("WRONGTYPE"));
}
