use proptest::prelude::*;
use serde_json::json;

use super::*;

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn json_of(bytes: &[u8]) -> Result<serde_json::Value, Malformed> {
    read(bytes).map(|value| value.to_json())
}

/// As Django 5.2 and django-redis keep a connection token's record.
const RECORD: &str = "8005956e000000000000007d94288c07757365725f6964944b018c08757365726e616d65948c05616c69\
    6365948c0d636f6e6e656374696f6e5f6964948c19636861742d636f6e762d312d31373634353030303030303030948c0a6372\
    65617465645f6174944741da4b08881000008c04757365649489752e";

#[test]
fn records_that_django_cached_are_read() {
    let expected = json!({"user_id": 1, "username": "alice",
        "connection_id": "chat-conv-1-1764500000000", "created_at": 1_764_500_000.25, "used": false});
    assert_eq!(json_of(&unhex(RECORD)), Ok(expected.clone()));
    assert_eq!(json_of(&unhex(&RECORD.replacen("8005", "8004", 1))), Ok(expected));
    let second = "80059558000000000000007d94288c07757365725f6964944a701101008c08757365726e616d65948c074ac3bc\
        7267656e948c0d636f6e6e656374696f6e5f6964944e8c0a637265617465645f6174944741da4b08881000008c04757365\
        649488752e";
    let expected = json!({"user_id": 70000, "username": "Jürgen", "connection_id": null,
        "created_at": 1_764_500_000.25, "used": true});
    assert_eq!(json_of(&unhex(second)), Ok(expected));
}

/// `pickle.dumps` of one value, with the protocols 2 to 5 of CPython 3.11.
#[test]
fn every_protocol_is_read() {
    let value = json!({"user_id": 1, "name": "Jürgen", "n": null, "t": true, "f": false,
        "i": [0, 255, 256, 65535, 65536, -1, 2_147_483_648_i64, -2_147_483_649_i64, i64::MAX, i64::MIN, 128],
        "x": 0.25, "nested": {"a": [[], {}], "b": "Jürgen"}});
    let early = "7d7100285807000000757365725f696471014b0158040000006e616d65710258070000004ac3bc7267656e7103580\
        10000006e71044e58010000007471058858010000006671068958010000006971075d7108284b004bff4d00014dffff4a0\
        00001004affffffff8a0500000080008a05ffffff7fff8a08ffffffffffffff7f8a0800000000000000804b806558010000\
        00787109473fd000000000000058060000006e6573746564710a7d710b28580100000061710c5d710d285d710e7d710f655\
        801000000627110680375752e";
    let late = "959d000000000000007d94288c07757365725f6964944b018c046e616d65948c074ac3bc7267656e948c016e944e8c\
        017494888c016694898c0169945d94284b004bff4d00014dffff4a000001004affffffff8a0500000080008a05ffffff7f\
        ff8a08ffffffffffffff7f8a0800000000000000804b80658c017894473fd00000000000008c066e6573746564947d9428\
        8c0161945d94285d947d94658c016294680375752e";
    for (protocol, program) in [("8002", early), ("8003", early), ("8004", late), ("8005", late)] {
        assert_eq!(json_of(&unhex(&format!("{protocol}{program}"))), Ok(value.clone()));
    }
    assert_eq!(read(b"\x80\x05K\x07.").unwrap().as_int(), Some(7));
}

#[test]
fn sets_of_texts_are_read_and_written() {
    let of_django = unhex(
        "8005952c000000000000008f94288c2430376563313464662d356230622d343730332d396535612d6234666533373539\
         3739366294902e",
    );
    let id = "07ec14df-5b0b-4703-9e5a-b4fe3759796b";
    let set = read(&of_django).unwrap().as_text_set().unwrap();
    assert_eq!(set.into_iter().collect::<Vec<_>>(), [id]);
    // The form that Django was seen to read back.
    let written = write_text_set([id].into_iter());
    assert_eq!(written, [b"\x80\x04\x8f(\x8c\x24", id.as_bytes(), b"\x90."].concat());
    assert_eq!(write_text_set([].into_iter()), b"\x80\x04\x8f.");
    let two = unhex("8004950d000000000000008f94288c0161948c016294902e");
    assert_eq!(read(&two).unwrap().as_text_set().unwrap().len(), 2);
    for other in [&b"\x80\x04]."[..], b"\x80\x04\x8f(K\x01\x90.", b"\x80\x04N."] {
        assert_eq!(read(other).unwrap().as_text_set(), None);
    }
}

#[test]
fn the_last_of_equal_keys_counts() {
    let twice = b"\x80\x04}(\x8c\x01aK\x01\x8c\x01aK\x02\x8c\x01bN\x8c\x01aK\x03u.";
    assert_eq!(json_of(twice), Ok(json!({"a": 3, "b": null})));
    assert_eq!(json_of(b"\x80\x04}(K\x07K\x01Nh\x00u."), Err(Malformed::Stack));
    assert_eq!(json_of(b"\x80\x04}(K\x07K\x01NNu."), Ok(json!({"7": 1, "null": null})));
}

