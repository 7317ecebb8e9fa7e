use super::*;

#[test]
fn durations() {
    for (text, millis) in [
        ("250ms", Some(250)),
        ("10s", Some(10_000)),
        ("5m", Some(300_000)),
        ("1h", Some(3_600_000)),
        ("0s", Some(0)),
        ("8760h", Some(31_536_000_000)),
        ("8761h", None),
        ("99999999999999999999s", None),
        ("18446744073709551615h", None),
        ("10", None),
        ("s", None),
        ("", None),
        ("-1s", None),
        ("+1s", None),
        ("1.5s", None),
        ("1 s", None),
        ("1d", None),
        ("١s", None),
    ] {
        assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", Some(0)),
        ("512", Some(512)),
        ("512B", Some(512)),
        ("64KiB", Some(65_536)),
        ("16KB", Some(16_000)),
        ("1MiB", Some(1_048_576)),
        ("1GiB", Some(1 << 30)),
        ("2GiB", Some(2 << 30)),
        ("1024GiB", Some(1 << 40)),
        ("1025GiB", None),
        ("18446744073709551615KiB", None),
        ("64kb", None),
        ("KiB", None),
        ("-1", None),
        ("1 MiB", None),
    ] {
        assert_eq!(size(text), bytes, "{text}");
    }
}

#[test]
fn rates() {
    let rate_of =
        |count, secs, burst| Some(Some(Rate { count, per: Duration::from_secs(secs), burst }));
    for (text, expected) in [
        ("50/1h", rate_of(50, 3600, 50)),
        ("100000/1d", rate_of(100_000, 86_400, 100_000)),
        ("1/365d", rate_of(1, 31_536_000, 1)),
        ("1/366d", None),
        ("10/1s burst 20", rate_of(10, 1, 20)),
        ("", Some(None)),
        ("off", Some(None)),
        ("0/1s", None),
        ("10/0s", None),
        ("10/1s burst 0", None),
        ("10/1s burst", None),
        ("10/s", None),
        ("10", None),
        ("+1/1s", None),
        ("4294967296/1s", None),
    ] {
        assert_eq!(rate(text), expected, "{text}");
    }
}

#[test]
fn networks() {
    for (text, expected) in [
        ("10.0.0.0/8", Some("10.0.0.0/8")),
        ("10.1.2.3/8", Some("10.0.0.0/8")),
        ("192.0.2.7", Some("192.0.2.7/32")),
        ("::1", Some("::1/128")),
        ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
        ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
        ("::/0", Some("::/0")),
        ("fd00::/8", Some("fd00::/8")),
        ("10.0.0.0/33", None),
        ("localhost", None),
        ("", None),
    ] {
        assert_eq!(network(text).map(|net| net.to_string()).as_deref(), expected, "{text}");
    }
}
