//! An HTTP server that sends scripted bytes and records its requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::LONG;

#[derive(Clone)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(": ")?;
            given.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

#[derive(Clone)]
pub struct Script {
    /// The pieces, which are written one by one.
    pub pieces: Vec<Vec<u8>>,
    /// Whether the server stays silent until the peer closes, instead of closing itself.
    pub hangs: bool,
    /// The time between two pieces.
    pub pause: Duration,
}

impl Script {
    pub fn closing(bytes: impl Into<Vec<u8>>) -> Self {
        Self { pieces: vec![bytes.into()], hangs: false, pause: Duration::ZERO }
    }

    pub fn hanging(bytes: impl Into<Vec<u8>>) -> Self {
        Self { hangs: true, ..Self::closing(bytes) }
    }

    pub fn answer(status: &str, kind: &str, body: &str) -> Self {
        Self::closing(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
    }

    /// A chunked body with its regular end.
    pub fn stream(kind: &str, chunks: &[&[u8]]) -> Self {
        let mut script = Self::cut_stream(kind, chunks);
        script.pieces.push(b"0\r\n\r\n".to_vec());
        script
    }

    /// A chunked body without its end.
    pub fn cut_stream(kind: &str, chunks: &[&[u8]]) -> Self {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let mut pieces = vec![head.into_bytes()];
        for chunk in chunks {
            pieces.push([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        Self { pieces, hangs: false, pause: Duration::ZERO }
    }
}

pub struct Server {
    pub port: u16,
    pub requests: Arc<Mutex<Vec<Request>>>,
    scripts: Arc<Mutex<Vec<Script>>>,
    /// Connections that the peer closed while the server was silent.
    abandoned: watch::Sender<usize>,
}

impl Server {
    /// Starts a server that uses the scripts in turn, and the last one for all further requests.
    pub async fn start(scripts: impl Into<Vec<Script>>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), scripts)
    }

    pub fn on(listener: TcpListener, scripts: impl Into<Vec<Script>>) -> Self {
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            scripts: Arc::new(Mutex::new(scripts.into())),
            abandoned: watch::Sender::new(0),
        };
        let (requests, scripts) = (Arc::clone(&server.requests), Arc::clone(&server.scripts));
        let abandoned = server.abandoned.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, scripts) = (Arc::clone(&requests), Arc::clone(&scripts));
                tokio::spawn(serve(stream, requests, scripts, abandoned.clone()));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in/{{id}}/{{user_id}}", self.port)
    }

    pub fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub fn request(&self, at: usize) -> Request {
        self.requests.lock().unwrap()[at].clone()
    }

    pub fn set_script(&self, script: Script) {
        *self.scripts.lock().unwrap() = vec![script];
    }

    /// Waits until this many peers have closed their connections.
    pub async fn wait_for_abandoned(&self, times: usize) {
        let mut abandoned = self.abandoned.subscribe();
        let seen = abandoned.wait_for(|count| *count >= times);
        tokio::time::timeout(LONG, seen).await.expect("in time").expect("the server is there");
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    scripts: Arc<Mutex<Vec<Script>>>,
    abandoned: watch::Sender<usize>,
) {
    stream.set_nodelay(true).unwrap();
    let Some(request) = read_request(&mut stream).await else { return };
    requests.lock().unwrap().push(request);
    let script = {
        let mut scripts = scripts.lock().unwrap();
        if scripts.len() > 1 { scripts.remove(0) } else { scripts[0].clone() }
    };
    for piece in &script.pieces {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        match script.pause.is_zero() {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(script.pause).await,
        }
    }
    if script.hangs {
        // The peer ends or resets the connection.
        let _ = stream.read(&mut [0; 64]).await;
        abandoned.send_modify(|count| *count += 1);
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let mut request = Request { head, body: bytes[end + 4..].to_vec() };
        let length = request.header("content-length").unwrap_or("0").parse().ok()?;
        while request.body.len() < length {
            if stream.read_buf(&mut request.body).await.ok()? == 0 {
                return None;
            }
        }
        return Some(request);
    }
}
