use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::*;

/// Secrets of TLS 1.2, which has no updates.
fn secrets(number: u8, is_gcm: bool) -> ConnectionTrafficSecrets {
    let (key, iv) = (AeadKey::from([number; 32]), Iv::new([number; 12]));
    match is_gcm {
        true => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        false => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
    }
}

/// The two sides of a connection.
fn both_sides(is_gcm: bool) -> (Records, Records) {
    let direction =
        |number| Direction { secrets: secrets(number, is_gcm), sequence: u64::from(number) };
    let side = |sealing, opening| Records {
        sealing: direction(sealing),
        opening: direction(opening),
        updates: None,
        empty: 0,
        has_refused_renegotiation: false,
        has_closed: false,
    };
    (side(1, 2), side(2, 1))
}

fn sealed(records: &mut Records, content: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    records.seal_as(content, [data], &mut out).unwrap();
    out
}

#[test]
fn a_record_opens_once_and_in_order() {
    for is_gcm in [true, false] {
        let (mut near, mut far) = both_sides(is_gcm);
        let mut answers = Vec::new();
        let first = sealed(&mut near, APPLICATION_DATA, b"first");
        let second = sealed(&mut near, APPLICATION_DATA, b"second");
        assert_eq!(record_length(&first), Ok(Some(first.len())));
        assert_eq!(far.open(&mut second.clone(), &mut answers), Err(RecordError::BadRecord));
        assert_eq!(far.open(&mut first.clone(), &mut answers), Ok(Opened::Data(b"first")));
        assert_eq!(far.open(&mut first.clone(), &mut answers), Err(RecordError::BadRecord));
        assert_eq!(far.open(&mut second.clone(), &mut answers), Ok(Opened::Data(b"second")));
        assert!(answers.is_empty());
    }
}

#[test]
fn no_bit_of_a_record_may_change() {
    for is_gcm in [true, false] {
        let (mut near, mut far) = both_sides(is_gcm);
        let record = sealed(&mut near, APPLICATION_DATA, b"data");
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // The version in front is not authenticated, and the length is that of the slice.
            let is_ignored = (8..40).contains(&bit);
            let opened = far.open(&mut changed, &mut Vec::new());
            assert_eq!(opened.is_err(), !is_ignored, "bit {bit}: {opened:?}");
            if is_ignored {
                far.opening.sequence -= 1;
            }
        }
        for length in 0..record.len() {
            assert!(far.open(&mut record[..length].to_vec(), &mut Vec::new()).is_err(), "{length}");
        }
        assert_eq!(far.open(&mut record.clone(), &mut Vec::new()), Ok(Opened::Data(b"data")));
    }
}

#[test]
fn lengths_have_bounds() {
    assert_eq!(record_length(&[]), Ok(None));
    assert_eq!(record_length(&[23, 3, 3, 0]), Ok(None));
    assert_eq!(record_length(&[23, 3, 3, 0x48, 0]), Ok(Some(MAX_RECORD)));
    assert_eq!(record_length(&[23, 3, 3, 0x48, 1]), Err(RecordError::TooLong));
    for header in [[19, 3, 3, 0, 1], [24, 3, 3, 0, 1], [23, 2, 0, 0, 1], *b"GET /"] {
        assert_eq!(record_length(&header), Err(RecordError::Unexpected), "{header:?}");
    }
    let (mut near, mut far) = both_sides(true);
    let mut out = Vec::new();
    near.seal([&[0; MAX_PLAINTEXT][..]], &mut out).unwrap();
    assert_eq!(far.open(&mut out, &mut Vec::new()), Ok(Opened::Data(&[0; MAX_PLAINTEXT])));
    let mut too_long = vec![0; MAX_RECORD];
    too_long[..HEADER].copy_from_slice(&[23, 3, 3, 0x48, 0]);
    assert_eq!(far.open(&mut too_long, &mut Vec::new()), Err(RecordError::TooLong));
}

