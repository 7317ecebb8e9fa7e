//! A strict parser for the Prometheus text format of the gateway's `/metrics`.

use std::collections::BTreeMap;

/// One series and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All samples of a scrape.
#[derive(Debug, Clone, Default)]
pub struct Exposition(Vec<Sample>);

impl Exposition {
    /// Parses a scrape. The error names the first line that is neither a sample nor a comment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let samples = lines.map(|(number, line)| {
            sample(line)
                .ok_or_else(|| format!("line {} of /metrics is not a valid sample", number + 1))
        });
        Ok(Self(samples.collect::<Result<_, _>>()?))
    }

    /// The series of `name`.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of the series of `name` that have all of `labels`; `None` if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut matching = self.of(name).filter(|sample| sample.has(labels)).peekable();
        matching.peek()?;
        Some(matching.map(|sample| sample.value).sum())
    }

    /// The sorted distinct values of a label of `name`.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let values = self.of(name).filter_map(|sample| sample.labels.get(label).cloned());
        let mut values: Vec<String> = values.collect();
        values.sort();
        values.dedup();
        values
    }

    /// The cumulative counts of a histogram by upper bound, over all series with `labels`.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let bucket = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.of(&bucket).filter(|sample| sample.has(labels)) {
            let Some(bound) = sample.labels.get("le").and_then(|le| number(le)) else { continue };
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

impl Sample {
    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|v| v == value))
    }
}

/// The quantile of the observations since `before`, interpolated linearly within a bucket as Prometheus does;
/// `None` if there are no observations.
pub fn quantile(q: f64, now: &[(f64, f64)], before: &[(f64, f64)]) -> Option<f64> {
    let base = |bound: f64| {
        before.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, count)| *count)
    };
    let reset = now.iter().any(|(bound, count)| *count < base(*bound));
    let counts =
        now.iter().map(|(bound, count)| (*bound, count - if reset { 0.0 } else { base(*bound) }));
    let counts: Vec<(f64, f64)> = counts.collect();
    let total = counts.last().map_or(0.0, |(_, count)| *count);
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let at = counts.iter().position(|(_, count)| *count >= rank)?;
    let (low, below) = at.checked_sub(1).map_or((0.0, 0.0), |before| counts[before]);
    let (high, count) = counts[at];
    if high.is_infinite() {
        return Some(low);
    }
    Some(low + (high - low) * if count > below { (rank - below) / (count - below) } else { 1.0 })
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let mut fields = rest.split_whitespace();
    let value = number(fields.next()?)?;
    // A timestamp may follow.
    let timestamp = fields.next().is_none_or(|text| text.parse::<i64>().is_ok());
    (is_name(name) && timestamp && fields.next().is_none()).then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Parses labels up to the closing brace, and returns the rest of the line.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        if !is_name(name.trim()) || labels.insert(name.trim().to_owned(), value).is_some() {
            return None;
        }
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
}

/// Parses a value up to its closing quote, and returns the rest of the line.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // `parse` would accept "infinity" and other words as well.
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => {
            text.parse().ok()
        }
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
}

#[cfg(test)]
mod tests;
