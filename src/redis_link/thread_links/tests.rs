use std::time::Duration;

use tokio::task::LocalSet;

use super::*;
use crate::redis_link::Commands;
use crate::redis_link::test_server::{RedisServer, start_elsewhere};

const SOON: Duration = Duration::from_secs(10);

/// The id of the connection that a command of this thread goes over.
async fn connection_id(commands: &Commands) -> Option<u64> {
    commands.query(redis::cmd("CLIENT").arg("ID")).await.ok()
}

/// Waits until commands of this thread go over a connection whose id `is_expected`.
async fn until(commands: &Commands, is_expected: impl Fn(u64) -> bool) -> u64 {
    let found = async {
        loop {
            match connection_id(commands).await {
                Some(id) if is_expected(id) => return id,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(SOON, found).await.expect("another connection in time")
}

#[test]
fn a_thread_uses_its_own_connection_while_it_has_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut server = RedisServer::start();
        let shutdown = Shutdown::new();
        let commands = start_elsewhere(server.url(), &shutdown);
        assert!(commands.wait_up(SOON).await);
        let shared = connection_id(&commands).await.unwrap();
        let serving = tokio::task::spawn_local(commands.serve_thread(&shutdown));
        let own = until(&commands, |id| id != shared).await;
        // Another thread does not use it, and ends it: this thread's commands go on, and it gets another one.
        let other = commands.clone();
        let elsewhere = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let mut kill = redis::cmd("CLIENT");
                kill.arg("KILL").arg("ID").arg(own);
                let killed: i64 = other.query(&kill).await.unwrap();
                (connection_id(&other).await, killed)
            })
        });
        assert_eq!(elsewhere.await.unwrap(), (Some(shared), 1));
        until(&commands, |id| id != shared && id != own).await;
        serving.abort();
        until(&commands, |id| id == shared).await;
        // Without the server nothing waits, whatever the thread has.
        server.kill();
        let mut up = commands.subscribe_up();
        up.wait_for(|up| !up).await.unwrap();
        assert_eq!(connection_id(&commands).await, None);
        shutdown.force();
    });
}
