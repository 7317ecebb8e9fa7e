//! Calls `POST /v1/publish` on one keep-alive connection.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Result, channels};

pub struct Publisher {
    stream: TcpStream,
    api_key: String,
    data: Value,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Publisher {
    /// Each call of [`Publisher::publish`] sends `burst` publications of `bytes` bytes to `channel`.
    pub async fn connect(
        admin: SocketAddr,
        api_key: &str,
        channel: &str,
        bytes: usize,
        burst: usize,
    ) -> Result<Self> {
        let stream = TcpStream::connect(admin).await?;
        stream.set_nodelay(true)?;
        let data = serde_json::from_str(&channels::text(bytes))?;
        let mut publisher = Self {
            stream,
            api_key: api_key.to_owned(),
            data,
            request: Vec::new(),
            answer: Vec::new(),
        };
        publisher.set_channels(&vec![channel; burst]);
        Ok(publisher)
    }

    /// Each call publishes to these channels from now on.
    pub fn set_channels(&mut self, channels: &[impl AsRef<str>]) {
        let publication =
            |channel: &str| json!({"channel": channel, "data": self.data}).to_string();
        let body = match channels {
            [channel] => publication(channel.as_ref()),
            _ => {
                let all: Vec<_> = channels.iter().map(|one| publication(one.as_ref())).collect();
                format!("{{\"publications\":[{}]}}", all.join(","))
            }
        };
        self.request = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: bench.test\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.api_key,
            body.len()
        )
        .into();
    }

    /// Publishes, and returns when the server has answered 200.
    pub async fn publish(&mut self) -> Result<()> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while !self.is_answered()? {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err("the server ended the publishing connection".into());
            }
        }
        Ok(())
    }

    fn is_answered(&self) -> Result<bool> {
        let head = self.answer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(head) = head.map(|end| end + 4) else { return Ok(false) };
        let text = std::str::from_utf8(&self.answer[..head])?;
        if !text.starts_with("HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&self.answer).into());
        }
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        Ok(self.answer.len() >= head + length.ok_or("an answer without a length")??)
    }
}
