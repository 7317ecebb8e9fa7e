use super::*;

#[test]
fn the_id_of_a_proxy_is_used_if_it_is_valid() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(trace).unwrap();
    let id = |given: Option<&str>| RequestId::new(given, &trace).to_string();
    assert_eq!(id(Some("req-1/b=")), "req-1/b=");
    for none in [None, Some(""), Some("a b"), Some("a\n"), Some("ä"), Some(&"x".repeat(129))] {
        assert_eq!(id(none), "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
