use super::*;
use crate::protocol::PathPattern;

#[test]
fn invalid_templates_are_refused() {
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
