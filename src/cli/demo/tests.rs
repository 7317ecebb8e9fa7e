use super::*;

#[test]
fn every_placeholder_of_the_config_is_filled() {
    let app = App { page: "127.0.0.1:1".parse().unwrap(), worker: "127.0.0.1:2".parse().unwrap() };
    let args = Args {
        listen: "127.0.0.1:8000".parse().unwrap(),
        admin: "127.0.0.1:9000".parse().unwrap(),
    };
    let text = settings(&args, &Secrets::random(), &app);
    assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
    assert_eq!(text.matches("{{").count(), 1, "only the comment: {text}");
}

#[test]
fn the_own_address_is_an_allowed_origin() {
    let listening = |listen: &str| origins(listen.parse().unwrap());
    assert_eq!(listening("127.0.0.1:8000").len(), 2);
    assert_eq!(listening("0.0.0.0:8000").len(), 2);
    assert!(listening("[::1]:8000").contains(&"http://[::1]:*".to_owned()));
    assert!(listening("10.1.2.3:80").contains(&"http://10.1.2.3:*".to_owned()));
    for origin in listening("[::1]:8000") {
        assert!(crate::protocol::OriginPattern::parse(&origin).is_ok(), "{origin}");
    }
}

#[test]
fn the_error_for_a_used_port_names_the_flag() {
    for (key, flag) in [("server.listen", "--listen"), ("admin.listen", "--admin")] {
        let error = StartError::Bind {
            key,
            address: "127.0.0.1:8000".parse().unwrap(),
            error: std::io::ErrorKind::AddrInUse.into(),
        };
        let text = with_advice(&error);
        assert!(text.contains("127.0.0.1:8000") && text.ends_with(flag), "{text}");
    }
}
