//! The bound of the machine: a server that does nothing but write frames to its clients, several in one system call.
//!
//! No server that writes to each client by itself can be faster with the same number of frames in a write.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use clap::Parser;

/// Any value will do: the load generator does not check it.
const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[derive(Parser)]
#[command(about = "Writes frames to all clients, as fast as they read them")]
struct Options {
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// It begins to write when this many clients have connected.
    #[arg(long)]
    connections: usize,
    /// The frames in one system call.
    #[arg(long, default_value_t = 1)]
    joined: usize,
    /// The size of a frame's payload in bytes.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen)?;
    let mut clients = Vec::with_capacity(options.connections);
    while clients.len() < options.connections {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        clients.extend(upgrade(stream)?);
    }
    let frame = frame(options.bytes);
    loop {
        for client in &mut clients {
            let mut pieces = vec![IoSlice::new(&frame); options.joined];
            let mut rest = pieces.as_mut_slice();
            while !rest.is_empty() {
                let written = client.write_vectored(rest)?;
                IoSlice::advance_slices(&mut rest, written);
            }
        }
    }
}

/// Answers the handshake. A probe that sends none is no client.
fn upgrade(mut stream: TcpStream) -> std::io::Result<Option<TcpStream>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(None);
        }
        head.extend(&piece[..length]);
    }
    stream.write_all(ANSWER)?;
    Ok(Some(stream))
}

/// A text frame with one mark of the load generator.
fn frame(bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x81];
    match bytes {
        ..126 => frame.push(bytes as u8),
        126..=0xffff => frame.extend([&[126], (bytes as u16).to_be_bytes().as_slice()].concat()),
        _ => frame.extend([&[127], (bytes as u64).to_be_bytes().as_slice()].concat()),
    }
    frame.push(b'~');
    frame.resize(frame.len() + bytes.saturating_sub(1), b'x');
    frame
}
