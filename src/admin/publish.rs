//! `POST /v1/publish`: one publication, or several in order.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::code::Code;
use super::connection::Caller;
use super::{Admin, Answer, api};
use crate::broker::{PublishError, PublishOnce, Published};
use crate::protocol::{ChannelName, Position};
use crate::telemetry::admin::Action;

/// Publications of one call.
pub(super) const MAX_PUBLICATIONS: usize = 1000;

/// Bytes of a call's body beyond its publications.
const ENVELOPE_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication {
    channel: String,
    /// Any JSON value, delivered as it is.
    data: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    channel: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    publications: Option<Vec<Publication>>,
    /// A repeated call with the same key publishes nothing.
    idempotency_key: Option<String>,
}

/// Tells `null`, which is a value, from an absent field.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(value).map(Some)
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
        let mut body: Body = api::read(request, limit).await?;
        let once = idempotency(body.idempotency_key.take())?;
        let publications = publications(body)?
            .into_iter()
            .map(|publication| self.check(publication))
            .collect::<Result<Vec<_>, _>>()?;
        let count = publications.len();
        let groups = groups(publications);
        let outcomes = self.publisher.publish_each(&groups, once.as_ref()).await;
        let mut results = Vec::with_capacity(groups.len());
        let (mut published, mut failed) = (0, None);
        for ((channel, data), outcome) in groups.iter().zip(outcomes) {
            match outcome {
                Ok(done) => {
                    results.push(result(channel, done));
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
        let mut answer = serde_json::json!({ "published": count });
        match &mut results[..] {
            [single] if count == 1 => {
                let fields =
                    std::mem::take(single).into_iter().filter(|(name, _)| name != "channel");
                answer.as_object_mut().expect("an object").extend(fields);
            }
            _ => answer["channels"] = results.into(),
        }
        Ok(api::json(StatusCode::OK, &answer))
    }

    fn check(&self, publication: Publication) -> Result<(ChannelName, Bytes), Answer> {
        let channel = ChannelName::new(&publication.channel)
            .map_err(|wrong| api::bad_channel(&wrong.to_string()))?;
        if self.config.load().reserved.contains(&channel) {
            return Err(api::bad_channel(
                "this channel is reserved for the gateway or another system",
            ));
        }
        let data = String::from(Box::<str>::from(publication.data));
        if data.len() > self.max_publication_bytes {
            return Err(self.too_large());
        }
        Ok((channel, data.into()))
    }

    fn too_large(&self) -> Answer {
        let message = format!("a publication has at most {} bytes", self.max_publication_bytes);
        api::error(Code::TooLarge, &message)
    }
}

fn publications(body: Body) -> Result<Vec<Publication>, Answer> {
    let wrong = |message: &str| Err(api::bad_request(message));
    match body {
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
fn groups(publications: Vec<(ChannelName, Bytes)>) -> Vec<(ChannelName, Vec<Bytes>)> {
    let mut groups: Vec<(ChannelName, Vec<Bytes>)> = Vec::new();
    let mut index: HashMap<ChannelName, usize> = HashMap::new();
    for (channel, data) in publications {
        let at = *index.entry(channel.clone()).or_insert(groups.len());
        match groups.get_mut(at) {
            Some((_, all)) => all.push(data),
            None => groups.push((channel, vec![data])),
        }
    }
    groups
}

/// The result for one channel; `offset` is that of its last publication.
fn result(channel: &ChannelName, published: Published) -> Map<String, Value> {
    let mut result = Map::new();
    result.insert("channel".to_owned(), channel.as_str().into());
    if let Some(Position { epoch, offset }) = published.position {
        result.insert("offset".to_owned(), offset.into());
        result.insert("epoch".to_owned(), epoch.to_string().into());
    }
    if published.duplicate {
        result.insert("duplicate".to_owned(), true.into());
    }
    if published.refused {
        result.insert("cancelled".to_owned(), true.into());
    }
    result
}
