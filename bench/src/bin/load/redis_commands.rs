//! Counts the commands that a Redis has run, by `INFO commandstats`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Result;

/// How often each command has run.
#[derive(Default)]
pub struct RedisCommands(BTreeMap<String, u64>);

impl RedisCommands {
    /// Reads the counts of the Redis at `address`; none without one.
    pub async fn read(address: Option<SocketAddr>) -> Result<Self> {
        let Some(address) = address else { return Ok(Self::default()) };
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.write_all(b"INFO commandstats\r\n").await?;
        let mut head = String::new();
        stream.read_line(&mut head).await?;
        let length = head.trim_end().strip_prefix('$').ok_or("not the answer to INFO")?;
        let mut info = vec![0; length.parse()?];
        stream.read_exact(&mut info).await?;
        Ok(Self::parse(&String::from_utf8(info)?))
    }

    fn parse(info: &str) -> Self {
        let count = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls))
        };
        Self(info.lines().filter_map(count).collect())
    }

    /// What has run since `before`, without the counting itself.
    pub fn since(&self, before: &Self) -> Self {
        let difference = |(name, calls): (&String, &u64)| {
            let calls = calls - before.0.get(name).unwrap_or(&0);
            (calls > 0 && name != "info").then(|| (name.clone(), calls))
        };
        Self(self.0.iter().filter_map(difference).collect())
    }

    /// The average of each command for one of `count`, to two decimals.
    pub fn per(&self, count: f64) -> BTreeMap<&str, f64> {
        let per = |calls: u64| (calls as f64 / count * 100.0).round() / 100.0;
        self.0.iter().map(|(name, calls)| (name.as_str(), per(*calls))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::RedisCommands;

    #[test]
    fn the_difference_of_two_answers_is_counted() {
        let before =
            "# Commandstats\r\ncmdstat_get:calls=1,usec=2\r\ncmdstat_info:calls=1,usec=2\r\n";
        let after = "cmdstat_get:calls=5,usec=9\r\ncmdstat_info:calls=2,usec=2\r\n\
                     cmdstat_client|list:calls=3,usec=2\r\n";
        let since = RedisCommands::parse(after).since(&RedisCommands::parse(before));
        let per = since.per(4.0);
        assert_eq!(per.into_iter().collect::<Vec<_>>(), [("client|list", 0.75), ("get", 1.0)]);
    }
}
