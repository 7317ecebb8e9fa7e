//! Sections 9 and 10: large messages, many fragments, and the limits on both.

use super::super::rig::RawClient;
use super::super::rig::frame::{
    BINARY, TEXT, binary, continuation, fragmented, frame, join, ping, text,
};
use super::super::rig::raw::Received;
use super::{Target, close_normally, expect_open};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Sends and reads alternately, as a client with a window would, since no socket buffer holds everything.
async fn round_trip(client: &mut RawClient, opcode: u8, bytes: &[u8], payload: &[u8]) {
    client.write(bytes).await;
    let expected = match opcode {
        TEXT => Received::Text(payload.into()),
        _ => Received::Binary(payload.into()),
    };
    client.expect(expected).await;
}

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|n| b' ' + (n % 89) as u8).collect()
}

#[tokio::test]
async fn large_messages_are_echoed() {
    let target = Target::start().await;
    let mut client = target.open().await;
    for size in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB] {
        let payload = payload(size);
        for opcode in [TEXT, BINARY] {
            round_trip(&mut client, opcode, &frame(opcode, &payload).bytes(), &payload).await;
        }
    }
    close_normally(client).await;
}

#[tokio::test]
async fn large_messages_may_come_in_fragments_of_any_size() {
    let target = Target::start().await;
    let mut client = target.open().await;
    let payload = payload(4 * MIB);
    for size in [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB] {
        for opcode in [TEXT, BINARY] {
            let bytes = join(&fragmented(opcode, &payload, size));
            round_trip(&mut client, opcode, &bytes, &payload).await;
        }
    }
    close_normally(client).await;
}

#[tokio::test]
async fn large_messages_may_come_in_pieces_of_any_size() {
    let target = Target::start().await;
    let mut client = target.open().await;
    let payload = payload(MIB);
    let bytes = text(&payload).bytes();
    for size in [64, 128, 256, 512, KIB, 2 * KIB] {
        client.try_write_chopped(&bytes, size).await.expect("an open connection");
        client.expect(Received::Text(payload.clone())).await;
    }
    close_normally(client).await;
}

#[tokio::test]
async fn many_messages_are_echoed_one_after_the_other() {
    let target = Target::start().await;
    let mut client = target.open().await;
    for size in [0, 16, 64, 256, KIB, 4 * KIB, 16 * KIB] {
        let payload = payload(size);
        for opcode in [TEXT, BINARY] {
            let bytes = frame(opcode, &payload).bytes();
            for _ in 0..100 {
                round_trip(&mut client, opcode, &bytes, &payload).await;
            }
        }
    }
    close_normally(client).await;
}

#[tokio::test]
async fn a_message_in_fragments_of_a_library_s_own_choice_is_echoed() {
    let target = Target::start().await;
    let mut client = target.open().await;
    let payload = payload(64 * KIB);
    let bytes = join(&fragmented(TEXT, &payload, 1300));
    round_trip(&mut client, TEXT, &bytes, &payload).await;
    close_normally(client).await;
}

#[tokio::test]
async fn the_limit_itself_is_allowed_and_one_byte_more_is_not() {
    let target = Target::start().await;
    let (fits, over) = (payload(KIB), payload(KIB + 1));
    let mut client = target.open_small().await;
    for opcode in [TEXT, BINARY] {
        round_trip(&mut client, opcode, &frame(opcode, &fits).bytes(), &fits).await;
        let bytes = join(&fragmented(opcode, &fits, 100));
        round_trip(&mut client, opcode, &bytes, &fits).await;
    }
    close_normally(client).await;
    for opcode in [TEXT, BINARY] {
        for size in [KIB + 1, KIB, 100, 1] {
            println!("{} bytes in fragments of {size}", over.len());
            let mut client = target.open_small().await;
            let _ = client.try_write(&join(&fragmented(opcode, &over, size))).await;
            assert_eq!(client.read_close().await, Some(1009));
        }
    }
}

#[tokio::test]
async fn a_head_that_declares_too_much_is_refused_before_its_payload() {
    let target = Target::start().await;
    for length in [64 * KIB as u64, 1 << 20, 1 << 40, (1 << 63) - 2] {
        let mut client = target.open_small().await;
        client.send(&binary("").declaring(length + 1)).await;
        assert_eq!(client.read_close().await, Some(1009), "length {length}");
    }
    // The fragments before it count towards the limit.
    let mut client = target.open_small().await;
    client.send(&binary(payload(KIB)).more()).await;
    expect_open(&mut client).await;
    client.send(&continuation("x").more()).await;
    assert_eq!(client.read_close().await, Some(1009));
}

#[tokio::test]
async fn endless_fragments_end_at_the_limit() {
    let target = Target::start().await;
    let mut client = target.open().await;
    let piece = payload(64 * KIB);
    let _ = client.try_write(&text(&piece).more().bytes()).await;
    let next = continuation(&piece).more().bytes();
    for _ in 0..2 * 16 * MIB / piece.len() {
        if client.try_write(&next).await.is_err() {
            break;
        }
    }
    assert_eq!(client.read_close().await, Some(1009));
}

#[tokio::test]
async fn empty_fragments_without_end_take_no_memory() {
    let target = Target::start().await;
    let mut client = target.open().await;
    client.send(&text("").more()).await;
    expect_open(&mut client).await;
    let before = target.gateway.memory("RssAnon");
    let empty = join(&vec![continuation("").more(); 10_000]);
    for _ in 0..20 {
        client.write(&empty).await;
    }
    expect_open(&mut client).await;
    let grown = target.gateway.memory("RssAnon").saturating_sub(before);
    assert!(grown < MIB as u64, "200,000 empty fragments took {grown} bytes");
    client.send(&continuation("end")).await;
    client.expect(Received::Text(b"end".into())).await;
    close_normally(client).await;
}

#[tokio::test]
async fn a_head_without_its_payload_takes_no_memory() {
    const CLIENTS: usize = 64;
    let target = Target::start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(target.open().await);
    }
    let (anonymous, mapped) = (target.gateway.memory("RssAnon"), target.gateway.memory("VmData"));
    for client in &mut clients {
        // The ping before it is answered once the head after it has been read as well.
        let head = binary("").declaring(16 * MIB as u64);
        client.write(&join(&[ping("read"), head])).await;
        client.expect(Received::Pong(b"read".into())).await;
    }
    let anonymous = target.gateway.memory("RssAnon").saturating_sub(anonymous);
    assert!(anonymous < (CLIENTS * 64 * KIB) as u64, "heads alone took {anonymous} bytes");
    // Memory that is reserved but not touched would not be resident, so the data segment is checked as well.
    let mapped = target.gateway.memory("VmData").saturating_sub(mapped);
    assert!(mapped < (CLIENTS * 8 * MIB) as u64, "heads alone reserved {mapped} bytes");
}
