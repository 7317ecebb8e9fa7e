use super::*;

#[test]
fn replies_share_a_bound_and_give_it_back() {
    let kept = KeptBytes::new(100);
    let (mut one, mut other) = (kept.share(), kept.share());
    assert!(one.grow(60) && other.grow(40));
    assert!(!one.grow(1), "all is taken");
    drop(other);
    assert!(!one.grow(41), "nothing of what does not fit is taken");
    assert!(one.grow(40));
    assert!(kept_bytes() >= 100, "other tests may keep more");
    drop(one);
    assert!(kept.share().grow(100));
}