#[test]
fn alerts_end_a_connection_or_warn() {
    let opened = |data: &[u8]| {
        let (mut near, mut far) = both_sides(true);
        let mut record = sealed(&mut near, ALERT, data);
        far.open(&mut record, &mut Vec::new()).map(|opened| opened == Opened::Closed)
    };
    assert_eq!(opened(&[1, CLOSE_NOTIFY]), Ok(true));
    assert_eq!(opened(&[2, CLOSE_NOTIFY]), Ok(true));
    assert_eq!(opened(&[1, USER_CANCELED]), Ok(false));
    assert_eq!(opened(&[1, 43]), Ok(false));
    assert_eq!(opened(&[2, 40]), Err(RecordError::Alert(40)));
    for malformed in [&[][..], &[2], &[2, 0, 0]] {
        assert_eq!(opened(malformed), Err(RecordError::Malformed));
    }
}

#[test]
fn renegotiation_is_refused_once() {
    let (mut near, mut far) = both_sides(true);
    let mut answers = Vec::new();
    let mut hello = sealed(&mut near, HANDSHAKE, &[CLIENT_HELLO, 0, 0, 0]);
    assert_eq!(far.open(&mut hello, &mut answers), Ok(Opened::Nothing));
    // The client gets a warning, and the connection goes on.
    assert_eq!(near.open(&mut answers, &mut Vec::new()), Ok(Opened::Nothing));
    let mut data = sealed(&mut near, APPLICATION_DATA, b"x");
    assert_eq!(far.open(&mut data, &mut Vec::new()), Ok(Opened::Data(b"x")));
    let mut again = sealed(&mut near, HANDSHAKE, &[CLIENT_HELLO, 0, 0, 0]);
    assert_eq!(far.open(&mut again, &mut Vec::new()), Err(RecordError::Unexpected));
    for content in [HANDSHAKE, CHANGE_CIPHER_SPEC] {
        let (mut near, mut far) = both_sides(true);
        let mut other = sealed(&mut near, content, &[20, 0, 0, 0]);
        assert_eq!(far.open(&mut other, &mut Vec::new()), Err(RecordError::Unexpected));
    }
}

#[test]
fn records_without_data_are_bounded() {
    let (mut near, mut far) = both_sides(false);
    let mut send = |data: &[u8]| {
        let mut record = sealed(&mut near, APPLICATION_DATA, data);
        far.open(&mut record, &mut Vec::new()).map(|opened| opened != Opened::Nothing)
    };
    for _ in 0..3 {
        for _ in 0..MAX_EMPTY {
            assert_eq!(send(b""), Ok(false));
        }
        assert_eq!(send(b"x"), Ok(true));
    }
    for _ in 0..MAX_EMPTY {
        assert_eq!(send(b""), Ok(false));
    }
    assert_eq!(send(b""), Err(RecordError::Unexpected));
}

#[test]
fn a_key_that_is_used_up_seals_only_the_end() {
    let (mut near, mut far) = both_sides(true);
    (near.sealing.sequence, far.opening.sequence) = (MAX_RECORDS - 1, MAX_RECORDS - 1);
    let mut out = Vec::new();
    near.seal([&b"last"[..]], &mut out).unwrap();
    assert_eq!(far.open(&mut out, &mut Vec::new()), Ok(Opened::Data(b"last")));
    let mut out = Vec::new();
    assert_eq!(near.seal([&b"more"[..]], &mut out), Err(RecordError::Exhausted));
    near.seal_close(&mut out);
    assert_eq!(far.open(&mut out, &mut Vec::new()), Ok(Opened::Closed));
}

#[test]
fn nothing_comes_behind_an_alert_of_this_side() {
    let (mut near, mut far) = both_sides(true);
    let mut out = Vec::new();
    near.seal_error(RecordError::BadRecord, &mut out);
    assert_eq!(far.open(&mut out, &mut Vec::new()), Err(RecordError::Alert(20)));
    let mut out = Vec::new();
    near.seal_close(&mut out);
    near.seal_error(RecordError::TooLong, &mut out);
    assert_eq!(near.seal([&b"x"[..]], &mut out), Err(RecordError::Closed));
    // An answer to a peer that has not seen the end yet.
    let mut hello = sealed(&mut far, HANDSHAKE, &[CLIENT_HELLO, 0, 0, 0]);
    assert_eq!(near.open(&mut hello, &mut out), Ok(Opened::Nothing));
    assert!(out.is_empty());
}

#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<Records>();
    assert!(size <= 160, "{size}");
    let size = size_of::<KernelConnection<ServerConnectionData>>();
    assert!(size <= 560, "{size}");
}
