use super::*;

#[test]
fn a_name_is_allocated_once() {
    let first = intern("upstream.same");
    let again = intern(&format!("upstream.{}", "same"));
    assert_eq!(first, "upstream.same");
    assert!(std::ptr::eq(first, again));
}
