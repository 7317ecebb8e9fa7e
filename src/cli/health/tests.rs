use super::*;

fn response(status: u16, body: &str) -> ApiResponse {
    let status = StatusCode::from_u16(status).unwrap();
    ApiResponse { status, body: body.to_owned().into() }
}

#[test]
fn failed_checks_are_printed() {
    let ready = response(200, r#"{"ready":true,"checks":{"redis":"ok","shutdown":"ok"}}"#);
    assert_eq!(evaluate(false, &ready), (true, "ready".to_owned()));
    let not_ready = response(
        503,
        r#"{"ready":false,"checks":{"redis":"Redis cannot be reached","shutdown":"ok"}}"#,
    );
    let lines = "not ready\n  redis: Redis cannot be reached".to_owned();
    assert_eq!(evaluate(false, &not_ready), (false, lines));
    for other in [response(200, "ok"), response(404, "{}"), response(200, r#"{"ready":true}"#)] {
        assert!(!evaluate(false, &other).0);
    }
    assert!(evaluate(true, &response(200, "ok\n")).0);
    assert!(!evaluate(true, &response(502, "")).0);
}

#[test]
fn the_admin_port_comes_from_the_config_or_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let args = |config: Option<PathBuf>| Args {
        config,
        url: None,
        live: false,
        timeout: Duration::from_secs(1),
        tls: TlsArgs::default(),
    };
    let at = |args: &Args, variable: Option<&str>| {
        let environment = Environment::from_iter(variable.map(|v| (LISTEN_VARIABLE, v)));
        let api = admin_port(args, &environment, variable.map(str::to_owned));
        api.map(|api| api.authority().to_owned()).map_err(|failure| failure.0)
    };
    assert_eq!(at(&args(None), None).unwrap(), "127.0.0.1:9000");
    assert_eq!(at(&args(None), Some("0.0.0.0:9100")).unwrap(), "127.0.0.1:9100");
    assert!(at(&args(None), Some("here")).unwrap_err().contains(LISTEN_VARIABLE));
    // Mistakes of other keys do not matter.
    std::fs::write(&path, "x = 1\n[admin]\nlisten = \"0.0.0.0:9200\"\nnot = 1").unwrap();
    assert_eq!(at(&args(Some(path.clone())), None).unwrap(), "127.0.0.1:9200");
    assert_eq!(at(&args(Some(path.clone())), Some("127.0.0.1:9300")).unwrap(), "127.0.0.1:9300");
    std::fs::write(&path, "[admin]\nlisten = \"nowhere\"").unwrap();
    assert!(at(&args(Some(path)), None).unwrap_err().contains("admin.listen"));
}
