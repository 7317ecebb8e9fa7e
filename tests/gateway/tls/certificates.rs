//! Which certificate a client gets, and how certificates are renewed.

use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tempfile::TempDir;

use super::{OPEN, open, read_until};
use crate::faults::clock::Clock;
use crate::rig::jwt::in_seconds;
use crate::rig::tls_tunnel::{certificate, server_tls_file};
use crate::rig::{Gateway, Settings, TlsClient, until};

const EXPIRY: &str = "tidegate_tls_certificate_expiry_timestamp_seconds";
const RELOADS: &str = "tidegate_config_reloads_total";

fn leaf(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(server_tls_file(&format!("{name}.pem"))).expect("a certificate")
}

/// The certificate that a client gets, and how many are behind it.
async fn presented(gateway: &Gateway, client: &TlsClient) -> (CertificateDer<'static>, usize) {
    let stream = client.connect(gateway.addr()).await;
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
    (chain[0].clone().into_owned(), chain.len() - 1)
}

#[tokio::test]
async fn clients_get_the_certificate_for_their_name() {
    let settings = Settings::new()
        .section(
            "server.tls",
            &format!(
                "{}\n[[server.tls.certificates]]\n{}",
                certificate("localhost"),
                certificate("wildcard")
            ),
        )
        .route(OPEN);
    let gateway = Gateway::start(settings).await;
    for (name, expected) in [
        ("localhost", "localhost"),
        ("first.test", "localhost"),
        ("second.test", "wildcard"),
        ("any.second.test", "wildcard"),
    ] {
        let client = TlsClient::new().asking_for(name);
        assert_eq!(presented(&gateway, &client).await, (leaf(expected), 1), "{name}");
    }
    let nameless = TlsClient::new().without_name();
    assert_eq!(presented(&gateway, &nameless).await, (leaf("localhost"), 1));
    for table in ["server.tls", "server.tls.certificates[0]"] {
        let expiry = gateway.metric(EXPIRY, &[("certificate", table)]).await;
        assert!(expiry > 4_900_000_000.0, "{table}: {expiry}");
    }
}

