//! Which URLs are accepted, and the errors of those that are not.

use super::*;

fn error_of(text: &str) -> String {
    match UnloadedRedisUrl::parse(text) {
        Ok(_) => panic!("{text} is accepted"),
        Err(RedisUrlError::Invalid) => String::new(),
        Err(RedisUrlError::Reason(sentence)) => sentence,
    }
}

#[test]
fn urls_are_checked_without_being_shown() {
    for (url, is_valid) in [
        ("redis://127.0.0.1:6379", true),
        ("redis://:hunter2@[::1]/3", true),
        ("rediss://user:hunter2@redis.example.com", true),
        ("unix:///run/redis.sock", true),
        ("unix:///run/redis.sock?db=2&pass=hunter2", true),
        ("", false),
        ("127.0.0.1:6379", false),
        ("http://user:hunter2@127.0.0.1", false),
        ("redis://user:hunter2@/0", false),
        ("redis://user:hunter2@127.0.0.1:x", false),
        ("redis://user:hunter2@127.0.0.1/hunter2", false),
        ("redis://user:hunter2@127.0.0.1/-1", false),
        ("rediss://user:hunter2@127.0.0.1/#insecure", false),
        ("rediss://user:hunter2@127.0.0.1/#hunter2", false),
        ("redis+sentinel://user:hunter2@127.0.0.1/", false),
        ("redis://user?hunter2@127.0.0.1/", false),
        ("redis://user?x=hunter2@127.0.0.1/", false),
        ("redis://127.0.0.1/?db=hunter2", false),
        ("redis://:hunter2@127.0.0.1/?password=hunter2", false),
        ("rediss://127.0.0.1/?ssl_cert_reqs=hunter2", false),
    ] {
        match UnloadedRedisUrl::parse(url) {
            Ok(_) => assert!(is_valid, "{url}"),
            Err(error) => {
                assert!(!is_valid, "{url}: {error:?}");
                assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            }
        }
    }
}

#[test]
fn certificates_are_checked_unless_the_url_says_otherwise() {
    use CertificateCheck::{Chain, Full, Nothing};
    for (query, check) in [
        ("", Full),
        ("?ssl_cert_reqs=required", Full),
        ("?ssl_cert_reqs=CERT_REQUIRED", Full),
        ("?ssl_cert_reqs=optional", Full),
        ("?ssl_cert_reqs=CERT_OPTIONAL&ssl_check_hostname=True", Full),
        ("?ssl_check_hostname=false", Chain),
        ("?ssl_cert_reqs=required&ssl_check_hostname=0", Chain),
        ("?ssl_cert_reqs=none", Nothing),
        ("?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false", Nothing),
    ] {
        let parsed = UnloadedRedisUrl::parse(&format!("rediss://:pw@redis.example:6379/3{query}"));
        assert_eq!(parsed.unwrap_or_else(|_| panic!("{query}")).check, check, "{query}");
    }
}

#[test]
fn parameters_of_python_clients_are_ignored_by_name() {
    let all: String = IGNORED.iter().map(|name| format!("{name}=1&")).collect();
    let url = RedisUrl::example(&format!("redis://user:p%40w@redis:6380/4?{all}"));
    assert_eq!(url.info().redis_settings().db(), 4);
    assert_eq!(url.info().redis_settings().password(), Some("p@w"));
    let url = RedisUrl::example("unix:///run/redis.sock?db=2&username=u&password=p");
    let settings = url.info().redis_settings();
    assert_eq!((settings.db(), settings.username()), (2, Some("u")));
    assert_eq!(RedisUrl::example("redis://r/?db=7").info().redis_settings().db(), 7);
    assert_eq!(RedisUrl::example("redis://r/7?db=7").info().redis_settings().db(), 7);
}

#[test]
fn errors_name_the_reason() {
    for (url, text) in [
        (
            "rediss://r/?ssl_cert_req=none",
            "unknown parameter ssl_cert_req; did you mean ssl_cert_reqs?",
        ),
        ("redis://r/?global_keyprefix=x", "unknown parameter global_keyprefix; the known ones"),
        ("rediss://r/?ssl_min_version=TLSv1_3", "unknown parameter ssl_min_version"),
        ("redis://r/?x=1@h", "unknown parameter;"),
        ("redis://r/?ssl_cert_reqs=none", "ssl_cert_reqs needs TLS; write rediss://"),
        ("rediss://r/?ssl_cert_reqs=maybe", "ssl_cert_reqs as none, optional or required"),
        ("rediss://r/?ssl_cert_reqs=none&ssl_cert_reqs=none", "ssl_cert_reqs only once"),
        ("rediss://r/?ssl_check_hostname=si", "ssl_check_hostname as true or false"),
        ("rediss://r/?ssl_cert_reqs=none&ssl_check_hostname=true", "cannot be combined"),
        ("rediss://r/?ssl_ca_certs=", "ssl_ca_certs as the path"),
        ("rediss://r/?ssl_keyfile=k", "ssl_certfile as well"),
        ("rediss://r/#insecure", "ssl_cert_reqs=none"),
        ("redis://r/3?db=4", "different databases"),
        ("redis://r/?db=-4", "db as a number"),
        ("redis://u:p@r/?username=u", "the username only once"),
    ] {
        assert!(error_of(url).contains(text), "{url}: {}", error_of(url));
    }
}

#[test]
fn files_must_have_valid_contents() {
    let key = include_str!("../../../tests/keys/p256.pem");
    let load_error = |url: &str, contents: Result<&str, &str>| {
        let read = |_: &str| contents.map(str::to_owned).map_err(str::to_owned);
        UnloadedRedisUrl::parse(url).unwrap_or_else(|_| panic!("{url}")).load(read).unwrap_err()
    };
    assert_eq!(load_error("rediss://r/?ssl_ca_certs=a", Err("missing")), "ssl_ca_certs: missing");
    assert!(load_error("rediss://r/?ssl_ca_certs=a", Ok("no PEM")).starts_with("ssl_ca_certs: "));
    assert!(load_error("rediss://r/?ssl_ca_certs=a", Ok(key)).starts_with("ssl_ca_certs: "));
    assert!(load_error("rediss://r/?ssl_certfile=a", Ok(key)).starts_with("ssl_certfile: "));
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(load_error("rediss://r/?ssl_certfile=a", Ok(pem)).starts_with("ssl_keyfile: "));
}
