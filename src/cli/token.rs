//! `tidegate token`: a credential for trying things out, as a backend would give it to a client.
//!
//! A connection token goes into the engine that the gateway reads: with Redis straight into it, with
//! the memory engine through the running gateway's admin port. A session JWT needs neither. Only the
//! token itself is printed to stdout, so that a script can take it.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{ConfigFile, admin_client, load};
use crate::config::{Config, EngineKind, JwtKeyMaterial, RedisEngine, values};
use crate::protocol::{Origin, UserId};
use crate::redis_link::Commands;
use crate::shutdown::Shutdown;
use crate::tokens::{TokenRecord, TokenStore, sign_hs};

/// For Redis to answer the first PING.
const REDIS_DEADLINE: Duration = Duration::from_secs(5);

/// How long a session lasts where nothing is said.
const DEFAULT_SESSION: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, clap::Args)]
pub struct TokenArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Who: a whole number is passed on as a number, anything else as text
    #[arg(long, value_name = "ID", value_parser = user_id)]
    user: UserId,
    /// The user's name
    #[arg(long)]
    name: Option<String>,
    /// A channel, or a pattern with *, that the token is limited to; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    channel: Vec<String>,
    /// The only origin that may use the connection token
    #[arg(long, conflicts_with = "jwt", value_parser = origin)]
    origin: Option<String>,
    /// The connection_id of the record, where [tokens] binding asks for one
    #[arg(long, value_name = "ID", conflicts_with = "jwt")]
    connection_id: Option<String>,
    /// Print a session JWT, signed with the first HS key of [jwt], instead of a connection token
    #[arg(long)]
    jwt: bool,
    /// How long the session lasts (15m, 1h); without it a JWT lasts 15m and a connection as it likes
    #[arg(long, value_name = "DURATION", value_parser = session_length)]
    expires: Option<Duration>,
}

/// Prints the credential; `Err` says why there is none.
pub fn run(arguments: &TokenArguments) -> Result<(), String> {
    let config = load(&arguments.config.path)?;
    let token = if arguments.jwt {
        session_jwt(arguments, &config)?
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("runtime: {error}"))?;
        runtime.block_on(connection_token(arguments, &config))?
    };
    writeln!(std::io::stdout(), "{token}").map_err(|error| format!("stdout: {error}"))
}

fn session_jwt(arguments: &TokenArguments, config: &Config) -> Result<String, String> {
    let key = config.jwt.keys.iter().find_map(|key| match &key.material {
        JwtKeyMaterial::Secret(secret) => Some((secret, key.alg)),
        JwtKeyMaterial::PublicPem(_) => None,
    });
    let Some((secret, alg)) = key else {
        return Err("jwt.keys: no HS256, HS384 or HS512 key to sign with".to_owned());
    };
    sign_hs(secret, alg, &claims(arguments, config, unix_now()))
}

/// Claims under the names that `[jwt]` gives them.
fn claims(arguments: &TokenArguments, config: &Config, now: u64) -> Value {
    let jwt = &config.jwt;
    let lasts = arguments.expires.unwrap_or(DEFAULT_SESSION).as_secs();
    let mut claims = json!({
        "iat": now,
        "exp": now.saturating_add(lasts),
        "token_type": "access",
    });
    claims[&jwt.user_claim] = json!(arguments.user);
    if let Some(name) = &arguments.name {
        claims[&jwt.name_claim] = json!(name);
    }
    if !arguments.channel.is_empty() {
        claims[&jwt.channels_claim] = json!(arguments.channel);
    }
    if let Some(issuer) = &jwt.issuer {
        claims["iss"] = json!(issuer);
    }
    if let Some(audience) = &jwt.audience {
        claims["aud"] = json!(audience);
    }
    claims
}

async fn connection_token(arguments: &TokenArguments, config: &Config) -> Result<String, String> {
    match &config.engine.kind {
        EngineKind::Redis(redis) => into_redis(arguments, config, redis).await,
        EngineKind::Memory => from_gateway(arguments, config).await,
    }
}

async fn into_redis(
    arguments: &TokenArguments,
    config: &Config,
    redis: &RedisEngine,
) -> Result<String, String> {
    let down = || "engine.redis.tokens_url: Redis does not answer".to_owned();
    let commands = Commands::start(&redis.tokens_url, "token", &Shutdown::new())?;
    if !commands.wait_up(REDIS_DEADLINE).await {
        return Err(down());
    }
    let store = TokenStore::redis(commands, &config.tokens.key_prefix, config.tokens.ttl);
    store.issue(&record(arguments, unix_now())).await.map_err(|_| down())
}

fn record(arguments: &TokenArguments, now: u64) -> TokenRecord {
    TokenRecord {
        user_id: arguments.user.clone(),
        username: arguments.name.clone(),
        connection_id: arguments.connection_id.clone(),
        created_at: now as f64,
        used: false,
        channels: (!arguments.channel.is_empty()).then(|| arguments.channel.clone()),
        origin: arguments.origin.clone(),
        session_expires_at: arguments.expires.map(|lasts| now.saturating_add(lasts.as_secs())),
        claims: None,
    }
}

