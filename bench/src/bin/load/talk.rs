//! Measures round trips of messages through any server: to an upstream in this process, or into a Redis list.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::connection::text_frame;
use super::peer::{Peer, channel_name, fill};
use super::process::Stretch;
use super::subscriber::Subscriber;
use super::{Measured, Result, upstream};

/// Entries that the list's reader takes at once, and how long it pauses when there are fewer.
const TAKEN_AT_ONCE: u64 = 1000;
const LIST_PAUSE: Duration = Duration::from_millis(5);
/// What has been answered must be in the list, or at the upstream, within this time.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    measured: Measured,
    #[arg(long)]
    connections: usize,
    /// A Redis list that the messages end in: its server and its key. It is emptied meanwhile.
    #[arg(long, requires = "key")]
    list: Option<SocketAddr>,
    #[arg(long)]
    key: Option<String>,
    /// The server echoes: nothing in this process sees the messages.
    #[arg(long)]
    echo: bool,
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub async fn run(options: Options) -> Result<Value> {
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: Options) -> Result<Value> {
    let peer = Peer::read(&options.measured.peer)?;
    let message = peer.message.clone().ok_or("clients of this server send nothing")?;
    let served = upstream::serve(&peer).await?;
    let taken = match (options.list, options.key) {
        (Some(redis), Some(key)) => drain(redis, key).await?,
        _ => served,
    };
    let answered = Rc::new(Cell::new(0_u64));
    // None talks before all are open, because each handshake would have to wait for the others' messages.
    let (mut open, credentials) = (Vec::new(), peer.credentials()?);
    for number in 0..options.connections {
        let channel = channel_name("talk", number);
        let credential = credentials.get(number).map_or("", String::as_str);
        open.push((Subscriber::open(&peer, number, &channel, credential).await?, channel));
    }
    let clients: Vec<_> = open
        .into_iter()
        .map(|(subscriber, channel)| {
            let frame = text_frame(fill(&message.text, &channel, "").as_bytes());
            tokio::task::spawn_local(talk(subscriber, frame, message.frames, answered.clone()))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(options.warm_up)).await;
    let (stretch, first) = (Stretch::begin(&options.measured)?, answered.get());
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let (used, last) = (stretch.end()?, answered.get());
    if let Some(ended) = clients.iter().position(|client| client.is_finished()) {
        return Err(format!("the server ended client {ended}, or answered otherwise").into());
    }
    // An error would count as an answer, so as many messages must have arrived.
    let until = Instant::now() + ARRIVAL_DEADLINE;
    while !options.echo && taken.get() < last && Instant::now() < until {
        tokio::time::sleep(LIST_PAUSE).await;
    }
    if !options.echo && taken.get() < last {
        return Err(format!("{last} answers, but {} messages arrived", taken.get()).into());
    }
    let trips = (last - first) as f64;
    Ok(json!({
        "connections": options.connections,
        "round_trips": trips,
        "seconds": used.seconds,
        "server_cpu_seconds": used.server_cpu,
        "generator_share": used.generator_share,
        "per_second": (trips / used.seconds).round(),
        "cpu_us": used.server_cpu / trips * 1e6,
        "beside_cpu_us": used.beside_cpu / trips * 1e6,
    }))
}

/// Sends messages, one in flight at a time, until one has other answers than it should.
async fn talk(mut subscriber: Subscriber, frame: Vec<u8>, frames: u64, answered: Rc<Cell<u64>>) {
    while subscriber.write(&frame).await.is_ok() {
        let mut left = frames;
        while left > 0 {
            let Ok(news) = subscriber.count().await else { return };
            let Some(rest) = left.checked_sub(news.frames) else { return };
            left = rest;
        }
        answered.set(answered.get() + 1);
    }
}

/// Empties the list as a worker would, and counts what it took.
async fn drain(redis: SocketAddr, key: String) -> Result<Rc<Cell<u64>>> {
    let mut stream = TcpStream::connect(redis).await?;
    let taken = Rc::new(Cell::new(0));
    let count = taken.clone();
    tokio::task::spawn_local(async move {
        let command = format!("LPOP {key} {TAKEN_AT_ONCE}\r\n");
        let mut answer = Vec::new();
        while stream.write_all(command.as_bytes()).await.is_ok() {
            answer.clear();
            let entries = loop {
                if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                    return;
                }
                if let Some(entries) = entries(&answer) {
                    break entries;
                }
            };
            count.set(count.get() + entries);
            if entries < TAKEN_AT_ONCE {
                tokio::time::sleep(LIST_PAUSE).await;
            }
        }
    });
    Ok(taken)
}

/// Returns the number of entries in a whole answer of Redis.
fn entries(answer: &[u8]) -> Option<u64> {
    let line = |bytes: &[u8]| {
        let end = memchr::memchr(b'\n', bytes)?;
        let number = std::str::from_utf8(&bytes[1..end]).ok()?.trim().parse::<i64>().ok()?;
        Some((number, end + 1))
    };
    let (count, mut at) = line(answer)?;
    let count = count.max(0) as u64;
    for _ in 0..count {
        let (length, head) = line(answer.get(at..)?)?;
        at += head + usize::try_from(length).ok()? + 2;
    }
    (answer.len() >= at).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn entries_of_a_list_are_counted_when_all_are_there() {
        let answer = b"*2\r\n$3\r\na\nb\r\n$0\r\n\r\n";
        assert_eq!(entries(answer), Some(2));
        assert_eq!(entries(&answer[..answer.len() - 1]), None);
        assert_eq!(entries(b"*-1\r\n"), Some(0));
        assert_eq!(entries(b"*1"), None);
    }
}
