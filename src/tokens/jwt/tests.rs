//! Valid tokens of every algorithm, and the ways in which a token can be invalid.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::config::{self, JwtKey, JwtKeyMaterial, Secret};
use crate::protocol::UserId;

pub(super) const RSA: &str = include_str!("../../../tests/keys/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/keys/rsa.pub.pem");
pub(super) const P256: &str = include_str!("../../../tests/keys/p256.pem");
const P256_PUBLIC: &str = include_str!("../../../tests/keys/p256.pub.pem");
pub(super) const OTHER_P256: &str = include_str!("../../../tests/keys/other_p256.pem");
pub(super) const P384: &str = include_str!("../../../tests/keys/p384.pem");
const P384_PUBLIC: &str = include_str!("../../../tests/keys/p384.pub.pem");
pub(super) const ED25519: &str = include_str!("../../../tests/keys/ed25519.pem");
const ED25519_PUBLIC: &str = include_str!("../../../tests/keys/ed25519.pub.pem");
const SECRET: &str = "a secret of at least thirty-two bytes, for tests";

const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

pub(super) fn settings(keys: Vec<JwtKey>) -> config::Jwt {
    config::Jwt {
        keys,
        jwks_url: None,
        issuer: None,
        audience: None,
        leeway: std::time::Duration::from_secs(30),
        cookie: "access_token".into(),
        user_claim: "user_id".into(),
        name_claim: "username".into(),
        channels_claim: "channels".into(),
        session_version: None,
    }
}

pub(super) fn signing_key(alg: Algorithm) -> EncodingKey {
    match alg {
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(),
        Algorithm::ES384 => EncodingKey::from_ec_pem(P384.as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            EncodingKey::from_secret(SECRET.as_bytes())
        }
        _ => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
    }
}

fn key(alg: Algorithm, kid: Option<&str>) -> JwtKey {
    let pem = |text: &str| JwtKeyMaterial::PublicPem(text.into());
    let material = match alg {
        Algorithm::ES256 => pem(P256_PUBLIC),
        Algorithm::ES384 => pem(P384_PUBLIC),
        Algorithm::EdDSA => pem(ED25519_PUBLIC),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            JwtKeyMaterial::Secret(Secret::new(SECRET))
        }
        _ => pem(RSA_PUBLIC),
    };
    JwtKey { alg, kid: kid.map(Into::into), material }
}

pub(super) fn claims() -> Value {
    json!({"user_id": 7, "exp": crate::clock::unix_seconds() + 600})
}

pub(super) fn sign(alg: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(Into::into), ..Header::new(alg) };
    jsonwebtoken::encode(&header, &claims(), key).unwrap()
}

fn verifier(keys: Vec<JwtKey>) -> JwtVerifier {
    JwtVerifier::new(&settings(keys)).unwrap()
}

