use super::*;
use proptest::prelude::*;

#[test]
fn samples_are_parsed() {
    let page = "# HELP a What it is.\n# TYPE a counter\na 1\na{b=\"x\",c=\"say \\\"hi\\\"\\\\\\n\"} 2.5e3\n\
                    a{b=\"y\",} 3 1700000000\n\nh_bucket{le=\"+Inf\"} 7\n";
    let parsed = Exposition::parse(page).unwrap();
    assert_eq!(parsed.sum("a", &[]), Some(2504.0));
    assert_eq!(parsed.sum("a", &[("b", "x")]), Some(2500.0));
    assert_eq!(parsed.sum("a", &[("b", "z")]), None);
    assert_eq!(parsed.values("a", "b"), ["x", "y"]);
    assert_eq!(parsed.values("a", "c"), ["say \"hi\"\\\n"]);
    assert_eq!(parsed.buckets("h", &[]), [(f64::INFINITY, 7.0)]);
}

#[test]
fn invalid_lines_are_named() {
    for line in [
        "a",
        "a b",
        "a{b=\"x\" 1",
        "a{b=x} 1",
        "a{b=\"x\\t\"} 1",
        "a{b=\"x\"c=\"y\"} 1",
        "a{b=\"x\",b=\"y\"} 1",
        "a 1 2 3",
        "a 1 soon",
        "a infinity",
        "1a 1",
        "<html>",
    ] {
        let error = Exposition::parse(&format!("ok 1\n{line}\n")).unwrap_err();
        assert!(error.contains("line 2"), "{line}: {error}");
    }
}

#[test]
fn quantiles_lie_within_their_bucket() {
    let now = [(0.1, 50.0), (0.5, 90.0), (1.0, 100.0), (f64::INFINITY, 100.0)];
    assert_eq!(quantile(0.5, &now, &[]), Some(0.1));
    assert!((quantile(0.7, &now, &[]).unwrap() - 0.3).abs() < 1e-9);
    assert!((quantile(0.95, &now, &[]).unwrap() - 0.75).abs() < 1e-9);
    // Only observations since then count.
    let later = [(0.1, 50.0), (0.5, 100.0), (1.0, 110.0), (f64::INFINITY, 110.0)];
    assert!((quantile(0.5, &later, &now).unwrap() - 0.3).abs() < 1e-9);
    assert_eq!(quantile(0.5, &now, &now), None);
    // After a restart of the gateway the counts start from zero.
    assert_eq!(quantile(0.5, &now, &later), Some(0.1));
    // There is no upper bound beyond the last bucket.
    assert_eq!(quantile(0.9, &[(0.1, 1.0), (f64::INFINITY, 10.0)], &[]), Some(0.1));
    assert_eq!(quantile(0.5, &[], &[]), None);
}

proptest! {
    #[test]
    fn nothing_panics(page in "[a-z{}\"\\\\=, 0-9\n#.+é]{0,80}") {
        let _ = Exposition::parse(&page);
    }
}
