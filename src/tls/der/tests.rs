use super::{Validity, validity};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

fn der(name: &str) -> CertificateDer<'static> {
    let path = format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    CertificateDer::from_pem_file(path).expect("a certificate")
}

#[test]
fn the_validity_of_certificates_is_read() {
    // What `openssl x509 -dates` says: both forms of a time, before and after 2050.
    let expected = [
        ("server_tls/expired", 1_577_836_800, 1_580_428_800),
        ("server_tls/future", 2_051_222_400, 2_053_814_400),
        ("server_tls/localhost", 1_796_059_748, 4_949_659_748),
    ];
    for (name, not_before, not_after) in expected {
        assert_eq!(validity(&der(name)), Some(Validity { not_before, not_after }), "{name}");
    }
}

#[test]
fn no_part_of_a_certificate_is_one() {
    let der = der("server_tls/localhost");
    for length in 0..der.len() {
        assert_eq!(validity(&der[..length]), None, "{length} bytes");
    }
}

/// A certificate as far as it is read, with these times.
fn with_times(tag: u8, text: &str) -> Vec<u8> {
    let value = |tag: u8, contents: &[u8]| [&[tag, contents.len() as u8], contents].concat();
    let time = value(tag, text.as_bytes());
    let fields = [
        value(0xa0, &[2, 1, 2]),
        value(2, &[1]),
        value(0x30, &[]),
        value(0x30, &[]),
        value(0x30, &[time.clone(), time].concat()),
    ];
    value(0x30, &value(0x30, &fields.concat()))
}

#[test]
fn times_are_in_the_form_of_rfc_5280() {
    let read = |tag, text: &str| validity(&with_times(tag, text)).map(|it| it.not_after);
    assert_eq!(read(0x17, "700101000000Z"), Some(0));
    assert_eq!(read(0x17, "000229235959Z"), Some(951_868_799));
    assert_eq!(read(0x17, "491231235959Z"), Some(2_524_607_999));
    assert_eq!(read(0x17, "500101000000Z"), Some(0), "1950 is before all times");
    assert_eq!(read(0x18, "20500101000000Z"), Some(2_524_608_000));
    assert_eq!(read(0x18, "99991231235959Z"), Some(253_402_300_799));
    let malformed = [
        (0x17, ""),
        (0x17, "Z"),
        (0x17, "700101000000"),
        (0x17, "7001010000Z"),
        (0x17, "701301000000Z"),
        (0x17, "700100000000Z"),
        (0x17, "700101240000Z"),
        (0x17, "70010100000aZ"),
        (0x17, "+70101000000Z"),
        (0x17, "700101000000+0100"),
        (0x17, "7001010000000Z"),
        (0x18, "700101000000Z"),
        (0x18, "20500101000000.5Z"),
        (0x19, "700101000000Z"),
        (0x17, "é00101000000Z"),
    ];
    for (tag, text) in malformed {
        assert_eq!(read(tag, text), None, "{text}");
    }
}
