use super::*;

fn checked(
    target: &str,
    method: Method,
    version: Version,
    headers: &[(&str, &str)],
) -> Result<String, HeadMistake> {
    let mut request = Request::builder().method(method).uri(target).version(version);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(()).unwrap();
    check_head(&mut request)?;
    Ok(request.headers().get(HOST).map_or(String::new(), |host| host.to_str().unwrap().to_owned()))
}

fn with_hosts(hosts: &[&str]) -> Result<String, HeadMistake> {
    let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
    checked("/", Method::GET, Version::HTTP_11, &hosts)
}

#[test]
fn there_is_one_host() {
    for host in [
        "app.test",
        "app.test:8000",
        "app.test:",
        "localhost",
        "10.0.0.1:80",
        "[::1]",
        "[::1]:8000",
        "my_service",
        "a%20b",
        "APP.test",
    ] {
        assert_eq!(with_hosts(&[host]), Ok(host.to_owned()));
    }
    for hosts in [
        &[][..],
        &["a", "a"],
        &["a", "b"],
        &[""],
        &["a b"],
        &["a, b"],
        &["a,b"],
        &["a/b"],
        &["a?b"],
        &["a#b"],
        &["me@a"],
        &["a:b"],
        &["a:80:80"],
        &["a:65536"],
        &["[::1"],
        &["::1"],
        &["[::1]x"],
        &["[a]"],
        &[":80"],
        &["a%2"],
        &["a%zz"],
        &["a\\b"],
        &["http://a"],
        &["a\"b"],
    ] {
        assert_eq!(with_hosts(hosts), Err(HeadMistake::Host), "{hosts:?}");
    }
    let old = |headers: &[_]| checked("/", Method::GET, Version::HTTP_10, headers);
    assert_eq!(old(&[]), Ok(String::new()));
    assert_eq!(old(&[("host", "a"), ("host", "b")]), Err(HeadMistake::Host));
}

#[test]
fn each_form_of_target_has_its_method() {
    let target = |method: &str, target: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        checked(target, method, Version::HTTP_11, &[("host", "given.test")])
    };
    for (method, form, host) in [
        ("GET", "/", "given.test"),
        ("GET", "//x?y=http://z", "given.test"),
        ("GET", "http://named.test/a", "named.test"),
        ("POST", "https://named.test:8443", "named.test:8443"),
        ("OPTIONS", "*", "given.test"),
        ("OPTIONS", "/x", "given.test"),
    ] {
        assert_eq!(target(method, form), Ok(host.to_owned()), "{method} {form}");
    }
    for (method, form, mistake) in [
        ("GET", "*", HeadMistake::Target),
        ("GET", "named.test", HeadMistake::Target),
        ("GET", "named.test:443", HeadMistake::Target),
        ("GET", "ftp://named.test/a", HeadMistake::Target),
        ("GET", "http://me@named.test/a", HeadMistake::Target),
        ("OPTIONS", "named.test:443", HeadMistake::Target),
        ("CONNECT", "named.test:443", HeadMistake::Connect),
        ("CONNECT", "named.test", HeadMistake::Target),
        ("CONNECT", "/x", HeadMistake::Target),
        ("CONNECT", "http://named.test/a", HeadMistake::Target),
    ] {
        assert_eq!(target(method, form), Err(mistake), "{method} {form}");
    }
}

#[test]
fn the_transfer_coding_is_chunked() {
    let coded = |codings: &[&str]| {
        let mut headers = vec![("host", "a")];
        headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
        checked("/", Method::POST, Version::HTTP_11, &headers).map(drop)
    };
    for codings in [&[][..], &["chunked"], &["Chunked"]] {
        assert_eq!(coded(codings), Ok(()), "{codings:?}");
    }
    for codings in [
        &["gzip"][..],
        &["identity"],
        &["gzip, chunked"],
        &["chunked, chunked"],
        &["chunked", "chunked"],
        &["gzip", "chunked"],
        &["chunked;a=b"],
        &[""],
    ] {
        assert_eq!(coded(codings), Err(HeadMistake::TransferEncoding), "{codings:?}");
    }
}

#[test]
fn a_request_that_must_not_be_passed_on_is_about_the_server() {
    for (method, target, left, expected) in [
        (Method::OPTIONS, "*", None, true),
        (Method::OPTIONS, "/", None, false),
        (Method::OPTIONS, "/", Some("0"), true),
        (Method::OPTIONS, "/", Some("1"), false),
        (Method::OPTIONS, "/", Some("x"), false),
        (Method::TRACE, "/", Some("0"), true),
        (Method::GET, "/", Some("0"), false),
    ] {
        let mut request = Request::builder().method(&method).uri(target);
        if let Some(left) = left {
            request = request.header("max-forwards", left);
        }
        let request = request.body(()).unwrap();
        assert_eq!(is_about_the_server(&request), expected, "{method} {target} {left:?}");
    }
}
