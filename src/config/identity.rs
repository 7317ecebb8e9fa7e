//! Keys of `[tokens]` and `[jwt]`.

use jsonwebtoken::{Algorithm, DecodingKey};
use toml::Value;

use super::kinds::{self, Kind, Wrong, choice, words};
use super::section::Section;
use super::{
    Csrf, Engine, EngineKind, Jwt, JwtKey, JwtKeyMaterial, Secret, SessionVersion, TokenFormat,
    Tokens,
};

/// Shorter secrets can be guessed from one token; RFC 7518 section 3.2 asks for 32 bytes.
const MIN_SECRET_BYTES: usize = 16;

pub(super) fn tokens(s: &mut Section<'_>) -> Option<Tokens> {
    let ttl = s.key(
        "ttl",
        kinds::POSITIVE_DURATION,
        "60s",
        "How long a token can be used after it was issued.",
    );
    let key_prefix = s.key(
        "key_prefix",
        kinds::TEXT,
        "ws_conn_token:",
        "Begins the Redis key of a token's record; a backend may write records itself.",
    );
    let format = s.key(
        "format",
        FORMAT,
        "json",
        "Of the records in Redis. \"django\": pickled, as Django's cache keeps them; JSON is read as well.",
    );
    let issue_path = s.key(
        "issue_path",
        kinds::OPTIONAL_PATH,
        "/api/v1/auth/ws-connection-token/",
        "Where a signed-in browser gets a token; \"\" = this gateway issues none to browsers.",
    );
    let csrf = s.inline("csrf", |s| {
        let cookie = s.key(
            "cookie",
            kinds::TOKEN,
            "csrftoken",
            "Where a cookie signs a request in, this cookie's value must be repeated …",
        );
        let header = s.key("header", kinds::TOKEN, "X-CSRFToken", "… in this header.");
        Some(Csrf { cookie: cookie?, header: header? })
    });
    let binding = s.key(
        "binding",
        kinds::OPTIONAL_TEMPLATE,
        "",
        "Glob over the path's parameters that a token's connection_id must match, such as \
         `chat-{conversation_id}-*`; \"\" = not bound.",
    );
    Some(Tokens {
        ttl: ttl?,
        key_prefix: key_prefix?,
        format: format?,
        issue_path: issue_path?,
        csrf: csrf?,
        binding: binding?,
    })
}

pub(super) fn jwt(s: &mut Section<'_>, engine: Option<&Engine>) -> Option<Jwt> {
    let keys = s.tables(
        "keys",
        "[jwt] keys = [{ … }]",
        "Keys that sign the tokens. With neither keys nor a `jwks_url` no JWT is accepted.",
        key,
    );
    let jwks_url = s.key(
        "jwks_url",
        kinds::OPTIONAL_HTTP_URL,
        "",
        "Where more keys are fetched; cached, and fetched again on an unknown kid. \"\" = nowhere.",
    );
    let issuer = s.key("issuer", kinds::OPTIONAL_TEXT, "", "What iss must be; \"\" = not checked.");
    let audience =
        s.key("audience", kinds::OPTIONAL_TEXT, "", "What aud must hold; \"\" = not checked.");
    let leeway = s.key("leeway", kinds::DURATION, "30s", "How far the issuer's clock may be off.");
    let cookie =
        s.key("cookie", kinds::TOKEN, "access_token", "The cookie that holds a browser's JWT.");
    let user_claim = s.key(
        "user_claim",
        kinds::NAME,
        "user_id",
        "The claim that says who it is, a string or an integer; without it, sub.",
    );
    let name_claim =
        s.key("name_claim", kinds::NAME, "username", "The claim with the name to show.");
    let channels_claim = s.key(
        "channels_claim",
        kinds::NAME,
        "channels",
        "The claim with the channel patterns that this JWT is limited to, where it is there.",
    );
    let session_version = s.inline("session_version", |s| session_version(s, engine));
    Some(Jwt {
        keys: keys.into_iter().collect::<Option<_>>()?,
        jwks_url: jwks_url?,
        issuer: issuer?,
        audience: audience?,
        leeway: leeway?,
        cookie: cookie?,
        user_claim: user_claim?,
        name_claim: name_claim?,
        channels_claim: channels_claim?,
        session_version: session_version?,
    })
}

