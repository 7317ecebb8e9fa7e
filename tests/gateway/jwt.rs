//! Session JWTs presented in a handshake: which are accepted, and which user they stand for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::chat::{SECRET, chat, session, session_with};
use crate::outcome::Outcome::{Closed, Connected};
use crate::outcome::{Outcome, outcome};
use crate::rig::{Client, Gateway, Reply, Upstream, jwt};

/// A key pair that only the tests use.
const PRIVATE: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgB1Eisc88vn6v/bCg\n\
BVdd6oUruQrXLo1j2dAgpaAyNBShRANCAAS60sY4otbwzMhWP+78FVecTe7xWSe5\n\
te5fHNmpDb83lr8oku60+8J5Q5zhUQ4hZFzRyZac/xDSvqXBKSPHLEzm\n\
-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEutLGOKLW8MzIVj/u/BVXnE3u8Vkn\n\
ubXuXxzZqQ2/N5a/KJLutPvCeUOc4VEOIWRc0cmWnP8Q0r6lwSkjxyxM5g==\n\
-----END PUBLIC KEY-----\n";

fn good_claims() -> Value {
    json!({"user_id": 7, "exp": jwt::in_seconds(600)})
}

fn sign(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &good_claims(), key).expect("claims that can be signed")
}

/// A JWT made of these parts, without a signature by any key.
fn unsigned(header: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(&good_claims()))
}

async fn enter(gateway: &Gateway, token: &str) -> Outcome {
    let cookie = format!("access_token={token}");
    outcome(gateway, "/ws/chat/42/", &[("cookie", &cookie)]).await
}

#[tokio::test]
async fn only_the_configured_algorithm_and_key_are_accepted() {
    let gateway = Gateway::start(chat("")).await;
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let good = session();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other_claims = URL_SAFE_NO_PAD.encode(json!({"user_id": 1, "exp": 9e9}).to_string());
    assert_eq!(enter(&gateway, &good).await, Connected);
    for (case, token) in [
        ("alg none", unsigned(&json!({"alg": "none"}), "")),
        ("alg None", unsigned(&json!({"alg": "None", "typ": "JWT"}), "")),
        ("alg none with a signature", unsigned(&json!({"alg": "none"}), signature)),
        ("no alg", unsigned(&json!({"typ": "JWT"}), signature)),
        ("unknown alg", unsigned(&json!({"alg": "HS1"}), signature)),
        ("the signature of something else", unsigned(&json!({"alg": "HS256"}), signature)),
        ("other claims", format!("{header}.{other_claims}.{signature}")),
        ("no signature", format!("{signed}.")),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("wrong alg", sign(Algorithm::HS384, None, &secret)),
        ("wrong key", jwt::hs256("another secret of thirty-two bytes", &good_claims())),
        ("empty key", jwt::hs256("", &good_claims())),
        ("not a JWT", "rubbish".to_owned()),
        ("10 kB", format!("{good}{}", "x".repeat(10_000))),
    ] {
        assert_eq!(enter(&gateway, &token).await, Closed(4001), "{case}");
    }
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let keys = format!("keys = [{{ alg = \"ES256\", public_key = '''{PUBLIC}''' }}]");
    let gateway = Gateway::start(chat("").section("jwt", &keys)).await;
    let private = EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap();
    let good = sign(Algorithm::ES256, None, &private);
    assert_eq!(enter(&gateway, &good).await, Connected);
    for public in [PUBLIC, PUBLIC.trim()] {
        let confused = jwt::hs256(public, &good_claims());
        assert_eq!(enter(&gateway, &confused).await, Closed(4001));
    }
}

