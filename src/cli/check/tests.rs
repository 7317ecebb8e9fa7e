use super::*;

#[test]
fn numbers_and_nouns_agree() {
    assert_eq!(count(0, "route"), "0 routes");
    assert_eq!(count(1, "route"), "1 route");
    assert_eq!(count(2, "route"), "2 routes");
}
