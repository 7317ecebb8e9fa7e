//! Requests as files have them. Most mistakes are in tests/config_samples/invalid/requests.toml.

use std::path::Path;

use super::*;
use crate::config::{Config, Environment, UpstreamKind};

fn upstream(lines: &str) -> String {
    format!(
        "[[route]]\npath = \"/ws\"\nchannel = \"c\"\nauth = [\"anonymous\"]\nupstream = \"ai\"\n\
         [upstream.ai]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n{lines}"
    )
}

fn request_in(lines: &str, folder: &Path) -> HttpRequest {
    let environment = Environment::from_iter([("KEY", "hunter2")]);
    let config = Config::parse(&upstream(lines), &environment, folder)
        .unwrap_or_else(|mistakes| panic!("{lines}\n{mistakes}"));
    let UpstreamKind::Http(http) = &config.upstreams["ai"].kind else { panic!("{config:?}") };
    // A secret is in no debug output.
    assert!(!format!("{config:?}").contains("hunter2"));
    http.request.clone()
}

fn request_of(lines: &str) -> HttpRequest {
    request_in(lines, Path::new(""))
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    let found = request.headers.iter().find(|(other, _)| other == name);
    found.expect(name).1.to_str().unwrap()
}

#[test]
fn without_keys_a_request_is_what_it_always_was() {
    assert_eq!(request_of(""), HttpRequest::default());
}

#[test]
fn values_of_headers_come_from_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "hunter2\n").unwrap();
    let request = request_in(
        "headers = { X-Plain = \"2023-06-01\", x-env = \"${KEY}\", x-whole_file = \"key\", \
         authorization = { file = \"key\", prefix = \"Bearer \" }, x-umlaut = \"ü\" }",
        folder.path(),
    );
    assert_eq!(header(&request, "x-plain"), "2023-06-01");
    assert_eq!(header(&request, "x-env"), "hunter2");
    assert_eq!(header(&request, "x-whole"), "hunter2");
    assert_eq!(header(&request, "authorization"), "Bearer hunter2");
    let umlaut = request.headers.iter().find(|(name, _)| name == "x-umlaut").unwrap();
    assert_eq!(umlaut.1.as_bytes(), "ü".as_bytes());
}

#[test]
fn headers_that_users_need_can_be_set_and_forwarded() {
    for name in [
        "accept",
        "content-type",
        "user-agent",
        "cookie",
        "cf-aig-authorization",
        "x-goog-api-key",
        "x-amzn-bedrock-guardrailidentifier",
        "x-forwarded-proto",
        "proxy-status",
    ] {
        let request = request_of(&format!("headers = {{ {name} = \"v\" }}"));
        assert_eq!(header(&request, name), "v");
    }
    let request = request_of(
        "forward_headers = [\"Authorization\", \"Accept-Language\", \"User-Agent\", \"X-Tenant\"]\n\
         forward_cookies = [\"sessionid\", \"__Host-x\"]",
    );
    let names: Vec<&str> = request.forward.headers.iter().map(HeaderName::as_str).collect();
    assert_eq!(names, ["authorization", "accept-language", "user-agent", "x-tenant"]);
    assert_eq!(request.forward.cookies, ["sessionid", "__Host-x"]);
}

#[test]
fn no_more_names_are_forwarded_than_can_be_kept() {
    let names =
        |count: usize| (0..count).map(|n| format!("\"x-{n}\"")).collect::<Vec<_>>().join(",");
    let lines = format!("forward_headers = [{}]", names(MAX_FORWARDED));
    assert_eq!(request_of(&lines).forward.headers.len(), MAX_FORWARDED);
    let text = upstream(&format!("forward_headers = [{}]", names(MAX_FORWARDED + 1)));
    let report = Config::from_toml(&text).unwrap_err().to_string();
    assert_eq!(report, "upstream.ai.forward_headers: write at most 32 names");
}

#[test]
fn a_body_has_three_forms() {
    assert_eq!(request_of("body = \"data\"").body, RequestBody::Data);
    assert_eq!(request_of("body = \"envelope\"").body, RequestBody::Envelope);
    for lines in [
        "body = { model = \"m\", messages = [{ role = \"user\", content = \"{message}\" }] }",
        "body = [{ spread = \"messages\" }]",
        "body = { field = \"payload\", required = true }",
        "[upstream.ai.body]\nmodel = \"m\"\n[[upstream.ai.body.messages]]\nrole = \"user\"",
    ] {
        assert!(matches!(request_of(lines).body, RequestBody::Template(_)), "{lines}");
    }
    let request = request_of("method = \"GET\"");
    assert!(!request.has_body() && !request.sends_whole_object());
}
