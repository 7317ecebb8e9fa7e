//! Section 6: text is checked as UTF-8 while it arrives.

use super::super::rig::frame::{binary, continuation, fragmented, text};
use super::super::rig::raw::Received;
use super::super::rig::{RawClient, frame};
use super::{Case, End, INVALID_UTF8, Target, close_normally, expect_open, run};

/// Text at every boundary of the encoding (RFC 3629 section 4).
const VALID: [&[u8]; 22] = [
    b"hello\x24world",
    b"hello\xc2\xa2world",
    b"hello\xe2\x82\xacworld",
    b"hello\xf0\xa4\xad\xa2world",
    "κόσμε".as_bytes(),
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    // The code points around the surrogates.
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    // These code points are not characters, but valid.
    b"\xef\xbf\xbe",
    b"\xef\xb7\x90\xef\xb7\xaf",
    b"\xf0\x9f\xbf\xbe\xf0\x9f\xbf\xbf",
    b"\xf3\xaf\xbf\xbe\xf3\xaf\xbf\xbf",
    b"\xf4\x8f\xbf\xbe",
    "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
];

/// Invalid bytes with what is wrong with them; each must be found at the end of the message at the latest.
const INVALID: [(&str, &[u8]); 57] = [
    ("five bytes", b"\xf8\x88\x80\x80\x80"),
    ("six bytes", b"\xfc\x84\x80\x80\x80\x80"),
    ("five bytes", b"\xfb\xbf\xbf\xbf\xbf"),
    ("six bytes", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    ("over U+10FFFF", b"\xf7\xbf\xbf\xbf"),
    ("over U+10FFFF", b"\xf4\x90\x80\x80"),
    ("over U+10FFFF", b"\xf5\x80\x80\x80"),
    ("lonely continuation", b"\x80"),
    ("lonely continuation", b"\xbf"),
    ("lonely continuations", b"\x80\xbf"),
    ("lonely continuations", b"\x80\xbf\x80"),
    ("lonely continuations", b"\x80\xbf\x80\xbf"),
    ("lonely continuations", b"\x80\xbf\x80\xbf\x80"),
    ("lonely continuations", b"\x80\xbf\x80\xbf\x80\xbf"),
    ("continuation after a letter", b"a\x80"),
    ("continuation too many", b"\xc2\x80\x80"),
    ("lonely starts of two", b"\xc0 \xc1 \xc2 \xdf "),
    ("lonely start of two", b"\xc2 "),
    ("lonely starts of three", b"\xe0 \xe1 \xef "),
    ("lonely start of three", b"\xef "),
    ("lonely starts of four", b"\xf0 \xf1 \xf4 "),
    ("lonely start of four", b"\xf4 "),
    ("lonely starts of five", b"\xf8 \xf9 \xfa \xfb "),
    ("lonely starts of six", b"\xfc \xfd "),
    ("last byte missing", b"\xc0"),
    ("last byte missing", b"\xe0\x80"),
    ("last byte missing", b"\xf0\x80\x80"),
    ("last byte missing", b"\xdf"),
    ("last byte missing", b"\xef\xbf"),
    ("last byte missing", b"\xf4\x8f\xbf"),
    ("last byte missing", b"\xf7\xbf\xbf"),
    ("two bytes missing", b"\xf0\x90"),
    ("three bytes missing", b"\xf1"),
    ("incomplete, then more", b"\xdf\xef\xbf\xf4\x8f\xbf"),
    ("incomplete, then a letter", b"\xe2\x82a"),
    ("incomplete, then whole", b"\xe2\x82\xe2\x82\xac"),
    ("impossible", b"\xfe"),
    ("impossible", b"\xff"),
    ("impossible", b"\xfe\xfe\xff\xff"),
    ("overlong slash", b"\xc0\xaf"),
    ("overlong slash", b"\xe0\x80\xaf"),
    ("overlong slash", b"\xf0\x80\x80\xaf"),
    ("overlong slash", b"\xf8\x80\x80\x80\xaf"),
    ("overlong slash", b"\xfc\x80\x80\x80\x80\xaf"),
    ("overlong maximum", b"\xc1\xbf"),
    ("overlong maximum", b"\xe0\x9f\xbf"),
    ("overlong maximum", b"\xf0\x8f\xbf\xbf"),
    ("overlong null", b"\xc0\x80"),
    ("overlong null", b"\xe0\x80\x80"),
    ("overlong null", b"\xf0\x80\x80\x80"),
    ("high surrogate", b"\xed\xa0\x80"),
    ("high surrogate", b"\xed\xaf\xbf"),
    ("low surrogate", b"\xed\xb0\x80"),
    ("low surrogate", b"\xed\xbf\xbf"),
    ("surrogate pair", b"\xed\xa0\x80\xed\xb0\x80"),
    ("surrogate pair", b"\xed\xaf\xbf\xed\xbf\xbf"),
    ("invalid after valid", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
];

/// The message in one frame, in two fragments split at each position, and in fragments of one byte.
fn shapes(name: &str, payload: &[u8], end: fn() -> End, answers: &[Received]) -> Vec<Case> {
    let case = |shape: String, frames: &[frame::ClientFrame]| {
        Case::new(format!("{name} {payload:x?} {shape}"), frames, end()).answers(answers)
    };
    let mut cases = vec![
        case("whole".to_owned(), &[text(payload)]),
        case("byte by byte".to_owned(), &fragmented(frame::TEXT, payload, 1)),
    ];
    for cut in 0..=payload.len() {
        let (first, second) = payload.split_at(cut);
        cases.push(case(format!("cut at {cut}"), &[text(first).more(), continuation(second)]));
    }
    cases
}

#[tokio::test]
async fn valid_text_is_echoed_however_it_is_cut() {
    let target = Target::start().await;
    for valid in VALID {
        assert!(std::str::from_utf8(valid).is_ok());
        let cases = shapes("valid", valid, || End::Open, &[Received::Text(valid.into())]);
        run(&target, cases).await;
    }
}

#[tokio::test]
async fn invalid_text_is_refused_however_it_is_cut() {
    let target = Target::start().await;
    for (name, invalid) in INVALID {
        assert!(std::str::from_utf8(invalid).is_err());
        run(&target, shapes(name, invalid, || INVALID_UTF8, &[])).await;
    }
}

#[tokio::test]
async fn every_prefix_of_a_text_is_what_it_is() {
    let target = Target::start().await;
    let word = "κόσμε€𤭢".as_bytes();
    for length in 1..=word.len() {
        let prefix = &word[..length];
        let case = match std::str::from_utf8(prefix) {
            Ok(_) => Case::new("whole letters", &[text(prefix)], End::Open)
                .answers([Received::Text(prefix.into())]),
            Err(_) => Case::new("cut letter", &[text(prefix)], INVALID_UTF8),
        };
        case.run(&target).await;
    }
}

#[tokio::test]
async fn binary_is_not_text() {
    let target = Target::start().await;
    for (name, invalid) in INVALID {
        let case = Case::new(name, &[binary(invalid)], End::Open);
        case.answers([Received::Binary(invalid.into())]).run(&target).await;
    }
}

#[tokio::test]
async fn a_long_text_is_checked_to_its_last_byte() {
    let target = Target::start().await;
    let valid = "€".repeat(30_000).into_bytes();
    for index in [0, 1, 2, 63, 64, 65, 16_383, 16_384, 65_535, 65_536, valid.len() - 1] {
        let mut invalid = valid.clone();
        invalid[index] = 0xff;
        Case::new(format!("0xff at {index}"), &[text(invalid)], INVALID_UTF8).run(&target).await;
    }
    let cut = &valid[..valid.len() - 1];
    Case::new("cut at the end", &[text(cut)], INVALID_UTF8).run(&target).await;
}

/// A prefix that may still become valid text, and the byte after which it cannot.
const TURNS: [(&[u8], u8); 14] = [
    (b"", 0x80),
    (b"", 0xc0),
    (b"", 0xc1),
    (b"", 0xf5),
    (b"", 0xff),
    (b"\xc2", b'a'),
    (b"\xe0", 0x9f),
    (b"\xe2\x82", b'a'),
    (b"\xed", 0xa0),
    (b"\xf0", 0x8f),
    (b"\xf4", 0x90),
    (b"\xf1\x80\x80", 0xc0),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4", 0x90),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", 0x80),
];

#[tokio::test]
async fn a_fragment_that_cannot_be_text_is_refused_before_the_message_ends() {
    let target = Target::start().await;
    for (open, byte) in TURNS {
        println!("{open:x?}, then {byte:x}");
        let mut client = target.open().await;
        client.send(&text(open).more()).await;
        expect_open(&mut client).await;
        client.send(&continuation([byte]).more()).await;
        assert_eq!(client.read_close().await, Some(1007));
    }
}

#[tokio::test]
async fn a_frame_that_cannot_be_text_is_refused_before_it_ends() {
    let target = Target::start().await;
    for (open, byte) in TURNS {
        println!("{open:x?}, then {byte:x}");
        let bytes = text([open, &[byte], &[b'*'; 100]].concat()).bytes();
        let (head, upto) = (bytes.len() - 100 - 1 - open.len(), bytes.len() - 100);
        let mut client = target.open().await;
        client.try_write_chopped(&bytes[..head + open.len()], 5).await.expect("an open connection");
        refused_at(&mut client, &bytes[head + open.len()..upto]).await;
    }
}

async fn refused_at(client: &mut RawClient, last: &[u8]) {
    client.write(last).await;
    assert_eq!(client.read_close().await, Some(1007));
}

#[tokio::test]
async fn a_letter_may_be_cut_by_a_ping() {
    let target = Target::start().await;
    let mut client = target.open().await;
    let letter = "𤭢".as_bytes();
    client.send(&text(&letter[..1]).more()).await;
    for byte in &letter[1..3] {
        expect_open(&mut client).await;
        client.send(&continuation([*byte]).more()).await;
    }
    expect_open(&mut client).await;
    client.send(&continuation(&letter[3..])).await;
    client.expect(Received::Text(letter.into())).await;
    close_normally(client).await;
}
