use super::*;

#[test]
fn a_signature_is_the_hmac_of_time_and_body() {
    // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
    assert_eq!(
        sign_at(&Secret::new("secret"), 1_700_000_000, br#"{"a":1}"#),
        "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
    );
}
