use super::*;

#[test]
fn every_route_counts() {
    assert_eq!(routes(1, 0), "1 route");
    assert_eq!(routes(1, 1), "2 routes (1 with a fixed reply)");
    assert_eq!(routes(0, 1), "1 route (1 with a fixed reply)");
}

#[test]
fn numbers_and_nouns_agree() {
    assert_eq!(count(0, "route"), "0 routes");
    assert_eq!(count(1, "route"), "1 route");
    assert_eq!(count(2, "route"), "2 routes");
}
