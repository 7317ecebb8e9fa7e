//! `POST /v1/publish`: one publication, or several in order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::code::Code;
use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::broker::{PublishError, PublishOnce, Published};
use crate::protocol::{ChannelName, Epoch};
use crate::telemetry::admin::Action;

/// Publications of one call.
pub(super) const MAX_PUBLICATIONS: usize = 1000;

/// Bytes of a call's body beyond its publications.
const ENVELOPE_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    /// Any JSON value, delivered as it is.
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    publications: Option<Vec<Publication<'a>>>,
    /// A repeated call with the same key publishes nothing.
    idempotency_key: Option<String>,
}

/// Tells `null`, which is a value, from an absent field.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(value).map(Some)
}

/// What a call has published.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    One {
        #[serde(flatten)]
        result: ChannelResult<'a>,
        published: usize,
    },
    Several {
        channels: Vec<ChannelResult<'a>>,
        published: usize,
    },
}

/// A channel and its publications.
type Group = (ChannelName, Vec<Bytes>);

/// The result for one channel.
#[derive(Serialize)]
struct ChannelResult<'a> {
    #[serde(rename = "cancelled", skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// Epoch and offset are those of its last publication.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl<'a> ChannelResult<'a> {
    fn new(channel: &'a ChannelName, published: Published) -> Self {
        Self {
            refused: published.refused,
            channel: Some(channel.as_str()),
            duplicate: published.duplicate,
            epoch: published.position.map(|position| position.epoch),
            offset: published.position.map(|position| position.offset),
        }
    }
}

/// How long a repeated call is recognised by its key.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
pub(super) const MAX_KEY_BYTES: usize = 128;

impl Admin {
    /// Checks all publications before the first is published. Each channel gets its publications in one
    /// step.
    pub(super) async fn publish(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let limit = self.max_publication_bytes.saturating_mul(2).saturating_add(ENVELOPE_BYTES);
        let body = api::collect(request, limit).await?;
        let (groups, once, count) = self.read(&body)?;
        let outcomes = self.publisher.publish_each(&groups, once.as_ref()).await;
        let mut results = Vec::with_capacity(groups.len());
        let (mut published, mut failed) = (0, None);
        for ((channel, data), outcome) in groups.iter().zip(outcomes) {
            match outcome {
                Ok(done) => {
                    results.push(ChannelResult::new(channel, done));
                    published += data.len();
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            None => {}
            Some(PublishError::TooLarge) => return Err(self.too_large()),
            Some(PublishError::EngineUnavailable) if published == 0 => {
                return Err(api::engine_down());
            }
            Some(PublishError::EngineUnavailable) => {
                let message = format!("the engine was lost after {published} publications");
                return Err(api::error(Code::EngineDown, &message));
            }
        }
        caller.audit(Action::Published, &format_args!("{count} to {} channels", results.len()));
        let outcome = match results.pop() {
            Some(result) if count == 1 => {
                Outcome::One { result: ChannelResult { channel: None, ..result }, published: count }
            }
            last => {
                results.extend(last);
                Outcome::Several { channels: results, published: count }
            }
        };
        Ok(api::json(StatusCode::OK, &outcome))
    }

    /// Reads a call: what it publishes to each channel, and how many publications these are together.
    fn read(&self, body: &Bytes) -> Result<(Vec<Group>, Option<PublishOnce>, usize), Answer> {
        let quoted;
        let (body, mut call) = match api::parse_object::<Body<'_>>(body) {
            Ok(call) => (body, call),
            Err(wrong) => {
                quoted = api::quote_floats(body).ok_or(wrong)?;
                (&quoted, api::parse_object(&quoted)?)
            }
        };
        let once = idempotency(call.idempotency_key.take())?;
        let publications = publications(call)?;
        let count = publications.len();
        let publications = publications
            .into_iter()
            .map(|publication| self.check(body, publication))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((groups(publications), once, count))
    }

    /// Returns a publication of `body`, without a copy of its data.
    fn check(
        &self,
        body: &Bytes,
        publication: Publication<'_>,
    ) -> Result<(ChannelName, Bytes), Answer> {
        let channel = ChannelName::new(&publication.channel)
            .map_err(|wrong| api::bad_channel(&wrong.to_string()))?;
        if self.config.load().reserved.contains(&channel) {
            return Err(api::bad_channel(
                "this channel is reserved for the gateway or another system",
            ));
        }
        let data = publication.data.get().as_bytes();
        if data.len() > self.max_publication_bytes {
            return Err(self.too_large());
        }
        Ok((channel, body.slice_ref(data)))
    }

    fn too_large(&self) -> Answer {
        let message = format!("a publication has at most {} bytes", self.max_publication_bytes);
        api::error(Code::TooLarge, &message)
    }
}

fn publications(call: Body<'_>) -> Result<Vec<Publication<'_>>, Answer> {
    let wrong = |message: &str| Err(api::bad_request(message));
    match call {
        Body { channel: Some(channel), data: Some(data), publications: None, .. } => {
            Ok(vec![Publication { channel, data }])
        }
        Body { channel: None, data: None, publications: Some(publications), .. } => {
            if publications.len() > MAX_PUBLICATIONS {
                return wrong("a call has at most 1000 publications");
            }
            Ok(publications)
        }
        _ => wrong("give channel and data, or publications"),
    }
}

fn idempotency(key: Option<String>) -> Result<Option<PublishOnce>, Answer> {
    match key {
        None => Ok(None),
        Some(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(PublishOnce {
            key: format!("api:{key}"),
            number: 1,
            ttl: REMEMBERED,
            unless: None,
        })),
        Some(_) => Err(api::bad_request("idempotency_key has 1 to 128 bytes")),
    }
}

/// Groups publications by channel, in the order of the first publication of each.
fn groups(publications: Vec<(ChannelName, Bytes)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(publications.len());
    if let [_] = publications[..] {
        return publications.into_iter().map(|(channel, data)| (channel, vec![data])).collect();
    }
    let mut index: HashMap<ChannelName, usize> = HashMap::with_capacity(publications.len());
    for (channel, data) in publications {
        let at = *index.entry(channel.clone()).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((_, all)) => all.push(data),
            None => groups.push((channel, vec![data])),
        }
    }
    groups
}
