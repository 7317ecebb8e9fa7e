use super::*;

#[test]
fn a_client_holds_its_share_and_others_hold_the_rest() {
    let shares = Shares::new(5, 2);
    let first = shares.try_acquire(&"a").unwrap();
    let _second = shares.try_acquire(&"a").unwrap();
    assert_eq!(shares.try_acquire(&"a").unwrap_err(), NoPermit::ShareFull);
    let mut others: Vec<_> = ["b", "b", "c"].iter().map(|who| shares.try_acquire(who)).collect();
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(shares.try_acquire(&"d").unwrap_err(), NoPermit::Full);
    others.pop();
    drop(first);
    let again = shares.try_acquire(&"a").unwrap();
    assert_eq!(shares.try_acquire(&"a").unwrap_err(), NoPermit::ShareFull);
    drop((again, others));
    let held = shares.0.held();
    assert_eq!((held.total, held.by_client.len()), (1, 1));
}

#[test]
fn the_share_is_a_quarter_unless_it_is_configured() {
    for (max, configured, share) in
        [(256, 0, 64), (8, 0, 2), (5, 0, 2), (1, 0, 1), (8, 3, 3), (8, 100, 8), (0, 0, 0)]
    {
        assert_eq!(share_of(max, configured), share, "of {max} with {configured}");
    }
}
