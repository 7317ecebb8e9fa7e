use super::*;

const LISTED: [&str; 28] = [
    "x-forwarded-for",
    "x-forwarded-user",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-rewrite-url",
    "remote-user",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "x-b3-sampled",
    "x-amzn-trace-id",
    "x-original-forwarded-for",
    "x-original-proto",
    "cf-visitor",
    "script-name",
    "path-info",
    "x-sendfile-type",
    "x-goog-authenticated-user-email",
    "x-ms-client-principal-id",
    "x-webauth-user",
    "remote-groups",
    "jaeger-debug-id",
    "x-cloud-trace-context",
];

fn left(names: &[&str], from_trusted_proxy: bool) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for name in names {
        headers.append(name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
    }
    remove_identity_headers(&mut headers, from_trusted_proxy);
    headers.keys().map(ToString::to_string).collect()
}

#[test]
fn a_stranger_sets_none_of_them_in_any_spelling() {
    assert_eq!(left(&LISTED, false), [""; 0]);
    for separator in ["_", ".", "!", "~"] {
        let twins = LISTED.map(|name| name.replace('-', separator));
        let twins = twins.each_ref().map(String::as_str);
        assert_eq!(left(&twins, false), [""; 0], "{separator}");
    }
    let others = [
        "accept",
        "x-own",
        "x-forward",
        "proxy-status",
        "x-tidegate",
        "authorization",
        "content-length",
        "x-http-method-override",
        "x-original-filename",
    ];
    assert_eq!(left(&others, false), others);
}

#[test]
fn a_trusted_proxy_sets_them_by_their_own_names_only() {
    assert_eq!(left(&LISTED, true), LISTED);
    let twins = ["x_forwarded_for", "x-forwarded_for", "x_real_ip", "x_request_id"];
    assert_eq!(left(&twins, true), [""; 0]);
}

#[test]
fn some_are_not_taken_from_anybody() {
    for name in [
        "proxy",
        "x-tidegate-user-id",
        "x_tidegate_user_id",
        "x-tidegate-signature",
        "content_length",
        "content_type",
        "transfer_encoding",
    ] {
        assert_eq!((left(&[name], true), left(&[name], false)), (vec![], vec![]), "{name}");
    }
}
