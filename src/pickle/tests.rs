use proptest::prelude::*;
use serde_json::json;

use super::value::NotPlain;
use super::*;

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The JSON of a pickle that holds nothing else than JSON can express.
fn json_of(bytes: &[u8]) -> Result<serde_json::Value, Malformed> {
    read(bytes).map(|pickle| pickle.to_json().expect("plain data"))
}

fn not_plain(bytes: &[u8]) -> NotPlain {
    read(bytes).expect("a pickle").to_json().expect_err("no plain data")
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
    let set = read(&of_django).unwrap();
    assert_eq!(set.as_text_set().unwrap().into_iter().collect::<Vec<_>>(), [id]);
    // The form that Django was seen to read back.
    let written = write_text_set([id].into_iter());
    assert_eq!(written, [b"\x80\x04\x8f(\x8c\x24", id.as_bytes(), b"\x90."].concat());
    assert_eq!(write_text_set([].into_iter()), b"\x80\x04\x8f.");
    let two = unhex("8004950d000000000000008f94288c0161948c016294902e");
    assert_eq!(read(&two).unwrap().as_text_set().unwrap().len(), 2);
    // As protocol 2 writes a set, which has no opcode for it: a call with a list.
    let early = b"\x80\x02c__builtin__\nset\nq\x00]q\x01(X\x01\x00\x00\x00aq\x02X\x01\x00\x00\x00bq\x03e\x85q\x04Rq\x05.";
    assert_eq!(read(early).unwrap().as_text_set().unwrap().len(), 2);
    for other in [&b"\x80\x04}."[..], b"\x80\x04\x8f(K\x01\x90.", b"\x80\x04N."] {
        assert!(read(other).unwrap().as_text_set().is_none());
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
    let refused = |what| Malformed::Refused(Refusal { what, field: None });
    for pickle in [
        "63706f7369780a73797374656d0a70300a285669640a70310a7470320a5270330a2e",
        "63706f7369780a73797374656d0a710028580200000069647101747102527103 2e",
        "800263706f7369780a73797374656d0a71005802000000696471018571025271032e",
        "800363706f7369780a73797374656d0a71005802000000696471018571025271032e",
        "8004951d000000000000008c05706f736978948c0673797374656d9493948c02696494859452942e",
        "8005951d000000000000008c05706f736978948c0673797374656d9493948c02696494859452942e",
    ] {
        let system = Refused::Global("posix.system".to_owned());
        assert_eq!(read(&unhex(&pickle.replace(' ', ""))).err(), Some(refused(system)));
    }
    let opcode = |name| refused(Refused::Opcode(name));
    for (pickle, why) in [
        (&b"(ios\nsystem\n."[..], opcode("INST")),
        (b"(cos\nsystem\no.", refused(Refused::Global("os.system".to_owned()))),
        (b"(K\x01o.", opcode("OBJ")),
        (b"P7\n.", opcode("PERSID")),
        (b"K\x01Q.", opcode("BINPERSID")),
        (b"\x80\x02\x82\x01.", opcode("EXT1")),
        (b"\x80\x02\x83\x01\x01.", opcode("EXT2")),
        (b"\x80\x02\x84\x01\x01\x01\x01.", opcode("EXT4")),
        (b"\x80\x05\x97.", opcode("NEXT_BUFFER")),
        (b"\x80\x05\x97\x98.", opcode("NEXT_BUFFER")),
        // What is refused stays so if it is dropped, or if the rest does not fit.
        (b"cos\nsystem\n0N.", refused(Refused::Global("os.system".to_owned()))),
        (b"cos\nsystem\nR.", refused(Refused::Global("os.system".to_owned()))),
        // Only one attribute is known, and only classes of the set are rebuilt.
        (
            b"c__builtin__\ngetattr\n(cdatetime\ndatetime\nVnow\ntR.",
            refused(Refused::Global("builtins.getattr".to_owned())),
        ),
        (
            b"ccopy_reg\n_reconstructor\n(NNNtR.",
            refused(Refused::Global("copyreg._reconstructor".to_owned())),
        ),
        (b"cevil \x1b[2J\nname\xff\n.", refused(Refused::Global("evil???2J.name?".to_owned()))),
        // A field is named if it is the record's own.
        (
            b"(dVname\n(lcos\nsystem\nas.",
            Malformed::Refused(Refusal {
                what: Refused::Global("os.system".to_owned()),
                field: Some("name".to_owned()),
            }),
        ),
    ] {
        assert_eq!(read(pickle).err(), Some(why), "{}", String::from_utf8_lossy(pickle));
    }
    for byte in [0u8, 1, b'{', b'x', 0x7f, 0x80, 0x99, 0xff] {
        assert_eq!(read(&[0x80, 4, byte]).err(), Some(Malformed::Opcode(byte)));
    }
    assert_eq!(read(b"\x80\x04\x80\x04N.").err(), Some(Malformed::Opcode(0x80)));
}

#[test]
fn values_of_other_types_are_read_past() {
    let skipped = |bytes: &[u8]| match not_plain(bytes) {
        NotPlain::Type(skipped) => skipped.0,
        NotPlain::TooLarge => "too large",
    };
    for (bytes, name) in [
        (&b"\x80\x04C\x02\xff\x00."[..], "bytes"),
        (b"\x80\x05\x96\x01\0\0\0\0\0\0\0x.", "bytearray"),
        (b"cdatetime\ndate\n(NtR.", "date"),
        (b"cuuid\nUUID\n)\x81}b.", "UUID"),
        (b"\x80\x02cuuid\nUUID\n)}\x92.", "UUID"),
        (b"cdecimal\nDecimal\n.", "Decimal"),
        (b"(lcdecimal\nDecimal\na.", "Decimal"),
        (b"\x80\x04\x8a\x09\0\0\0\0\0\0\0\x80\0.", "int of over 64 bits"),
        (b"L99999999999999999999L\n.", "int of over 64 bits"),
        (b"X\x03\0\0\0\xed\xa0\xbd.", "str with a lone surrogate"),
        (b"V\\ud83d\n.", "str with a lone surrogate"),
        (b"S'\\xff'\n.", "bytes"),
        (b"U\x01\xff.", "bytes"),
        (b"ccollections\ndeque\n)R(K\x01e.", "deque"),
    ] {
        assert_eq!(skipped(bytes), name, "{}", String::from_utf8_lossy(bytes));
    }
    for (bytes, json) in [
        (&b"(K\x01VJ\xfcr\\u005c\\U0001f680\nt."[..], json!([1, "Jür\\🚀"])),
        (
            b"(I01\nI00\nI-7\nL8L\nF0.25\nFnan\nF-inf\nS'a'\nU\x01bl.",
            json!([true, false, -7, 8, 0.25, "NaN", "-Infinity", "a", "b"]),
        ),
        (b"(K\x01K\x02d.", json!({"1": 2})),
        (b"c__builtin__\nfrozenset\n((lp0\nK\x01atRp1\n.", json!([1])),
        (b"\x80\x04(K\x01\x91.", json!([1])),
        (b"ccollections\nOrderedDict\n)RK\x01K\x02s.", json!({"1": 2})),
        (b"K\x01K\x020.", json!(1)),
        (b"K\x01(K\x021.", json!(1)),
        (b"K\x01(0.", json!(1)),
        (b"]p0\nK\x072ag0\n\x86.", json!(null)),
    ] {
        if json.is_null() {
            assert!(read(bytes).is_err());
            continue;
        }
        assert_eq!(json_of(bytes), Ok(json), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn shared_containers_exist_once() {
    // A list twice, and a list that contains itself.
    assert_eq!(json_of(b"\x80\x04]\x94K\x07ah\x00\x86."), Ok(json!([[7], [7]])));
    assert_eq!(not_plain(b"\x80\x04]\x94h\x00a."), NotPlain::TooLarge);
    // Each of twelve lists contains the one before ten times.
    let level = [b"](".to_vec(), b"h\x00".repeat(10), b"eq\x000".to_vec()].concat();
    let laughs = [b"\x80\x04(]q\x00".to_vec(), level.repeat(12), b"1h\x00.".to_vec()].concat();
    assert_eq!(not_plain(&laughs), NotPlain::TooLarge);
}

#[test]
fn what_is_malformed_is_refused() {
    use Malformed::{Opcode, Operand, Protocol, Stack, Trailing, Truncated};
    for (bytes, why) in [
        (&b""[..], Truncated),
        (b"\x80", Protocol),
        (b"{}", Opcode(b'{')),
        (b"\x80\x01N.", Protocol),
        (b"\x80\x06N.", Protocol),
        (b"\x80\x04", Truncated),
        (b"\x80\x04N", Truncated),
        (b"\x80\x04\x95\x00", Truncated),
        (b"\x80\x04\x8c\x05ab.", Truncated),
        (b"\x80\x04X\xff\xff\xff\xffab.", Truncated),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", Truncated),
        (b"\x80\x04\x8a\xff\x01.", Truncated),
        (b"Ix\n.", Operand),
        (b"I\n.", Operand),
        (b"I7", Truncated),
        (b"L--7L\n.", Operand),
        (b"Fx\n.", Operand),
        (b"Sa\n.", Operand),
        (b"Np-1\n.", Operand),
        (b"Np4294967296\n.", Operand),
        (b"\x80\x04NN\x93.", Operand),
        (b"N)R.", Stack),
        (b"NNb.", Stack),
        (b"]Nb.", Stack),
        (b"cdatetime\ndate\nNR.", Stack),
        (b"\x80\x04\x85.", Stack),
        (b"\x80\x04N\x86.", Stack),
        (b"0.", Stack),
        (b"1.", Stack),
        (b"t.", Stack),
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
        (b"\x80\x04N.N", Trailing),
    ] {
        assert_eq!(read(bytes).err(), Some(why), "{bytes:x?}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| {
        [b"\x80\x04".to_vec(), vec![b']'; depth], vec![b'a'; depth - 1], vec![b'.']].concat()
    };
    assert!(json_of(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(not_plain(&nested(MAX_DEPTH + 1)), NotPlain::TooLarge);
    assert_eq!(not_plain(&nested(30_000)), NotPlain::TooLarge);
    assert_eq!(read(&vec![0x80; MAX_BYTES + 1]).err(), Some(Malformed::TooLong));
    let repeated = |times: usize| {
        let text = [b"X\x00\x80\x00\x00".to_vec(), vec![b'x'; 0x8000]].concat();
        [b"\x80\x04](", &text[..], b"\x94", &b"h\x00".repeat(times), b"e."].concat()
    };
    let most = MAX_JSON_BYTES / 0x8000;
    assert!(json_of(&repeated(most - 2)).is_ok());
    assert_eq!(not_plain(&repeated(most)), NotPlain::TooLarge);
    // The numbers of a memo are no lengths.
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
            proptest::sample::select(&b"NK\x88\x8c}])\x8f(suaedlt\x85\x86\x90\x91\x94qh.\x00\x01012Rb\x81"[..]), 0..60,
        ),
    ) {
        let pickle = [b"\x80\x04", &program[..]].concat();
        if let Ok(json) = read(&pickle).map_err(|_| ()).and_then(|value| value.to_json().map_err(|_| ())) {
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
        let back = read(&pickle).unwrap();
        prop_assert!(back.as_text_set().unwrap().into_iter().eq(texts.iter().map(String::as_str)));
    }
}
