use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::redis_link::Commands;
use crate::redis_link::test_server::RedisServer;
use crate::shutdown::Shutdown;

const SOON: Duration = Duration::from_secs(10);

async fn watch(server: &RedisServer) -> (KeyWatch, Arc<Notify>) {
    let client = crate::redis_link::client(&server.url()).unwrap();
    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    let on_change = move || notify.notify_one();
    let watch = KeyWatch::connect(&client, &Health::default(), "a", on_change).await.unwrap();
    (watch, changed)
}

async fn commands(server: &RedisServer) -> Commands {
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(SOON).await);
    commands
}

#[tokio::test]
async fn changes_of_keys_with_the_prefix_are_reported() {
    let server = RedisServer::start();
    let (mut watch, changed) = watch(&server).await;
    assert!(watch.is_tracking());
    let commands = commands(&server).await;
    for _ in 0..3 {
        let () = commands.query(redis::cmd("INCR").arg("ab")).await.unwrap();
        timeout(SOON, changed.notified()).await.expect("a report of each change");
    }
    let script = redis::Script::new("return redis.call('GET', KEYS[1])");
    let value: u8 = watch.invoke(script.prepare_invoke().key("ab")).await.unwrap();
    assert_eq!(value, 3);
}

#[tokio::test]
async fn a_server_that_forbids_it_is_used_all_the_same() {
    let server = RedisServer::start();
    let commands = commands(&server).await;
    let mut forbid = redis::cmd("ACL");
    forbid.arg("SETUSER").arg("default").arg("-client|tracking");
    let () = commands.query(&forbid).await.unwrap();
    let (mut watch, _changed) = watch(&server).await;
    assert!(!watch.is_tracking());
    let script = redis::Script::new("return 1");
    assert_eq!(watch.invoke::<u8>(&script.prepare_invoke()).await.unwrap(), 1);
}
