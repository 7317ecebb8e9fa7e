//! Header fields with comma-separated lists (RFC 9110 section 5.6.1).

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// Returns the elements of all fields called `name`, in order and without surrounding white space.
pub fn header_list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether the list `name` contains `token`, ignoring case.
pub fn header_has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    header_list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}
