use super::*;

fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Passes `input` on in pieces of `size` bytes, as a relay does.
fn pass(scanner: &mut FrameScanner, input: &[u8], size: usize) -> Result<Vec<u8>, ScanFault> {
    let mut passed = Vec::new();
    for piece in input.chunks(size) {
        let mut buffer = vec![0; MAX_KEPT];
        buffer.extend(piece);
        let start = MAX_KEPT - scanner.restore(&mut buffer[..MAX_KEPT]);
        let mut rest = &mut buffer[start..];
        while let Scanned::Data { length, .. } | Scanned::Control { length, .. } =
            scanner.next(rest, 100_000)?
        {
            passed.extend(&rest[..length]);
            rest = &mut rest[length..];
        }
        scanner.keep(rest);
    }
    Ok(passed)
}

/// Reads masked frames of up to 65,535 bytes: the first byte, the mask and the payload of each.
fn read(mut bytes: &[u8]) -> Vec<(u8, [u8; 4], Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (length, head) = match bytes[1] & 0x7f {
            126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
            length => (usize::from(length), 2),
        };
        let mask: [u8; 4] = bytes[head..head + 4].try_into().unwrap();
        let payload = &bytes[head + 4..head + 4 + length];
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        frames.push((bytes[0], mask, payload.collect()));
        bytes = &bytes[head + 4 + length..];
    }
    frames
}

#[test]
fn frames_of_clients_get_fresh_masks_however_they_are_split() {
    let mask = [1, 2, 3, 4];
    let long = vec![b'x'; 1000];
    let frames: [(u8, &[u8]); 6] = [
        (0x01, b"frag"),
        (0x89, b"ping"),
        (0x00, b"ments"),
        (0x80, b""),
        (0x82, &long),
        (0x8a, b""),
    ];
    let input: Vec<u8> =
        frames.iter().flat_map(|(first, payload)| masked(*first, payload, mask)).collect();
    for size in [1, 2, 3, 5, 7, 64, 4096] {
        let mut scanner = FrameScanner::of_client();
        let passed = pass(&mut scanner, &input, size).unwrap();
        assert_eq!(passed.len(), input.len());
        let passed = read(&passed);
        assert_eq!(passed.len(), frames.len());
        for ((first, fresh, payload), (sent, expected)) in passed.iter().zip(frames) {
            assert_eq!((*first, &payload[..]), (sent, expected), "in pieces of {size}");
            assert_ne!(*fresh, mask);
        }
        assert_eq!(scanner.place(), Place::Between);
    }
}

#[test]
fn frames_of_servers_pass_unchanged() {
    let input = b"\x01\x03abc\x80\x02de\x88\x02\x03\xe8";
    for size in 1..input.len() {
        let mut scanner = FrameScanner::of_server();
        assert_eq!(pass(&mut scanner, input, size).unwrap(), input, "in pieces of {size}");
    }
}

#[test]
fn what_the_receiver_would_refuse_is_refused() {
    for (input, from_client) in [
        (&b"\xc1\x00"[..], false),
        (b"\xa2\x00", false),
        (b"\x91\x00", false),
        (b"\x83\x00", false),
        (b"\x8b\x00", false),
        // Masked by a server, not masked by a client.
        (b"\x81\x80\x00\x00\x00\x00", false),
        (b"\x81\x00", true),
        // Lengths that are not minimal, or not of a control frame.
        (b"\x81\x7e\x00\x05", false),
        (b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", false),
        (b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00", false),
        (b"\x89\x7e\x00\x80", false),
        (b"\x09\x00", false),
        // Frames out of order.
        (b"\x80\x00", false),
        (b"\x01\x00\x81\x00", false),
    ] {
        for size in [1, 64] {
            let mut scanner = FrameScanner::new(from_client);
            let passed = pass(&mut scanner, input, size);
            assert_eq!(passed, Err(ScanFault::Protocol), "{input:x?} in pieces of {size}");
        }
    }
}

#[test]
fn the_size_of_a_message_counts_over_its_fragments() {
    let mut scanner = FrameScanner::of_server();
    let first = [&[0x02, 126, 0xea, 0x60][..], &[0; 60_000]].concat();
    assert_eq!(pass(&mut scanner, &first, 4096).unwrap(), first);
    assert_eq!(scanner.place(), Place::InMessage);
    let second = [0x80, 126, 0x9c, 0x41];
    assert_eq!(pass(&mut scanner, &second, 4096), Err(ScanFault::TooBig(100_001)));
}

#[test]
fn masks_differ() {
    let masks: std::collections::HashSet<_> = (0..3 * MASKS).map(|_| fresh_mask()).collect();
    // The masks are random, so that hardly any two are equal.
    assert!(masks.len() > 3 * MASKS - 4);
}
