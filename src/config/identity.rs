//! Keys of `[tokens]` and `[jwt]`.

use jsonwebtoken::{Algorithm, DecodingKey};
use toml::Value;

use super::engine::engine_url;
use super::kinds::{self, Kind, ValueError, choice, kind, words};
use super::section::Section;
use super::{
    Csrf, Engine, Jwt, JwtKey, JwtKeyMaterial, Secret, SessionVersion, TokenFormat, Tokens,
};

/// A shorter secret can be guessed from a single token. RFC 7518 section 3.2 requires 32 bytes.
const MIN_SECRET_BYTES: usize = 16;

pub(super) fn tokens(s: &mut Section<'_>) -> Option<Tokens> {
    let ttl = s.key("ttl", kinds::POSITIVE_DURATION, "60s", "How long a token is valid.");
    let key_prefix = s.key(
        "key_prefix",
        kinds::TEXT,
        "ws_conn_token:",
        "Prefix of a token's Redis key. A backend may write records itself.",
    );
    let format = s.key(
        "format",
        FORMAT,
        "json",
        "Format of the records in Redis. \"django\": pickled, as in Django's cache; JSON is read as well.",
    );
    let issue_path = s.key(
        "issue_path",
        kinds::OPTIONAL_PATH,
        "/api/v1/auth/ws-connection-token/",
        "Where a signed-in browser requests a token; \"\" = no tokens for browsers.",
    );
    let csrf = s.inline("csrf", |s| {
        let cookie = s.key(
            "cookie",
            kinds::TOKEN,
            "csrftoken",
            "For requests that a cookie authenticates: the value of this cookie must be repeated …",
        );
        let header = s.key("header", kinds::TOKEN, "X-CSRFToken", "… in this header.");
        Some(Csrf { cookie: cookie?, header: header? })
    });
    let binding = s.key(
        "binding",
        kinds::OPTIONAL_TEMPLATE,
        "",
        "Pattern over the path's parameters that a token's connection_id must match, such as \
         `chat-{conversation_id}-*`; \"\" = not bound.",
    );
    let requests_per_user = s.key(
        "requests_per_user",
        kinds::RATE,
        "60/1m burst 120",
        "Token requests of one user, over all nodes; beyond it 429.",
    );
    let requests_per_ip = s.key(
        "requests_per_ip",
        kinds::RATE,
        "20/1s burst 1000",
        "The same per client address, before credentials are checked.",
    );
    let outstanding_per_user = s.key(
        "outstanding_per_user",
        kinds::LIMIT,
        100,
        "Tokens of one user that wait to be used; beyond it the endpoint answers 429. Tokens of the server API do not \
         count. 0 = no limit.",
    );
    Some(Tokens {
        ttl: ttl?,
        key_prefix: key_prefix?,
        format: format?,
        issue_path: issue_path?,
        csrf: csrf?,
        binding: binding?,
        requests_per_user: requests_per_user?,
        requests_per_ip: requests_per_ip?,
        outstanding_per_user: outstanding_per_user?,
    })
}

pub(super) fn jwt(s: &mut Section<'_>, engine: Option<&Engine>) -> Option<Jwt> {
    let keys = s.tables(
        "keys",
        "[jwt] keys = [{ … }]",
        "Keys that verify JWTs. Without keys and `jwks_url` no JWT is accepted.",
        key,
    );
    let jwks_url = s.key(
        "jwks_url",
        kinds::OPTIONAL_HTTP_URL,
        "",
        "JWKS with more keys; cached, and fetched again for an unknown kid. \"\" = none.",
    );
    let issuer = s.key("issuer", kinds::OPTIONAL_TEXT, "", "Required iss; \"\" = not checked.");
    let audience =
        s.key("audience", kinds::OPTIONAL_TEXT, "", "Required member of aud; \"\" = not checked.");
    let leeway = s.key("leeway", kinds::DURATION, "30s", "Tolerated clock difference.");
    let cookie = s.key("cookie", kinds::TOKEN, "access_token", "The cookie with a browser's JWT.");
    let user_claim = s.key(
        "user_claim",
        kinds::NAME,
        "user_id",
        "The claim with the user id, a string or an integer; if it is missing, sub.",
    );
    let name_claim =
        s.key("name_claim", kinds::NAME, "username", "The claim with the display name.");
    let channels_claim = s.key(
        "channels_claim",
        kinds::NAME,
        "channels",
        "The claim with the channel patterns that a JWT is limited to, if it has one.",
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
        "The claim that must equal the user's number in Redis …",
    );
    let key = s.key(
        "key",
        kinds::OPTIONAL_TEMPLATE,
        "",
        "… under this key, which contains {user_id}. A JWT without the claim and a user without the key are \
         accepted. \"\" = not checked.",
    );
    let own_url = s.redis_url(
        "redis_url",
        kinds::OPTIONAL_REDIS_URL,
        "",
        "The Redis server; \"\" = tokens_url of [engine.redis].",
    );
    let (claim, key, own_url) = (claim?, key?, own_url?);
    let Some(key) = key else { return Some(None) };
    if key.names().collect::<Vec<_>>() != ["user_id"] || key.begins_with_placeholder() {
        let fix = "write exactly one placeholder, {user_id}, behind a text of your own";
        s.mistake("key", Some(format!("{:?}", key.as_str())), fix);
        return None;
    }
    let redis_url = match own_url {
        Some(url) => url,
        None => engine_url(s, "redis_url", engine, |redis| &redis.tokens_url)?,
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

const SIGNING_SECRET: Kind<Option<Secret>> =
    kind("secret", "a secret of at least 16 bytes, preferably 32", |value| {
        let secret = (kinds::OPTIONAL_SECRET.parse)(value)?;
        match &secret {
            Some(secret) if secret.expose().len() < MIN_SECRET_BYTES => Err(ValueError::WrongKind),
            _ => Ok(secret),
        }
    });

const PUBLIC_KEY: Kind<Option<String>> = kind(
    "PEM text",
    "the PEM text of a public key: -----BEGIN PUBLIC KEY-----",
    |value: &Value| match value.as_str() {
        Some("") => Ok(None),
        Some(text) if text.contains("BEGIN") && !text.contains("PRIVATE KEY") => {
            Ok(Some(text.to_owned()))
        }
        _ => Err(ValueError::WrongKind),
    },
);

fn key(s: &mut Section<'_>) -> Option<JwtKey> {
    let alg = s.required("alg", ALGORITHM, "The only algorithm that is accepted with this key.");
    let kid = s.key(
        "kid",
        kinds::OPTIONAL_TEXT,
        "",
        "Use this key only for tokens with this kid; \"\" = for every token.",
    );
    let secret = s.secret("secret", SIGNING_SECRET, "", "For HS256, HS384 and HS512.");
    let public_key =
        s.secret("public_key", PUBLIC_KEY, "", "PEM text, for RS256, PS256, ES256 and EdDSA.");
    let (alg, kid, secret, public_key) = (alg?, kid?, secret?, public_key?);
    let material = material(s, alg, secret, public_key)?;
    Some(JwtKey { alg, kid, material })
}

/// Chooses the material that the algorithm needs, and refuses the other kind.
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
            s.mistake(
                "public_key",
                None,
                format!("write the PEM text of a public key for {alg:?}"),
            );
        }
        _ => {
            let (wanted, other) =
                if symmetric { ("secret", "public_key") } else { ("public_key", "secret") };
            let fix = format!("{alg:?} needs {wanted} or {wanted}_file, and no {other}");
            s.mistake("", None, fix);
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