fn session_version(s: &mut Section<'_>, engine: Option<&Engine>) -> Option<Option<SessionVersion>> {
    let claim = s.key(
        "claim",
        kinds::NAME,
        "session_version",
        "The claim that must equal what Redis keeps of the user …",
    );
    let key = s.key(
        "key",
        kinds::OPTIONAL_TEMPLATE,
        "",
        "… under this key with a {user_id}: an integer, of which Django's cache keeps the digits. A JWT without \
         the claim and a user without the key are not refused. \"\" = not checked.",
    );
    let own_url = s.redis_url(
        "redis_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "The Redis server; \"\" = tokens_url of [engine.redis].",
    );
    let (claim, key, own_url) = (claim?, key?, own_url?);
    let Some(key) = key else { return Some(None) };
    if key.names().collect::<Vec<_>>() != ["user_id"] {
        let right = "write one {user_id} in it, and no other name";
        s.mistake("key", Some(format!("{:?}", key.as_str())), right);
        return None;
    }
    let redis_url = match own_url {
        Some(url) => url,
        None => match &engine?.kind {
            EngineKind::Redis(redis) => redis.tokens_url.clone(),
            EngineKind::Memory => {
                let right = format!(
                    "missing, and the engine is \"memory\"; write {}",
                    kinds::REDIS_URL.right
                );
                s.mistake("redis_url", None, right);
                return None;
            }
        },
    };
    Some(Some(SessionVersion { claim, key, redis_url }))
}

const FORMAT: Kind<TokenFormat> = words(r#""json" or "django""#, |value| {
    choice(value, &[("json", TokenFormat::Json), ("django", TokenFormat::Django)])
});

const ALGORITHM: Kind<Algorithm> =
    words(r#""HS256", "HS384", "HS512", "RS256", "PS256", "ES256" or "EdDSA""#, |value| {
        choice(
            value,
            &[
                ("HS256", Algorithm::HS256),
                ("HS384", Algorithm::HS384),
                ("HS512", Algorithm::HS512),
                ("RS256", Algorithm::RS256),
                ("PS256", Algorithm::PS256),
                ("ES256", Algorithm::ES256),
                ("EdDSA", Algorithm::EdDSA),
            ],
        )
    });

const SIGNING_SECRET: Kind<Option<Secret>> = Kind {
    name: "secret",
    right: "a secret of at least 16 bytes, better 32",
    read: |value| {
        let secret = (kinds::OPTIONAL_SECRET.read)(value)?;
        match &secret {
            Some(secret) if secret.expose().len() < MIN_SECRET_BYTES => Err(Wrong::Kind),
            _ => Ok(secret),
        }
    },
};

const PUBLIC_KEY: Kind<Option<String>> = Kind {
    name: "PEM text",
    right: "the PEM text of a public key: -----BEGIN PUBLIC KEY-----",
    read: |value: &Value| match value.as_str() {
        Some("") => Ok(None),
        Some(text) if text.contains("BEGIN") && !text.contains("PRIVATE KEY") => {
            Ok(Some(text.to_owned()))
        }
        _ => Err(Wrong::Kind),
    },
};

fn key(s: &mut Section<'_>) -> Option<JwtKey> {
    let alg = s.required("alg", ALGORITHM, "The one algorithm that is accepted with this key.");
    let kid = s.key(
        "kid",
        kinds::OPTIONAL_TEXT,
        "",
        "Only tokens with this kid are tried with it; \"\" = every token.",
    );
    let secret = s.secret("secret", SIGNING_SECRET, "", "For HS256, HS384 and HS512.");
    let public_key =
        s.secret("public_key", PUBLIC_KEY, "", "For RS256, PS256, ES256 and EdDSA, as PEM text.");
    let (alg, kid, secret, public_key) = (alg?, kid?, secret?, public_key?);
    let material = material(s, alg, secret, public_key)?;
    Some(JwtKey { alg, kid, material })
}

/// The half that the algorithm needs; the other half must not be there.
fn material(
    s: &mut Section<'_>,
    alg: Algorithm,
    secret: Option<Secret>,
    public_key: Option<String>,
) -> Option<JwtKeyMaterial> {
    let symmetric = matches!(alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    match (secret, public_key) {
        (Some(secret), None) if symmetric => return Some(JwtKeyMaterial::Secret(secret)),
        (None, Some(pem)) if !symmetric => {
            if is_public_key(alg, &pem) {
                return Some(JwtKeyMaterial::PublicPem(pem));
            }
            s.mistake("public_key", None, format!("not a PEM public key that fits {alg:?}"));
        }
        _ => {
            let (wanted, other) =
                if symmetric { ("secret", "public_key") } else { ("public_key", "secret") };
            let right = format!("{alg:?} needs {wanted} or {wanted}_file, and no {other}");
            s.mistake("", None, right);
        }
    }
    None
}

fn is_public_key(alg: Algorithm, pem: &str) -> bool {
    let pem = pem.as_bytes();
    match alg {
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem).is_ok(),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem).is_ok(),
        _ => DecodingKey::from_rsa_pem(pem).is_ok(),
    }
}
