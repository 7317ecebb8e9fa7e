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
        ("redis://user:hunter2@/0", true),
        ("redis://:hunter2@127.0.0.1/?password=hunter2", true),
        ("redis://:hunter2@127.0.0.1/?password=hunter2&pass=hunter3", false),
        ("redis://user:hunter2@127.0.0.1:x", false),
        ("redis://user:hunter2@127.0.0.1/hunter2", false),
        ("redis://user:hunter2@127.0.0.1/-1", false),
        ("rediss://user:hunter2@127.0.0.1/#insecure", false),
        ("rediss://user:hunter2@127.0.0.1/#hunter2", false),
        ("redis+sentinel://user:hunter2@127.0.0.1/", false),
        ("redis://user?hunter2@127.0.0.1/", false),
        ("redis://user?x=hunter2@127.0.0.1/", false),
        ("redis://127.0.0.1/?db=hunter2", false),
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
        ("redis://r/?db=-4", "db as a number"),
        ("redis://r/?db=x", "db as a number"),
        ("redis://r/3?virtual_host=4", "virtual_host is for sockets"),
        ("redis+socket:///r.sock?virtual_host=x", "virtual_host as a number"),
        ("redis://u:p@r/?username=v", "the username only once"),
        ("redis://:p@r/?password=q", "the password only once"),
        ("unix://run/redis.sock", "three slashes"),
        ("redis+socket://run/redis.sock", "three slashes"),
        ("unix://", "the path of the socket"),
        ("redis+socket:///?virtual_host=1", "the path of the socket"),
        ("sentinel://r:26379/0", "redis-sentinel://a:26379,b:26379/mymaster"),
        ("redis+sentinel://r:26379/0", "redis-sentinel://a:26379,b:26379/mymaster"),
        ("redis-sentinel://a,b", "the name of the server behind the sentinels"),
        ("redis-sentinel://a,b/", "the name of the server behind the sentinels"),
        ("redis-sentinel://a,b/m/3", "the database as ?db=3"),
        ("redis-sentinel://a/m?db=x", "db as a number"),
        ("redis-sentinel://a,redis-sentinel://b/m", "the scheme once"),
        ("redis-sentinel://a/m?ssl_cert_reqs=none", "needs TLS"),
        ("redis-sentinel://a/m?sentinel_username=u", "sentinel_password as well"),
        ("redis-sentinel://a/m?sentinel_pasword=u", "did you mean sentinel_password"),
        ("redis://a/?sentinel_password=u", "unknown parameter sentinel_password"),
        ("redis+cluster://r/0", "redis-cluster://a:6379,b:6379"),
        ("redis-cluster://a:1,b:2/1", "only database 0"),
        ("redis-cluster://a:1,b:2/?db=3", "only database 0"),
        ("redis-cluster://a:1,redis-cluster://b:2", "the scheme once"),
        ("redis-cluster://a:1/?ssl_cert_reqs=none", "needs TLS"),
        ("redis://a/0;redis://b/0", "one server, not a list"),
        ("redis://a/0,redis://b/0", "one server, not a list"),
        ("redis://:p#w@r/0", "as %23"),
        ("rediss://r/0?ssl_cert_reqs=CERT_MAYBE", "ssl_cert_reqs as none"),
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

