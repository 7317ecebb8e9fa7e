//! Opens connections to Redis, with the same socket options and deadlines for all of them.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ProtocolVersion};

use super::ConnectionError;
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
    // Only RESP3 connections report their own end.
    let info = url.info().clone();
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
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

/// Opens a connection and waits until it has answered a PING, for at most [`CONNECT_DEADLINE`]. Its driver
/// runs on the current runtime until the last clone is dropped.
pub(super) async fn connect(
    client: &Client,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, ConnectionError> {
    let config = config.set_connection_timeout(Some(CONNECT_DEADLINE));
    let attempt = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    };
    match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
        Ok(outcome) => outcome.map_err(|error: redis::RedisError| ConnectionError::from(error)),
        Err(_) => Err(format!("no answer within {CONNECT_DEADLINE:?}").into()),
    }
}
