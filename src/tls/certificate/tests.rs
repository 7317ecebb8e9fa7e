use super::CertificateMistake::{InCertificate, InKey};
use super::{Certificate, check_authorities};

const NOW: u64 = 1_800_000_000;

fn file(name: &str) -> String {
    let path = format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("a file of the tests")
}

fn load(chain: &str, key: &str) -> Result<Certificate, super::CertificateMistake> {
    Certificate::load(&file(chain), &file(key), NOW)
}

#[test]
fn a_certificate_has_its_names_and_its_end() {
    let certificate = load("server_tls/localhost.pem", "server_tls/localhost.key").unwrap();
    assert_eq!(certificate.names(), ["localhost", "first.test"]);
    assert_eq!(certificate.not_after(), 4_949_659_748);
    let other = load("server_tls/wildcard.pem", "server_tls/wildcard.key").unwrap();
    assert_eq!(other.names(), ["*.second.test", "second.test"]);
    assert_ne!(certificate, other);
    assert_eq!(certificate, load("server_tls/localhost.pem", "server_tls/localhost.key").unwrap());
    assert!(!format!("{certificate:?}").contains("PRIVATE"));
}

#[test]
fn what_is_wrong_is_said_of_its_file() {
    let mistakes = [
        ("server_tls/expired.pem", "server_tls/localhost.key", InCertificate("expired 2541 days ago".into())),
        ("server_tls/future.pem", "server_tls/localhost.key", InCertificate("is valid only 2907 days from now".into())),
        (
            "server_tls/localhost.pem",
            "server_tls/renewed.key",
            InKey("is the key of another certificate than the first one of the certificate file".into()),
        ),
        (
            "server_tls/localhost.pem",
            "server_tls/encrypted.key",
            InKey(
                "is encrypted; decrypt it (openssl pkey -in KEY -out PLAIN) and keep the file readable for the gateway only"
                    .into(),
            ),
        ),
        (
            "server_tls/localhost.key",
            "server_tls/localhost.key",
            InCertificate("has a private key and no certificate".into()),
        ),
        (
            "server_tls/localhost.pem",
            "server_tls/localhost.pem",
            InKey("has a certificate and no private key".into()),
        ),
        (
            "README.md",
            "server_tls/localhost.key",
            InCertificate("has no certificate in PEM (-----BEGIN CERTIFICATE-----)".into()),
        ),
        (
            "server_tls/localhost.pem",
            "README.md",
            InKey("has no private key in PEM (-----BEGIN PRIVATE KEY-----)".into()),
        ),
    ];
    for (chain, key, expected) in mistakes {
        assert_eq!(load(chain, key), Err(expected), "{chain} with {key}");
    }
}

#[test]
fn malformed_files_are_mistakes_and_are_not_quoted() {
    let (chain, key) = (file("server_tls/localhost.pem"), file("server_tls/localhost.key"));
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    for (chain, key) in [
        (cut(&chain[..400]), key.clone()),
        (chain.clone(), cut(&key)),
        (chain.replace("MII", "???"), key.clone()),
        (chain.replacen("MII", "AAA", 1), key.clone()),
        (chain, key.replace("MIG", "AAA")),
    ] {
        let mistake = Certificate::load(&chain, &key, NOW).unwrap_err();
        let (InCertificate(text) | InKey(text)) = mistake;
        assert!(text.len() < 100, "{text}");
    }
}

#[test]
fn authorities_are_certificates() {
    assert_eq!(check_authorities(&file("server_tls/ca.pem")), Ok(()));
    assert!(check_authorities(&file("server_tls/localhost.key")).is_err());
    assert!(check_authorities("").is_err());
}
