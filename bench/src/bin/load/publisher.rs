//! Calls `POST /v1/publish` on one keep-alive connection.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Result;

pub struct Publisher {
    stream: TcpStream,
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
        let frame = json!({"event": "chunk", "chunk": ""}).to_string().len();
        let data = json!({"event": "chunk", "chunk": "*".repeat(bytes.saturating_sub(frame))});
        let publication = json!({"channel": channel, "data": data});
        let body = match burst {
            1 => publication,
            _ => json!({"publications": vec![publication; burst]}),
        };
        let body = body.to_string();
        let request = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: bench.test\r\nAuthorization: Bearer {api_key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect(admin).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: request.into(), answer: Vec::new() })
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