/// `pickle.dumps` of an object whose `__reduce__` calls `os.system`, by protocol.
#[test]
fn nothing_is_ever_run() {
    for (pickle, opcode) in [
        ("800263706f7369780a73797374656d0a71005802000000696471018571025271032e", b'c'),
        ("800363706f7369780a73797374656d0a71005802000000696471018571025271032e", b'c'),
        ("8004951d000000000000008c05706f736978948c0673797374656d9493948c02696494859452942e", 0x93),
        ("8005951d000000000000008c05706f736978948c0673797374656d9493948c02696494859452942e", 0x93),
    ] {
        assert_eq!(read(&unhex(pickle)), Err(Malformed::Opcode(opcode)));
    }
    let known = b"\x80\x95.N\x88\x89JKM\x8aG\x8cX\x8d}]\x8f(suae\x90\x94qrhj";
    for opcode in (0..=u8::MAX).filter(|opcode| opcode != &0x80 && !known.contains(opcode)) {
        assert_eq!(read(&[0x80, 4, opcode]), Err(Malformed::Opcode(opcode)));
    }
    assert_eq!(read(b"\x80\x04\x80\x04N."), Err(Malformed::Opcode(0x80)));
}

#[test]
fn what_is_malformed_is_refused() {
    use Malformed::{Integer, Protocol, Stack, Text, Trailing, Truncated};
    for (bytes, why) in [
        (&b""[..], Protocol),
        (b"\x80", Protocol),
        (b"{}", Protocol),
        (b"\x80\x01N.", Protocol),
        (b"\x80\x06N.", Protocol),
        (b"\x80\x04", Truncated),
        (b"\x80\x04N", Truncated),
        (b"\x80\x04\x95\x00", Truncated),
        (b"\x80\x04\x8c\x05ab.", Truncated),
        (b"\x80\x04X\xff\xff\xff\xffab.", Truncated),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", Truncated),
        (b"\x80\x04\x8a\xff\x01.", Truncated),
        (b"\x80\x04\x8c\x01\xff.", Text),
        (b"\x80\x04\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00.", Integer),
        (b"\x80\x04.", Stack),
        (b"\x80\x04NN.", Stack),
        (b"\x80\x04(N.", Stack),
        (b"\x80\x04N(.", Stack),
        (b"\x80\x04NNs.", Stack),
        (b"\x80\x04Na.", Stack),
        (b"\x80\x04NNa.", Stack),
        (b"\x80\x04]NNs.", Stack),
        (b"\x80\x04e.", Stack),
        (b"\x80\x04(e.", Stack),
        (b"\x80\x04](Nu.", Stack),
        (b"\x80\x04}(Nu.", Stack),
        (b"\x80\x04}(Ne.", Stack),
        // What is below a mark is not reached past it.
        (b"\x80\x04](Na.", Stack),
        (b"\x80\x04](\x94e.", Stack),
        (b"\x80\x04\x94.", Stack),
        (b"\x80\x04h\x00.", Stack),
        (b"\x80\x04}(]Nu.", Stack),
        (b"\x80\x04\x8f(]\x90.", Stack),
        // A list out of the memo: what could contain itself.
        (b"\x80\x04]\x94h\x00a.", Stack),
        (b"\x80\x04N.N", Trailing),
    ] {
        assert_eq!(read(bytes), Err(why), "{bytes:x?}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| {
        [b"\x80\x04".to_vec(), vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat()
    };
    assert!(read(&nested(usize::from(MAX_DEPTH))).is_ok());
    assert_eq!(read(&nested(usize::from(MAX_DEPTH) + 1)), Err(Malformed::TooDeep));
    assert_eq!(read(&nested(30_000)), Err(Malformed::TooDeep));
    assert_eq!(read(&vec![0x80; MAX_BYTES + 1]), Err(Malformed::TooLong));
    let repeated = |times: usize| {
        let text = [b"X\x00\x80\x00\x00".to_vec(), vec![b'x'; 0x8000]].concat();
        [b"\x80\x04](", &text[..], b"\x94", &b"h\x00".repeat(times), b"e."].concat()
    };
    let most = MAX_REPEATED_BYTES / 0x8000;
    assert!(read(&repeated(most)).is_ok());
    assert_eq!(read(&repeated(most + 1)), Err(Malformed::TooRepetitive));
    // The numbers of a memo are no lengths.
    assert_eq!(json_of(b"\x80\x04Nr\xff\xff\xff\xff0."), Err(Malformed::Opcode(b'0')));
    assert_eq!(json_of(b"\x80\x04]K\x05r\xff\xff\xff\xffaj\xff\xff\xff\xffa."), Ok(json!([5, 5])));
}

fn json_values() -> impl Strategy<Value = serde_json::Value> {
    let scalar = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|v| json!(v)),
        any::<i64>().prop_map(|v| json!(v)),
        any::<u8>().prop_map(|v| json!(v)),
        any::<i32>().prop_map(|v| json!(f64::from(v) / 4.0)),
        ".{0,300}".prop_map(|v| json!(v)),
    ];
    scalar.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|v| json!(v)),
            proptest::collection::hash_map(".{0,8}", inner, 0..6).prop_map(|v| json!(v)),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_program_of_known_opcodes_panics(
        program in proptest::collection::vec(
            proptest::sample::select(&b"NK\x88\x8c}]\x8f(suae\x90\x94qh.\x00\x01"[..]), 0..60,
        ),
    ) {
        let pickle = [b"\x80\x04", &program[..]].concat();
        if let Ok(value) = read(&pickle) {
            let json = value.to_json();
            prop_assert!(json_of(&write_json(&json)) == Ok(json));
        }
    }

    #[test]
    fn what_is_written_is_read(json in json_values()) {
        prop_assert_eq!(json_of(&write_json(&json)), Ok(json));
    }

    #[test]
    fn sets_are_read_as_written(texts in proptest::collection::btree_set(".{0,300}", 0..9)) {
        let pickle = write_text_set(texts.iter().map(String::as_str));
        let back = read(&pickle).unwrap().as_text_set().unwrap();
        prop_assert!(back.into_iter().eq(texts.iter().map(String::as_str)));
    }
}
