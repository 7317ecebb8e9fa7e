//! A key set served by a loopback server that counts its requests.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::tokens::jwt::tests::{OTHER_P256, settings, sign, signing_key};
use crate::tokens::jwt::{JwtRejection, JwtVerifier};

/// Intervals that never delay a fetch.
const UNLIMITED: RefreshIntervals = RefreshIntervals {
    min_interval: Duration::ZERO,
    min_interval_without_keys: Duration::ZERO,
    ..REFRESH_INTERVALS
};

struct Endpoint {
    url: Url,
    requests: Arc<AtomicUsize>,
    answer: Arc<Mutex<(StatusCode, String)>>,
}

impl Endpoint {
    async fn serving(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap()).parse().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(Mutex::new((StatusCode::OK, json!({"keys": keys}).to_string())));
        let endpoint = Self { url, requests: requests.clone(), answer: answer.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, answer) = (requests.clone(), answer.clone());
                let service = service_fn(move |_| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let (status, body) = answer.lock().unwrap().clone();
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status;
                    async move { Ok::<_, Infallible>(response) }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        endpoint
    }

    fn set_answer(&self, status: StatusCode, body: String) {
        *self.answer.lock().unwrap() = (status, body);
    }

    fn set_keys(&self, keys: Value) {
        self.set_answer(StatusCode::OK, json!({"keys": keys}).to_string());
    }

    fn request_count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn verifier(&self, intervals: RefreshIntervals) -> JwtVerifier {
        let settings = settings(Vec::new());
        let verifier = JwtVerifier::new(&settings).unwrap();
        let mut inner = Arc::into_inner(verifier.0).unwrap();
        inner.jwks = Some(Jwks::with_intervals(&self.url, intervals).unwrap());
        JwtVerifier(Arc::new(inner))
    }
}

fn jwk(alg: Algorithm, changes: Value) -> Value {
    jwk_of(&signing_key(alg), alg, changes)
}

/// Returns a public key with `changes` applied; `null` removes a member.
fn jwk_of(key: &EncodingKey, alg: Algorithm, changes: Value) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, alg).unwrap()).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => jwk.as_object_mut().unwrap().remove(name),
            value => jwk.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    jwk
}

fn token(alg: Algorithm, kid: Option<&str>) -> String {
    sign(alg, kid, &signing_key(alg))
}

#[tokio::test]
async fn published_keys_verify_their_tokens() {
    let endpoint = Endpoint::serving(json!([
        {"kty": "strange", "kid": "s"},
        7,
        jwk(Algorithm::RS256, json!({"kid": "rsa", "alg": null, "use": "sig"})),
        jwk(Algorithm::ES256, json!({"kid": "ec", "alg": null})),
        jwk(Algorithm::ES384, json!({"kid": "ec3", "key_ops": ["verify"]})),
        jwk(Algorithm::EdDSA, json!({"kid": "ed"})),
        jwk(Algorithm::RS512, json!({"kid": "rs512"})),
        jwk(Algorithm::ES256, json!({"kid": "enc", "use": "enc"})),
        jwk(Algorithm::HS256, json!({"kid": "oct"})),
        jwk(Algorithm::PS256, json!({"kid": null})),
    ]))
    .await;
    let verifier = endpoint.verifier(REFRESH_INTERVALS);
    for (alg, kid, fits) in [
        (Algorithm::RS256, Some("rsa"), true),
        (Algorithm::PS384, Some("rsa"), true),
        (Algorithm::ES256, Some("ec"), true),
        (Algorithm::ES384, Some("ec3"), true),
        (Algorithm::EdDSA, Some("ed"), true),
        (Algorithm::RS512, Some("rs512"), true),
        (Algorithm::RS256, Some("rs512"), false),
        (Algorithm::ES256, Some("ec3"), false),
        (Algorithm::RS256, Some("ec"), false),
        (Algorithm::ES256, Some("enc"), false),
        (Algorithm::HS256, Some("oct"), false),
        (Algorithm::PS256, None, true),
        (Algorithm::RS256, None, false),
        (Algorithm::ES256, None, false),
        (Algorithm::PS256, Some("else"), false),
    ] {
        let outcome = verifier.verify(&token(alg, kid)).await;
        assert_eq!(outcome.is_ok(), fits, "{alg:?} {kid:?} {outcome:?}");
    }
    assert_eq!(endpoint.request_count(), 1);
}

