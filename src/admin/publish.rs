//! `POST /v1/publish`: one publication, or many in order.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Admin, Answer, api};
use crate::broker::PublishError;
use crate::protocol::ChannelName;

/// Publications of one call.
const MAX_PUBLICATIONS: usize = 1000;

/// A call's body, beyond its publications.
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
    #[serde(default, deserialize_with = "given")]
    data: Option<Box<RawValue>>,
    publications: Option<Vec<Publication>>,
}

/// `null` is a value like any other, and not the same as none.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(value).map(Some)
}

impl Admin {
    /// Checks everything before it publishes anything.
    pub(super) async fn publish(&self, request: Request<Incoming>) -> Result<Answer, Answer> {
        let limit = self.max_publication_bytes.saturating_mul(2).saturating_add(ENVELOPE_BYTES);
        let body: Body = api::read(request, limit).await?;
        let publications = publications(body)?
            .into_iter()
            .map(|publication| self.check(publication))
            .collect::<Result<Vec<_>, _>>()?;
        for (published, (channel, data)) in publications.iter().enumerate() {
            match self.publisher.publish(channel, data.clone()).await {
                Ok(()) => {}
                Err(PublishError::EngineDown) if published == 0 => return Err(api::engine_down()),
                Err(PublishError::EngineDown) => {
                    let message = format!("the engine was lost after {published} publications");
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    return Err(api::error(status, "engine_down", &message));
                }
                Err(PublishError::TooLarge) => return Err(self.too_large()),
            }
        }
        Ok(api::json(StatusCode::OK, &serde_json::json!({ "published": publications.len() })))
    }

    fn check(&self, publication: Publication) -> Result<(ChannelName, Bytes), Answer> {
        let channel = ChannelName::new(&publication.channel).map_err(|wrong| {
            api::error(StatusCode::BAD_REQUEST, "bad_channel", &wrong.to_string())
        })?;
        let data = String::from(Box::<str>::from(publication.data));
        if data.len() > self.max_publication_bytes {
            return Err(self.too_large());
        }
        Ok((channel, data.into()))
    }

    fn too_large(&self) -> Answer {
        let message = format!("a publication has at most {} bytes", self.max_publication_bytes);
        api::error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message)
    }
}

fn publications(body: Body) -> Result<Vec<Publication>, Answer> {
    let wrong = |message: &str| Err(api::bad_request(message));
    match body {
        Body { channel: Some(channel), data: Some(data), publications: None } => {
            Ok(vec![Publication { channel, data }])
        }
        Body { channel: None, data: None, publications: Some(publications) } => {
            if publications.len() > MAX_PUBLICATIONS {
                return wrong("at most 1000 publications a call");
            }
            Ok(publications)
        }
        _ => wrong("give channel and data, or publications"),
    }
}
