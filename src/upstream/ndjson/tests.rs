use super::*;

#[test]
fn lines_split_at_any_byte_come_to_the_same() {
    let stream = "\u{feff}{\"a\":1}\n\n \r\n{\"ü\":2}\r\n7".as_bytes();
    for at in 0..=stream.len() {
        let (mut parser, mut lines) = (LineParser::default(), Vec::new());
        for piece in [&stream[..at], &stream[at..]] {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(line) = parser.next(&mut input).expect("small") {
                lines.push(line);
            }
        }
        assert_eq!(lines, ["{\"a\":1}", "{\"ü\":2}"], "split at {at}");
        assert_eq!(parser.take_unfinished().as_deref(), Some("7"));
        assert_eq!(parser.take_unfinished(), None);
    }
}

#[test]
fn a_line_is_bounded() {
    let mut parser = LineParser::default();
    let piece = Bytes::from(vec![b'x'; 1024]);
    let refused =
        (0..=MAX_EVENT_BYTES / 1024).any(|_| parser.next(&mut piece.clone()) == Err(EventTooLarge));
    assert!(refused);
}
