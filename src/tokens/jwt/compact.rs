//! The compact serialization (RFC 7515, section 7.1). Parsing verifies nothing.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::JwtRejection;

/// The parts of a token. Its content must not be trusted before a key has verified it.
pub(super) struct Compact {
    pub(super) alg: Algorithm,
    pub(super) kid: Option<String>,
    /// The header, a dot and the payload: the text that was signed.
    pub(super) signed: Box<str>,
    /// The signature in base64.
    pub(super) signature: Box<str>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that the reader must understand (section 4.1.11). The gateway supports none.
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
}

/// Reads a member that is there, `null` included, as `Some`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Compact {
    /// Longer tokens are refused without being parsed.
    pub(super) const MAX_BYTES: usize = 8 * 1024;

    /// Parses a token. `none`, an unknown algorithm and any critical extension are
    /// [`JwtRejection::Malformed`].
    pub(super) fn parse(token: &str) -> Result<Self, JwtRejection> {
        let malformed = JwtRejection::Malformed;
        if token.len() > Self::MAX_BYTES {
            return Err(malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(malformed);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| malformed)?;
        // The reader does not look into fields that are not read.
        let header = str::from_utf8(&header).map_err(|_| malformed)?;
        // The derived reader would take an array for the fields in their order.
        if !header.starts_with('{') {
            return Err(malformed);
        }
        let header: Header = serde_json::from_str(header).map_err(|_| malformed)?;
        if header.crit.is_some() {
            return Err(malformed);
        }
        Ok(Self {
            alg: Algorithm::from_str(&header.alg).map_err(|_| malformed)?,
            kid: header.kid,
            signed: signed.into(),
            signature: signature.into(),
        })
    }

    /// Decodes the payload. Call it only for a token whose signature was verified.
    pub(super) fn payload(&self) -> Result<Box<str>, JwtRejection> {
        let payload = self.signed.split_once('.').map_or("", |(_, payload)| payload);
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| JwtRejection::Malformed)?;
        String::from_utf8(payload).map(Into::into).map_err(|_| JwtRejection::Malformed)
    }
}
