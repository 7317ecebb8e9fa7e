//! What every connection to Redis has in common: the checked URL, socket options, deadlines.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ProtocolVersion};
use redis::{PushInfo, PushKind};

use crate::config::{CertificateCheck, RedisUrl};

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

/// Prepares connections to `url`, with TCP_NODELAY and keepalive; opens none. `rediss://` trusts the
/// system's root certificates, unless the URL names others. The error holds nothing of the URL.
pub(super) fn client(url: &RedisUrl) -> Result<Client, String> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    // The end of a connection is told by RESP3 only.
    let info = url.info().clone();
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let mut info = info.set_tcp_settings(tcp).set_redis_settings(redis);
    let wrong = |error: redis::RedisError| error.to_string();
    if let Some(certificates) = url.certificates() {
        let client = Client::build_with_tls(info, certificates.clone()).map_err(wrong)?;
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
    Client::open(info.set_addr(addr)).map_err(wrong)
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