#[tokio::test]
async fn concurrent_lookups_of_an_unknown_kid_share_one_fetch() {
    let endpoint = Endpoint::serving(json!([jwk(Algorithm::ES256, json!({"kid": "old"}))])).await;
    let verifier = endpoint.verifier(UNLIMITED);
    let old = token(Algorithm::ES256, Some("old"));
    let all = futures_util::future::join_all((0..50).map(|_| verifier.verify(&old))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(endpoint.request_count(), 1);

    endpoint.set_keys(json!([jwk(Algorithm::ES256, json!({"kid": "new"}))]));
    assert!(verifier.verify(&token(Algorithm::ES256, Some("new"))).await.is_ok());
    assert_eq!(endpoint.request_count(), 2);
    // A key that is no longer published does not verify any more.
    assert_eq!(
        verifier.verify(&old).await.err().map(|failure| failure.rejection),
        Some(JwtRejection::WrongSignature)
    );
}

#[tokio::test]
async fn unknown_kids_do_not_cause_more_fetches() {
    let endpoint = Endpoint::serving(json!([jwk(Algorithm::ES256, json!({"kid": "a"}))])).await;
    let verifier = endpoint.verifier(REFRESH_INTERVALS);
    for round in 0..20 {
        let guess = token(Algorithm::ES256, Some(&format!("guess-{round}")));
        assert_eq!(
            verifier.verify(&guess).await.err().map(|failure| failure.rejection),
            Some(JwtRejection::WrongSignature)
        );
    }
    assert_eq!(endpoint.request_count(), 1);
    for symmetric in [Algorithm::HS256, Algorithm::HS512] {
        assert!(verifier.verify(&token(symmetric, Some("x"))).await.is_err());
    }
    assert_eq!(endpoint.request_count(), 1);
}

#[tokio::test]
async fn cached_keys_are_used_while_the_endpoint_fails() {
    let endpoint = Endpoint::serving(json!([jwk(Algorithm::ES256, json!({"kid": "a"}))])).await;
    let verifier = endpoint.verifier(UNLIMITED);
    let known = token(Algorithm::ES256, Some("a"));
    assert!(verifier.verify(&known).await.is_ok());
    let unknown = token(Algorithm::ES256, Some("b"));
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, json!({"keys": []}).to_string()),
        (StatusCode::FOUND, String::new()),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, json!({"error": "none"}).to_string()),
        (StatusCode::OK, format!(r#"{{"keys":[]{}}}"#, " ".repeat(2 * 1024 * 1024))),
    ] {
        endpoint.set_answer(status, body);
        let outcome = verifier.verify(&unknown).await;
        assert_eq!(
            outcome.err().map(|failure| failure.rejection),
            Some(JwtRejection::KeysUnavailable),
            "{status}"
        );
        assert!(verifier.verify(&known).await.is_ok());
    }
}

#[tokio::test]
async fn without_an_endpoint_no_key_is_known() {
    let endpoint = Endpoint::serving(json!([])).await;
    let mut gone = endpoint.url.clone();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    gone.set_port(Some(unused.port())).unwrap();
    let verifier = Endpoint { url: gone, ..endpoint }.verifier(REFRESH_INTERVALS);
    let outcome = verifier.verify(&token(Algorithm::ES256, Some("a"))).await;
    assert_eq!(outcome.err().map(|failure| failure.rejection), Some(JwtRejection::KeysUnavailable));
}

#[tokio::test]
async fn old_keys_are_used_while_new_ones_are_fetched() {
    let endpoint = Endpoint::serving(json!([jwk(Algorithm::ES256, json!({"kid": "a"}))])).await;
    let verifier = endpoint.verifier(RefreshIntervals { max_age: Duration::ZERO, ..UNLIMITED });
    let known = token(Algorithm::ES256, Some("a"));
    assert!(verifier.verify(&known).await.is_ok());
    let other = EncodingKey::from_ec_pem(OTHER_P256.as_bytes()).unwrap();
    endpoint.set_keys(json!([jwk_of(&other, Algorithm::ES256, json!({"kid": "a"}))]));

    assert!(verifier.verify(&known).await.is_ok());
    let deadline = Instant::now() + Duration::from_secs(10);
    while verifier.verify(&known).await.is_ok() {
        assert!(Instant::now() < deadline, "the new key is fetched in time");
        tokio::task::yield_now().await;
    }
    assert!(verifier.verify(&sign(Algorithm::ES256, Some("a"), &other)).await.is_ok());
}

#[test]
fn a_fetch_whose_runtime_stopped_is_repeated() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lasting = runtime();
    let keys = json!([jwk(Algorithm::ES256, json!({"kid": "a"}))]);
    let endpoint = lasting.block_on(Endpoint::serving(keys));
    let verifier = endpoint.verifier(UNLIMITED);
    let shared = verifier.0.jwks.as_ref().unwrap().0.clone();

    let passing = runtime();
    passing.block_on(async { assert!(shared.refresh().is_some()) });
    drop(passing);
    let outcome = lasting.block_on(verifier.verify(&token(Algorithm::ES256, Some("a"))));
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn a_key_that_is_no_longer_published_verifies_no_token_that_it_verified_before() {
    let key = |kid: &str| jwk(Algorithm::ES256, json!({"kid": kid}));
    let endpoint = Endpoint::serving(json!([key("old")])).await;
    let verifier = endpoint.verifier(UNLIMITED);
    let old = token(Algorithm::ES256, Some("old"));
    for _ in 0..3 {
        assert!(verifier.verify(&old).await.is_ok());
    }
    let first = endpoint.requests.load(Ordering::SeqCst);
    endpoint.set_keys(json!([key("new")]));
    assert!(verifier.verify(&old).await.is_ok(), "the keys are not old enough for a fetch");
    assert_eq!(endpoint.requests.load(Ordering::SeqCst), first, "a known token fetches nothing");
    // Any client's token with a new key fetches the keys.
    assert!(verifier.verify(&token(Algorithm::ES256, Some("new"))).await.is_ok());
    let outcome = verifier.verify(&old).await;
    assert_eq!(outcome.err().map(|failure| failure.rejection), Some(JwtRejection::WrongSignature));
    // And back.
    endpoint.set_keys(json!([key("old"), key("new")]));
    assert!(verifier.verify(&old).await.is_ok(), "a failure is not remembered");
}