/// A certificate in files that a test replaces.
struct Files(TempDir);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        files.replace(name, name);
        files
    }

    fn replace(&self, certificate: &str, key: &str) {
        for (from, to) in
            [(format!("{certificate}.pem"), "tls.pem"), (format!("{key}.key"), "tls.key")]
        {
            // As ACME clients do it: the file is there or not, and never in part.
            let new = self.0.path().join("new");
            std::fs::copy(server_tls_file(&from), &new).expect("a copy");
            std::fs::rename(new, self.0.path().join(to)).expect("a file");
        }
    }

    fn settings(&self, watch: &str) -> Settings {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        let lines = format!("certificate = {:?}\nkey = {:?}", path("tls.pem"), path("tls.key"));
        Settings::new()
            .section("server.tls", &lines)
            .section("reload", &format!("watch = {watch:?}"))
            .route(OPEN)
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_under_a_thousand_connections() {
    let files = Files::new("localhost");
    let settings = files.settings("50ms").also("server", "max_connections_per_ip = 2000");
    let gateway = Gateway::start(settings).await;
    let client = TlsClient::new();
    let mut connections = Vec::new();
    for _ in 0..1000 / 50 {
        let opening = (0..50).map(|_| async { open(client.connect(gateway.addr()).await).await });
        connections.extend(futures_util::future::join_all(opening).await);
    }
    assert_eq!(presented(&gateway, &client).await.0, leaf("localhost"));
    files.replace("renewed", "renewed");
    until("the renewed certificate", async || {
        (presented(&gateway, &client).await.0 == leaf("renewed")).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_connections", &[]).await, 1000.0);
    gateway.publish("open", json!({"event": "note", "text": "still here"})).await;
    for connection in &mut connections {
        read_until(connection, "still here").await;
    }
    let used: Vec<_> = gateway.log_events("tls_certificate");
    assert_eq!(used.len(), 2, "{used:?}");
}

#[tokio::test]
async fn a_broken_certificate_keeps_the_one_in_use() {
    let files = Files::new("localhost");
    let gateway = Gateway::start(files.settings("0s")).await;
    for (round, (certificate, key, mistake)) in [
        ("renewed", "localhost", "is the key of another certificate"),
        ("expired", "localhost", "expired"),
        ("localhost", "encrypted", "is encrypted"),
    ]
    .into_iter()
    .enumerate()
    {
        files.replace(certificate, key);
        gateway.signal(Signal::HUP);
        let rejected = round as f64 + 1.0;
        gateway.wait_for_metric(RELOADS, &[("outcome", "rejected")], rejected).await;
        assert!(gateway.stderr_contains(mistake), "{mistake}");
        assert_eq!(presented(&gateway, &TlsClient::new()).await.0, leaf("localhost"));
        assert_eq!(gateway.metric("tidegate_config_last_reload_successful", &[]).await, 0.0);
    }
    files.replace("renewed", "renewed");
    gateway.signal(Signal::HUP);
    gateway.wait_for_metric("tidegate_config_last_reload_successful", &[], 1.0).await;
    assert_eq!(presented(&gateway, &TlsClient::new()).await.0, leaf("renewed"));
}

/// The certificate called `future` is valid in January 2035.
#[tokio::test]
async fn a_certificate_that_expires_in_use_is_served_until_it_is_renewed() {
    const MIDDLE: i64 = 2_052_432_000;
    const AFTER: i64 = MIDDLE + 30 * 24 * 3600;
    let (files, clock) = (Files::new("localhost"), Clock::new());
    files.replace("future", "localhost");
    clock.step(MIDDLE - in_seconds(0));
    let gateway = clock.start(files.settings("50ms")).await;
    let (before, after) = (TlsClient::new().at(MIDDLE as u64), TlsClient::new().at(AFTER as u64));
    let mut early = open(before.connect(gateway.addr()).await).await;
    clock.step(AFTER - in_seconds(0));
    let refused = after.try_connect(gateway.addr()).await.unwrap_err().to_string();
    assert!(refused.contains("expired"), "{refused}");
    let handshakes = "tidegate_tls_handshakes_total";
    gateway.wait_for_metric(handshakes, &[("outcome", "alert")], 1.0).await;
    assert!(gateway.metric(EXPIRY, &[("certificate", "server.tls")]).await < AFTER as f64);
    // Clients that do not look at the time still get it, and open connections stay.
    let careless = TlsClient::new().at(MIDDLE as u64);
    assert_eq!(presented(&gateway, &careless).await.0, leaf("future"));
    files.replace("renewed", "renewed");
    let mut late =
        until("the renewed certificate", async || after.try_connect(gateway.addr()).await.ok())
            .await;
    late = open(late).await;
    gateway.publish("open", json!({"event": "note", "text": "still here"})).await;
    for client in [&mut early, &mut late] {
        read_until(client, "still here").await;
    }
}

#[tokio::test]
async fn tickets_outlive_a_renewal() {
    let files = Files::new("localhost");
    let gateway = Gateway::start(files.settings("0s")).await;
    let client = TlsClient::new();
    open(client.connect(gateway.addr()).await).await;
    files.replace("renewed", "renewed");
    gateway.signal(Signal::HUP);
    gateway.wait_for_metric(RELOADS, &[("outcome", "applied")], 1.0).await;
    let resumed = open(client.connect(gateway.addr()).await).await;
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[tokio::test]
async fn mistakes_are_found_at_the_start() {
    let tls = |certificate: &str, key: &str| {
        let lines = format!("certificate = {certificate:?}\nkey = {key:?}");
        Settings::new().section("server.tls", &lines).route(OPEN)
    };
    let file = |name: &str| server_tls_file(name);
    for (certificate, key, mistake) in [
        (file("expired.pem"), file("localhost.key"), "server.tls.certificate"),
        (file("localhost.pem"), file("renewed.key"), "server.tls.key"),
        (file("localhost.pem"), file("encrypted.key"), "server.tls.key"),
        (file("missing.pem"), file("localhost.key"), "cannot read this file"),
        (file("localhost.pem"), file("../server_tls"), "cannot read this file"),
        (file("localhost.pem"), String::new(), "server.tls.key"),
        (String::new(), file("localhost.key"), "server.tls.certificate"),
    ] {
        let (code, log) = Gateway::start_failing(tls(&certificate, &key)).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(mistake), "{mistake}: {log}");
    }
}
