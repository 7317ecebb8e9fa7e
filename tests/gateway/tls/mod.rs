//! TLS on the public port: handshakes, certificates, and what goes over a connection.

mod admin;
mod certificates;
mod connections;
mod handshakes;
mod redirect;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::rig::raw::handshake;
use crate::rig::tls_tunnel::certificate;
use crate::rig::{Gateway, Settings, within};

/// A route without an upstream that everybody may connect to.
const OPEN: &str = r#"path = "/open"
channel = "open"
auth = ["anonymous"]
"#;

/// A gateway with the certificate called `localhost`, and further lines of `[server.tls]`.
fn settings(more: &str) -> Settings {
    let lines = format!("{}\n{more}", certificate("localhost"));
    Settings::new().section("server.tls", &lines).route(OPEN)
}

async fn start(more: &str) -> Gateway {
    Gateway::start(settings(more)).await
}

/// Opens a WebSocket and reads until `connected` has come.
async fn open(mut stream: TlsStream<TcpStream>) -> TlsStream<TcpStream> {
    stream.write_all(handshake("/open", &[]).as_bytes()).await.expect("an open connection");
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("\"connected\"") {
        let length = within("the answer", stream.read_buf(&mut read)).await;
        assert_ne!(length.expect("an open connection"), 0, "{}", String::from_utf8_lossy(&read));
    }
    stream
}

/// Reads until `text` has come.
async fn read_until(stream: &mut TlsStream<TcpStream>, text: &str) {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        let length = within(text, stream.read_buf(&mut read)).await.expect("an open connection");
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&read));
    }
}
