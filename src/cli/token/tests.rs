use super::*;
use crate::config::{JwtKey, Secret, TokenFormat};
use crate::redis_link::test_server::RedisServer;
use crate::tokens::JwtVerifier;

fn args(user: &str) -> Args {
    Args {
        config: PathBuf::new(),
        user: user_id(user).unwrap(),
        name: Some("ana".to_owned()),
        channels: vec!["chat_*".to_owned()],
        expires: Some(Duration::from_secs(60)),
        jwt: true,
        tls: TlsArgs::default(),
    }
}

fn settings(keys: Vec<JwtKey>) -> Jwt {
    Jwt {
        keys,
        jwks_url: None,
        issuer: Some("https://issuer.example".to_owned()),
        audience: Some("tidegate".to_owned()),
        leeway: Duration::ZERO,
        cookie: "access_token".to_owned(),
        user_claim: "user_id".to_owned(),
        name_claim: "username".to_owned(),
        channels_claim: "channels".to_owned(),
        session_version: None,
    }
}

#[tokio::test]
async fn a_signed_jwt_is_accepted_by_the_same_config() {
    let key = JwtKey {
        alg: jsonwebtoken::Algorithm::HS256,
        kid: None,
        material: JwtKeyMaterial::Secret(Secret::new("0123456789abcdef0123456789abcdef")),
    };
    let settings = settings(vec![key]);
    let token = sign(&settings, &claims(&args("7"), &settings, clock::unix_seconds())).unwrap();
    let verified = JwtVerifier::new(&settings).unwrap().verify(&token).await.unwrap();
    let identity = &verified.identity;
    assert_eq!(identity.user_id, Some(UserId::Integer(7)));
    assert_eq!(identity.username.as_deref(), Some("ana"));
    assert!(identity.may_join("chat_42") && !identity.may_join("team_42"));
}

#[test]
fn signing_needs_a_secret() {
    let error = sign(&settings(Vec::new()), &json!({})).unwrap_err();
    assert!(error.contains("[jwt] keys"), "{error}");
}

#[tokio::test]
async fn a_record_in_redis_has_the_requested_fields() {
    let server = RedisServer::start();
    let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
    assert!(commands.wait_up(Duration::from_secs(10)).await);
    let store = TokenStore::redis(commands, "t:", Duration::from_secs(60), TokenFormat::Json);
    let token = store.issue(&record(&args("u-1"), clock::unix_seconds())).await.unwrap();
    let record = store.consume(&token).await.unwrap().unwrap();
    assert_eq!(record.user_id, UserId::Text("u-1".into()));
    assert_eq!(record.channels, Some(vec!["chat_*".to_owned()]));
    assert!(record.session_expires_at.is_some_and(|end| end > clock::unix_seconds()));
}
