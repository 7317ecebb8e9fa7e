use super::*;

#[test]
fn paths_and_methods_find_their_resource() {
    let found = |resource| Some(Found::Resource(resource));
    let api = |endpoint| found(Resource::Api(endpoint));
    let presence = |channel: &str| api(Endpoint::Presence(channel.to_owned()));
    for (path, expected) in [
        ("/metrics", found(Resource::Metrics)),
        ("/v1/openapi.json", found(Resource::OpenApi)),
        ("/v1/channels", api(Endpoint::Channels)),
        ("/v1/channels/chat_42/presence", presence("chat_42")),
        ("/v1/channels/a%2Fb/presence", presence("a%2Fb")),
        ("/v1/channels//presence", presence("")),
        ("/v1/channels/a", api(Endpoint::Channel("a".to_owned()))),
        ("/v1/channels/", api(Endpoint::Channel(String::new()))),
        ("/v1/channels/a/b/presence", None),
        ("/v1/channels/a/presence/", None),
        ("/metrics/", None),
        ("/", None),
        ("", None),
        ("*", None),
    ] {
        let found = Resource::find("GET", path);
        assert_eq!(found, expected.unwrap_or(Found::Nothing), "{path}");
    }
}

#[test]
fn other_methods_are_told_which_there_are() {
    let allow = |text: &str| Found::Allow(text.to_owned());
    assert_eq!(Resource::find("POST", "/metrics"), allow("GET, HEAD, OPTIONS"));
    assert_eq!(Resource::find("HEAD", "/v1/tokens"), allow("POST, OPTIONS"));
    assert_eq!(Resource::find("HEAD", "/livez"), Found::Resource(Resource::Live));
    assert_eq!(Resource::find("OPTIONS", "/v1/none"), Found::Nothing);
}
