//! What is wrong with a configuration, all of it at once.
//!
//! Owns the wording of a mistake. Invariant: no text here ever holds the value of a secret or the
//! contents of a file. A value that came from the environment is told as its `${NAME}` or the name of
//! the variable; only what routes, channels and upstreams are called may be told as it came out.

use std::fmt;

/// One mistake: where it is, what was found there and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key's path (`route[0].idle_ping`), an override's variable, or a place in the file.
    pub key: String,
    /// What stands there, as far as it may be shown; `None` where something is missing or unknown.
    pub found: Option<String>,
    /// What to write instead, as a sentence without its full stop.
    pub right: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{}: found {found}; {}", self.key, self.right),
            None => write!(f, "{}: {}", self.key, self.right),
        }
    }
}

/// Every mistake of one configuration, in the order they were met; never empty. Displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// `Ok` where there is none.
    pub(super) fn check(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    pub(super) fn one(key: impl Into<String>, right: impl Into<String>) -> Self {
        Self(vec![Mistake { key: key.into(), found: None, right: right.into() }])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The candidate that `word` most likely meant; `None` where none is close.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3 + 1)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_close_is_meant() {
        for (word, expected) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("time_out", Some("timeout")),
            ("compression", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, ["timeout", "listen", "threads"]), expected, "{word}");
        }
        assert_eq!(nearest("listen", []), None);
    }
}
