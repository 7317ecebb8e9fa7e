//! The parts of a URL that say where the server is, and who connects to it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use redis::ConnectionAddr;

use super::parts::{Parts, decode};
use super::{RedisUrlError, reject};

/// What redis-py and Celery use if the URL does not say.
const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 6379;

/// The database: the parameter `db`, or else the path of a server, or `virtual_host` of a socket.
pub(super) fn database(
    parts: &Parts<'_>,
    is_socket: bool,
    parameters: &mut BTreeMap<String, String>,
) -> Result<i64, RedisUrlError> {
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    let virtual_host = parameters.remove("virtual_host");
    let virtual_host = virtual_host.as_deref().map(|text| text.trim_matches('/').to_owned());
    if virtual_host.is_some() && !is_socket {
        return reject("virtual_host is for sockets; write the database as the path".to_owned());
    }
    let path = decode(parts.path).trim_matches('/').to_owned();
    let path = (!is_socket && !path.is_empty()).then_some(path);
    let other =
        path.as_deref().map(|path| number(path).ok_or(RedisUrlError::Invalid)).transpose()?;
    let named = |name: &str, text: Option<String>| match text.as_deref().map(number) {
        None => Ok(None),
        Some(Some(number)) => Ok(Some(number)),
        Some(None) => reject(format!("write {name} as a number such as 3")),
    };
    let other = other.or(named("virtual_host", virtual_host)?);
    let db = named("db", parameters.remove("db"))?;
    Ok(db.or(other).map_or(0, i64::from))
}

pub(super) fn address(
    parts: &Parts<'_>,
    is_socket: bool,
    is_tls: bool,
) -> Result<ConnectionAddr, RedisUrlError> {
    if is_socket {
        // Python clients drop the host, and with it the first part of a path that is written with two slashes.
        if parts.host.as_deref().is_some_and(|host| host != DEFAULT_HOST) || parts.port.is_some() {
            let fix = "write a socket with three slashes, such as unix:///run/redis.sock";
            return reject(fix.to_owned());
        }
        return match decode(parts.path) {
            path if path.len() > 1 => Ok(ConnectionAddr::Unix(path.into())),
            _ => reject("write the path of the socket, such as unix:///run/redis.sock".to_owned()),
        };
    }
    let host = parts.host.clone().unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let port = parts.port.unwrap_or(DEFAULT_PORT);
    Ok(match is_tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    })
}

/// The user name and the password, which may stand in front of the host or be parameters.
pub(super) fn credentials(
    parts: &Parts<'_>,
    parameters: &mut BTreeMap<String, String>,
) -> Result<[Option<String>; 2], RedisUrlError> {
    let mut one = |name: &str, short: &str, in_front: &Option<String>| {
        let given = [in_front.clone(), parameters.remove(name), parameters.remove(short)];
        let mut given = given.into_iter().flatten();
        let first = given.next();
        // If both are there, redis-py takes the one in front of the host, and Celery takes the parameter.
        match given.all(|other| Some(&other) == first.as_ref()) {
            true => Ok(first),
            false => reject(format!("write the {name} only once")),
        }
    };
    Ok([one("username", "user", &parts.username)?, one("password", "pass", &parts.password)?])
}

/// Whether the scheme of the URL is one of `schemes`.
pub(super) fn has_scheme(text: &str, schemes: [&str; 2]) -> bool {
    let scheme = text.trim().split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| schemes.iter().any(|one| one.eq_ignore_ascii_case(scheme)))
}

/// Takes the nodes of a cluster, or the sentinels, apart: the URL with the first one alone, and the others.
pub(super) fn first_node(text: &str) -> (Cow<'_, str>, Vec<&str>) {
    let begin = text.find("://").map_or(0, |at| at + "://".len());
    let end = text[begin..].find(['/', '?']).map_or(text.len(), |at| begin + at);
    // A password may have a comma in it.
    let begin = text[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    let mut nodes = text[begin..end].split(',');
    let first = nodes.next().unwrap_or_default();
    (format!("{}{first}{}", &text[..begin], &text[end..]).into(), nodes.collect())
}