/// What redis-py 8.1 (`ConnectionPool.from_url`), kombu 5.7 and Celery 5.7 (`redis+socket` and `rediss`) make of each
/// form: the address, the database, the user name and the password.
#[test]
fn each_form_means_what_it_means_to_python() {
    for (url, address, db, user) in [
        ("redis://", "localhost:6379", 0, (None, None)),
        ("redis:///", "localhost:6379", 0, (None, None)),
        ("redis:///3", "localhost:6379", 3, (None, None)),
        ("redis://:6380/3", "localhost:6380", 3, (None, None)),
        ("redis://h", "h:6379", 0, (None, None)),
        ("redis://h/", "h:6379", 0, (None, None)),
        ("redis://h//", "h:6379", 0, (None, None)),
        ("redis://h/3/", "h:6379", 3, (None, None)),
        ("redis://h//3", "h:6379", 3, (None, None)),
        ("redis://h/%33", "h:6379", 3, (None, None)),
        ("redis://h:6380/3", "h:6380", 3, (None, None)),
        ("redis://h:0/3", "h:6379", 3, (None, None)),
        ("redis://h:/3", "h:6379", 3, (None, None)),
        ("REDIS://H.Example:6379/0?db=3", "h.example:6379", 3, (None, None)),
        ("redis://h?db=3", "h:6379", 3, (None, None)),
        ("redis://h/1?db=0", "h:6379", 0, (None, None)),
        ("redis://h/1?db=", "h:6379", 1, (None, None)),
        ("redis://:pw@h/1", "h:6379", 1, (None, Some("pw"))),
        ("redis://:pw@", "localhost:6379", 0, (None, Some("pw"))),
        ("redis://:pw@/1", "localhost:6379", 1, (None, Some("pw"))),
        ("redis://user:@h/1", "h:6379", 1, (Some("user"), Some(""))),
        ("redis://user@h/1", "h:6379", 1, (Some("user"), Some(""))),
        ("redis://u%40:p%2F%25w@h/1", "h:6379", 1, (Some("u@"), Some("p/%w"))),
        ("redis://:p%zz@h", "h:6379", 0, (None, Some("p%zz"))),
        ("redis://:p@w@h/1", "h:6379", 1, (None, Some("p@w"))),
        ("redis://:p:w@h/1", "h:6379", 1, (None, Some("p:w"))),
        ("redis://:@h", "h:6379", 0, (None, None)),
        ("redis://@h", "h:6379", 0, (None, None)),
        ("redis://[::1]:6380/2", "::1:6380", 2, (None, None)),
        ("redis://u:p@[2001:DB8::1]/2", "2001:db8::1:6379", 2, (Some("u"), Some("p"))),
        ("redis://h/0?username=u&password=p", "h:6379", 0, (Some("u"), Some("p"))),
        ("redis://:p@h/0?username=u", "h:6379", 0, (Some("u"), Some("p"))),
        ("redis://u:p@h/0?username=u&password=p", "h:6379", 0, (Some("u"), Some("p"))),
        ("redis://h/0?password=p%2525+x", "h:6379", 0, (None, Some("p%25 x"))),
        (
            "redis://h/0?protocol=3&socket_timeout=5&socket_keepalive=True",
            "h:6379",
            0,
            (None, None),
        ),
        (" redis://h/0\n", "h:6379", 0, (None, None)),
        ("rediss://", "localhost:6379", 0, (None, None)),
        ("rediss://u:p@h:6380/1?ssl_cert_reqs=CERT_NONE", "h:6380", 1, (Some("u"), Some("p"))),
        ("unix:///run/r.sock", "/run/r.sock", 0, (None, None)),
        ("unix:///run/r.sock?db=2", "/run/r.sock", 2, (None, None)),
        (
            "unix:///run/r%20x.sock?db=1&username=u&password=p",
            "/run/r x.sock",
            1,
            (Some("u"), Some("p")),
        ),
        ("unix://user:pw@/run/r.sock?db=2", "/run/r.sock", 2, (Some("user"), Some("pw"))),
        ("unix://:pw@/run/r.sock", "/run/r.sock", 0, (None, Some("pw"))),
        ("unix://localhost/run/r.sock", "/run/r.sock", 0, (None, None)),
        ("redis+unix:///run/r.sock?db=1", "/run/r.sock", 1, (None, None)),
        ("redis+socket:///run/r.sock", "/run/r.sock", 0, (None, None)),
        ("redis+socket:///run/r.sock?virtual_host=1", "/run/r.sock", 1, (None, None)),
        ("redis+socket:///run/r.sock?virtual_host=/1", "/run/r.sock", 1, (None, None)),
        ("redis+socket:///run/r.sock?db=2", "/run/r.sock", 2, (None, None)),
        ("redis+socket:///run/r.sock?virtual_host=1&db=2", "/run/r.sock", 2, (None, None)),
        ("redis+socket://:pw@/run/r.sock", "/run/r.sock", 0, (None, Some("pw"))),
        (
            "redis+socket://u:p%40w@/run/r.sock?virtual_host=3",
            "/run/r.sock",
            3,
            (Some("u"), Some("p@w")),
        ),
        ("socket:///run/r.sock?virtual_host=1", "/run/r.sock", 1, (None, None)),
    ] {
        let parsed =
            UnloadedRedisUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error:?}"));
        let is_tls = matches!(parsed.info.addr(), ConnectionAddr::TcpTls { .. });
        assert_eq!(is_tls, url.starts_with("rediss"), "{url}");
        let found = match parsed.info.addr() {
            ConnectionAddr::Unix(path) => path.display().to_string(),
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}")
            }
            _ => panic!("{url}"),
        };
        let settings = parsed.info.redis_settings();
        assert_eq!((found.as_str(), settings.db()), (address, db), "{url}");
        assert_eq!((settings.username(), settings.password()), user, "{url}");
    }
    for url in [
        "redis:h",
        "redis:/h",
        "//h",
        "h:6379",
        "redis://h:6379x/0",
        "redis://h:-1/0",
        "redis://h:65536/0",
        "redis://a:b:c/0",
        "redis://[::1/0",
        "redis://[::1]x/0",
        "redis://[h]/0",
        "redis://h h/0",
        "redis://h/abc",
        "redis://h/1/2",
        "redis://h/+1",
        "redis://h/65536",
        "valkey://h/0",
        "amqp://h/0",
    ] {
        assert!(UnloadedRedisUrl::parse(url).is_err(), "{url}");
    }
}

