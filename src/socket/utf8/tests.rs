use super::*;

/// How many bytes are taken before the text is refused, fed in pieces of `size`.
fn refused_at(text: &[u8], size: usize) -> Option<usize> {
    let mut utf8 = Utf8::default();
    let mut taken = 0;
    for piece in text.chunks(size) {
        taken += piece.len();
        if utf8.feed(piece).is_err() {
            return Some(taken);
        }
    }
    (!utf8.is_complete()).then_some(text.len() + 1)
}

#[test]
fn an_invalid_byte_is_found_when_it_arrives() {
    for (text, at) in [
        (&b"hello"[..], None),
        ("κόσμε 🚀".as_bytes(), None),
        (b"\xf4\x90\x80\x80", Some(2)),
        (b"\xed\xa0\x80", Some(2)),
        (b"\xc0\xaf", Some(1)),
        (b"\xf5", Some(1)),
        (b"ok\xff", Some(3)),
        (b"\xe2\x82", Some(3)),
    ] {
        assert_eq!(refused_at(text, 1), at, "{text:x?}");
        for size in 2..6 {
            assert_eq!(refused_at(text, size).is_some(), at.is_some(), "{text:x?} by {size}");
        }
    }
}
