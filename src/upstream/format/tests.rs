use super::*;

/// Returns the names and data of a body that comes in pieces of `step` bytes.
fn events(body: &[u8], step: usize) -> Vec<(String, String)> {
    let mut format = Format::undecided();
    let mut events = Vec::new();
    for piece in body.chunks(step) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(frame) = format.next(&mut piece).ok().expect("within the bound") {
            events.push((frame.name, frame.data));
        }
    }
    if let Rest::Frame(frame) = format.finish(true) {
        events.push((frame.name, frame.data));
    }
    events
}

/// Regression test: what decided was the first piece, so that `aui-` in two packets was an event stream.
#[test]
fn however_a_body_is_cut_its_beginning_decides() {
    for (body, expected) in [
        (&b"aui-state:{\"a\":1}\n"[..], [("aui-state", "{\"a\":1}")].as_slice()),
        (b"0:\"Hi\"\n", &[("0", "\"Hi\"")]),
        (b"\r\n d:{\"a\":1}\n", &[("d", "{\"a\":1}")]),
        (b"{\"a\":1}", &[("", "{\"a\":1}")]),
        (b"\xef\xbb\xbf[{\"a\":1}]", &[("", "{\"a\":1}")]),
        (b"\n\xef\xbb\xbf {\"a\":1}", &[("", "{\"a\":1}")]),
        (b"data: aui-1\n\n", &[("", "aui-1")]),
        (b"\n  event: a\ndata: 1\n\n", &[("a", "1")]),
        (b"\xef\xbb\xbfdata: 1\n\n", &[("", "1")]),
        (b"d:x\n\ndata: 1\n\n", &[("", "1")]),
        (b"au\ndata: 1\n\n", &[("", "1")]),
        (b"\xef\xbb\ndata: 1\n\n", &[("", "1")]),
        (b"a", &[]),
        (b"aui", &[]),
        (b"0:", &[]),
        (b"\xef\xbb", &[]),
        (b" \n", &[]),
    ] {
        for step in 1..=body.len() {
            let events = events(body, step);
            let events: Vec<_> = events.iter().map(|(name, data)| (&**name, &**data)).collect();
            assert_eq!(events, expected, "{:?} by {step}", String::from_utf8_lossy(body));
        }
    }
}
