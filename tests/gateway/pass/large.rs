//! Messages of any size, where `max_message_bytes = 0`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{UNLIMITED, start};
use crate::rig::within;

/// The content repeats after this many bytes, which no buffer on the way has as its size. A multiple of a mask's length.
const CHUNK: usize = 251 * 4096;

/// Together a little over 1 GiB.
const CHUNKS: usize = 1045;

/// What the process may take on top for a message of 1 GiB each way.
const MAX_GROWTH: u64 = 16 << 20;

fn chunk(mask: [u8; 4]) -> Vec<u8> {
    (0..CHUNK).map(|at| (at % 251) as u8 ^ mask[at % 4]).collect()
}

/// The head of one binary message of `chunks` chunks, without a mask.
fn head(chunks: usize, masked: u8) -> Vec<u8> {
    let length = ((chunks * CHUNK) as u64).to_be_bytes();
    [&[0x82, masked | 127][..], &length].concat()
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), head: &[u8], chunks: usize) {
    let chunk = chunk([0; 4]);
    within("room for the head", stream.write_all(head)).await.expect("an open connection");
    for _ in 0..chunks {
        within("room for a chunk", stream.write_all(&chunk)).await.expect("an open connection");
    }
}

async fn expect(stream: &mut (impl AsyncReadExt + Unpin), head: &[u8], chunks: usize) {
    let mut found = vec![0; head.len()];
    within("a head", stream.read_exact(&mut found)).await.expect("an open connection");
    assert_eq!(found, head);
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        within("a mask", stream.read_exact(&mut mask)).await.expect("an open connection");
    }
    let (expected, mut found) = (chunk(mask), vec![0; CHUNK]);
    for number in 0..chunks {
        within("a chunk", stream.read_exact(&mut found)).await.expect("an open connection");
        assert!(found == expected, "chunk {number} is another");
    }
}

/// Sends one message each way at the same time.
async fn exchange(client: &mut TcpStream, peer: &mut TcpStream, chunks: usize) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_peer, mut to_peer) = peer.split();
    // Its mask changes nothing.
    let (of_server, of_client) = (head(chunks, 0), head(chunks, 0x80));
    let with_mask = [&of_client[..], &[0; 4]].concat();
    tokio::join!(
        send(&mut to_peer, &of_server, chunks),
        expect(&mut from_client, &of_server, chunks),
        send(&mut to_client, &with_mask, chunks),
        expect(&mut from_peer, &of_client, chunks),
    );
}

#[tokio::test]
async fn a_message_of_a_gibibyte_passes_each_way_in_constant_memory() {
    let (gateway, _server, client, peer) = start(UNLIMITED).await;
    let (mut client, mut peer) = (client.into_stream(), peer.into_stream());
    exchange(&mut client, &mut peer, 4).await;
    let before = gateway.memory("VmHWM");
    exchange(&mut client, &mut peer, CHUNKS).await;
    let grown = gateway.memory("VmHWM") - before;
    assert!(grown < MAX_GROWTH, "{grown} bytes");
    // Both are still in step.
    exchange(&mut client, &mut peer, 1).await;
}