#[tokio::test]
async fn claims_must_fit() {
    let settings = chat("")
        .also("jwt", "issuer = \"https://id.example.com\"\naudience = \"chat\"\nleeway = \"5s\"");
    let gateway = Gateway::start(settings).await;
    let base = json!({"iss": "https://id.example.com", "aud": "chat"});
    for (changes, expected) in [
        (json!({}), Connected),
        (json!({"aud": ["other", "chat"]}), Connected),
        (json!({"token_type": "access"}), Connected),
        (json!({"nbf": jwt::in_seconds(-10)}), Connected),
        (json!({"exp": jwt::in_seconds(-10)}), Closed(4001)),
        (json!({"exp": null}), Closed(4001)),
        (json!({"exp": "9999999999"}), Closed(4001)),
        (json!({"nbf": jwt::in_seconds(600)}), Closed(4001)),
        (json!({"iss": "https://id.example.com.evil.test"}), Closed(4001)),
        (json!({"iss": null}), Closed(4001)),
        (json!({"aud": "chats"}), Closed(4001)),
        (json!({"aud": []}), Closed(4001)),
        (json!({"aud": null}), Closed(4001)),
        (json!({"token_type": "refresh"}), Closed(4001)),
        (json!({"user_id": null}), Closed(4001)),
        (json!({"user_id": ""}), Closed(4001)),
        (json!({"user_id": true}), Closed(4001)),
        (json!({"channels": ["chat_42"]}), Connected),
        (json!({"channels": ["chat_*"]}), Connected),
        (json!({"channels": ["chat_4"]}), Closed(4003)),
        (json!({"channels": []}), Closed(4003)),
        (json!({"channels": "chat_42"}), Closed(4001)),
    ] {
        let mut claims = base.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        assert_eq!(enter(&gateway, &session_with(claims)).await, expected, "{changes}");
    }
    for missing in ["iss", "aud"] {
        let mut claims = base.clone();
        claims.as_object_mut().unwrap().remove(missing);
        assert_eq!(enter(&gateway, &session_with(claims)).await, Closed(4001), "no {missing}");
    }
}

#[tokio::test]
async fn the_user_id_keeps_its_type() {
    let gateway = Gateway::start(chat("")).await;
    let exp = jwt::in_seconds(600);
    for (claims, user) in [
        (json!({"exp": exp, "user_id": 7}), json!(7)),
        (json!({"exp": exp, "user_id": "7"}), json!("7")),
        (json!({"exp": exp, "user_id": "5f0c-uuid", "sub": "other"}), json!("5f0c-uuid")),
        (json!({"exp": exp, "sub": "ana"}), json!("ana")),
        (json!({"exp": exp, "user_id": -1}), json!(-1)),
        (json!({"exp": exp, "user_id": i64::MAX}), json!(i64::MAX)),
    ] {
        let cookie = format!("access_token={}", jwt::hs256(SECRET, &claims));
        let mut client = Client::open(gateway.addr(), "/ws/chat/42/", &[("cookie", &cookie)]).await;
        assert_eq!(client.next_event("connected").await["user_id"], user, "{claims}");
    }
}

#[tokio::test]
async fn published_keys_are_fetched() {
    let keys = json!({"keys": [
        {"kty": "unknown", "kid": "ignored"},
        {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
         "x": "utLGOKLW8MzIVj_u_BVXnE3u8VknubXuXxzZqQ2_N5Y", "y": "vyiS7rT7wnlDnOFRDiFkXNHJlpz_ENK-pcEpI8csTOY"},
    ]});
    let issuer = Upstream::start(move |_| Reply::json(200, &keys)).await;
    let url = format!("jwks_url = {:?}", issuer.url("/jwks.json"));
    let gateway = Gateway::start(chat("").section("jwt", &url)).await;
    let private = EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap();
    for _ in 0..3 {
        let good = sign(Algorithm::ES256, Some("k1"), &private);
        assert_eq!(enter(&gateway, &good).await, Connected);
    }
    assert_eq!(issuer.requests().len(), 1, "the keys are kept");
    let unknown = sign(Algorithm::ES256, Some("k2"), &private);
    assert_eq!(enter(&gateway, &unknown).await, Closed(4001));
    assert_eq!(enter(&gateway, &jwt::hs256(PUBLIC, &good_claims())).await, Closed(4001));
}

#[tokio::test]
async fn without_the_published_keys_nobody_gets_in() {
    let issuer = Upstream::start(|_| Reply::status(500)).await;
    let url = format!("jwks_url = {:?}", issuer.url("/jwks.json"));
    let gateway = Gateway::start(chat("").section("jwt", &url)).await;
    let private = EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap();
    let good = sign(Algorithm::ES256, Some("k1"), &private);
    assert_eq!(enter(&gateway, &good).await, Closed(1013));
}
