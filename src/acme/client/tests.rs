use super::*;

fn headers(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, value.parse().unwrap())])
}

#[test]
fn a_wanted_pause_is_in_seconds_or_a_date() {
    let of = |value: &str| wanted(&headers(RETRY_AFTER, value));
    assert_eq!(of("120"), Some(Duration::from_secs(120)));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    assert!(of(&date).is_some_and(|pause| pause > Duration::from_secs(3500)));
    for other in ["", "-1", "soon", "Fri, 31 Dec 1999 23:59:59 GMT"] {
        assert_eq!(of(other), None, "{other:?}");
    }
}

#[test]
fn only_problem_documents_are_the_authoritys() {
    assert!(is_problem(&headers(CONTENT_TYPE, "application/problem+json; charset=utf-8")));
    assert!(!is_problem(&headers(CONTENT_TYPE, "text/html")));
    assert!(!is_problem(&HeaderMap::new()));
}

#[tokio::test]
async fn only_https_is_asked() {
    let acme = Acme {
        domains: vec!["a.test".to_owned()],
        contact: Vec::new(),
        cache_dir: "/nowhere".into(),
        directory: "http://127.0.0.1:1/dir".parse().unwrap(),
        directory_ca: None,
    };
    let error = check_directory(&acme).await.unwrap_err();
    assert_eq!(error, "the authority names a URL at 127.0.0.1 that is not https");
}
