use super::*;

#[test]
fn numbers_are_short() {
    assert_eq!([0.0, 0.25, 99.94, 1234.5].map(rate), ["0", "0.2", "99.9", "1234"]);
    assert_eq!([0.0, 1023.0, 1536.0, 3e12].map(bytes), ["0 B", "1023 B", "1.5 KiB", "2794.0 GiB"]);
    assert_eq!([59, 60, 7200, 172_800].map(ago), ["59s", "1m", "2h", "2d"]);
    assert_eq!([0.000_25, 0.012, 2.0].map(seconds), ["250us", "12ms", "2.0s"]);
}
