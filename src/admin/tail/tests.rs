use super::*;
use crate::protocol::{Epoch, Position};

fn written(json: &[u8], position: Option<Position>, opcode: frame::Opcode) -> String {
    let mut out = BytesMut::new();
    write_publication(&mut out, &Delivery::new(frame::encode(opcode, json), position));
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn a_publication_is_one_event_whatever_is_in_it() {
    let position = Some(Position { epoch: Epoch::new(1).unwrap(), offset: 7 });
    let text = frame::Opcode::Text;
    assert_eq!(written(b"{\"a\":1}", position, text), "id: 7\ndata: {\"a\":1}\n\n");
    assert_eq!(written(b"", None, text), "data: \n\n");
    let pretty = b"{\r\n \"a\":\n1,\r\"b\": 2\n}";
    let expected = "data: {\ndata:  \"a\":\ndata: 1,\ndata: \"b\": 2\ndata: }\n\n";
    assert_eq!(written(pretty, None, text), expected);
    let binary = written(b"\xff\x00", None, frame::Opcode::Binary);
    assert_eq!(binary, "event: binary\ndata: /wA=\n\n");
}
