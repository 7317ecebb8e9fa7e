use super::*;

#[test]
fn slots_are_those_of_the_specification() {
    // The check value of CRC-16/XMODEM, and values that `CLUSTER KEYSLOT` of Redis answers.
    assert_eq!(crc16(b"123456789"), 0x31C3);
    assert_eq!(crc16(b""), 0);
    for (key, slot) in [
        ("foo", 12182),
        ("bar", 5061),
        ("hello", 866),
        ("somekey", 11058),
        ("foo{hash_tag}", 2515),
        ("bar{hash_tag}", 2515),
        ("user1000", 3443),
        ("{user1000}.following", 3443),
        ("{user1000}.followers", 3443),
    ] {
        assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
    }
    // What the specification says about odd braces.
    assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
    assert_eq!(slot_of(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
    assert_eq!(slot_of(b"foo{bar}{zap}"), crc16(b"bar") % SLOTS);
    assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
}

#[test]
fn a_command_belongs_to_the_slot_of_its_first_key() {
    let slot = |line: &str| {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        slot_of_command(&command)
    };
    let foo = Some(12182);
    for line in ["GET foo", "SPUBLISH foo x", "EVALSHA sha 2 foo x arg", "XINFO GROUPS foo"] {
        assert_eq!(slot(line), foo, "{line}");
    }
    for line in ["TIME", "SCRIPT LOAD x", "EVALSHA sha 0 foo", "CLUSTER NODES", "GET"] {
        assert_eq!(slot(line), None, "{line}");
    }
}

#[test]
fn a_tagged_key_is_in_the_slot_of_the_channel() {
    for name in ["chat_42", "a}b", "a{b", "{}x", "}x", "x{y}z", "{", "{{a}}", "é"] {
        let key = format!("tg:{}:stream", tagged(name));
        assert_eq!(slot_of(key.as_bytes()), slot_of(name.as_bytes()), "{key}");
    }
    assert_eq!(tagged("chat_42"), "{chat_42}");
    assert_ne!(tagged("a}b"), tagged("b}a"));
    for slot in [0, 1, 8191, SLOTS - 1] {
        assert_eq!(slot_of(tag_of_slot(slot).as_bytes()), slot);
    }
}
