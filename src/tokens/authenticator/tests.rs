use super::*;
use crate::protocol::PathPattern;

#[test]
fn a_binding_is_no_wildcard_for_clients() {
    let binding = Template::parse("chat-{id}-*").unwrap();
    let path = PathPattern::parse("/{id}").unwrap();
    let is_bound = |path_text: &str, id: &str| {
        let params = path.matches(path_text).unwrap();
        matches_binding(&binding, id, &params, &Identity::anonymous())
    };
    assert!(is_bound("/42", "chat-42-1764500000"));
    assert!(!is_bound("/42", "chat-421-1764500000"));
    assert!(!is_bound("/42", ""));
    assert!(!is_bound("/*", "chat-42-1764500000"));
}
