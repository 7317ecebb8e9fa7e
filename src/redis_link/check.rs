//! Asks a Redis server once whether it can be used.

use redis::AsyncConnectionConfig;
use tokio::time::timeout;

use super::Health;
use super::cluster::find_masters;
use super::open::{COMMAND_DEADLINE, client, connect};
use super::reason::describe;
use super::sentinel::Sentinels;
use crate::config::RedisUrl;

/// Connects, authenticates, and waits for the answer to a PING of a primary; `with_scripts` also loads a script that does
/// nothing. Writes no key. Of a cluster, asks every master that has slots, all of which must be taken; of sentinels, the server that they name. `Err` says what is
/// wrong, without any part of the URL but the address of a node. Returns how many servers were asked.
pub async fn check(url: &RedisUrl, with_scripts: bool) -> Result<usize, String> {
    if url.sentinel_name().is_some() {
        let primary = Sentinels::find(url).await?;
        let checked = check_server(&primary, with_scripts).await;
        let address = primary.info().addr();
        return checked.map(|()| 1).map_err(|reason| format!("{address}: {reason}"));
    }
    if !url.is_cluster() {
        return check_server(url, with_scripts).await.map(|()| 1);
    }
    let masters = find_masters(url).await?;
    let checked = masters.iter().map(async |master| {
        let checked = check_server(master, with_scripts).await;
        checked.map_err(|reason| format!("{}: {reason}", master.info().addr()))
    });
    let checked = futures_util::future::join_all(checked).await;
    checked.into_iter().collect::<Result<Vec<()>, String>>().map(|all| all.len())
}

async fn check_server(url: &RedisUrl, with_scripts: bool) -> Result<(), String> {
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
