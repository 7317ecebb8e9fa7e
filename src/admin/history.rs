//! `GET /v1/channels/{channel}/history`: the history of a channel, a page at a time.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::api::Query;
use super::code::Code;
use super::{Admin, Answer, api};
use crate::broker::{Extent, Page, ReadFrom};
use crate::protocol::{ChannelName, Epoch, Position};
use crate::socket::{Delivery, frame};

/// Attempts to read a history that is trimmed faster than it is read.
const READ_ATTEMPTS: usize = 8;

#[derive(Serialize)]
struct Body<'a> {
    channel: &'a ChannelName,
    /// The position of the last publication; `null` if there is no history at the moment.
    epoch: Option<Epoch>,
    offset: u64,
    publications: Vec<Publication<'a>>,
    /// Whether nothing is missing between `since` and the first publication.
    recovered: bool,
    /// The `since` of the next page; `null` on the last page.
    next_since: Option<u64>,
}

#[derive(Serialize)]
struct Publication<'a> {
    offset: Option<u64>,
    #[serde(flatten)]
    content: Content<'a>,
}

/// The data of a publication, as clients get it.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Content<'a> {
    Data(&'a RawValue),
    /// Text that is not valid JSON.
    Text(&'a str),
    /// Binary data.
    Base64(String),
}

/// The page that the query asks for.
struct PageQuery {
    since: Option<u64>,
    epoch: Option<Epoch>,
    limit: usize,
}

impl Admin {
    pub(super) async fn read_history(
        &self,
        channel: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Answer> {
        let channel = self.open_channel(channel)?;
        let asked = PageQuery::read(Query::of(&request)?)?;
        let extent = self.history.extent(&channel).await.map_err(|_| api::engine_down())?;
        let Some(extent) = extent else {
            if !self.history.keeps(&channel) {
                let message = "this channel keeps no history";
                return Err(api::error(Code::NoHistory, message));
            }
            // A client that was at a position has lost what followed it.
            let recovered = asked.since.unwrap_or(0) == 0 && asked.epoch.is_none();
            return Ok(answer(&channel, None, &[], recovered, None));
        };
        let (page, recovered) = self.page(&channel, &asked, extent).await?;
        let publications = &page.publications[..page.publications.len().min(asked.limit)];
        let all = page.complete && publications.len() == page.publications.len();
        let next_since = publications
            .last()
            .and_then(|last| last.position)
            .map(|position| position.offset)
            .filter(|_| !all);
        Ok(answer(&channel, Some(page.now), publications, recovered, next_since))
    }

    /// The page after `since`; where that is no longer kept, the page from the oldest publication.
    async fn page(
        &self,
        channel: &ChannelName,
        asked: &PageQuery,
        extent: Extent,
    ) -> Result<(Page, bool), Answer> {
        let epoch = asked.epoch.unwrap_or(extent.now.epoch);
        if let Some(offset) = asked.since {
            let from = ReadFrom::After(Position { epoch, offset });
            let page = self.history.read(channel, from).await.map_err(|_| api::engine_down())?;
            if page.after.is_some() {
                return Ok((page, true));
            }
        }
        let mut extent = extent;
        for _ in 0..READ_ATTEMPTS {
            let offset = extent.oldest.map_or(extent.now.offset, |oldest| oldest - 1);
            let from = ReadFrom::After(Position { offset, ..extent.now });
            let page = self.history.read(channel, from).await.map_err(|_| api::engine_down())?;
            if page.after.is_some() {
                let from_the_beginning = asked.since.is_none() && epoch == page.now.epoch;
                return Ok((page, from_the_beginning));
            }
            // The history has been trimmed since, or continues in another epoch: its extent is read again.
            let now = self.history.extent(channel).await.map_err(|_| api::engine_down())?;
            extent = now.unwrap_or(extent);
        }
        Err(api::engine_down())
    }
}

impl PageQuery {
    fn read(mut query: Query) -> Result<Self, Answer> {
        let asked = Self {
            since: query.take("since", "is an offset: a number from 0", |text| {
                text.parse().ok().filter(|offset| *offset <= Position::MAX_OFFSET)
            })?,
            epoch: query.take("epoch", "is 1 to 16 hex digits", |text| text.parse().ok())?,
            limit: query.take_limit()?,
        };
        query.finish(&["since", "epoch", "limit"])?;
        Ok(asked)
    }
}

fn answer(
    channel: &ChannelName,
    now: Option<Position>,
    publications: &[Delivery],
    recovered: bool,
    next_since: Option<u64>,
) -> Answer {
    let body = Body {
        channel,
        epoch: now.map(|now| now.epoch),
        offset: now.map_or(0, |now| now.offset),
        publications: publications.iter().map(publication).collect(),
        recovered,
        next_since,
    };
    api::json(StatusCode::OK, &body)
}

fn publication(delivery: &Delivery) -> Publication<'_> {
    let payload = frame::payload(&delivery.frame);
    let content = match std::str::from_utf8(payload) {
        Err(_) => Content::Base64(BASE64_STANDARD.encode(payload)),
        Ok(text) => match serde_json::from_str(text) {
            Ok(json) => Content::Data(json),
            Err(_) => Content::Text(text),
        },
    };
    Publication { offset: delivery.position.map(|position| position.offset), content }
}
