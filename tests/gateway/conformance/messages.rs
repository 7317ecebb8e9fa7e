//! Section 1: text and binary messages in every encoding of the length.

use super::super::rig::frame::{BINARY, TEXT, frame};
use super::super::rig::raw::Received;
use super::{Case, End, Target, close_normally, run};

const SIZES: [usize; 7] = [0, 125, 126, 127, 128, 65_535, 65_536];

#[tokio::test]
async fn messages_of_every_length_form_are_echoed() {
    let target = Target::start().await;
    for size in SIZES {
        let payload = vec![b'*'; size];
        let text = Case::new(format!("text of {size}"), &[frame(TEXT, &payload)], End::Open);
        let bytes: Vec<u8> = (0..size).map(|n| n as u8 ^ 0xa5).collect();
        let binary = Case::new(format!("binary of {size}"), &[frame(BINARY, &bytes)], End::Open);
        run(
            &target,
            [text.answers([Received::Text(payload)]), binary.answers([Received::Binary(bytes)])],
        )
        .await;
    }
}

#[tokio::test]
async fn a_message_may_arrive_in_any_pieces() {
    let target = Target::start().await;
    let payload = vec![b'*'; 65_536];
    let bytes = frame(TEXT, &payload).bytes();
    for size in [997, 4_096, 65_535, bytes.len() - 1] {
        let mut client = target.open().await;
        client.try_write_chopped(&bytes, size).await.expect("an open connection");
        client.expect(Received::Text(payload.clone())).await;
        close_normally(client).await;
    }
}

#[tokio::test]
async fn every_masking_key_is_undone() {
    let target = Target::start().await;
    let payload = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let keys = [[0, 0, 0, 0], [0xff, 0xff, 0xff, 0xff], [1, 2, 3, 4], [0x80, 0, 0, 0x7f]];
    for key in keys {
        for length in 0..payload.len() {
            let payload = &payload[..length];
            let case = Case::new(
                format!("{length} bytes under {key:?}"),
                &[frame(BINARY, payload).mask(key)],
                End::Open,
            );
            case.answers([Received::Binary(payload.into())]).run_chopped(&target, 7).await;
        }
    }
}

#[tokio::test]
async fn messages_sent_back_to_back_keep_their_order() {
    let target = Target::start().await;
    let texts: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
    let frames: Vec<_> = texts.iter().map(|text| frame(TEXT, text)).collect();
    let answers: Vec<_> = texts.iter().map(|text| super::echoed(text)).collect();
    Case::new("100 at once", &frames, End::Open).answers(answers).run(&target).await;
}
