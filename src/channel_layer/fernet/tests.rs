use super::*;

/// Written by channels_redis with the key `sekrit`.
const TOKEN: &str = "gAAAAABrBNGXGsh4oddItLQ5t7O7_7yqHoDaoG4mE4r45JHMZRG2Vd3gmFL6aH_WdIaSCrTeXtLhjNe2\
        LkIbMDRKaYqSQbOegQzGKd1F2Co_SwjdiQiwO9qaqqjsTPzqLzNgWPr6-HiWWtx_n7owlPSgbZh4eKQUwqjPOqDSpmYR_BscQovFIsQ=";
/// The time in the token, in Unix seconds.
const WRITTEN: u64 = 0x6b04_d197;

fn keys(secrets: &[&str]) -> Vec<Fernet> {
    secrets.iter().map(|secret| Fernet::new(&Secret::new(*secret))).collect()
}

#[test]
fn a_token_written_by_python_is_decrypted() {
    let text = open(&keys(&["sekrit"]), TOKEN.as_bytes(), None).unwrap();
    assert_eq!(text.len(), 67);
    assert!(text.starts_with(b"\x83\xa4type\xacchat.message"));
    assert_eq!(open(&keys(&["new", "sekrit"]), TOKEN.as_bytes(), None), Some(text));
}

#[test]
fn other_keys_and_changed_tokens_are_refused() {
    assert_eq!(open(&keys(&["other"]), TOKEN.as_bytes(), None), None);
    assert_eq!(open(&[], TOKEN.as_bytes(), None), None);
    let keys = keys(&["sekrit"]);
    let raw = URL_SAFE.decode(TOKEN).unwrap();
    for at in 0..raw.len() {
        let mut changed = raw.clone();
        changed[at] ^= 1;
        assert_eq!(open(&keys, URL_SAFE.encode(changed).as_bytes(), None), None, "byte {at}");
        let short = URL_SAFE.encode(&raw[..at]);
        assert_eq!(open(&keys, short.as_bytes(), None), None, "{at} bytes");
    }
    for text in ["", "=", "*", "gAAAAA", &TOKEN[1..], &format!("{TOKEN}=")] {
        assert_eq!(open(&keys, text.as_bytes(), None), None, "{text}");
    }
}

#[test]
fn a_token_is_valid_from_a_minute_before_its_time_until_its_ttl() {
    let keys = keys(&["sekrit"]);
    for (now, ttl, is_valid) in [
        (WRITTEN, 0, true),
        (WRITTEN + 70, 70, true),
        (WRITTEN + 71, 70, false),
        (WRITTEN - 60, 70, true),
        (WRITTEN - 61, 70, false),
        (u64::MAX, u64::MAX, true),
    ] {
        let lifetime = Some(Lifetime { now, ttl });
        let opened = open(&keys, TOKEN.as_bytes(), lifetime).is_some();
        assert_eq!(opened, is_valid, "now {now}, ttl {ttl}");
    }
}
