//! Asks a Redis server once whether it can be used.

use redis::AsyncConnectionConfig;
use tokio::time::timeout;

use super::Health;
use super::open::{COMMAND_DEADLINE, client, connect};
use super::reason::describe;
use crate::config::RedisUrl;

/// Connects, authenticates, and waits for the answer to a PING of a primary; `with_scripts` also loads a script that does
/// nothing. Writes no key. `Err` says what is wrong, without any part of the URL.
pub async fn check(url: &RedisUrl, with_scripts: bool) -> Result<(), String> {
    let client = client(url)?;
    let connected = connect(&client, AsyncConnectionConfig::new(), &Health::default()).await;
    let mut connection = connected.map_err(|error| error.reason().to_owned())?.connection;
    if !with_scripts {
        return Ok(());
    }
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg("return 1");
    match timeout(COMMAND_DEADLINE, load.query_async::<String>(&mut connection)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("SCRIPT LOAD is refused: {}", describe(&error))),
        Err(_) => Err(format!("no answer to SCRIPT LOAD within {COMMAND_DEADLINE:?}")),
    }
}
