//! Opens connections to Redis, with the same socket options and deadlines for all of them.

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ProtocolVersion};

use super::health::{Health, Server};
use super::link::{MonitoredLink, is_primary};
use super::{ConnectionError, peer};
use crate::config::{CertificateCheck, RedisUrl};

/// The deadline for connecting, authenticating and answering a first PING.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// The deadline for the answer to a command.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(2);

/// Prepares connections to `url`, with TCP_NODELAY and keepalive; it does not open one. `rediss://` trusts the
/// system's root certificates, unless the URL names others. The error does not contain any part of the URL.
pub fn client(url: &RedisUrl) -> Result<Client, String> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    // Only RESP3 connections report their own end. Without the library's name, no permission for CLIENT is needed.
    let info = url.info().clone();
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let redis = redis.set_skip_set_lib_name();
    let mut info = info.set_tcp_settings(tcp).set_redis_settings(redis);
    let to_text = |error: redis::RedisError| error.to_string();
    if let Some(certificates) = url.certificates() {
        let client = Client::build_with_tls(info, certificates.clone()).map_err(to_text)?;
        info = client.get_connection_info().clone();
    }
    let mut addr = info.addr().clone();
    match url.check() {
        CertificateCheck::Full => {}
        CertificateCheck::Chain => addr.set_danger_accept_invalid_hostnames(true),
        CertificateCheck::Nothing => {
            if let ConnectionAddr::TcpTls { insecure, .. } = &mut addr {
                *insecure = true;
            }
        }
    }
    Client::open(info.set_addr(addr)).map_err(to_text)
}

/// Why a server is not used that is not the primary.
const REPLICA: &str = "READONLY the server is a replica; the URL must lead to the primary";

/// Opens a connection to a primary and waits until it has answered, for at most [`CONNECT_DEADLINE`]. Its driver runs
/// on the current runtime until the last clone is dropped. Later signs of a demotion of the server are reported to
/// `health`.
pub(super) async fn connect(
    client: &Client,
    config: AsyncConnectionConfig,
    health: &Health,
) -> Result<MonitoredLink, ConnectionError> {
    let server = Server::of(client);
    // Before the check of the role, so that a demotion in between is not missed.
    server.add(health);
    let config = config.set_connection_timeout(Some(CONNECT_DEADLINE));
    let attempt = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let is_primary = is_primary(&mut connection).await?;
        Ok((connection, is_primary))
    };
    let error = match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
        Ok(Ok((connection, true))) => return Ok(MonitoredLink { connection, server }),
        Ok(Ok((_, false))) => {
            server.suspect_all();
            return Err(REPLICA.into());
        }
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    Err(match (peer::explain(client, error.as_ref()).await, error) {
        (Some(explanation), _) => explanation.into(),
        (None, Some(error)) if !error.is_timeout() => error.into(),
        (None, _) => format!("no answer within {CONNECT_DEADLINE:?}").into(),
    })
}