/// Returns a token with any header, signed by HS256 whatever the header says.
fn forged(header: Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims()));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn each_algorithm_verifies_its_own_tokens_and_no_others() {
    for configured in ALL {
        let verifier = verifier(vec![key(configured, None)]);
        for used in ALL {
            let outcome = verifier.verify(&sign(used, None, &signing_key(used))).await;
            let expected = if used == configured {
                Ok(Some(UserId::Integer(7)))
            } else {
                Err(JwtRejection::WrongSignature)
            };
            assert_eq!(
                outcome
                    .map(|verified| verified.identity.user_id.clone())
                    .map_err(|failure| failure.rejection),
                expected,
                "{configured:?} {used:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    // The attack on verifiers that trust the header: an HMAC whose secret is the text of the published key.
    for public in [RSA_PUBLIC, P256_PUBLIC] {
        let verifier = verifier(vec![key(Algorithm::RS256, None), key(Algorithm::ES256, None)]);
        let attack = sign(Algorithm::HS256, None, &EncodingKey::from_secret(public.as_bytes()));
        assert_eq!(
            verifier.verify(&attack).await.err().map(|failure| failure.rejection),
            Some(JwtRejection::WrongSignature)
        );
    }
}

#[tokio::test]
async fn keys_are_selected_by_their_kid() {
    let verifier = verifier(vec![
        JwtKey {
            material: JwtKeyMaterial::Secret(Secret::new("the old secret")),
            ..key(Algorithm::HS256, Some("old"))
        },
        key(Algorithm::HS256, Some("new")),
        key(Algorithm::ES256, None),
    ]);
    let hs256 = signing_key(Algorithm::HS256);
    let es256 = signing_key(Algorithm::ES256);
    for (token, fits) in [
        (sign(Algorithm::HS256, Some("new"), &hs256), true),
        (sign(Algorithm::HS256, Some("old"), &hs256), false),
        (sign(Algorithm::HS256, Some("else"), &hs256), false),
        (sign(Algorithm::HS256, None, &hs256), false),
        (sign(Algorithm::ES256, Some("any"), &es256), true),
        (sign(Algorithm::ES256, None, &es256), true),
    ] {
        assert_eq!(verifier.verify(&token).await.is_ok(), fits, "{token}");
    }
}

#[tokio::test]
async fn text_that_is_not_a_signed_token_is_malformed() {
    let verifier = verifier(vec![key(Algorithm::HS256, None)]);
    let good = sign(Algorithm::HS256, None, &signing_key(Algorithm::HS256));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let payload = signed.split_once('.').unwrap().1;
    let not_utf8 = URL_SAFE_NO_PAD.encode(b"{\"alg\":\"HS256\",\"typ\":\"JW\x8d\"}");
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "abc".into(),
        "é.é.é".into(),
        signed.into(),
        format!("{signed}."),
        format!("{good}.x"),
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!("!.{payload}.{signature}"),
        format!("e30.{payload}.{signature}"),
        format!("{not_utf8}.{payload}.{signature}"),
        "A".repeat(10_000),
        format!("{signed}.{}", "A".repeat(10_000)),
        forged(json!({"alg": "none"})),
        forged(json!({"alg": "NONE"})),
        forged(json!({"alg": "hs256"})),
        forged(json!({"alg": ["HS256"]})),
        forged(json!({"alg": "HS256", "kid": 1})),
        forged(json!({"alg": "HS256", "crit": ["b64"], "b64": false})),
        forged(json!({"alg": "HS256", "crit": []})),
        forged(json!({"alg": "HS256", "crit": null})),
        forged(json!(["HS256", null, null])),
    ] {
        assert_eq!(
            verifier.verify(&token).await.err().map(|failure| failure.rejection),
            Some(JwtRejection::Malformed),
            "{token}"
        );
    }
    assert!(verifier.verify(&forged(json!({"alg": "HS256"}))).await.is_ok());
}

#[tokio::test]
async fn a_changed_token_does_not_verify() {
    let verifier = verifier(vec![key(Algorithm::HS256, None), key(Algorithm::ES256, None)]);
    for alg in [Algorithm::HS256, Algorithm::ES256] {
        let good = sign(alg, None, &signing_key(alg));
        let parts: Vec<_> = good.split('.').collect();
        let other = URL_SAFE_NO_PAD.encode(json!({"user_id": 1, "exp": u32::MAX}).to_string());
        let cut = &parts[2][..parts[2].len() - 4];
        for token in [
            format!("{}.{other}.{}", parts[0], parts[2]),
            format!("{}.{}.{cut}", parts[0], parts[1]),
            format!("{}.{}.AAAA", parts[0], parts[1]),
            format!("{}.{}.!", parts[0], parts[1]),
        ] {
            let outcome = verifier.verify(&token).await.err().map(|failure| failure.rejection);
            assert_eq!(outcome, Some(JwtRejection::WrongSignature), "{token}");
        }
    }
    let other = EncodingKey::from_ec_pem(OTHER_P256.as_bytes()).unwrap();
    let outcome = verifier.verify(&sign(Algorithm::ES256, None, &other)).await;
    assert_eq!(outcome.err().map(|failure| failure.rejection), Some(JwtRejection::WrongSignature));
}

#[tokio::test]
async fn claims_are_read_only_after_the_signature_was_verified() {
    let verifier = verifier(vec![key(Algorithm::HS256, None)]);
    let expired = json!({"user_id": 1, "exp": 1});
    let ours = sign_hs(&Secret::new(SECRET), Algorithm::HS256, &expired).unwrap();
    assert_eq!(
        verifier.verify(&ours).await.err().map(|failure| failure.rejection),
        Some(JwtRejection::Expired)
    );
    let theirs = sign_hs(&Secret::new("guess"), Algorithm::HS256, &expired).unwrap();
    assert_eq!(
        verifier.verify(&theirs).await.err().map(|failure| failure.rejection),
        Some(JwtRejection::WrongSignature)
    );
    let list = sign_hs(&Secret::new(SECRET), Algorithm::HS256, &json!([1])).unwrap();
    assert_eq!(
        verifier.verify(&list).await.err().map(|failure| failure.rejection),
        Some(JwtRejection::Malformed)
    );
}

#[test]
fn keys_that_cannot_verify_are_refused_at_startup() {
    let secret = || JwtKeyMaterial::Secret(Secret::new(SECRET));
    let pem = |text: &str| JwtKeyMaterial::PublicPem(text.into());
    for (alg, material) in [
        (Algorithm::HS256, pem(RSA_PUBLIC)),
        (Algorithm::HS256, JwtKeyMaterial::Secret(Secret::new(""))),
        (Algorithm::RS256, secret()),
        (Algorithm::RS256, pem(P256_PUBLIC)),
        (Algorithm::RS256, pem(RSA)),
        (Algorithm::RS256, pem("not a key")),
        (Algorithm::ES256, pem(P384_PUBLIC)),
        (Algorithm::ES256, pem(P256)),
        (Algorithm::EdDSA, pem(P256_PUBLIC)),
        (Algorithm::PS256, pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")),
    ] {
        let keys = vec![JwtKey { alg, kid: None, material }];
        let error = JwtVerifier::new(&settings(keys)).err().expect("refused");
        assert!(error.starts_with("jwt.keys[0]: "), "{error}");
        assert!(!error.contains(SECRET), "{error}");
    }
    assert!(sign_hs(&Secret::new(SECRET), Algorithm::RS256, &json!({})).is_err());
}

/// The key that signed the tokens below, which djangorestframework-simplejwt 5.5 issued.
const SIMPLEJWT_KEY: &str = "rig-secret-key-not-for-production-0123456789abcdef";
const SIMPLEJWT_ACCESS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNzk1NDc5NDExLCJpYXQiOjE\
    3OTU0Nzg1MTEsImp0aSI6IjdlY2FkZjA5MzhjYTQ3MzdhMTA2Nzc2ZTMwMzhkNDc4IiwidXNlcl9pZCI6IjEiLCJzZXNzaW9uX3Z\
    lcnNpb24iOjF9.kDuRmjajxnlwqaHIFbKvm2dQv-1rLdLnKl0B4gjCQBA";
const SIMPLEJWT_REFRESH: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCIsImV4cCI6MTc5NjA4MzMxMSwiaWF0Ijo\
    xNzk1NDc4NTExLCJqdGkiOiIyYjMxNjFiNmIxMjk0YTExYWY3NTRhOTJiNGVmZDZlMiIsInVzZXJfaWQiOiIxIn0.lDwCHCSFoQr\
    AsvFm71HeWuAByFPFJPv7olqOGZtuVUI";

#[tokio::test]
async fn access_tokens_of_simplejwt_are_accepted_and_refresh_tokens_are_not() {
    let key = JwtKey {
        alg: Algorithm::HS256,
        kid: None,
        material: JwtKeyMaterial::Secret(Secret::new(SIMPLEJWT_KEY)),
    };
    let settings = config::Jwt { leeway: std::time::Duration::ZERO, ..settings(vec![key]) };
    let inner = JwtVerifier::new(&settings).unwrap().0;
    let (issued, expires, refresh_expires) = (1_795_478_511, 1_795_479_411, 1_796_083_311);
    for now in [issued, expires - 1] {
        let verified = inner.verify_at(SIMPLEJWT_ACCESS, now).await.unwrap();
        let (identity, claims) = (&verified.identity, verified.claims().unwrap());
        assert!(matches!(&identity.user_id, Some(UserId::Text(id)) if **id == *"1"));
        assert_eq!(identity.user_id, Some(UserId::Integer(1)), "as older versions write it");
        assert_eq!(identity.expires_at, Some(expires));
        assert_eq!(claims["session_version"], 1);
    }
    let outcome = inner
        .verify_at(SIMPLEJWT_ACCESS, expires)
        .await
        .map(|_| ())
        .map_err(|failure| failure.rejection);
    assert_eq!(outcome, Err(JwtRejection::Expired));
    for now in [issued, refresh_expires - 1] {
        let outcome = inner
            .verify_at(SIMPLEJWT_REFRESH, now)
            .await
            .map(|_| ())
            .map_err(|failure| failure.rejection);
        assert_eq!(outcome, Err(JwtRejection::WrongClaims));
    }
}

/// The failure of each attempt.
async fn rejection(inner: &Inner, token: &str, now: u64) -> Option<JwtRejection> {
    inner.verify_at(token, now).await.err().map(|failure| failure.rejection)
}

fn is_kept(inner: &Inner, token: &str, now: u64) -> bool {
    inner.verified.get(&inner.verified.hash(token), now).is_some()
}

#[tokio::test]
async fn a_token_that_was_verified_before_expires_all_the_same() {
    let inner = verifier(vec![key(Algorithm::HS256, None), key(Algorithm::ES256, None)]).0;
    for alg in [Algorithm::HS256, Algorithm::ES256] {
        let (nbf, exp) = (1_000_000, 1_000_600);
        let claims = json!({"user_id": 7, "nbf": nbf, "exp": exp, "username": "ana"});
        let token = jsonwebtoken::encode(&Header::new(alg), &claims, &signing_key(alg)).unwrap();
        // The leeway is 30 seconds on both sides.
        for (now, is_expired, is_early) in [
            (nbf - 31, false, true),
            (nbf - 30, false, false),
            (exp, false, false),
            (exp + 29, false, false),
            (exp + 30, true, false),
            (exp + 10_000, true, false),
            // The clock is set back: the token is as good as it was then.
            (exp, false, false),
            (nbf - 31, false, true),
        ] {
            let expected = match (is_expired, is_early) {
                (true, _) => Some(JwtRejection::Expired),
                (_, true) => Some(JwtRejection::WrongClaims),
                _ => None,
            };
            assert_eq!(rejection(&inner, &token, now).await, expected, "{alg:?} {now}");
            assert_eq!(is_kept(&inner, &token, now), expected.is_none(), "{alg:?} {now}");
        }
        let verified = inner.verify_at(&token, nbf).await.unwrap();
        assert_eq!(verified.identity.user_id, Some(UserId::Integer(7)));
        assert_eq!(verified.identity.username.as_deref(), Some("ana"));
        assert_eq!(verified.claims().unwrap()["exp"], exp);
    }
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let now = crate::clock::unix_seconds();
    let inner = verifier(vec![key(Algorithm::HS256, None)]).0;
    let good = sign(Algorithm::HS256, None, &signing_key(Algorithm::HS256));
    let forged = sign(Algorithm::HS256, None, &EncodingKey::from_secret(b"guess"));
    for _ in 0..3 {
        assert_eq!(rejection(&inner, &forged, now).await, Some(JwtRejection::WrongSignature));
        assert!(!is_kept(&inner, &forged, now));
        // Not valid yet, which passes.
        assert_eq!(rejection(&inner, &good, 0).await, None);
        assert_eq!(rejection(&inner, &good, u64::MAX / 2).await, Some(JwtRejection::Expired));
        assert_eq!(rejection(&inner, &good, now).await, None);
        // A token with the same claims and another signature is another token.
        let (signed, _) = good.rsplit_once('.').unwrap();
        let (_, other) = forged.rsplit_once('.').unwrap();
        let mixed = format!("{signed}.{other}");
        assert_eq!(rejection(&inner, &mixed, now).await, Some(JwtRejection::WrongSignature));
    }
}

#[tokio::test]
async fn another_verifier_knows_nothing_of_what_was_verified() {
    let now = crate::clock::unix_seconds();
    let token = sign(Algorithm::HS256, None, &signing_key(Algorithm::HS256));
    let before = verifier(vec![key(Algorithm::HS256, None)]).0;
    assert_eq!(rejection(&before, &token, now).await, None);
    let with_other_key = JwtKey {
        material: JwtKeyMaterial::Secret(Secret::new("another secret of thirty-two bytes")),
        ..key(Algorithm::HS256, None)
    };
    let after = verifier(vec![with_other_key]).0;
    assert_eq!(rejection(&after, &token, now).await, Some(JwtRejection::WrongSignature));
    let audience = Some("another".to_owned());
    let settings = config::Jwt { audience, ..settings(vec![key(Algorithm::HS256, None)]) };
    let after = JwtVerifier::new(&settings).unwrap().0;
    assert_eq!(rejection(&after, &token, now).await, Some(JwtRejection::WrongClaims));
}
