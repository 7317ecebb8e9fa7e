use std::sync::Arc;

use super::{ByName, Certificate, ServerCertificates};

fn certificate(name: &str) -> Certificate {
    let file = |extension: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/server_tls");
        std::fs::read_to_string(format!("{folder}/{name}.{extension}"))
            .expect("a file of the tests")
    };
    Certificate::load(&file("pem"), &file("key"), 1_800_000_000).expect("a certificate")
}

#[test]
fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
    let all = [certificate("localhost"), certificate("wildcard")];
    let by_name = ByName::new(&all);
    let found = |name: Option<&str>| {
        let found = by_name.find(name).first().expect("a certificate");
        all.iter().position(|one| Arc::ptr_eq(one.certified(), found)).expect("one of both")
    };
    for (name, expected) in [
        (None, 0),
        (Some("localhost"), 0),
        (Some("first.test"), 0),
        (Some("second.test"), 1),
        (Some("SECOND.test"), 1),
        (Some("second.test."), 1),
        (Some("a.second.test"), 1),
        // A wildcard stands for one label.
        (Some("a.b.second.test"), 0),
        (Some("sub.first.test"), 0),
        (Some("*.second.test"), 1),
        (Some("test"), 0),
        (Some(""), 0),
        (Some("unknown.example"), 0),
    ] {
        assert_eq!(found(name), expected, "{name:?}");
    }
}

#[test]
fn the_hosts_of_certificates_are_their_names() {
    let certificates =
        ServerCertificates::new(vec![certificate("localhost"), certificate("wildcard")]);
    for host in ["localhost", "first.test", "SECOND.test", "x.second.test", "second.test."] {
        assert!(certificates.are_for(host), "{host}");
    }
    for host in
        ["", "test", "x.first.test", "x.y.second.test", "evil.example", "first.test.evil.example"]
    {
        assert!(!certificates.are_for(host), "{host}");
    }
    assert!(!ServerCertificates::new(Vec::new()).are_for("localhost"));
}