/// The memory engine lives in the gateway's process, so the gateway has to be asked.
async fn from_gateway(arguments: &TokenArguments, config: &Config) -> Result<String, String> {
    let Some(key) = config.admin.api_keys.first() else {
        return Err(
            "admin.api_keys: the memory engine is reached by the admin port, which needs a key"
                .to_owned(),
        );
    };
    admin_client::mint(config.admin.listen, key, &request(arguments)).await
}

/// The body of `POST /v1/tokens`.
fn request(arguments: &TokenArguments) -> Value {
    let mut body = json!({ "user_id": arguments.user });
    let fields = [
        ("username", arguments.name.as_ref().map(|name| json!(name))),
        ("channels", (!arguments.channel.is_empty()).then(|| json!(arguments.channel))),
        ("origin", arguments.origin.as_ref().map(|origin| json!(origin))),
        ("connection_id", arguments.connection_id.as_ref().map(|id| json!(id))),
        ("session_expires_in", arguments.expires.map(|lasts| json!(lasts.as_secs()))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

fn user_id(text: &str) -> Result<UserId, String> {
    match text.parse() {
        Ok(number) => Ok(UserId::Integer(number)),
        Err(_) if text.is_empty() => Err("a user id is not empty".to_owned()),
        Err(_) => Ok(UserId::Text(text.into())),
    }
}

fn pattern(text: &str) -> Result<String, String> {
    match crate::protocol::ChannelName::new(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(wrong) => Err(wrong.to_string()),
    }
}

fn origin(text: &str) -> Result<String, String> {
    match Origin::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write an origin such as https://app.example.com".to_owned()),
    }
}

/// Whole seconds, at least one: that is what tokens count in.
fn session_length(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        length if length.as_secs() == 0 => Err("write at least \"1s\"".to_owned()),
        length => Ok(length),
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_link::test_server::RedisServer;
    use crate::tokens::JwtVerifier;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: TokenArguments,
    }

    fn arguments(line: &str) -> TokenArguments {
        let words = "tidegate --config unused.toml".split(' ').chain(line.split(' '));
        Line::try_parse_from(words).unwrap().arguments
    }

    fn config(head: &str) -> Config {
        let text = format!(
            "{head}\n[[route]]\npath = \"/ws/{{room}}\"\nchannel = \"{{room}}\"\nupstream = \"\"\n"
        );
        Config::from_toml(&text).unwrap()
    }

    #[tokio::test]
    async fn a_jwt_is_one_that_the_gateway_takes() {
        let config = config(
            "[jwt]\nissuer = \"us\"\naudience = \"them\"\nuser_claim = \"uid\"\nname_claim = \"nick\"\n\
             keys = [{ alg = \"HS512\", secret = \"0123456789abcdef\" }]",
        );
        let line = "--user 7 --name ana --channel chat_1 --channel team-* --jwt --expires 1h";
        let token = session_jwt(&arguments(line), &config).unwrap();
        let identity = JwtVerifier::new(&config.jwt).unwrap().verify(&token).await.unwrap();
        assert_eq!(identity.user_id, Some(UserId::Integer(7)));
        assert_eq!(identity.username.as_deref(), Some("ana"));
        assert!(identity.may_join("team-9") && !identity.may_join("chat_2"));
        let left = identity.expires_at.unwrap() - unix_now();
        assert!((3600..=3600 + config.jwt.leeway.as_secs()).contains(&left), "{left}");
    }

    #[test]
    fn without_a_secret_there_is_no_jwt() {
        let error = session_jwt(&arguments("--user 7 --jwt"), &config("")).unwrap_err();
        assert!(error.starts_with("jwt.keys"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_token_goes_to_redis() {
        let server = RedisServer::start();
        let config = config(&format!(
            "[engine]\nkind = \"redis\"\nredis.url = \"{}\"",
            server.url().expose()
        ));
        let line = "--user u-1 --channel chat_1 --origin https://a.example --expires 1m";
        let token = connection_token(&arguments(line), &config).await.unwrap();
        let commands = Commands::start(&server.url(), "test", &Shutdown::new()).unwrap();
        assert!(commands.wait_up(REDIS_DEADLINE).await);
        let store = TokenStore::redis(commands, &config.tokens.key_prefix, config.tokens.ttl);
        let record = store.consume(&token).await.unwrap().unwrap();
        assert_eq!(record.user_id, UserId::Text("u-1".into()));
        assert_eq!(record.channels, Some(vec!["chat_1".to_owned()]));
        assert_eq!(record.origin.as_deref(), Some("https://a.example"));
        assert!(record.session_expires_at.is_some_and(|end| end > unix_now()));
    }

    #[tokio::test]
    async fn the_memory_engine_is_asked_by_the_admin_port() {
        let error = connection_token(&arguments("--user 1"), &config("")).await.unwrap_err();
        assert!(error.starts_with("admin.api_keys"), "{error}");
        let all = "--user 1 --name ana --channel c --origin http://a.test --connection-id c-1 --expires 2m";
        assert_eq!(
            request(&arguments(all)),
            json!({"user_id": 1, "username": "ana", "channels": ["c"], "origin": "http://a.test",
                "connection_id": "c-1", "session_expires_in": 120})
        );
        assert_eq!(request(&arguments("--user ana")), json!({"user_id": "ana"}));
    }
}
