use webpki::EndEntityCert;

use super::*;

#[test]
fn the_certificate_has_the_name_and_the_critical_extension() {
    let digest = std::array::from_fn(|at| at as u8);
    let certified = certificate("a.test", &digest).unwrap();
    let der = certified.cert[0].as_ref();
    // id-pe-acmeIdentifier, TRUE, and an octet string with an octet string of the digest.
    let mut expected = vec![0x06, 8, 0x2b, 6, 1, 5, 5, 7, 1, 31, 1, 1, 0xff, 4, 34, 4, 32];
    expected.extend(digest);
    assert!(der.windows(expected.len()).any(|window| window == expected), "{der:02x?}");
    // webpki does not know the extension and refuses critical ones, so the name is looked for in the same way.
    assert!(EndEntityCert::try_from(&certified.cert[0]).is_err());
    let name = [&[0x82, 6][..], b"a.test"].concat();
    assert!(der.windows(name.len()).any(|window| window == name), "{der:02x?}");
}

#[test]
fn only_a_name_that_is_waited_for_is_answered() {
    let digests: ChallengeDigests = Arc::new(|name| (name == "a.test").then_some([7; 32]));
    assert!(answer("A.test", &digests).is_some());
    assert!(answer("b.test", &digests).is_none());
}
