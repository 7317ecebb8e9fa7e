//! What every connection to Redis has in common: the checked URL, socket options, deadlines.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion};
use redis::{PushInfo, PushKind};

use crate::config::Secret;

/// From the first packet to an authenticated connection on which a PING was answered.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// From a command to its answer.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(2);
/// A connection is asked for a sign of life this often.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A connection whose PONG takes longer is lost.
pub(super) const PING_DEADLINE: Duration = Duration::from_secs(2);

/// Commands that wait for a slot on the connection; more of them wait for their turn, within their
/// own deadline.
const PIPELINE: usize = 1024;

/// Checks `url` and prepares connections to it, with TCP_NODELAY and keepalive; opens none.
/// `rediss://` trusts the system's root certificates. The error never holds the URL, which may hold a
/// password.
pub(super) fn client(url: &Secret) -> Result<Client, String> {
    let wrong = |what: &str| {
        format!(
            "{what}; write redis://[user:password@]host[:port][/database], or rediss:// for TLS"
        )
    };
    let parsed = redis::parse_redis_url(url.expose()).ok_or_else(|| wrong("not a Redis URL"))?;
    let info = parsed.into_connection_info().map_err(|error| wrong(&error.to_string()))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(wrong("a TLS connection without certificate checks is not offered"));
    }
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    // The end of a connection is told by RESP3 only.
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.set_tcp_settings(tcp).set_redis_settings(redis);
    Client::open(info).map_err(|error| wrong(&error.to_string()))
}

/// A connection that has answered a PING, within [`CONNECT_DEADLINE`]; its driver runs on the current
/// runtime until the last clone is dropped. `on_end` is called on it when the connection has ended, and
/// must not wait.
pub(super) async fn connect(
    client: &Client,
    on_end: impl Fn() + Send + Sync + 'static,
) -> Result<MultiplexedConnection, String> {
    let config = AsyncConnectionConfig::new()
        .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            if push.kind == PushKind::Disconnection {
                on_end();
            }
            Ok(())
        })
        .set_connection_timeout(Some(CONNECT_DEADLINE))
        .set_response_timeout(Some(COMMAND_DEADLINE))
        .set_pipeline_buffer_size(PIPELINE);
    let attempt = async {
        let mut link = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").exec_async(&mut link).await?;
        Ok(link)
    };
    match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
        Ok(outcome) => outcome.map_err(|error: redis::RedisError| error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_DEADLINE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_without_being_shown() {
        for (url, fits) in [
            ("redis://127.0.0.1:6379", true),
            ("redis://:hunter2@[::1]/3", true),
            ("rediss://user:hunter2@redis.example.com", true),
            ("unix:///run/redis.sock", true),
            ("", false),
            ("127.0.0.1:6379", false),
            ("http://user:hunter2@127.0.0.1", false),
            ("redis://user:hunter2@/0", false),
            ("redis://user:hunter2@127.0.0.1:x", false),
            ("redis://user:hunter2@127.0.0.1/hunter2", false),
            ("rediss://user:hunter2@127.0.0.1/#insecure", false),
            ("redis+sentinel://user:hunter2@127.0.0.1/", false),
        ] {
            match client(&Secret::new(url)) {
                Ok(_) => assert!(fits, "{url}"),
                Err(error) => {
                    assert!(!fits, "{url}: {error}");
                    assert!(!error.contains("hunter2"), "{error}");
                }
            }
        }
    }
}
