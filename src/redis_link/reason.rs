//! What an error of Redis is called in logs and answers: one line, with Redis' own code and text where it has answered.

use redis::RedisError;

/// The most bytes of a reason. Redis' own texts are shorter.
const MAX_BYTES: usize = 300;

/// The library's text when Redis refuses SELECT. It does not name the command.
const SELECT_REFUSED: &str = "Redis server refused to switch database";

/// Describes `error`, for example `NOPERM User app has no permissions to run the 'xadd' command`.
pub(super) fn describe(error: &RedisError) -> String {
    let text = match (error.code(), error.detail()) {
        (Some(_), detail) if error.to_string().starts_with(SELECT_REFUSED) => {
            format!("ERR {} (SELECT refused the database of the URL)", detail.unwrap_or_default())
        }
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    one_line(&text)
}

/// Replaces control characters, and shortens the text to [`MAX_BYTES`].
pub(super) fn one_line(text: &str) -> String {
    let mut line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = line.len().min(MAX_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests;
