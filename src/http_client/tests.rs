use super::*;

#[tokio::test]
async fn an_error_names_its_sources() {
    let tls = tls_config(false).unwrap();
    let client: HttpClient = new(&tls, Duration::from_secs(1), 0);
    // Nothing listens on port 1 (tcpmux).
    let error = client.get("http://127.0.0.1:1/".parse().unwrap()).await.unwrap_err();
    let text = error_chain(&error);
    assert!(text.starts_with("client error (Connect): "), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[test]
fn roots_are_read_once() {
    if let Ok(first) = tls_config(true) {
        assert!(Arc::ptr_eq(&first, &tls_config(true).unwrap()));
    }
}
