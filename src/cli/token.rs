//! `tidegate token`: issues credentials for debugging, from the config of a gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jsonwebtoken::AlgorithmFamily;
use serde_json::{Map, Value, json};

use super::arguments::{TlsArgs, parse_channel, parse_lifetime};
use super::server_api::ServerApi;
use super::{Failure, check, print_line};
use crate::clock;
use crate::config::{Config, EngineKind, Jwt, JwtKeyMaterial, RedisEngine};
use crate::http_client::ServerTrust;
use crate::protocol::UserId;
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::tokens::{TokenRecord, TokenStore, sign_hs};

/// The time limit for the connection to Redis.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The default lifetime of a JWT.
const JWT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Issue a connection token or sign a session JWT, for debugging
///
/// With the redis engine the token is written to Redis. With the memory engine it is requested from the running
/// gateway, on its admin port and with the first of its api_keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The gateway's config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The user id: a number if it is one in its usual form, otherwise a string
    #[arg(long, value_name = "ID", value_parser = user_id)]
    user: UserId,
    /// The display name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Limit the credentials to a channel, or to a pattern such as "chat_*"; may be repeated
    #[arg(long = "channel", value_name = "PATTERN", value_parser = parse_channel)]
    channels: Vec<String>,
    /// The lifetime of the session, such as 90s, 15m, 2h or 7d [default: 15m for a JWT, else unlimited]
    #[arg(long, value_name = "DURATION", value_parser = parse_lifetime)]
    expires: Option<Duration>,
    /// Sign a session JWT with the first HS256, HS384 or HS512 key, instead of a connection token
    #[arg(long)]
    jwt: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = check::load(&args.config)?;
    let token = if args.jwt {
        let claims = claims(args, &config.jwt, clock::unix_seconds());
        sign(&config.jwt, &claims)?
    } else {
        match &config.engine.kind {
            EngineKind::Redis(redis) => write_to_redis(args, &config, redis)?,
            EngineKind::Memory => request_from_gateway(args, &config)?,
        }
    };
    print_line(token);
    Ok(ExitCode::SUCCESS)
}

fn user_id(text: &str) -> Result<UserId, String> {
    let fix = || format!("write an id that is not empty, and not {}", UserId::ANONYMOUS);
    UserId::from_text(text).ok_or_else(fix)
}

fn write_to_redis(args: &Args, config: &Config, redis: &RedisEngine) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let record = record(args, clock::unix_seconds());
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let commands = Commands::start(&redis.tokens_url, "redis_tokens", &shutdown)
            .map_err(|error| format!("engine.redis.tokens_url: {error}"))?;
        let store = TokenStore::redis(
            commands.clone(),
            &config.tokens.key_prefix,
            config.tokens.ttl,
            config.tokens.format,
        );
        store.declare_needs(true, false, false);
        // `check` has the reason, from Redis where it has answered.
        commands.wait_up(CONNECT_DEADLINE).await;
        commands.check()?;
        let issued = store.issue(&record).await;
        issued.map_err(|_| "failed to write the token to Redis".to_owned())
    })
}

fn record(args: &Args, now: u64) -> TokenRecord {
    TokenRecord {
        user_id: args.user.clone(),
        username: args.name.clone(),
        connection_id: None,
        created_at: now as f64,
        used: false,
        channels: (!args.channels.is_empty()).then(|| args.channels.clone()),
        origin: None,
        session_expires_at: args.expires.map(|lifetime| now.saturating_add(lifetime.as_secs())),
        claims: None,
    }
}

fn request_from_gateway(args: &Args, config: &Config) -> Result<String, String> {
    let key = config.admin.api_keys.first().ok_or(
        "with the memory engine, tokens are requested through the server API, which needs a key: \
         set admin.api_keys",
    )?;
    let mut request = Map::from_iter([("user_id".to_owned(), json!(args.user))]);
    if let Some(name) = &args.name {
        request.insert("username".to_owned(), json!(name));
    }
    if !args.channels.is_empty() {
        request.insert("channels".to_owned(), json!(args.channels));
    }
    if let Some(lifetime) = args.expires {
        request.insert("session_expires_in".to_owned(), json!(lifetime.as_secs()));
    }
    let tls = config.admin.tls.as_ref().and_then(|tls| tls.certificates.iter().next());
    // The certificate need not be for the address that the port listens on.
    let trust = tls.map(|certificate| ServerTrust::Exactly(certificate.pem()));
    let tls = trust.map(|trust| args.tls.client(trust)).transpose();
    let tls = tls.map_err(|Failure(error)| error)?;
    let api = ServerApi::new(config.admin.listen, Some(key)).with_tls(tls);
    api.issue_token(&Value::Object(request))
}

/// The claims that a gateway with these `settings` reads and checks.
fn claims(args: &Args, settings: &Jwt, now: u64) -> Value {
    let lifetime = args.expires.unwrap_or(JWT_LIFETIME);
    let mut claims = Map::from_iter([
        (settings.user_claim.clone(), json!(args.user)),
        ("token_type".to_owned(), json!("access")),
        ("iat".to_owned(), json!(now)),
        ("exp".to_owned(), json!(now.saturating_add(lifetime.as_secs()))),
    ]);
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    add(&settings.name_claim, args.name.as_ref().map(|name| json!(name)));
    add(&settings.channels_claim, (!args.channels.is_empty()).then(|| json!(args.channels)));
    add("iss", settings.issuer.as_ref().map(|issuer| json!(issuer)));
    add("aud", settings.audience.as_ref().map(|audience| json!(audience)));
    Value::Object(claims)
}

fn sign(settings: &Jwt, claims: &Value) -> Result<String, String> {
    // A key with a `kid` only verifies tokens that have this `kid`, which these do not.
    let mut candidates = settings.keys.iter().filter(|key| key.kid.is_none());
    let usable = candidates.find_map(|key| match &key.material {
        JwtKeyMaterial::Secret(secret) if key.alg.family() == AlgorithmFamily::Hmac => {
            Some((secret, key.alg))
        }
        _ => None,
    });
    let (secret, alg) = usable.ok_or("--jwt needs a secret in [jwt] keys without a kid")?;
    sign_hs(secret, alg, claims)
}

#[cfg(test)]
mod tests;
