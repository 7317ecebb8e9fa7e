use super::*;
use crate::protocol::UserId;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const TTL: Duration = Duration::from_secs(60);

/// A store on each engine, and what must live as long as it.
struct Bench {
    store: TokenStore,
    redis: Option<(RedisServer, Commands)>,
}

impl Bench {
    fn memory(ttl: Duration) -> Self {
        Self { store: TokenStore::memory(ttl), redis: None }
    }

    async fn redis(ttl: Duration) -> Self {
        Self::redis_with(ttl, TokenFormat::Json).await
    }

    async fn redis_with(ttl: Duration, format: TokenFormat) -> Self {
        let server = RedisServer::start();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(Duration::from_secs(10)).await);
        let store = TokenStore::redis(commands.clone(), "ws_conn_token:", ttl, format);
        Self { store, redis: Some((server, commands)) }
    }
}

/// The same test against both engines.
macro_rules! on_both_engines {
    ($($name:ident($ttl:expr) $test:expr;)*) => {
        mod on_memory {
            use super::*;
            $(#[tokio::test] async fn $name() { $test(Bench::memory($ttl)).await; })*
        }
        mod on_redis {
            use super::*;
            $(#[tokio::test] async fn $name() { $test(Bench::redis($ttl).await).await; })*
        }
        mod on_redis_as_django {
            use super::*;
            $(#[tokio::test] async fn $name() {
                $test(Bench::redis_with($ttl, TokenFormat::Django).await).await;
            })*
        }
    };
}

on_both_engines! {
    a_token_stands_for_its_record_once(TTL) stands_for_its_record_once;
    of_two_hundred_uses_one_wins(TTL) one_of_two_hundred_wins;
    an_expired_token_is_unknown(Duration::from_millis(20)) expired_is_unknown;
    what_is_no_token_is_unknown(TTL) garbage_is_unknown;
    a_used_record_is_refused(TTL) used_is_refused;
    a_record_that_is_too_long_is_not_issued(TTL) too_long_is_not_issued;
}

fn record() -> TokenRecord {
    serde_json::from_str(
        r#"{"user_id":1,"username":"ana","connection_id":"c-1","channels":["chat_*"],
                "origin":"https://app.example.com","claims":{"role":"x"}}"#,
    )
    .unwrap()
}

async fn stands_for_its_record_once(bench: Bench) {
    let token = bench.store.issue(&record()).await.unwrap();
    assert!(is_well_formed(&token));
    let back = bench.store.consume(&token).await.unwrap().unwrap();
    assert_eq!(back.user_id, UserId::Integer(1));
    assert_eq!(back.channels, Some(vec!["chat_*".to_owned()]));
    assert_eq!(back.origin.as_deref(), Some("https://app.example.com"));
    assert!(bench.store.consume(&token).await.unwrap().is_none());
}

async fn one_of_two_hundred_wins(bench: Bench) {
    let token = bench.store.issue(&record()).await.unwrap();
    // Real threads, so that the uses do overlap.
    let uses = (0..200).map(|_| {
        let (store, token) = (bench.store.clone(), token.clone());
        tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current()
                .block_on(async move { store.consume(&token).await.unwrap().is_some() })
        })
    });
    let wins = futures_util::future::join_all(uses).await;
    assert_eq!(wins.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
}

async fn expired_is_unknown(bench: Bench) {
    let token = bench.store.issue(&record()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(bench.store.consume(&token).await.unwrap().is_none());
}

async fn garbage_is_unknown(bench: Bench) {
    for token in ["", "*", &"A".repeat(43), &"A".repeat(10_000), "../../etc", "a b"] {
        assert!(bench.store.consume(token).await.unwrap().is_none(), "{token}");
    }
}

async fn used_is_refused(bench: Bench) {
    let token = bench.store.issue(&TokenRecord { used: true, ..record() }).await.unwrap();
    assert!(bench.store.consume(&token).await.unwrap().is_none());
}

async fn too_long_is_not_issued(bench: Bench) {
    let long = TokenRecord { username: Some("x".repeat(TokenRecord::MAX_BYTES)), ..record() };
    assert_eq!(bench.store.issue(&long).await, Err(EngineUnavailable));
}

#[test]
fn any_task_may_wait_for_a_token_or_a_jwt() {
    fn is_send<T: Send>(_: T) {}
    let store = TokenStore::memory(TTL);
    is_send(store.issue(&record()));
    is_send(store.consume("x"));
    fn verify(verifier: &crate::tokens::JwtVerifier) -> impl Send {
        verifier.verify("x")
    }
    let _ = verify;
}

#[tokio::test]
async fn what_a_backend_wrote_to_redis_is_read_once() {
    let bench = Bench::redis(TTL).await;
    let (_, commands) = bench.redis.as_ref().unwrap();
    let token = "b".repeat(43);
    let key = format!("ws_conn_token:{token}");
    let write = async |value: &[u8]| {
        let set = redis::cmd("SET").arg(&key).arg(value).arg("EX").arg(60).to_owned();
        commands.query::<()>(&set).await.unwrap();
    };
    write(br#"{"user_id": "u-1", "used": false}"#).await;
    let record = bench.store.consume(&token).await.unwrap().unwrap();
    assert_eq!(record.user_id, UserId::Text("u-1".into()));
    assert!(bench.store.consume(&token).await.unwrap().is_none());

    write(b"\x80\x05garbage").await;
    assert!(bench.store.consume(&token).await.unwrap().is_none());
    let () = commands.query(redis::cmd("LPUSH").arg(&key).arg("x")).await.unwrap();
    assert!(bench.store.consume(&token).await.unwrap().is_none());
}

#[tokio::test]
async fn tokens_in_redis_expire_there() {
    let bench = Bench::redis(TTL).await;
    let token = bench.store.issue(&record()).await.unwrap();
    let (_, commands) = bench.redis.as_ref().unwrap();
    let key = format!("ws_conn_token:{token}");
    let left: i64 = commands.query(redis::cmd("PTTL").arg(&key)).await.unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn without_redis_nothing_is_issued_or_let_in() {
    let mut bench = Bench::redis(TTL).await;
    let token = bench.store.issue(&record()).await.unwrap();
    bench.redis.as_mut().unwrap().0.kill();
    assert_eq!(bench.store.consume(&token).await.err(), Some(EngineUnavailable));
    assert_eq!(bench.store.issue(&record()).await, Err(EngineUnavailable));
    assert!(bench.store.consume("garbage").await.unwrap().is_none());
}
