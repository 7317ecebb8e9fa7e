//! The load generator: it opens connections, sends load, and measures the server's process.
//!
//! It uses one thread and raw sockets, and counts frames without parsing them, so that one core of the generator
//! keeps one core of the server busy. It prints the result as one line of JSON.

mod audience;
mod connection;
mod echo;
mod fanout;
mod handshake;
mod hold;
mod idle;
mod pace;
mod peer;
mod process;
mod publish;
mod publisher;
mod receive;
mod redis_commands;
mod relay;
mod replies;
mod storm;
mod stream;
mod subscriber;
mod talk;
mod together;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Generate load for Tidegate or the baseline")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Opens idle connections, and measures the server's memory before and after.
    Idle(idle::Options),
    /// Publishes to one channel that all connections receive.
    Fanout(fanout::Options),
    /// Sends one message after the other on every connection; the server relays them to an upstream in this process.
    Relay(relay::Options),
    /// Asks for one long streamed reply after the other on every connection.
    Stream(stream::Options),
    /// Sends one message after the other on every connection to an echo server behind the measured proxy.
    Echo(echo::Options),
    /// Opens connections as fast as the server takes them.
    Handshake(handshake::Options),
    /// Opens all connections at once, after the death of another node if there is one.
    Storm(storm::Options),
    /// Publishes to any server as fast as its clients receive.
    Publish(publish::Options),
    /// Publishes to any server at a fixed rate, and measures the latency.
    Pace(pace::Options),
    /// Sends one message after the other from each client of any server, and waits for what comes back.
    Talk(talk::Options),
    /// Counts what a server writes unasked.
    Receive(receive::Options),
    /// Is one of several generators with clients of one channel.
    Together(together::Options),
    /// Opens silent clients of any server, and measures its memory.
    Hold(hold::Options),
}

/// The measured server.
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

/// A server that is described in a file.
#[derive(Args, Clone)]
struct Measured {
    /// Its description, as bench/compare writes it.
    #[arg(long)]
    peer: PathBuf,
    /// The ids of its processes.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// The ids of processes that share this one's core, such as Redis.
    #[arg(long, value_delimiter = ',')]
    beside: Vec<u32>,
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
            Command::Stream(options) => stream::run(options).await,
            Command::Echo(options) => echo::run(options).await,
            Command::Handshake(options) => handshake::run(options).await,
            Command::Storm(options) => storm::run(options).await,
            Command::Publish(options) => publish::run(options).await,
            Command::Pace(options) => pace::run(options).await,
            Command::Talk(options) => talk::run(options).await,
            Command::Receive(options) => receive::run(options).await,
            Command::Together(options) => together::run(options).await,
            Command::Hold(options) => hold::run(options).await,
        }
    })?;
    println!("{result}");
    Ok(())
}
