//! Publishes as a server's own clients do: by HTTP calls on a keep-alive connection, or by Redis.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Result;
use super::peer::{HttpCall, Peer, RedisCall, publication};

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Http,
    Redis,
}

/// The bytes that publish to each channel, made once.
pub struct Calls {
    pub via: Via,
    pub channels: Vec<(String, Vec<u8>)>,
}

pub struct Publisher {
    calls: Rc<Calls>,
    address: SocketAddr,
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Calls {
    pub fn new(
        peer: &Peer,
        via: Via,
        channels: &[String],
        bytes: usize,
        burst: usize,
    ) -> Result<Rc<Self>> {
        Self::of(peer, via, channels, &publication(bytes, 0), burst)
    }

    /// Publishes this JSON.
    pub fn of(
        peer: &Peer,
        via: Via,
        channels: &[String],
        data: &str,
        burst: usize,
    ) -> Result<Rc<Self>> {
        let channels = channels.iter().map(|channel| {
            let call = match via {
                Via::Http => http(peer)?.request(channel, data, burst)?,
                Via::Redis => {
                    let (mut commands, redis) = (Vec::new(), redis(peer)?);
                    (0..burst).for_each(|_| redis.append(&mut commands, channel, data));
                    commands
                }
            };
            Ok((channel.clone(), call))
        });
        Ok(Rc::new(Self { via, channels: channels.collect::<Result<_>>()? }))
    }
}

pub fn http(peer: &Peer) -> Result<&HttpCall> {
    peer.http.as_ref().ok_or_else(|| "nothing is published to this server by HTTP".into())
}

pub fn redis(peer: &Peer) -> Result<&RedisCall> {
    peer.redis.as_ref().ok_or_else(|| "nothing is published to this server by Redis".into())
}

impl Publisher {
    pub async fn connect(peer: &Peer, calls: Rc<Calls>) -> Result<Self> {
        let address = match calls.via {
            Via::Http => http(peer)?.address,
            Via::Redis => redis(peer)?.address,
        };
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if calls.via == Via::Redis {
            // Answers would cost both ends time. A publication that fails is missed at the clients.
            stream.write_all(b"CLIENT REPLY OFF\r\n").await?;
        }
        Ok(Self { calls, address, stream, answer: Vec::new() })
    }

    /// Publishes to a channel by its name.
    pub async fn publish(&mut self, channel: &str) -> Result<()> {
        let number = self.calls.channels.iter().position(|(name, _)| name == channel);
        self.publish_to(number.ok_or("an unknown channel")?).await
    }

    /// Publishes to a channel, and returns when the server has taken it; Redis gives no answer.
    pub async fn publish_to(&mut self, channel: usize) -> Result<()> {
        if self.calls.via == Via::Redis {
            return Ok(self.stream.write_all(&self.calls.channels[channel].1).await?);
        }
        self.answer.clear();
        self.stream.write_all(&self.calls.channels[channel].1).await?;
        while !is_answered(&self.answer)? {
            match self.stream.read_buf(&mut self.answer).await {
                Ok(1..) => {}
                // Some servers give up an answer that has taken too long. Whether they have published nevertheless,
                // the deliveries say, which are counted.
                _ if self.answer.is_empty() => return self.reconnect().await,
                _ => return Err("the server ended the publishing connection".into()),
            }
        }
        if header(&self.answer, "connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            self.reconnect().await?;
        }
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<()> {
        self.stream = TcpStream::connect(self.address).await?;
        Ok(self.stream.set_nodelay(true)?)
    }

    /// Writes commands that were made by the caller.
    pub async fn write(&mut self, commands: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(commands).await?)
    }
}

/// Whether the bytes are a whole response. Fails if it is not a success.
fn is_answered(answer: &[u8]) -> Result<bool> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(head) = head.map(|end| end + 4) else { return Ok(false) };
    let text = std::str::from_utf8(&answer[..head])?;
    if !text.starts_with("HTTP/1.1 2") {
        return Err(String::from_utf8_lossy(answer).into());
    }
    if header(answer, "transfer-encoding") == Some("chunked") {
        return Ok(answer.ends_with(b"0\r\n\r\n"));
    }
    let length = header(answer, "content-length").map_or(Ok(0), str::parse::<usize>)?;
    Ok(answer.len() >= head + length)
}

/// Returns the value of a header of a response.
fn header<'a>(answer: &'a [u8], wanted: &str) -> Option<&'a str> {
    let head = memchr::memmem::find(answer, b"\r\n\r\n")?;
    std::str::from_utf8(&answer[..head]).ok()?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}
