//! The mistakes of a configuration, all of them at once.
//!
//! Owns the wording of a mistake. Invariant: no text here ever holds a secret or the contents of a file.
//! A value from the environment is shown as its `${NAME}` or as the name of its variable; only the names
//! of routes, channels and upstreams may appear as they were substituted.

use std::fmt;

/// One mistake: where it is, what was found there and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The path of the key (`route[0].idle_ping`), the name of an override's variable, or a position in
    /// the file.
    pub key: String,
    /// The value, as far as it may be shown; `None` if something is missing or unknown.
    pub found: Option<String>,
    /// What to write instead, as a sentence without its full stop.
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{}: found {found}; {}", self.key, self.fix),
            None => write!(f, "{}: {}", self.key, self.fix),
        }
    }
}

/// All mistakes of one configuration, in the order in which they were found. Never empty. They are
/// displayed one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// `Ok` if `mistakes` is empty.
    pub(super) fn into_result(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    pub(super) fn single(key: impl Into<String>, fix: impl Into<String>) -> Self {
        Self(vec![Mistake { key: key.into(), found: None, fix: fix.into() }])
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

/// The candidate that `word` is most likely a misspelling of; `None` if none is close.
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
mod tests;
