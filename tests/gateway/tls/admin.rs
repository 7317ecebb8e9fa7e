//! TLS on the admin port: its clients, with and without certificates, and the program's own commands.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::OPEN;
use crate::commands::{tidegate, tidegate_with};
use crate::rig::tls_tunnel::{certificate, server_tls_file};
use crate::rig::{API_KEY, Gateway, RawClient, Settings, TlsClient, within};

async fn start(more: &str) -> Gateway {
    let lines = format!("{}\n{more}", certificate("localhost"));
    Gateway::start(Settings::new().section("admin.tls", &lines).route(OPEN)).await
}

/// The status and the text of a response to `GET path`.
async fn get(gateway: &Gateway, client: &TlsClient, path: &str) -> std::io::Result<String> {
    let mut stream = client.try_connect(gateway.admin()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    within("the answer", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8(answer).expect("text"))
}

#[tokio::test]
async fn the_admin_port_speaks_tls_and_the_public_one_does_not() {
    let gateway = start("").await;
    let page = get(&gateway, &TlsClient::new(), "/metrics").await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    let finished = r#"tidegate_tls_handshakes_total{port="admin",outcome="full"} 1"#;
    assert!(page.contains(finished), "{page}");
    assert!(
        page.contains(
            r#"tidegate_tls_certificate_expiry_timestamp_seconds{certificate="admin.tls"}"#
        )
    );
    let mut plain = RawClient::connect(gateway.admin()).await;
    plain.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = String::from_utf8(plain.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("tls_expected"), "{answer}");
    // The handshakes of one port are not those of the other.
    let mut public = RawClient::connect(gateway.addr()).await;
    public.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(public.read_to_end().await.starts_with(b"HTTP/1.1 404 "));
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_authority() {
    let gateway = start(&format!("client_ca = {:?}", server_tls_file("ca.pem"))).await;
    let known = TlsClient::with_certificate("server_tls", "client");
    let alive = get(&gateway, &known, "/livez").await.unwrap();
    assert!(alive.starts_with("HTTP/1.1 200 "), "{alive}");
    let stranger = TlsClient::with_certificate("redis_tls", "client");
    for client in [TlsClient::new(), stranger] {
        // In TLS 1.3 the client learns of the refusal when it reads.
        let refused = get(&gateway, &client, "/livez").await;
        assert!(refused.is_err(), "{refused:?}");
    }
    let page = get(&gateway, &known, "/metrics").await.unwrap();
    let refused = r#"tidegate_tls_handshakes_total{port="admin",outcome="client_certificate"} 2"#;
    assert!(page.contains(refused), "{page}");
}

#[tokio::test]
async fn the_commands_talk_to_a_port_with_tls() {
    let gateway = start("").await;
    let port = gateway.admin().port();
    let (url, ca) = (format!("https://localhost:{port}"), server_tls_file("ca.pem"));
    let listen = gateway.admin().to_string();
    let key = ("TIDEGATE_API_KEY", API_KEY);
    let publish = ["publish", "open", r#"{"event":"x"}"#];
    let with_ca = ["--url", &url, "--ca", &ca];
    assert_eq!(tidegate(&[&["health"], &with_ca[..]].concat()).await.ok(), "ready\n");
    tidegate_with(&[key], &[&publish[..], &with_ca].concat()).await.ok();
    // The system does not trust the authority, and a server that is not the gateway gets no key.
    let untrusted = tidegate_with(&[key], &[&publish[..], &["--url", &url]].concat()).await;
    assert_ne!(untrusted.code, Some(0), "{untrusted:?}");
    let plain = format!("http://localhost:{port}");
    assert_ne!(tidegate(&["health", "--url", &plain]).await.code, Some(0));
    // The config file has the certificate.
    let file = gateway.config_file();
    let config = ["--config", file.to_str().unwrap()];
    let env = [("TIDEGATE__ADMIN__LISTEN", listen.as_str())];
    assert_eq!(tidegate_with(&env, &[&["health"], &config[..]].concat()).await.ok(), "ready\n");
    tidegate_with(&env, &[&publish[..], &config].concat()).await.ok();
    let token = ["token", "--user", "1"];
    tidegate_with(&env, &[&token[..], &config].concat()).await.ok();
    // Another certificate than that of the file is not the gateway's.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("localhost.pem", "renewed.pem")).unwrap();
    let other = tidegate_with(&env, &[&publish[..], &config].concat()).await;
    assert_ne!(other.code, Some(0), "{other:?}");
    assert_eq!(tidegate_with(&env, &[&["health"], &config[..]].concat()).await.ok(), "ready\n");
}

#[tokio::test]
async fn the_commands_have_certificates_too() {
    let gateway = start(&format!("client_ca = {:?}", server_tls_file("ca.pem"))).await;
    let (url, ca) =
        (format!("https://localhost:{}", gateway.admin().port()), server_tls_file("ca.pem"));
    let with_ca = ["health", "--url", &url, "--ca", &ca];
    assert_ne!(tidegate(&with_ca).await.code, Some(0));
    let (chain, key) = (server_tls_file("client.pem"), server_tls_file("client.key"));
    let identity = ["--client-certificate", &chain, "--client-key", &key];
    assert_eq!(tidegate(&[&with_ca[..], &identity].concat()).await.ok(), "ready\n");
    let half = tidegate(&[&with_ca[..], &identity[..2]].concat()).await;
    assert_eq!(half.code, Some(2), "{half:?}");
}
