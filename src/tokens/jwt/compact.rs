//! The compact serialization (RFC 7515, section 7.1), read but not believed.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::JwtRejection;

/// Longer tokens are refused unread.
const MAX_BYTES: usize = 8 * 1024;

/// A token's three parts. Nothing in it is true before a key verified it.
pub(super) struct Compact {
    pub(super) alg: Algorithm,
    pub(super) kid: Option<String>,
    /// Header, dot and payload as they were signed.
    pub(super) signed: Box<str>,
    /// In base64.
    pub(super) signature: Box<str>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that the reader must understand (section 4.1.11); we understand none.
    crit: Option<Value>,
}

impl Compact {
    /// `none`, an unknown algorithm and any critical extension are [`JwtRejection::Malformed`].
    pub(super) fn parse(token: &str) -> Result<Self, JwtRejection> {
        let malformed = JwtRejection::Malformed;
        if token.len() > MAX_BYTES {
            return Err(malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(malformed);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| malformed)?;
        // The derived reader would take an array for the fields in their order.
        if !header.starts_with(b"{") {
            return Err(malformed);
        }
        let header: Header = serde_json::from_slice(&header).map_err(|_| malformed)?;
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

    /// The payload's JSON object. Only for a token whose signature held.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, JwtRejection> {
        let payload = self.signed.split_once('.').map_or("", |(_, payload)| payload);
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| JwtRejection::Malformed)?;
        serde_json::from_slice(&payload).map_err(|_| JwtRejection::Malformed)
    }
}
