//! Opens connections to Redis, with the same socket options and deadlines for all of them.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ProtocolVersion, RedisResult};
use redis::{PushInfo, PushKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::health::{Health, Server};
use super::link::{Driver, MonitoredLink, is_primary};
use super::{CLOSED, ConnectionError, peer};
use crate::config::{CertificateCheck, RedisUrl};

/// The deadline for connecting, authenticating and answering a first PING.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// The deadline for the answer to a command.
pub(super) const COMMAND_DEADLINE: Duration = Duration::from_secs(2);

/// The most commands in flight on a connection. Further ones wait, within their own deadline.
const PIPELINE: usize = 1024;

/// Prepares connections to `url`, with TCP_NODELAY and keepalive; it does not open one. `rediss://` trusts the
/// system's root certificates, unless the URL names others. The error does not contain any part of the URL.
pub fn client(url: &RedisUrl) -> Result<Client, String> {
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
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

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3)
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
    let config = config.set_connection_timeout(Some(CONNECT_DEADLINE));
    let opening = async {
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok((connection, None))
    };
    check(client, health, opening).await
}

/// Opens a connection like [`connect`], for commands alone. Its end is reported to `health`.
pub(super) async fn connect_for_commands(
    client: &Client,
    health: &Health,
) -> Result<MonitoredLink, ConnectionError> {
    let on_end = health.clone();
    let config = AsyncConnectionConfig::new()
        .set_push_sender(move |push: PushInfo| -> Result<(), std::convert::Infallible> {
            if push.kind == PushKind::Disconnection {
                on_end.give_up(CLOSED);
            }
            Ok(())
        })
        .set_response_timeout(Some(COMMAND_DEADLINE))
        .set_pipeline_buffer_size(PIPELINE);
    connect(client, config, health).await
}

/// Opens a connection like [`connect`], over the stream that `wrap` makes of a TCP connection to the address of `client`.
/// `None` if that is no TCP address in the clear.
pub(super) async fn connect_wrapped<S>(
    client: &Client,
    config: AsyncConnectionConfig,
    health: &Health,
    wrap: impl FnOnce(TcpStream) -> S,
) -> Option<Result<MonitoredLink, ConnectionError>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let info = client.get_connection_info();
    let ConnectionAddr::Tcp(host, port) = info.addr() else { return None };
    let opening = async {
        let tcp = TcpStream::connect((host.as_str(), *port)).await?;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive())?;
        let settings = info.redis_settings();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(settings, wrap(tcp), config).await?;
        Ok((connection, Some(Driver::spawn(driver))))
    };
    Some(check(client, health, opening).await)
}

/// Waits for a new connection, and checks that it leads to a primary.
async fn check(
    client: &Client,
    health: &Health,
    opening: impl Future<Output = RedisResult<(MultiplexedConnection, Option<Driver>)>>,
) -> Result<MonitoredLink, ConnectionError> {
    let server = Server::of(client);
    // Before the check of the role, so that a demotion in between is not missed.
    server.add(health);
    let attempt = async {
        let (mut connection, driver) = opening.await?;
        let is_primary = is_primary(&mut connection).await?;
        Ok((connection, driver, is_primary))
    };
    let error = match tokio::time::timeout(CONNECT_DEADLINE, attempt).await {
        Ok(Ok((connection, driver, true))) => {
            return Ok(MonitoredLink { connection, server, _driver: driver });
        }
        Ok(Ok((_, _, false))) => {
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
