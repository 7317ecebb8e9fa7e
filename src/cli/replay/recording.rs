//! Reads the publications to replay, from a file or from the history of a channel.

use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::Failure;
use crate::cli::record::Record;
use crate::cli::server_api::ServerApi;
use crate::clock;

/// The longest line of a recording.
const MAX_LINE_BYTES: usize = 64 << 20;

/// The number of publications per page of the history.
const PAGE_SIZE: usize = 100;

pub struct RecordedPublication {
    /// The recorded time, since 1970.
    pub at: Option<Duration>,
    pub data: Box<RawValue>,
}

/// Reads a file of recorded publications line by line.
pub struct RecordingReader {
    name: String,
    reader: Box<dyn BufRead>,
    line_number: usize,
}

impl RecordingReader {
    /// Opens the file at `path`; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let reader = Box::new(BufReader::new(std::io::stdin()));
            return Ok(Self { name: "standard input".to_owned(), reader, line_number: 0 });
        }
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|e| Failure(format!("{name}: {e}")))?;
        Ok(Self { name, reader: Box::new(BufReader::new(file)), line_number: 0 })
    }

    /// The next publication. Empty lines are skipped.
    pub fn next(&mut self) -> Result<Option<RecordedPublication>, Failure> {
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1);
            let read = bounded.read_until(b'\n', &mut line);
            self.line_number += 1;
            let failure = |reason: &str| {
                Failure(format!("{}, line {}: {reason}", self.name, self.line_number))
            };
            if read.map_err(|error| failure(&error.to_string()))? == 0 {
                return Ok(None);
            }
            if line.len() > MAX_LINE_BYTES {
                return Err(failure("the line is longer than 64 MiB"));
            }
            if !line.trim_ascii().is_empty() {
                return parse_line(&line).map(Some).map_err(|reason| failure(&reason));
            }
        }
    }
}

fn parse_line(line: &[u8]) -> Result<RecordedPublication, String> {
    let hint = "write the output of tidegate tail --json";
    let record: Record =
        serde_json::from_slice(line).map_err(|error| format!("{error}; {hint}"))?;
    let at = match &record.time {
        Some(time) => {
            let at = clock::from_rfc3339(time).ok_or_else(|| {
                format!("{time:?} is not a valid time; write \"2026-11-23T23:57:38.603Z\"")
            })?;
            Some(at)
        }
        None => None,
    };
    match record {
        Record { data: Some(data), .. } => Ok(RecordedPublication { at, data }),
        Record { text: None, base64: None, .. } => Err(format!("missing \"data\"; {hint}")),
        _ => Err("not valid JSON, which the server API requires".to_owned()),
    }
}

/// Reads a page of the history of `channel` after the offset `since`, and returns the offset after which the
/// next page starts, if there is one.
pub async fn read_history_page(
    api: &ServerApi,
    channel: &str,
    since: Option<u64>,
) -> Result<(Vec<RecordedPublication>, Option<u64>), Failure> {
    #[derive(Deserialize)]
    struct Page {
        publications: Vec<HistoryEntry>,
        next_since: Option<u64>,
    }
    #[derive(Deserialize)]
    struct HistoryEntry {
        offset: Option<u64>,
        data: Option<Box<RawValue>>,
    }
    let channel = utf8_percent_encode(channel, NON_ALPHANUMERIC);
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let path = format!("/v1/channels/{channel}/history?limit={PAGE_SIZE}{since}");
    let page: Page = serde_json::from_slice(&api.get(&path).await?)?;
    let publications = page.publications.into_iter().map(|HistoryEntry { offset, data }| {
        let not_json = || Failure("the history contains a publication that is not JSON".to_owned());
        let data = data.ok_or_else(not_json)?;
        let mut record = Record::new(String::new(), offset);
        record.set_text(data.get().to_owned());
        Ok(RecordedPublication { at: None, data: record.data.unwrap_or(data) })
    });
    Ok((publications.collect::<Result<_, Failure>>()?, page.next_since))
}

#[cfg(test)]
mod tests;
