use super::*;

fn names(headers: &[&'static str], cookies: &[&str]) -> ForwardedNames {
    ForwardedNames {
        headers: headers.iter().map(|name| HeaderName::from_static(name)).collect(),
        cookies: cookies.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn handshake(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let header = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    headers.iter().map(header).collect()
}

/// Returns the headers of a request, in order, with what is kept of `handshake` for `kept` and still asked for by `asked`.
fn forward(kept: &ForwardedNames, asked: &ForwardedNames, handshake: &HeaderMap) -> Vec<String> {
    let mut request = HeaderMap::new();
    request.insert("user-agent", HeaderValue::from_static("tidegate"));
    if let Some(forwarded) = Forwarded::read(kept, handshake).unwrap() {
        forwarded.add_to(asked, &mut request);
    }
    let text =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut headers: Vec<String> = request.iter().map(text).collect();
    headers.sort();
    headers
}

#[test]
fn only_what_is_named_is_kept_with_all_its_values() {
    let handshake = handshake(&[
        ("x-tenant", "a"),
        ("x-tenant", "b"),
        ("x-other", "c"),
        ("user-agent", "browser"),
        ("cookie", "theme=dark; session=\"se cret\";theme=light"),
        ("cookie", "Theme=x; ids; id=1=2"),
    ]);
    let all = names(&["x-tenant", "user-agent", "x-missing"], &["theme", "id", "ids"]);
    assert_eq!(
        forward(&all, &all, &handshake),
        [
            "cookie: theme=dark; theme=light; id=1=2",
            "user-agent: browser",
            "x-tenant: a",
            "x-tenant: b",
        ]
    );
    // What a reload takes away is not sent any more, and what it adds was not kept.
    let fewer = names(&["x-other"], &["session"]);
    assert_eq!(forward(&all, &fewer, &handshake), ["user-agent: tidegate"]);
    let session = names(&[], &["session"]);
    let sent = forward(&session, &session, &handshake);
    assert_eq!(sent, ["cookie: session=\"se cret\"", "user-agent: tidegate"]);
}

#[test]
fn what_is_of_the_connection_is_not_kept() {
    let handshake =
        handshake(&[("connection", "Upgrade, X-Tenant"), ("x-tenant", "a"), ("x-other", "b")]);
    let names = names(&["x-tenant", "x-other"], &[]);
    assert_eq!(forward(&names, &names, &handshake), ["user-agent: tidegate", "x-other: b"]);
}

#[test]
fn nothing_is_kept_without_a_name_or_a_value() {
    let handshake = handshake(&[("cookie", "a=1"), ("x-a", "1")]);
    for names in [ForwardedNames::default(), names(&["x-b"], &["b"])] {
        assert!(Forwarded::read(&names, &handshake).unwrap().is_none());
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let names = names(&["x-a"], &["b"]);
    let read = |header: usize, cookie: usize| {
        let mut handshake = HeaderMap::new();
        handshake.insert("x-a", HeaderValue::from_str(&"v".repeat(header)).unwrap());
        let cookie = format!("b={}; other={}", "v".repeat(cookie), "v".repeat(10_000));
        handshake.insert(COOKIE, HeaderValue::from_str(&cookie).unwrap());
        Forwarded::read(&names, &handshake).map(|kept| kept.map(|kept| kept.bytes()))
    };
    let half = Forwarded::MAX_BYTES / 2;
    assert_eq!(read(half - 3, half - 2), Ok(Some(Forwarded::MAX_BYTES)));
    assert_eq!(read(half - 2, half - 2), Err(TooLarge));
    assert_eq!(read(half - 3, half - 1), Err(TooLarge));
}

#[test]
fn credentials_have_no_debug_output() {
    let (names, handshake) =
        (names(&["x-a"], &["b"]), handshake(&[("x-a", "hunter2"), ("cookie", "b=hunter2")]));
    let kept = Forwarded::read(&names, &handshake).unwrap().unwrap();
    let mut request = HeaderMap::new();
    kept.add_to(&names, &mut request);
    assert_eq!(request.len(), 2);
    assert!(!format!("{kept:?} {request:?}").contains("hunter2"));
}
