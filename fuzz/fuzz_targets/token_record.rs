//! What names a user: records of connection tokens as JSON and as pickles, the texts of tokens, and JWTs whose
//! signature is right. The first byte chooses.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use sha2::Sha256;
use tidegate::internals::Config;
use tidegate::internals::pickle::write_json;
use tidegate::internals::tokens::{JwtVerifier, TokenRecord, TokenStore};
use tidegate_fuzz::block_on;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

static VERIFIER: LazyLock<JwtVerifier> = LazyLock::new(|| {
    let config = format!(
        "[jwt]\nkeys = [{{ alg = \"HS256\", secret = \"{SECRET}\" }}]\n\
         issuer = \"https://id.example.com\"\naudience = \"chat\"\n\
         [[route]]\npath = \"/\"\nchannel = \"a\"\nupstream = \"\"\n"
    );
    JwtVerifier::new(&Config::from_toml(&config).expect("a configuration").jwt).expect("keys")
});
static STORE: LazyLock<TokenStore> = LazyLock::new(|| TokenStore::memory(Duration::from_secs(60)));

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 5 {
        0 => json_record(bytes),
        1 => {
            if let Ok(record) = TokenRecord::read_django(bytes) {
                check_record(&record);
            }
        }
        2 => signed_jwt(bytes),
        3 => {
            let Ok(jwt) = str::from_utf8(bytes) else { return };
            assert!(block_on(VERIFIER.verify(jwt)).is_err(), "a forged signature");
        }
        _ => {
            let Ok(token) = str::from_utf8(bytes) else { return };
            let consumed = block_on(STORE.consume(token)).expect("the store is there");
            assert!(consumed.is_none(), "a token that nobody issued");
        }
    }
});

/// A record of a backend means the same as JSON and as a pickle of Django's cache.
fn json_record(json: &[u8]) {
    let record = TokenRecord::read(json).ok();
    if let Some(record) = &record {
        check_record(record);
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(json) else { return };
    // A pickle has no name twice, and neither has the map that it is written from.
    if record.is_none() && serde_json::to_vec(&fields).is_ok_and(|once| once.len() < json.len()) {
        return;
    }
    let pickle = write_json(&Value::Object(fields));
    if pickle.len() <= TokenRecord::MAX_BYTES {
        let pickled = TokenRecord::read_django(&pickle).ok();
        assert_eq!(format!("{pickled:?}"), format!("{record:?}"));
    }
}

/// A record that is accepted names a user, is not used or over, and survives both forms.
fn check_record(record: &TokenRecord) {
    assert!(!record.user_id.to_string().is_empty() && !record.used);
    assert!(record.session_expires_at.is_none_or(|end| end >= now()));
    let shown = format!("{record:?}");
    if let Some(json) = record.to_json() {
        let again = TokenRecord::read(json.as_bytes());
        assert_eq!(format!("{:?}", again.expect("what is written is read")), shown);
    }
    if let Some(pickle) = record.to_pickle() {
        let again = TokenRecord::read_django(&pickle);
        assert_eq!(format!("{:?}", again.expect("what is written is read")), shown);
    }
}

/// The header and the claims of a JWT, with a NUL between them.
fn signed_jwt(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (header, claims) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    let Ok(verified) = block_on(VERIFIER.verify(&format!("{signed}.{signature}"))) else {
        return;
    };
    let object =
        |json: &[u8]| serde_json::from_slice::<Map<String, Value>>(json).expect("an object");
    let (header, claims) = (object(header), object(claims));
    assert!(header["alg"] == "HS256" && header.get("crit").is_none_or(Value::is_null));
    assert!(verified.identity.user_id.as_ref().is_some_and(|user| !user.to_string().is_empty()));
    assert!(claims["exp"].as_f64().is_some_and(|exp| exp + 3600.0 > now() as f64));
    assert_eq!(claims["iss"], "https://id.example.com");
    let audience = &claims["aud"];
    let is_for_us = |one: &Value| one == "chat";
    assert!(
        is_for_us(audience) || audience.as_array().is_some_and(|all| all.iter().any(is_for_us))
    );
    assert!(claims.get("token_type").is_none_or(|kind| kind == "access"));
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
