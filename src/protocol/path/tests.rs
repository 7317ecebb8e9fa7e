use super::*;

#[test]
fn paths_match_with_and_without_a_trailing_slash() {
    let pattern = PathPattern::parse("/ws/chat/{conversation_id}/").unwrap();
    for (path, value) in [
        ("/ws/chat/42/", Some("42")),
        ("/ws/chat/42", Some("42")),
        ("/ws/chat/a%20b%2Fc/", Some("a b/c")),
        ("/ws/chat/%00/", None),
        ("/ws/chat/%ff/", None),
        ("/ws/chat//", None),
        ("/ws/chat/", None),
        ("/ws/chat/1/2/", None),
        ("/ws/chatter/1/", None),
        ("ws/chat/1", None),
    ] {
        let params = pattern.matches(path);
        assert_eq!(params.as_ref().and_then(|p| p.get("conversation_id")), value, "{path}");
    }
    assert!(PathPattern::parse("/").unwrap().matches("/").is_some());
    assert!(PathPattern::parse("/").unwrap().matches("/x").is_none());
}

#[test]
fn invalid_patterns_are_refused() {
    for text in ["ws", "/a//b", "/{a}/{a}", "/x{a}", "/{a b}", "/{", "/a?b"] {
        assert!(PathPattern::parse(text).is_err(), "{text}");
    }
    for text in ["{", "}", "{a", "{}", "{a b}"] {
        assert!(Template::parse(text).is_err(), "{text}");
    }
}

#[test]
fn url_templates_encode_values() {
    let params = PathPattern::parse("/{id}").unwrap().matches("/..%2Fadmin%3Fx").unwrap();
    let context = TemplateContext { params: &params, user_id: &7, channel: Some("c") };
    let template = Template::parse("http://api/{id}/u{user_id}/{channel}").unwrap();
    assert_eq!(template.fill_url(context), "http://api/..%2Fadmin%3Fx/u7/c");
    assert_eq!(template.fill(context), "http://api/../admin?x/u7/c");
}
