//! The parts of a URL that say how a server is found through its sentinels.

use std::collections::BTreeMap;

use redis::RedisConnectionInfo;

use super::parts::{Parts, decode};
use super::{RedisUrlError, reject};

/// The port of a sentinel if the URL does not say.
pub(super) const DEFAULT_PORT: u16 = 26379;

/// What the sentinels are asked, and as whom.
#[derive(Clone)]
pub(super) struct Sentinel {
    /// The name by which they know the server.
    pub name: Box<str>,
    /// The user and the password that they ask for, which are not those of the server.
    pub settings: RedisConnectionInfo,
}

impl Sentinel {
    /// Takes the name out of the path, and the user and the password out of the parameters.
    pub fn take(
        parts: &mut Parts<'_>,
        parameters: &mut BTreeMap<String, String>,
    ) -> Result<Self, RedisUrlError> {
        let name = decode(std::mem::take(&mut parts.path)).trim_matches('/').to_owned();
        if name.is_empty() || name.contains('/') || name.chars().any(char::is_control) {
            let fix = "write the name of the server behind the sentinels, such as /mymaster, and the database as ?db=3";
            return reject(fix.to_owned());
        }
        parts.port = parts.port.or(Some(DEFAULT_PORT));
        let mut settings = RedisConnectionInfo::default();
        let username = parameters.remove("sentinel_username").filter(|name| !name.is_empty());
        let password = parameters.remove("sentinel_password").filter(|word| !word.is_empty());
        if username.is_some() && password.is_none() {
            return reject("write sentinel_password as well as sentinel_username".to_owned());
        }
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        Ok(Self { name: name.into(), settings })
    }
}
