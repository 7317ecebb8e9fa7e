//! The load generator: it opens connections, puts load on them, and reads what the server's process used.
//!
//! One thread, raw sockets, and frames that are counted but not parsed, so that one core of generator
//! keeps one core of server busy. Results are one JSON line on stdout.

mod connection;
mod fanout;
mod idle;
mod process;
mod publisher;
mod relay;

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load for Tidegate and for what it is compared with")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Opens idle connections, and reads the server's memory before and after.
    Idle(idle::Options),
    /// Publishes to one channel that every connection is subscribed to.
    Fanout(fanout::Options),
    /// Sends one message after the other on every connection, each relayed to an upstream in this process.
    Relay(relay::Options),
}

/// The server under load.
#[derive(Args, Clone)]
struct Target {
    /// The address of its public port.
    #[arg(long)]
    server: SocketAddr,
    /// The id of its process.
    #[arg(long)]
    pid: u32,
    #[arg(long)]
    connections: usize,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match options.command {
            Command::Idle(options) => idle::run(options).await,
            Command::Fanout(options) => fanout::run(options).await,
            Command::Relay(options) => relay::run(options).await,
        }
    })?;
    println!("{result}");
    Ok(())
}
