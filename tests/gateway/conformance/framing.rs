//! Sections 3, 4 and 5, and what the suite does not cover: reserved bits, reserved opcodes, fragments,
//! masking and lengths.

use super::super::rig::frame::{
    BINARY, CLOSE, CONTINUATION, ClientFrame, PING, PONG, TEXT, binary, continuation, fragmented,
    frame, ping, text,
};
use super::super::rig::raw::Received;
use super::{Case, End, PROTOCOL_ERROR, Target, close_normally, echoed, expect_open, run};

/// Sends `wrong` alone, and between a message and a ping: the message is echoed, the ping is not answered.
fn fails(name: &str, wrong: ClientFrame) -> [Case; 2] {
    let between = [text("Hello, world!"), wrong.clone(), ping("")];
    [
        Case::new(name, &[wrong], PROTOCOL_ERROR),
        Case::new(format!("{name}, after a message"), &between, PROTOCOL_ERROR)
            .answers([echoed("Hello, world!")]),
    ]
}

#[tokio::test]
async fn reserved_bits_are_refused() {
    let target = Target::start().await;
    for bits in 1..=7 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            let name = format!("rsv {bits} on opcode {opcode}");
            run(&target, fails(&name, frame(opcode, "").rsv(bits))).await;
            run(&target, fails(&name, frame(opcode, [3, 232]).rsv(bits))).await;
        }
        let later = [text("fragment1").more(), continuation("fragment2").rsv(bits)];
        Case::new("rsv on a continuation", &later, PROTOCOL_ERROR).run(&target).await;
    }
}

#[tokio::test]
async fn reserved_opcodes_are_refused() {
    let target = Target::start().await;
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in ["", "reserved opcode payload"] {
            let name = format!("opcode {opcode} with {} bytes", payload.len());
            run(&target, fails(&name, frame(opcode, payload))).await;
        }
        let inside = [text("fragment1").more(), frame(opcode, ""), continuation("fragment2")];
        Case::new("reserved inside a message", &inside, PROTOCOL_ERROR).run(&target).await;
    }
}

#[tokio::test]
async fn unmasked_frames_are_refused() {
    let target = Target::start().await;
    for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
        let name = format!("opcode {opcode} unmasked");
        run(&target, fails(&name, frame(opcode, [3, 232]).unmasked())).await;
        run(&target, fails(&name, frame(opcode, "").unmasked())).await;
    }
}

#[tokio::test]
async fn lengths_are_in_their_shortest_form() {
    let target = Target::start().await;
    for size in [0, 1, 125] {
        let payload = vec![b'*'; size];
        run(&target, fails("two bytes for one", text(&payload).two_byte_length())).await;
        run(&target, fails("eight bytes for one", text(&payload).eight_byte_length())).await;
    }
    for size in [126, 65_535] {
        let payload = vec![b'*'; size];
        run(&target, fails("eight bytes for two", text(&payload).eight_byte_length())).await;
    }
}

#[tokio::test]
async fn the_highest_bit_of_a_length_is_zero() {
    let target = Target::start().await;
    for length in [1 << 63, u64::MAX, (1 << 63) + 5] {
        let wrong = binary("hello").declaring(length);
        Case::new(format!("length {length:#x}"), &[wrong], End::Closed(&[1002, 1009]))
            .run(&target)
            .await;
    }
}

#[tokio::test]
async fn fragments_make_one_message() {
    let target = Target::start().await;
    let parts = [text("fragment1").more(), continuation("fragment2")];
    let empty = [text("").more(), continuation("").more(), continuation("")];
    let middle = [text("").more(), continuation("middle").more(), continuation("")];
    let pinged = [parts[0].clone(), ping("ping payload"), parts[1].clone()];
    let bytes: Vec<u8> = (0..=255).collect();
    run(
        &target,
        [
            Case::new("two", &parts, End::Open).answers([echoed("fragment1fragment2")]),
            Case::new("three, all empty", &empty, End::Open).answers([echoed("")]),
            Case::new("one of three not empty", &middle, End::Open).answers([echoed("middle")]),
            Case::new("ping between", &pinged, End::Open)
                .answers([Received::Pong(b"ping payload".into()), echoed("fragment1fragment2")]),
            Case::new("256 of one byte", &fragmented(BINARY, &bytes, 1), End::Open)
                .answers([Received::Binary(bytes)]),
        ],
    )
    .await;
}

#[tokio::test]
async fn pings_between_fragments_are_answered_at_once() {
    let target = Target::start().await;
    let mut client = target.open().await;
    for (number, first) in [text("fragment1"), continuation("fragment2")].iter().enumerate() {
        client.send(&first.clone().more()).await;
        client.send(&ping(format!("pongme {number}!"))).await;
        client.expect(Received::Pong(format!("pongme {number}!").into())).await;
    }
    client.send(&continuation("fragment3")).await;
    client.expect(echoed("fragment1fragment2fragment3")).await;
    expect_open(&mut client).await;
    close_normally(client).await;
}

#[tokio::test]
async fn a_continuation_continues_something() {
    let target = Target::start().await;
    let after = |wrong: &[ClientFrame]| {
        [&[text("fragment1").more(), continuation("fragment2")], wrong].concat()
    };
    for payload in ["", "non-continuation payload"] {
        let whole = continuation(payload);
        let more = whole.clone().more();
        let hello = text("Hello, world!");
        run(&target, fails("final continuation of nothing", whole.clone())).await;
        run(&target, fails("continuation of nothing", more.clone())).await;
        run(
            &target,
            [
                Case::new("then a message", &[more.clone(), hello.clone()], PROTOCOL_ERROR),
                Case::new("after a message's end", &after(&[more, hello]), PROTOCOL_ERROR)
                    .answers([echoed("fragment1fragment2")]),
                Case::new("after a message's end", &after(&[whole]), PROTOCOL_ERROR)
                    .answers([echoed("fragment1fragment2")]),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn no_message_starts_inside_another() {
    let target = Target::start().await;
    for (first, second) in [(TEXT, TEXT), (TEXT, BINARY), (BINARY, TEXT), (BINARY, BINARY)] {
        let name = format!("opcode {second} inside {first}");
        let [start, whole] = [frame(first, "fragment1").more(), frame(second, "fragment2")];
        let started = whole.clone().more();
        let late =
            [start.clone(), continuation("fragment2").more(), whole.clone(), continuation("")];
        run(
            &target,
            [
                Case::new(&name, &[start.clone(), whole], PROTOCOL_ERROR),
                Case::new(&name, &[start, started], PROTOCOL_ERROR),
                Case::new(&name, &late, PROTOCOL_ERROR),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn an_error_is_found_in_the_first_two_bytes() {
    let target = Target::start().await;
    let heads: [(&str, &[u8]); 5] = [
        ("reserved bit", &[0xc1]),
        ("reserved opcode", &[0x83]),
        ("fragmented ping", &[0x09]),
        ("continuation of nothing", &[0x80 | CONTINUATION]),
        ("unmasked", &[0x81, 0x05]),
    ];
    for (name, head) in heads {
        println!("{name}");
        let mut client = target.open().await;
        client.write(head).await;
        // The gateway may wait for the rest of the head, but not for the payload.
        let _ = client.try_write(&[0x85, 1, 2, 3, 4][head.len() - 1..]).await;
        assert_eq!(client.read_close().await, Some(1002));
    }
}
