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
        ("/ws/chat/./", None),
        ("/ws/chat/../", None),
        ("/ws/chat/%2e/", None),
        ("/ws/chat/%2E%2e/", None),
        ("/ws/chat/.%2e/", None),
        ("/ws/chat/%252e%252e/", None),
        ("/ws/chat/%25252e%252e/", None),
        ("/ws/chat/..%2fadmin/", None),
        ("/ws/chat/a%2f%2e%2e%2fb/", None),
        ("/ws/chat/%2e%2e%5cadmin/", None),
        ("/ws/chat/a%252f..%252fb/", None),
        ("/ws/chat/..;x/", None),
        ("/ws/chat/..%3Bx=1%2Fadmin/", None),
        ("/ws/chat/%2e%2e%20/", None),
        ("/ws/chat/%c0%ae%c0%ae/", None),
        ("/ws/chat/a;../", Some("a;..")),
        ("/ws/chat/.../", Some("...")),
        ("/ws/chat/.env/", Some(".env")),
        ("/ws/chat/a..b/", Some("a..b")),
        ("/ws/chat/100%25/", Some("100%")),
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
    let params = PathPattern::parse("/{id}").unwrap().matches("/a%2Fadmin%3Fx").unwrap();
    let context = TemplateContext { params: &params, user_id: &7, channel: Some("c") };
    let template = Template::parse("http://api/{id}/u{user_id}/{channel}").unwrap();
    assert_eq!(template.fill_url(context).as_deref(), Ok("http://api/a%2Fadmin%3Fx/u7/c"));
    assert_eq!(template.fill(context), "http://api/a/admin?x/u7/c");
}

#[test]
fn no_value_leads_out_of_its_place_in_a_url() {
    let no_params = Params::default();
    let fill = |template: &str, user_id: &str, channel: &str| {
        let context =
            TemplateContext { params: &no_params, user_id: &user_id, channel: Some(channel) };
        Template::parse(template).unwrap().fill_url(context)
    };
    let url = "http://api/internal/{user_id}/x";
    for user in [
        "",
        ".",
        "..",
        "%2e%2e",
        "%252E.",
        "../admin",
        "a/../b",
        "..\\b",
        "%2e%2e%2fb",
        "..;a",
        ".. ",
    ] {
        assert_eq!(fill(url, user, "c"), Err(UnfitForUrl), "{user:?}");
        assert_eq!(fill("http://api/{channel}", "7", user), Err(UnfitForUrl), "{user:?}");
        assert_eq!(fill("ws://api/q?u={user_id}", user, "c"), Err(UnfitForUrl), "{user:?}");
    }
    for user in ["...", "a.b", "a/b", "ana@example.com", ".x", "50%"] {
        assert!(fill(url, user, "c").is_ok(), "{user:?}");
    }
    // Two values, or a value and the text beside it, make a step together.
    assert_eq!(fill("http://api/.{user_id}/x", ".", "c"), Err(UnfitForUrl));
    assert_eq!(fill("http://api/.{user_id}/x", "a", "c").as_deref(), Ok("http://api/.a/x"));
    assert!(fill("http://api/../{user_id}", "7", "c").is_ok(), "the config's own");
}

#[test]
fn a_prefix_becomes_part_of_a_template() {
    let template = Template::parse("{room}").unwrap();
    assert!(template.begins_with_placeholder());
    let prefixed = template.clone().with_prefix("room:");
    assert_eq!(prefixed, Template::parse("room:{room}").unwrap());
    assert_eq!((prefixed.begins_with_placeholder(), prefixed.literal_start()), (false, "room:"));
    assert_eq!(template.clone().with_prefix(""), template);
}
