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

/// What a call with a list of publications has published.
#[derive(Serialize)]
struct Several<'a> {
    channels: Vec<ChannelResult<'a>>,
    published: usize,
}

/// A call that was read and checked.
struct CheckedCall {
    publications: Publications,
    once: Option<PublishOnce>,
}

enum Publications {
    One(ChannelName, Bytes),
    Several(Vec<(ChannelName, Bytes)>),
}

/// A channel and its publications.
type Group = (ChannelName, Vec<Bytes>);

/// The result for one channel. The answer to a call with one publication is this alone.
#[derive(Serialize)]
struct ChannelResult<'a> {
    #[serde(rename = "cancelled", skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
    /// `None` if the call had only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// Epoch and offset are those of its last publication.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// `None` if the answer says for all channels together how many they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<usize>,
}

impl<'a> ChannelResult<'a> {
    fn new(channel: Option<&'a str>, published: Published, count: Option<usize>) -> Self {
        Self {
            refused: published.refused,
            channel,
            duplicate: published.duplicate,
            epoch: published.position.map(|position| position.epoch),
            offset: published.position.map(|position| position.offset),
            published: count,
        }
    }
}

/// How long a repeated call is recognised by its key.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
pub(super) const MAX_KEY_BYTES: usize = 128;

impl Admin {
    pub(super) async fn publish(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_>,
    ) -> Result<Answer, Answer> {
        let limit = self.max_publication_bytes.saturating_mul(2).saturating_add(ENVELOPE_BYTES);
        let body = api::collect(request, limit).await?;
        let json = self.publish_body(body, caller).await?;
        Ok(api::json_text_answer(StatusCode::OK, json))
    }

    /// Publishes what a call's body says. Returns the body of the answer.
    pub(super) async fn publish_body(
        &self,
        body: Bytes,
        caller: &Caller<'_>,
    ) -> Result<String, Answer> {
        let CheckedCall { publications, once } = self.read(&body)?;
        let json = match publications {
            Publications::One(channel, data) => {
                let outcome = self.publisher.publish(&channel, data, once.as_ref()).await;
                let published = outcome.map_err(|error| self.refusal(error, 0))?;
                caller.audit(Action::Published, &"1 to 1 channels");
                serde_json::to_string(&ChannelResult::new(None, published, Some(1)))
            }
            Publications::Several(publications) => {
                return self.publish_groups(publications, once.as_ref(), caller).await;
            }
        };
        Ok(json.expect("strings and numbers serialize"))
    }

    /// All publications were checked before the first is published. Each channel gets its publications in one step.
    async fn publish_groups(
        &self,
        publications: Vec<(ChannelName, Bytes)>,
        once: Option<&PublishOnce>,
        caller: &Caller<'_>,
    ) -> Result<String, Answer> {
        let groups = groups(publications);
        let outcomes = self.publisher.publish_each(&groups, once).await;
        let mut channels = Vec::with_capacity(groups.len());
        let (mut published, mut failed) = (0, None);
        for ((channel, data), outcome) in groups.iter().zip(outcomes) {
            match outcome {
                Ok(done) => {
                    channels.push(ChannelResult::new(Some(channel.as_str()), done, None));
                    published += data.len();
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(failed) = failed {
            return Err(self.refusal(failed, published));
        }
        caller
            .audit(Action::Published, &format_args!("{published} to {} channels", channels.len()));
        let outcome = Several { channels, published };
        Ok(serde_json::to_string(&outcome).expect("strings and numbers serialize"))
    }

    /// The answer to a call that failed after `published` publications.
    fn refusal(&self, failed: PublishError, published: usize) -> Answer {
        match failed {
            PublishError::TooLarge => self.too_large(),
            PublishError::EngineUnavailable if published == 0 => api::engine_down(),
            PublishError::EngineUnavailable => {
                let message = format!("the engine was lost after {published} publications");
                api::error(Code::EngineDown, &message)
            }
        }
    }

    /// Reads a call, and checks all of its publications.
    fn read(&self, body: &Bytes) -> Result<CheckedCall, Answer> {
        let quoted;
        let (body, mut call) = match api::parse_object::<Body<'_>>(body) {
            Ok(call) => (body, call),
            Err(wrong) => {
                quoted = api::quote_floats(body).ok_or(wrong)?;
                (&quoted, api::parse_object(&quoted)?)
            }
        };
        let once = idempotency(call.idempotency_key.take())?;
        let publications = match call {
            Body { channel: Some(channel), data: Some(data), publications: None, .. } => {
                let (channel, data) = self.check(body, Publication { channel, data })?;
                Publications::One(channel, data)
            }
            Body { channel: None, data: None, publications: Some(publications), .. } => {
                if publications.len() > MAX_PUBLICATIONS {
                    return Err(api::bad_request("a call has at most 1000 publications"));
                }
                let checked = publications.into_iter().map(|one| self.check(body, one));
                let mut checked = checked.collect::<Result<Vec<_>, _>>()?;
                match checked.pop() {
                    Some((channel, data)) if checked.is_empty() => Publications::One(channel, data),
                    last => {
                        checked.extend(last);
                        Publications::Several(checked)
                    }
                }
            }
            _ => return Err(api::bad_request("give channel and data, or publications")),
        };
        Ok(CheckedCall { publications, once })
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
