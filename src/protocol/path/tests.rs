use super::*;
use crate::protocol::{Template, TemplateContext};

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
        "/app/**",
    ] {
        assert!(PathPattern::parse(text).is_err(), "{text}");
    }
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