#[test]
fn a_cluster_has_several_nodes() {
    let nodes = |text: &str| -> Vec<String> {
        RedisUrl::example(text).seeds().map(|seed| seed.info().addr().to_string()).collect()
    };
    assert_eq!(nodes("redis-cluster://a:7000,b,[::1]:7002"), ["a:7000", "b:6379", "::1:7002"]);
    assert_eq!(nodes("Redis-Cluster://u:p,q@a:7000/0"), ["a:7000"]);
    assert_eq!(nodes("redis://a:7000"), Vec::<String>::new());
    let url = RedisUrl::example("rediss-cluster://u:p,q@a:7000,b:7001/?ssl_cert_reqs=none");
    assert_eq!(url.check(), CertificateCheck::Nothing);
    let node = url.at("c", 7);
    assert!(!node.is_cluster() && node != url && node != url.at("c", 8));
    assert_eq!(node.check(), CertificateCheck::Nothing);
    assert_eq!(node.info().addr().to_string(), "c:7");
    assert!(matches!(node.info().addr(), ConnectionAddr::TcpTls { .. }));
    assert_eq!(node.info().redis_settings().password(), Some("p,q"));
    for bad in ["redis-cluster://a:1,", "redis-cluster://a:1,,b:1", "redis-cluster://a:1,b:x"] {
        assert_eq!(UnloadedRedisUrl::parse(bad).err(), Some(RedisUrlError::Invalid), "{bad}");
    }
}

#[test]
fn sentinels_have_a_name_for_the_server_and_a_user_of_their_own() {
    let url = RedisUrl::example(
        "redis-sentinel://u:p,q@a:1,b,[::1]:3/my%2Dmaster?db=4&sentinel_username=s&sentinel_password=t",
    );
    assert_eq!((url.sentinel_name(), url.is_cluster()), (Some("my-master"), false));
    let asked: Vec<RedisUrl> = url.sentinels().collect();
    let addresses: Vec<String> = asked.iter().map(|one| one.info().addr().to_string()).collect();
    assert_eq!(addresses, ["a:1", "b:26379", "::1:3"]);
    let settings = asked[0].info().redis_settings();
    assert_eq!(
        (settings.username(), settings.password(), settings.db()),
        (Some("s"), Some("t"), 0)
    );
    let server = url.at("c", 5);
    let settings = server.info().redis_settings();
    assert_eq!((settings.username(), settings.password()), (Some("u"), Some("p,q")));
    assert_eq!((settings.db(), server.info().addr().to_string()), (4, "c:5".to_owned()));
    assert_eq!((server.sentinel_name(), server.sentinels().count()), (None, 0));
    assert_eq!(url.address(), "my-master of the sentinels a:1, b:26379, ::1:3");
    let tls = RedisUrl::example("rediss-sentinel://a/m?ssl_cert_reqs=none");
    for one in tls.sentinels().chain([tls.at("c", 5)]) {
        assert!(matches!(one.info().addr(), ConnectionAddr::TcpTls { .. }));
        assert_eq!(one.check(), CertificateCheck::Nothing);
    }
    assert_eq!(RedisUrl::example("redis://a").sentinels().count(), 0);
}
