use super::*;

#[test]
fn lengths_are_minimal() {
    for (len, head) in [
        (0usize, &[0x82u8, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65535, &[0x82, 126, 0xff, 0xff]),
        (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let frame = encode(Opcode::Binary, &vec![7; len]);
        assert!(frame.starts_with(head), "{len}");
        assert_eq!(frame.len(), head.len() + len);
        assert_eq!(payload(&frame), &vec![7; len]);
    }
}

#[test]
fn a_malformed_frame_has_no_payload() {
    for bytes in [&[][..], &[0x81], &[0x81, 126], &[0x81, 127, 0, 0]] {
        assert_eq!(payload(bytes), b"");
    }
}

#[test]
fn close_reasons_fit_a_control_frame() {
    assert_eq!(close(1000, "")[..], [0x88, 2, 3, 0xe8]);
    let long = close(4001, &"ä".repeat(100));
    assert_eq!(long.len(), 2 + 2 + 122);
}
