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
    for text in [
        "ws",
        "/a//b",
        "/{a}/{a}",
        "/x{a}",
        "/{a b}",
        "/{",
        "/a?b",
        "/{a*}/b",
        "/{a*}/",
        "/x{a*}",
        "/{a}/{a*}",
        "//{a*}",
        "/a//{a*}",
        "/{*}",
        "/{a**}",
        "/*",
    ] {
        assert!(PathPattern::parse(text).is_err(), "{text}");
    }
    for text in ["{", "}", "{a", "{}", "{a b}", "{*}", "{a**}"] {
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

#[test]
fn a_rest_takes_what_is_left_of_a_path() {
    let long = format!("/app/{}", "a".repeat(4096));
    let too_long = format!("/app/{}", "a".repeat(4097));
    for (pattern, path, expected) in [
        ("/app/{rest*}", "/app", Some("")),
        ("/app/{rest*}", "/app/", Some("")),
        ("/app/{rest*}", "/app/a", Some("a")),
        ("/app/{rest*}", "/app/a/", Some("a/")),
        ("/app/{rest*}", "/app/a//b/%2F?", Some("a//b/%2F?")),
        ("/app/{rest*}", "/app/a%20b/%C3%BC/%41", Some("a%20b/%C3%BC/%41")),
        ("/app/{rest*}", "/%61pp/.../.env/a..b", Some(".../.env/a..b")),
        ("/app/{rest*}", "/application", None),
        ("/app/{rest*}", "/", None),
        ("/app/{rest*}", "app/a", None),
        ("/app/{rest*}", "/app/..", None),
        ("/app/{rest*}", "/app/.", None),
        ("/app/{rest*}", "/app/a/%2e%2E/b", None),
        ("/app/{rest*}", "/app/a%2f..%2Fb", None),
        ("/app/{rest*}", "/app/%252e%252e", None),
        ("/app/{rest*}", "/app/a\\..\\b", None),
        ("/app/{rest*}", "/app/%5c..", None),
        ("/app/{rest*}", "/app/%00", None),
        ("/app/{rest*}", "/app/%0d%0a", None),
        ("/app/{rest*}", "/app/%ff", None),
        ("/app/{rest*}", &long, Some(&long[5..])),
        ("/app/{rest*}", &too_long, None),
        ("/{rest*}", "/", Some("")),
        ("/{rest*}", "/a/b", Some("a/b")),
        ("/{a}/x/{rest*}", "/1/x", Some("")),
        ("/{a}/x/{rest*}", "/1/x/2/3", Some("2/3")),
        ("/{a}/x/{rest*}", "//x/2", None),
        ("/{a}/{rest*}", "/", None),
    ] {
        let params = PathPattern::parse(pattern).unwrap().matches(path);
        let filled = params.map(|params| {
            let context = TemplateContext { params: &params, user_id: &7, channel: None };
            let url = Template::parse("ws://app/base/{rest*}").unwrap().fill_url(context).unwrap();
            let same = Template::parse("ws://app/base/{rest}").unwrap().fill_url(context);
            assert_eq!(same.as_ref(), Ok(&url), "{path}");
            url.strip_prefix("ws://app/base/").unwrap().to_owned()
        });
        assert_eq!(filled.as_deref(), expected, "{path} at {pattern}");
    }
}

#[test]
fn a_rest_is_decoded_except_in_the_path_of_a_url() {
    let pattern = PathPattern::parse("/{room}/{rest*}").unwrap();
    let params = pattern.matches("/a%20b/c%26d=e/%C3%BC").unwrap();
    let context = TemplateContext { params: &params, user_id: &7, channel: Some("c") };
    assert_eq!(pattern.names().collect::<Vec<_>>(), ["room", "rest"]);
    assert_eq!(params.get("rest"), Some("c&d=e/ü"));
    assert_eq!(Template::parse("{room}:{rest}").unwrap().fill(context), "a b:c&d=e/ü");
    let url = |text: &str| Template::parse(text).unwrap().fill_url(context).unwrap();
    assert_eq!(url("ws://a/{room}/{rest*}?u={user_id}"), "ws://a/a%20b/c%26d=e/%C3%BC?u=7");
    // In a query the rest could add parameters of its own.
    assert_eq!(url("ws://a/?path={rest*}"), "ws://a/?path=c%26d%3De%2F%C3%BC");
    let empty = pattern.matches("/a/").unwrap();
    let context = TemplateContext { params: &empty, user_id: &7, channel: Some("c") };
    for (text, expected) in
        [("ws://a/{rest*}", "ws://a/"), ("ws://a/?p={rest}&x=1", "ws://a/?p=&x=1")]
    {
        assert_eq!(Template::parse(text).unwrap().fill_url(context).as_deref(), Ok(expected));
    }
    // The text beside a rest makes no step together with it.
    let dot = PathPattern::parse("/{rest*}").unwrap().matches("/%2ea").unwrap();
    let context = TemplateContext { params: &dot, user_id: &7, channel: None };
    assert!(Template::parse("ws://a/.{rest*}").unwrap().fill_url(context).is_ok());
    let slash = PathPattern::parse("/{rest*}").unwrap().matches("//a").unwrap();
    let context = TemplateContext { params: &slash, user_id: &7, channel: None };
    assert_eq!(Template::parse("ws://a/.{rest*}").unwrap().fill_url(context), Err(UnfitForUrl));
}

#[test]
fn the_most_specific_rest_comes_first() {
    let mut patterns: Vec<_> =
        ["/{rest*}", "/{a}/b/{rest*}", "/a/{x}/{rest*}", "/a/{rest*}", "/a/b/{rest*}"]
            .map(|text| PathPattern::parse(text).unwrap())
            .into();
    patterns.sort_by(PathPattern::compare_rest);
    let order: Vec<&str> = patterns.iter().map(PathPattern::as_str).collect();
    let expected = ["/a/b/{rest*}", "/a/{x}/{rest*}", "/{a}/b/{rest*}", "/a/{rest*}", "/{rest*}"];
    assert_eq!(order, expected);
}
