use super::*;

#[test]
fn the_code_alone_decides_what_the_client_should_do() {
    for (one, other) in CloseReason::ALL.iter().zip(&CloseReason::ALL[1..]) {
        assert!(one.code() <= other.code(), "{one} and {other} are in the order of their codes");
        if one.code() == other.code() {
            assert_eq!(one.action(), other.action(), "{one} and {other}");
        }
    }
    assert!(CloseReason::ALL.iter().all(|reason| reason.text().len() <= 123));
}
