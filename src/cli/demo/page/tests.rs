use super::*;
use http_body_util::BodyExt as _;

fn page() -> Page {
    Page::new(Secret::new("0123456789abcdef0123456789abcdef"))
}

#[tokio::test]
async fn the_page_has_a_session_and_a_policy() {
    let response = page().page(&HeaderMap::new()).unwrap();
    let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
    let cookies: Vec<_> = cookies.iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert!(cookies[0].starts_with("access_token=ey") && cookies[0].contains("; HttpOnly"));
    assert!(cookies[1].starts_with("csrftoken=") && !cookies[1].contains("HttpOnly"));
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let html = response.into_body().collect().await.unwrap().to_bytes();
    let html = std::str::from_utf8(&html).unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(html.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!html.contains("{{"));
    // The demo must work without a network.
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn a_browser_stays_the_same_guest() {
    let page = page();
    let cookies = |session: &str| {
        let cookie = format!("theme=dark; access_token={session}; csrftoken=x");
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(cookie).unwrap())])
    };
    assert_eq!(page.guest(&cookies(&page.session(123_456).unwrap())), Some(123_456));
    let expired = json!({"user_id": 7, "exp": 1});
    let expired = sign_hs(&page.jwt_secret, Algorithm::HS256, &expired).unwrap();
    assert_eq!(page.guest(&cookies(&expired)), Some(7));
    let forged = Page::new(Secret::new("another-secret-of-thirty-two-bytes"));
    for session in [&forged.session(1).unwrap(), "", "x.y.z"] {
        assert_eq!(page.guest(&cookies(session)), None, "{session}");
    }
    assert_eq!(page.guest(&HeaderMap::new()), None);
}
