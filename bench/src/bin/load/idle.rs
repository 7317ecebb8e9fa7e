//! Measures the memory of an idle connection.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::connection::{Connection, text_frame};
use super::process::anonymous_memory;
use super::{Result, Target};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The number of sockets in each conversation.
    #[arg(long, default_value_t = 2)]
    per_conversation: usize,
    /// The size in bytes of a message that each connection sends before it is idle; 0 = none. The message is not
    /// valid JSON, so the server answers with an error event and does not relay it.
    #[arg(long, default_value_t = 0)]
    after_message: usize,
    /// The server is a proxy in front of an echo server, which sends the message back and nothing by itself.
    #[arg(long)]
    echo: bool,
    /// Seconds to wait before the memory is measured.
    #[arg(long, default_value_t = 3)]
    settle: u64,
}

pub async fn run(options: Options) -> Result<Value> {
    let Target { server, pid, connections } = options.target;
    // Open a first connection, so that one-time allocations are not counted.
    drop(connect(server, options.echo, "warm-up").await?);
    let settle = Duration::from_secs(options.settle);
    tokio::time::sleep(settle).await;
    let before = anonymous_memory(pid)?;
    let message = text_frame(&vec![b'*'; options.after_message]);
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let conversation = (number / options.per_conversation.max(1)).to_string();
        let mut connection = connect(server, options.echo, &conversation).await?;
        if options.after_message > 0 {
            connection.write(&message).await?;
            connection.frames().await?;
        }
        open.push(connection);
    }
    tokio::time::sleep(settle).await;
    let after = anonymous_memory(pid)?;
    let per_connection = after.saturating_sub(before) as f64 / connections as f64;
    Ok(json!({
        "connections": open.len(),
        "anonymous_bytes_before": before,
        "anonymous_bytes_after": after,
        "bytes_per_connection": per_connection.round(),
    }))
}

async fn connect(server: SocketAddr, echo: bool, conversation: &str) -> Result<Connection> {
    match echo {
        true => Connection::open_silent(server).await,
        false => Connection::open(server, conversation).await,
    }
}
