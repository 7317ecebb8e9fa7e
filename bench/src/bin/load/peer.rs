//! The description of a measured server: how its clients subscribe, and how others publish to them. The generator
//! knows no server by name; `bench/compare` describes each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::Result;

/// The byte that begins what the generator counts. Nothing else that a server sends has it.
pub const MARK: u8 = b'~';
/// The hexadecimal digits of a time after the mark.
pub const TIME_DIGITS: usize = 16;

#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The addresses of its nodes; clients connect to them in turns.
    pub servers: Vec<SocketAddr>,
    /// The path of the handshake. `{channel}` is replaced here and in all other texts, `{credential}` only here.
    #[serde(default)]
    pub path: String,
    /// A file with one credential a line, one for each client.
    pub credentials: Option<PathBuf>,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default)]
    pub framing: Framing,
    /// The messages that a client sends first, to subscribe.
    #[serde(default)]
    pub hello: Vec<String>,
    /// How many frames the server sends to a client before it has received a message.
    #[serde(default)]
    pub greeting: u64,
    pub http: Option<HttpCall>,
    pub redis: Option<RedisCall>,
    /// What a client sends to be relayed, and the number of frames that it gets for it.
    pub message: Option<Message>,
    /// What the upstream of the server answers.
    #[serde(default)]
    pub upstream: Option<Upstream>,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    #[default]
    WebSocket,
    /// No handshake and no frames: each message of `hello` is written as it is.
    Bare,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    pub address: SocketAddr,
    pub path: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// `{data}` is the publication, `{text}` the same as a JSON string.
    pub body: String,
    /// The body of a call with many publications, if the server has such a call: what is before them, each of them,
    /// what is between two, and what is after them.
    pub batch: Option<[String; 4]>,
    /// The path of such a call, if it has another.
    pub batch_path: Option<String>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct RedisCall {
    pub address: SocketAddr,
    pub channel: String,
    pub body: String,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub text: String,
    pub frames: u64,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    pub address: SocketAddr,
    pub answers: Vec<Answer>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The beginning of the requests' body that get this answer.
    pub prefix: String,
    /// The whole response, head and body.
    pub response: String,
    /// The answer to a message of a client, unlike that to a handshake.
    #[serde(default)]
    pub message: bool,
}

impl Peer {
    pub fn read(path: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }

    pub fn credentials(&self) -> Result<Vec<String>> {
        let Some(file) = &self.credentials else { return Ok(Vec::new()) };
        Ok(std::fs::read_to_string(file)?.lines().map(str::to_owned).collect())
    }
}

/// The name of a channel. All have the same length, so that an upstream's answer can name one without a new head.
pub fn channel_name(prefix: &str, number: usize) -> String {
    const LENGTH: usize = 16;
    format!("{prefix}-{number:0width$}", width = LENGTH.saturating_sub(prefix.len() + 1))
}

/// Replaces `{channel}`, `{data}` and `{text}`.
pub fn fill(template: &str, channel: &str, data: &str) -> String {
    let text = json!(data).to_string();
    template.replace("{channel}", channel).replace("{text}", &text).replace("{data}", data)
}

/// A publication of this many bytes with the mark and a time.
pub fn publication(bytes: usize, time: u64) -> String {
    let around = json!({"event": "chunk", "chunk": ""}).to_string().len() + 1 + TIME_DIGITS;
    let filler = "x".repeat(bytes.saturating_sub(around));
    format!(r#"{{"event":"chunk","chunk":"{}{time:016x}{filler}"}}"#, char::from(MARK))
}

impl HttpCall {
    /// The request that publishes `burst` publications at once.
    pub fn request(&self, channel: &str, data: &str, burst: usize) -> Result<Vec<u8>> {
        let body = match (burst, &self.batch) {
            (..=1, _) => fill(&self.body, channel, data),
            (_, Some([before, each, between, after])) => {
                let each = fill(each, channel, data);
                [fill(before, channel, data), vec![each; burst].join(between), after.clone()]
                    .concat()
            }
            (_, None) => return Err("the server takes one publication a call".into()),
        };
        let path = self.batch_path.as_ref().filter(|_| burst > 1).unwrap_or(&self.path);
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: bench.test\r\nContent-Length: {}\r\n",
            fill(path, channel, ""),
            body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Ok([head.as_bytes(), b"\r\n", body.as_bytes()].concat())
    }
}

impl RedisCall {
    /// Appends one PUBLISH to a buffer.
    pub fn append(&self, buffer: &mut Vec<u8>, channel: &str, data: &str) {
        let (channel, body) = (fill(&self.channel, channel, ""), fill(&self.body, channel, data));
        let command = format!(
            "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{body}\r\n",
            channel.len(),
            body.len()
        );
        buffer.extend(command.as_bytes());
    }
}

/// The address that the client with this number connects from. One address has too few ports for many clients, also
/// because those of an earlier generator are in use for another minute.
pub fn source(number: usize) -> IpAddr {
    const CLIENTS_OF_AN_ADDRESS: usize = 5_000;
    let last = 2 + (std::process::id() as usize + number / CLIENTS_OF_AN_ADDRESS) % 250;
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last as u8))
}

#[cfg(test)]
mod tests {
    use super::{HttpCall, publication};

    #[test]
    fn a_publication_has_its_size_and_a_call_all_of_them() {
        let data = publication(256, 0xabc);
        assert_eq!(data.len(), 256);
        assert!(data.contains("~0000000000000abcxxx"));
        let call = HttpCall {
            address: ([127, 0, 0, 1], 1).into(),
            path: "/publish/{channel}".into(),
            headers: vec![("X-Key".into(), "k".into())],
            body: "{data}".into(),
            batch: Some(["[", "{text}", ",", "]"].map(str::to_owned)),
            batch_path: None,
        };
        let request = String::from_utf8(call.request("c", "\"~\"", 2).unwrap()).unwrap();
        assert!(request.starts_with("POST /publish/c HTTP/1.1\r\n"));
        assert!(request.ends_with("\r\nX-Key: k\r\n\r\n[\"\\\"~\\\"\",\"\\\"~\\\"\"]"));
        let single = HttpCall { batch: None, ..call };
        assert!(single.request("c", "\"~\"", 2).is_err());
    }
}
